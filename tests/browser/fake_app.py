"""The real pages on a scripted handle: `streamlit run tests/browser/fake_app.py`."""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "view")]

from scripted_runs import FakeHandle  # noqa: E402

from pages.parts import settings as module  # noqa: E402

module.settings.make_handle = lambda: FakeHandle(
    steps=int(os.environ.get("FAKE_STEPS", "40")),
    step_s=float(os.environ.get("FAKE_STEP_S", "0.3")),
    num_nodes=int(os.environ.get("FAKE_NODES", "12")),
)
runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
