"""`draftree sweep` as people type it, on a tiny pair."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import run_command
from workbench.comparing import result
from workbench.store import list_runs
from workbench.sweeping.keeping import load_sweep
from workbench.terminal import reset_consoles


@pytest.fixture(autouse=True)
def _consoles():
    reset_consoles()
    yield
    reset_consoles()


@pytest.fixture
def file(tiny_pair: Any, tmp_path: Path) -> Path:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('"def add(a, b):"\n"import os"\n')
    values = {
        "name": "chain", "methods": ["speculative:length=[1,2,3]"], "workloads": [str(prompts)],
        "target": tiny_pair.target, "draft": tiny_pair.draft, "max_new_tokens": 8, "repeats": 1,
        "executions": ["eager"], "device": "cpu", "threads": 1, "baselines": [], "together": 1,
    }  # fmt: skip
    file = tmp_path / "chain.json"
    file.write_text(json.dumps(values))
    return file


def test_a_sweep_that_is_interrupted_goes_on(file: Path, capsys, monkeypatch) -> None:
    from workbench.comparing.decoders import EngineDecoder

    decode, calls = EngineDecoder.decode, []

    def decode_and_interrupt(self, request, should_stop):
        calls.append(request)
        if len(load_sweep("chain").cells) == 1 and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return decode(self, request, should_stop)

    stopped: list[bool] = []
    monkeypatch.setattr(EngineDecoder, "decode", decode_and_interrupt)
    assert run_command(["sweep", str(file)]) == 130
    told = capsys.readouterr()
    assert "2 cells are left" in told.err
    assert load_sweep("chain").status == "cancelled"
    calls.clear()
    assert run_command(["sweep", str(file), "--json"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert "1 of 3 cells are measured already" in output.err
    assert [cell["options"] for cell in found["cells"]] == [
        {"length": "1"},
        {"length": "2"},
        {"length": "3"},
    ]
    assert found["left"] == []
    assert all(cell["matched_requests"] == 2 for cell in found["cells"])
    once = len(calls)
    assert run_command(["sweep", str(file)]) == 0
    assert len(calls) == once, "nothing is decoded again"
    shown = capsys.readouterr().out
    assert "speculative:length=3" in shown
    assert "looks a little better than it is" in shown
    assert {entry.spec["arm"] for entry in list_runs()} >= {"autoregressive"}
    assert all(result.load(known).sweep == "chain" for known in result.comparison_ids())


def test_the_example_teaches_and_can_be_read(tmp_path: Path, capsys) -> None:
    from workbench.sweeping.spec import read_sweep

    assert run_command(["sweep", "--example"]) == 0
    file = tmp_path / "example.toml"
    file.write_text(capsys.readouterr().out)
    assert read_sweep(file).name == "tree-size"
    assert run_command(["sweep", "--help"]) == 0
    assert "draftree sweep --example" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [([], "Name the file"), (["/no/such/file"], "cannot be read"), (["--frsh"], "No such option")],
)
def test_wrong_input_is_a_sentence(arguments: list[str], reason: str, capsys) -> None:
    assert run_command(["sweep", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_other_settings_want_another_name(file: Path, capsys) -> None:
    assert run_command(["sweep", str(file)]) == 0
    values = json.loads(file.read_text()) | {"max_new_tokens": 6}
    file.write_text(json.dumps(values))
    capsys.readouterr()
    assert run_command(["sweep", str(file)]) == 2
    assert "another name" in capsys.readouterr().err
    assert run_command(["sweep", str(file), "--fresh", "--json"]) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert {prompt["tokens"] for cell in cells for prompt in cell["prompts"]} == {6}
