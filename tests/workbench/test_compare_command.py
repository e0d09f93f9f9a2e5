"""`draftree compare` and `draftree report` as people type them."""

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


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    pair = write_pair(folder)
    prompts = folder / "prompts.txt"
    prompts.write_text('"def add(a, b):"\n"\\u001b[31mred"\n')
    return [
        "compare", "--workload", str(prompts), "--target", str(pair.target),
        "--draft", str(pair.draft), "-n", "8", "--repeats", "1", "--device", "cpu",
        "--execution", "eager", "--threads", "1",
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    reset_consoles()
    yield
    reset_consoles()


def test_json_is_one_object_with_the_promised_rows(words, capsys) -> None:
    code = run_command([*words, "--methods", "autoregressive,speculative", "--json"])
    output = capsys.readouterr()
    assert code == 0
    found = json.loads(output.out)
    assert [row["method"] for row in found["rows"]] == [
        "autoregressive",
        "speculative",
        "hf-generate",
        "hf-assisted",
        "draft-alone",
    ]
    row = found["rows"][1]
    assert row["matched_requests"] == row["requests"] == 2
    assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert sum(row["stages"].values()) > 0
    assert [prompt["tokens"] for prompt in row["prompts"]] == [8, 8]
    assert "Warming up" in output.err


def test_table_report_and_report_again(words, tmp_path: Path, capsys) -> None:
    report = tmp_path / "out.html"
    methods = "speculative:length=2,dynamic-tree:policy=eagle2,nodes=4"
    code = run_command([*words, "--methods", methods, "--report", str(report), "--per-prompt"])
    output = capsys.readouterr()
    assert code == 0
    assert "dynamic-tree:policy=eagle2,nodes=4" in output.out
    assert "2 of 2" in output.out
    assert "token for token" in output.out
    assert "\x1b[31m" not in output.out
    assert report.read_text().startswith("<!doctype html>")
    (found,) = result.comparison_ids()
    assert found in output.out
    again = tmp_path / "again.md"
    assert run_command(["report", found, "--out", str(again), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(again)
    assert methods in again.read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--methods", "nope"], "Method 'nope' is unknown"),
        (["--dtypes", "float31"], "--dtypes has 'float31'"),
        (["--cache", "maybe"], "--cache has 'maybe'"),
        (["--execution", "fast"], "--execution has 'fast'"),
        (["--repeats", "0"], "--repeats"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--report", "/no/such/folder/r.html"], "/no/such/folder does not exist"),
        (["--workload", "no-such"], "no workload or file"),
    ],
)
def test_wrong_input_is_a_sentence_and_exit_code_2(words, change, reason, capsys) -> None:
    assert run_command([*words, *change]) == 2
    errors = capsys.readouterr().err.replace("\n", " ")
    assert reason in errors
    assert "Traceback" not in errors
    assert result.comparison_ids() == []


def test_ctrl_c_keeps_what_is_complete(words, monkeypatch, capsys) -> None:
    from workbench.comparing.decoders import EngineDecoder

    decode, calls = EngineDecoder.decode, []

    def decode_and_interrupt(self, request, should_stop):
        calls.append(request)
        if len(calls) == 8:  # in the second round
            os.kill(os.getpid(), signal.SIGINT)
        return decode(self, request, should_stop)

    monkeypatch.setattr(EngineDecoder, "decode", decode_and_interrupt)
    code = run_command([*words, "--methods", "speculative", "--json"])
    output = capsys.readouterr()
    assert code == 130
    found = json.loads(output.out)
    assert found["status"] == "cancelled"
    assert {row["requests"] for row in found["rows"]} == {1}
    assert len(result.comparison_ids()) == 1


def test_several_workloads_settings_and_a_noted_absence(words, capsys) -> None:
    code = run_command(
        [
            *words,
            "--workload",
            words[2],
            "--cache",
            "on,off",
            "--methods",
            "autoregressive",
            "--json",
        ]
    )
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["cache"] for row in found["rows"]} == {True, False}
    assert any("without cache" in note for note in found["notes"])
