"""`draftree load` as people type it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import run_command
from workbench.commands.loading import progress_line
from workbench.loading.running import RunningLatencies
from workbench.loading.state import Counts, Loading
from workbench.store import list_runs, open_run, serving
from workbench.terminal import reset_consoles


@pytest.fixture(autouse=True)
def _fresh_consoles() -> None:
    reset_consoles()


@pytest.fixture
def words(tiny_pair: Any, tmp_path: Path) -> list[str]:
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps("def one(a):") + "\n" + json.dumps("import os") + "\n")
    return [
        "load", "--target", tiny_pair.target, "--draft", tiny_pair.draft, "-w", str(file),
        "--execution", "eager", "-n", "6", "--rate", "100", "--requests", "5", "--slots", "2",
        "--ignore-eos",
    ]  # fmt: skip


def test_figures_for_people(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*words, "--clients", "2", "--slo", "ttft=60000"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("5 of 5 requests completed in ")
    assert "100% of all kept to ttft 60000 ms" in out
    for word in ("queue", "ttft", "tpot", "itl", "e2el", "chunks", "Fairness over 2 clients"):
        assert word in out
    run_id = list_runs()[0].run_id
    assert f"draftree show {run_id}" in out
    assert f"Serving; run {run_id}" in err


def test_json_save_and_specs(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, saved = tmp_path / "load.json", tmp_path / "figures.json"
    assert run_command([*words, "--json", "--save", str(saved), "--save-spec", str(spec)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(saved.read_text()) == printed
    assert printed["metrics"]["completed"] == 5
    assert printed["metrics"]["output_tokens"] == 30
    assert printed["spec"]["slots"] == 2
    assert run_command(["load", "--spec", str(spec), "--requests", "3", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["spec"] == printed["spec"] | {"requests": 3}
    assert again["metrics"]["completed"] == 3


def test_a_trace(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "arrivals.csv"
    trace.write_text("arrival,prompt_tokens,max_new_tokens,client\n0,20,3,ann\n0.01,30,4,bob\n")
    at = words.index("--requests")
    assert run_command([*words[:at], *words[at + 2 :], "--trace", str(trace)]) == 0
    with open_run("last") as run:
        rows = serving.arrival_rows(run)
    assert [(row.client, row.num_prompt, row.num_kept) for row in rows] == [
        ("ann", 20, 3), ("bob", 30, 4),
    ]  # fmt: skip
    trace.write_text("arrival,prompt_tokens\n0,20\n0.01,many\n")
    assert run_command([*words, "--trace", str(trace)]) == 2
    assert "line 3: prompt_tokens is 'many'; give a number of tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rate", "0"], "--rate is 0.0; use greater than 0"),
        (["--policy", "lifo"], "--policy is 'lifo'; use first-come, shortest-first"),
        (["--budgets", "fixed:x"], "--budgets is 'fixed:x'; use auction, fixed:N"),
        (["--slots", "0"], "--slots is 0; use greater than or equal to 1"),
        (["--arrivals", "now"], "--arrivals is 'now'; use 'poisson', 'bursty'"),
        (["--arrivals", "trace"], "Arrivals from a trace need its file; name one with --trace"),
        (["--slo", "ttft"], "--slo has 'ttft'; write NAME=MILLISECONDS"),
        (["--slo", "speed=3"], "--slo has 'speed'; there are ttft, tpot and e2el"),
        (["--weights", "a,b"], "--weights is 'a,b'; give numbers"),
        (["--pair", "big"], "--pair is 'big'; write it as NAME=TARGET,DRAFT"),
        (["--think", "soon"], "--think is 'soon'; use a number, uniform:LOW-HIGH"),
        (["--answer-tokens", "0"], "--answer-tokens is '0'; use workload, a number"),
        (["--save", "/no/folder/x.json"], "The figures cannot be written to /no/folder/x.json"),
        (["--spec", "/no/spec.json"], "/no/spec.json cannot be read"),
    ],
)
def test_wrong_flags(
    words: list[str], flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([*words, *flags]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert list_runs() == []


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["load", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for word in ("Examples", "--arrivals closed --clients 8", "How requests come", "A trace is"):
        assert word in out


def test_ctrl_c_keeps_what_was_served(words: list[str]) -> None:
    at = words.index("--requests")
    endless = [*words[:at], *words[at + 2 :], "--duration", "10000", "-n", "50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *endless],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Serving"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Stopped" in err
    run_id = list_runs()[0].run_id
    assert list_runs()[0].status == "cancelled"
    assert not out or run_id in out


def test_the_line_of_progress() -> None:
    running = RunningLatencies()
    now = Loading(
        num_requests=40, counts=Counts(arrived=20, waiting=3, running=5), seconds_left=21.2,
        latencies=running.latencies(),
    )  # fmt: skip
    assert progress_line(now) == "12 of 40 requests, 3 waiting, 5 running, 0 tokens/s, 0:21 left"
