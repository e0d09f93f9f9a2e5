"""`draftree train medusa` from the outside; its kinds share all but their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import UserError
from workbench.cli import run_command
from workbench.commands.train_heads_options import default_name, kind_options

QUICK = ["--tokens", "1024", "--length", "32", "--written", "0", "--device", "cpu"]


def _text(folder: Path, split) -> list[str]:
    folder.mkdir()
    for file in [*split.train[:3], split.held_out[0]]:
        (folder / file.path).write_text(file.text)
    return ["--text", str(folder)]


@pytest.mark.slow
def test_trains_heads_for_the_embedded_target(tiny_split, tmp_path: Path, capsys) -> None:
    folders = ["--out", str(tmp_path / "heads"), "--work-dir", str(tmp_path / "work")]
    text = _text(tmp_path / "text", tiny_split)
    options = ["--option", "num_heads=2", "--rows", "8"]
    code = run_command(["train", "medusa", *QUICK, *folders, *text, *options, "--json"])
    out = capsys.readouterr().out
    assert code == 0, out
    card = json.loads(out)
    assert card["options"] == {"num_heads": 2}
    assert card["training"]["tokens"] == 1024
    assert card["held_out"]["2"]["top1"] >= 0
    assert (tmp_path / "heads" / "pycode-medusa" / "model.safetensors").stat().st_size < 2e6
    # other options want another folder
    again = ["train", "medusa", *QUICK, *folders, *text]
    assert run_command(again) == 2
    assert "--no-resume" in capsys.readouterr().err
    assert run_command([*again, "--no-resume"]) == 0
    assert "+2: first guess right" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--option", "num_heads"], "NAME=VALUE"),
        (["--option", "colour=red"], "no option 'colour'; it has num_heads"),
        (["--option", "num_heads=many"], "use a whole number"),
        (["--option", "tied=maybe"], "use true or false"),
        (["--option", "num_heads=99"], "takes 1 to 16"),
        (["--target", "no/such/model/here"], "no model folder"),
        (["--text", "no/such/file"], "No such file or folder"),
        (["--device", "tpu"], "not known"),
        (["--dtype", "int8"], "float32 or bfloat16"),
        (["--workload", "code", "--text", "."], "exclude each other"),
        (["--length", "4096"], "context is 2048"),
    ],
)
def test_wrong_input_is_explained(options: list[str], message: str, tmp_path: Path, capsys) -> None:
    text = [] if "--text" in options or "--workload" in options else ["--text", __file__]
    if text:
        text += ["--text", str(Path(__file__).with_name("conftest.py"))]
    work = ["--work-dir", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert run_command(["train", "medusa", *QUICK, *work, *text, *options]) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_options_are_those_of_the_kind() -> None:
    assert kind_options("medusa", ["tied=false", "hard=0.2"]) == {"tied": False, "hard": 0.2}
    assert kind_options("kangaroo", ["exit_layer=3"]) == {"exit_layer": 3}
    assert kind_options("eagle", ["steps=2"]) == {"steps": 2}
    with pytest.raises(UserError, match="A kangaroo head has no option 'tied'"):
        kind_options("kangaroo", ["tied=true"])


def test_names() -> None:
    assert default_name("medusa", None) == "pycode-medusa"
    assert default_name("eagle", "./models/big-target/") == "big-eagle"
    assert default_name("eagle", "owner/model-7b") == "model-7b-eagle"


@pytest.mark.parametrize("kind", ["medusa", "kangaroo", "eagle"])
def test_help_tells_the_options_of_the_kind(kind: str, capsys) -> None:
    from engine.heads import head_kind

    assert run_command(["train", kind, "--help"]) == 0
    words = capsys.readouterr().out
    import inspect

    signature = inspect.signature(head_kind(kind).objective_class())
    for name, one in signature.parameters.items():
        if one.kind is inspect.Parameter.KEYWORD_ONLY:
            assert name in words
    assert "TARGET-KIND" in words  # brackets are no markup
