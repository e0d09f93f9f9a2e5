"""`draftree tune` as people type it, on a tiny pair."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tiny_pair import write_pair

from workbench.cli import run_command
from workbench.comparing import result
from workbench.terminal import reset_consoles
from workbench.tuning.study import load_study, study_names


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    pair = write_pair(folder)
    prompts = folder / "prompts.txt"
    prompts.write_text('"def add(a, b):"\n"import os"\n"class A:"\n"x = 1"\n')
    return [
        "-w", str(prompts), "--target", str(pair.target), "--draft", str(pair.draft), "-n", "8",
        "--limit", "2", "--repeats", "1", "--device", "cpu", "--execution", "eager",
        "--threads", "1", "--name", "small",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    reset_consoles()
    yield
    reset_consoles()


def tune(*words: str) -> int:
    return run_command(["tune", *words])


def test_from_a_study_to_a_spec_that_runs(words, tmp_path: Path, capsys) -> None:
    assert tune("speculative", "--space", "length=1..3", "--trials", "3", "--json", *words) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert found["status"] == "finished"
    assert [one["options"]["length"] for one in found["trials"]].count(3) == 1
    assert len(found["trials"]) == 3, "all there are"
    assert found["trials"][0]["options"] == {"length": 3}, "nearest to the default"
    measured = [one for one in found["trials"] if one["state"] == "measured"]
    assert all(one["matched"] == one["compared"] == 2 for one in measured), "lossless"
    again = found["confirmed"]
    assert (again["new"], again["prompts"]) == (False, 4), "two unseen prompts say too little"
    comparison = result.load(found["confirmed"]["comparison"])
    assert comparison.status == "finished"
    file = tmp_path / "small.spec.json"
    assert json.loads(file.read_text())["method"] == "speculative"
    assert run_command(["run", "--spec", str(file), "--limit", "1", "--json"]) == 0
    capsys.readouterr()
    assert tune("--list") == 0
    assert "small  speculative on" in capsys.readouterr().out
    assert tune("--show", "small") == 0
    shown = capsys.readouterr().out
    assert "Losslessness: all" in shown
    assert "length" in shown
    assert f"draftree report {found['confirmed']['comparison']}" in shown


def test_ctrl_c_keeps_the_trials_and_resume_goes_on(words, monkeypatch, capsys) -> None:
    from workbench.tuning.bench import decoders

    build, built = decoders.build, []

    def build_and_interrupt(arm, site):
        built.append(arm.label)
        if len(built) == 4:  # plain and the defaults are built before the trials
            os.kill(os.getpid(), signal.SIGINT)
        return build(arm, site)

    monkeypatch.setattr("workbench.tuning.bench.decoders.build", build_and_interrupt)
    space = ["--space", "length=1..4", "--trials", "4"]
    assert tune("speculative", *space, *words) == 130
    assert "draftree tune --resume small" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr("workbench.tuning.bench.decoders.build", build)
    kept = load_study("small")
    assert kept.status == "cancelled"
    assert len(kept.trials) == 1
    assert tune("--resume", "small", "--limit", "1") == 2
    assert "--limit cannot change them" in capsys.readouterr().err.replace("\n", " ")
    assert tune("--resume", "small", "--trials", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["number"] for one in found["trials"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ([], "Name the method"),
        (["nope"], "Method 'nope' is unknown"),
        (["autoregressive"], "drafts nothing"),
        (["speculative", "--objective", "fun"], "--objective is 'fun'"),
        (["speculative", "--space", "length"], "--space is 'length'"),
        (["speculative", "--fix", "lenght=3"], "has no option 'lenght'"),
        (["speculative", "--timeout", "soon"], "--timeout is 'soon'"),
        (["speculative", "--name", "a/b"], "--name is 'a/b'"),
        (["speculative", "-w", "no-such"], "no workload or file"),
        (["--resume", "absent"], "There is no study 'absent'"),
        (["--show", "../x"], "is no name of a study"),
    ],
)
def test_wrong_input_is_a_sentence_and_exit_code_2(change, reason, capsys) -> None:
    assert tune(*change) == 2
    errors = capsys.readouterr().err.replace("\n", " ")
    assert reason in errors
    assert "Traceback" not in errors
    assert study_names() == [], "nothing is kept of what could not begin"
