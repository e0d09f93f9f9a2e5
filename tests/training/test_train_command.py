"""`draftree train pair` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.cli import run_command
from workbench.commands.train import train_app

TINY = ["--target-shape", "2x32x2x64", "--draft-shape", "1x16x1x32", "--device", "cpu"]
QUICK = ["--minutes", "0.03", "--draft-minutes", "0.06"]


def _text(folder: Path, split) -> list[str]:
    for file in [*split.train, *split.held_out]:
        (folder / file.path).write_text(file.text)
    return ["--text", str(folder)]


@pytest.mark.slow
def test_trains_a_pair(tiny_split, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    folders = ["--out", str(tmp_path / "models"), "--work-dir", str(tmp_path / "work")]
    command = ["pair", *TINY, *QUICK, *folders, *_text(tmp_path / "text", tiny_split), "--json"]
    first = CliRunner().invoke(train_app, command)
    assert first.exit_code == 0, first.output
    record = json.loads(first.stdout)
    assert record["held_out_loss"]["target"] > 0
    assert (tmp_path / "models" / "pycode-draft" / "model.safetensors").exists()
    card = (tmp_path / "models" / "pycode-draft" / "README.md").read_text()
    assert "tokens/step" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "2x192"], "--shape"),
        (["--target", "no/such/model/here"], "no model folder"),
        (["--device", "tpu"], "not known"),
    ],
)
def test_wrong_input_for_a_draft_of_bytes(
    options: list[str], message: str, tmp_path: Path, capsys
) -> None:
    assert run_command(["train", "bytes", *options, "--work-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-shape", "8x384"], "--target-shape"),
        (["--draft-shape", "1x33x2x64"], "must divide"),
        (["--device", "tpu"], "not known"),
        (["--text", "no/such/folder"], "no such file"),
        (["--layer-dropout", "1"], "layer dropout"),
        (["--exit-loss", "-1"], "exit loss"),
        (["--from", "no/such/model/here"], "no model folder"),
        (["--from", "pycode-target", "--target-shape", "2x32x2x64"], "exclude each other"),
    ],
)
def test_wrong_input_is_explained(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    command = ["train", "pair", *options, *QUICK, "--work-dir", str(tmp_path / "work"), "--json"]
    assert run_command(command) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert message in json.loads(said.out)["error"]
