"""Run specs as files: round trips, what overrides what, and sentences that name file and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_pair import write_pair

from engine.errors import UserError
from workbench.cli import run_command
from workbench.spec import RunSpec
from workbench.specfile import as_arm, merged, parse_spec, read_spec, spec_text, write_spec
from workbench.store.index import list_runs
from workbench.terminal import reset_consoles


@pytest.fixture(autouse=True)
def _fresh_consoles():
    reset_consoles()
    yield
    reset_consoles()


def test_a_spec_survives_its_file(tmp_path: Path) -> None:
    spec = RunSpec(
        method="static-tree", options={"expansion": "2,2"}, prompt="é\n", temperature=0.5,
        stop=["\n\n"], draft=None, comparison="compare-x", arm="a",
    )  # fmt: skip
    file = write_spec(spec, tmp_path / "s.json")
    found = RunSpec.model_validate(read_spec(file))
    assert found == spec.model_copy(update={"comparison": None, "arm": None})
    assert "max_new_tokens" not in json.loads(file.read_text()), "defaults are left out"
    with pytest.raises(UserError, match="cannot be written"):
        write_spec(spec, tmp_path / "no" / "s.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"nodes": 8}', "'nodes' is no field of a spec; there are method, options"),
        ('{"max_new_tokens": 0}', "max_new_tokens is 0; use greater than or equal to 1"),
        ('{"dtype": "float8"}', "dtype is 'float8'; use"),
        ('{"options": [1]}', "options is [1]; use"),
        ('{"method": "nope"}', "Method 'nope' is unknown"),
        ('{"method": "speculative", "options": {"length": 99}}', "Option length of speculative"),
        ('{"prompt": "a", "workload": "code"}', "prompt and workload exclude each other"),
        ("[1]", "holds a list"),
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
    ],
)
def test_what_is_wrong_names_the_file_and_the_field(tmp_path: Path, text, reason) -> None:
    file = tmp_path / "wrong.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as told:
        read_spec(file)
    assert str(told.value).startswith(str(file))
    assert reason in str(told.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_spec(tmp_path / "absent.json")


def test_only_flags_that_were_given_override() -> None:
    stored = {"method": "dynamic-tree", "options": {"nodes": 9, "depth": 3}, "workload": "edit",
              "limit": 2, "max_new_tokens": 32, "temperature": 0.5}  # fmt: skip
    flags = {"method": "dynamic-tree", "options": {}, "workload": None, "prompt": None,
             "limit": None, "max_new_tokens": 128, "temperature": 0.0,
             "target": "pycode-target", "draft": "pycode-draft"}  # fmt: skip
    assert merged(stored, flags, set()) == flags | stored
    over = merged(stored, flags | {"max_new_tokens": 128, "options": {"nodes": "5"}},
                  {"max_new_tokens", "options"})  # fmt: skip
    assert (over["max_new_tokens"], over["temperature"]) == (128, 0.5)
    assert over["options"] == {"nodes": "5", "depth": 3}
    text = merged(stored, flags | {"prompt": "x"}, {"prompt"})
    assert (text["prompt"], text["workload"], text["limit"]) == ("x", None, None)
    other = merged(stored, flags | {"method": "suffix"}, {"method"})
    assert (other["options"], other["draft"]) == ({}, None)


def test_a_spec_as_an_arm() -> None:
    stored = parse_spec(
        b'{"method": "static-tree", "options": {"expansion": "2,1"}, "verify": "traversal"}',
        where="f",
    )
    assert as_arm(stored, "f") == "static-tree:expansion=2,1,verify=traversal"
    with pytest.raises(UserError, match="f: method is missing"):
        as_arm({}, "f")


def test_run_saves_takes_and_overrides_a_spec(tmp_path: Path, capsys) -> None:
    pair = write_pair(tmp_path / "pair")
    file = tmp_path / "mine.json"
    words = ["--target", str(pair.target), "--draft", str(pair.draft), "--device", "cpu",
             "--execution", "eager", "--threads", "1"]  # fmt: skip
    assert run_command(["run", "-m", "speculative", "-o", "length=2", "-p", "def f", "-n", "6",
                        "--save-spec", str(file), "--json", *words]) == 0  # fmt: skip
    capsys.readouterr()
    first = list_runs(limit=1)[0].spec
    stored = json.loads(file.read_text())
    assert (stored["method"], stored["options"], stored["max_new_tokens"]) == (
        "speculative", {"length": "2"}, 6,
    )  # fmt: skip
    assert run_command(["run", "--spec", str(file), "--json"]) == 0
    capsys.readouterr()
    assert list_runs(limit=1)[0].spec == first
    assert run_command(["run", "--spec", str(file), "-n", "4", "-o", "length=3", "--json"]) == 0
    capsys.readouterr()
    newest = list_runs(limit=1)[0].spec
    assert (newest["max_new_tokens"], newest["options"]["length"]) == (4, "3")
    assert newest["target"] == str(pair.target)
    file.write_text('{"nods": 1}')
    assert run_command(["run", "--spec", str(file)]) == 2
    assert "'nods' is no field" in capsys.readouterr().err.replace("\n", " ")


def test_compare_takes_a_spec_beside_the_defaults_of_its_method(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.commands import compare as command

    asked = []
    monkeypatch.setattr(
        command, "compare_and_print", lambda spec, **settings: asked.append(spec.methods) or 0
    )
    file = tmp_path / "s.json"
    file.write_text('{"method": "dynamic-tree", "options": {"nodes": 9}}')
    assert run_command(["compare", "--spec", str(file)]) == 0
    assert run_command(["compare", "--spec", str(file), "-m", "suffix"]) == 0
    assert asked == [["dynamic-tree", "dynamic-tree:nodes=9"], ["suffix", "dynamic-tree:nodes=9"]]


def test_the_text_of_a_spec_is_short() -> None:
    assert json.loads(spec_text(RunSpec(workload="code"))) == {
        "method": "dynamic-tree", "options": {}, "target": "pycode-target",
        "draft": "pycode-draft", "workload": "code",
    }  # fmt: skip
