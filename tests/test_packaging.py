"""The wheel holds all that the app needs, and finds it; so does the editable install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
LOOK = """
import json
from engine.paths import app_file, data_folder
from workbench.workloads import load_workload
import engine, workbench.cli
folder = data_folder()
print(json.dumps({
    "engine": engine.__file__,
    "app": app_file().is_file(),
    "page": (app_file().parent / "pages" / "run.py").is_file(),
    "theme": (app_file().parent / ".streamlit" / "config.toml").is_file(),
    "models": sorted(p.parent.name for p in folder.glob("models/*/config.json")),
    "questions": len(load_workload("code")),
}))
"""


def look(**environment: str) -> dict:
    """What an installed Draftree finds, asked from a folder that is not the checkout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DRAFTREE_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=clean | environment, cwd="/", capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(found: dict) -> None:
    assert found["app"]
    assert found["page"]
    assert found["theme"]
    assert found["models"] == ["pycode-bytes", "pycode-draft", "pycode-exit", "pycode-target"]
    assert found["questions"] >= 16


def test_editable_install_finds_the_checkout():
    found = look()
    assert Path(found["engine"]).is_relative_to(REPO)
    check(found)


@pytest.mark.slow
def test_wheel_brings_everything(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path),
         str(REPO)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("draftree-*.whl")
    assert wheel.stat().st_size < 90e6
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
         "--target", str(site), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    found = look(PYTHONPATH=str(site))
    assert Path(found["engine"]).is_relative_to(site), "the checkout was imported, not the wheel"
    check(found)
