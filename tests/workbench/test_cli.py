"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer import main as typer_main

from engine.models import load_model
from engine.registry import method_names
from tests.engine.heads_fixture import with_head
from workbench import cli
from workbench.store import list_runs, open_run, run_file
from workbench.store.schema import TABLES

ROOT = Path(__file__).parents[2]
NEW = "7"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def draftree(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process."""

    def run(*arguments: str) -> Said:
        capfd.readouterr()
        code = cli.run_command(list(arguments))
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def models(tiny_pair: Any) -> list[str]:
    return ["--target", tiny_pair.target, "--draft", tiny_pair.draft, "--execution", "eager",
            "--ignore-eos", "--max-new-tokens", NEW]  # fmt: skip


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "question.jsonl"
    path.write_text(
        '{"question_id": "a\\u001b[31m", "category": "c", "turns": ["def f(x):", "and g"]}\n'
        '{"question_id": "b", "category": "c", "turns": ["import os"]}\n'
    )
    return str(path)


def process(*arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | settings.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


# --- run ---


def test_run_streams_text_and_ends_with_figures(
    draftree: Callable[..., Said], models: list[str]
) -> None:
    said = draftree("run", "--method", "speculative", "--prompt", "def walk(", *models)
    assert said.code == 0
    run = list_runs()[0]
    with open_run(run.run_id) as stored:
        text = stored.requests().loc[0, "text"]
    assert text.splitlines()[0][:3] in said.out
    for figure in ("tokens per second", "tokens per step", "acceptance rate", "ms a step"):
        assert figure in said.out
    assert run.run_id in said.out
    assert "Loading" in said.err
    assert "Loading" not in said.out


def test_run_json(draftree: Callable[..., Said], models: list[str]) -> None:
    said = draftree("run", "-m", "speculative", "-o", "length=2", "-p", "def f(", "--json", *models)
    assert said.code == 0
    result = said.json
    assert result["run_id"] == list_runs()[0].run_id
    assert len(result["token_ids"]) == int(NEW)
    assert result["finish_reason"] == "length"
    assert result["tokens_per_second"] > 0
    assert result["tokens_per_step"] >= 1
    assert 0 <= result["acceptance_rate"] <= 1
    assert set(result["stages"]) >= {"draft", "score", "verify", "commit", "record", "unaccounted"}
    assert result["stages"]["score"] > 0
    with open_run("last") as stored:
        assert stored.requests().loc[0, "text"] == result["text"]
        assert stored.info.spec.options == {"length": "2"}


def test_every_method_gives_the_same_tokens(
    draftree: Callable[..., Said], models: list[str]
) -> None:
    target = load_model(models[1], device="cpu")
    texts = {
        name: draftree(
            "run", "-m", name, "-p", "def f(", "-t", "0.8", "--json", *models,
            *(f"-o{option}={value}" for option, value in with_head(name, {}, target).items()),
        ).json["token_ids"]
        for name in method_names()
    }  # fmt: skip
    assert len(texts) >= 4
    assert len({tuple(ids) for ids in texts.values()}) == 1


def test_run_a_workload(draftree: Callable[..., Said], models: list[str], workload: str) -> None:
    for batch in ("1", "2"):
        said = draftree(
            "run", "-m", "speculative", "-w", workload, "--batch", batch, "--json", *models
        )
        assert said.code == 0
        requests = said.json["requests"]
        found = {(r["request"], r["question_id"], r["turn"]) for r in requests}
        assert found == {(0, "a\x1b[31m", 0), (1, "a\x1b[31m", 1), (2, "b", 0)}
        assert all(len(r["token_ids"]) == int(NEW) for r in requests)
        said = draftree("run", "-m", "speculative", "-w", workload, "--batch", batch, *models)
        assert said.code == 0
        assert said.out.count("──") >= 6
        assert "\x1b" not in said.out + said.err
    limited = draftree("run", "-w", workload, "--limit", "1", "--json", *models).json
    assert [r["question_id"] for r in limited["requests"]] == ["a\x1b[31m"] * 2


def test_prompts_from_files_and_stdin(
    draftree: Callable[..., Said],
    models: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "def f():\n\treturn 'é😀'\n"
    file = tmp_path / "prompt.py"
    file.write_text(text)
    assert draftree("run", "--prompt-file", str(file), *models).code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert draftree("run", "--prompt", "-", *models).code == 0
    for entry in list_runs():
        assert entry.spec["prompt"] == text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    said = draftree("run", "--prompt", "-", *models)
    assert (said.code, "not UTF-8" in said.err) == (2, True)


def test_a_stop_string(draftree: Callable[..., Said], models: list[str]) -> None:
    whole = draftree("run", "-p", "def f(", "--json", *models).json["text"]
    stop = whole[2:4]
    cut = draftree("run", "-p", "def f(", "--stop", stop, "--json", *models).json
    assert cut["finish_reason"] == "stop-string"
    assert cut["text"] == whole[: whole.index(stop)]


def test_half_precision_runs_in_a_worker(draftree: Callable[..., Said], models: list[str]) -> None:
    said = draftree("run", "-p", "def f(", "--dtype", "bfloat16", "--json", *models)
    assert said.code == 0, said.err
    assert len(said.json["token_ids"]) == int(NEW)
    with open_run("last") as stored:
        assert stored.info.environment["dtype"] == "bfloat16"
    said = draftree("run", "-p", "x" * 400, "--dtype", "bfloat16", *models)
    assert (said.code, "shorten" in said.err.lower()) == (2, True)


# --- wrong input ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run"], "Nothing to decode"),
        (["run", "--prompt", ""], "prompt is empty"),
        (["run", "--prompt", "a", "--workload", "b"], "exclude each other"),
        (["run", "--prompt", "a", "--method", "magic"], "'magic' is unknown"),
        (["run", "--prompt", "a", "--option", "nodes"], "write it as NAME=VALUE"),
        (["run", "--prompt", "a", "--option", "colour=red"], "no option 'colour'"),
        (["run", "--prompt", "a", "--temperature", "-1"], "temperature is -1"),
        (["run", "--prompt", "a", "--dtype", "int4"], "--dtype is 'int4'; use 'float32'"),
        (["run", "--prompt", "a", "--verify", "hope"], "--verify is 'hope'"),
        (["run", "--prompt", "a", "--typical-alpha", "0"], "--typical-alpha is"),
        (["run", "--prompt", "a", "--batch", "65"], "--batch is 65; use less than or equal to 64"),
        (["run", "--prompt", "a", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["run", "--prompt", "a", "--target", "/no/such"], "--draft"),
        (["run", "--prompt-file", "/no/such"], "/no/such cannot be read"),
        (["run", "--workload", "/no/such"], "/no/such"),
        (["run", "--no-such-flag"], "No such option"),
        (["fly"], "No such command 'fly'"),
        (["show"], "Missing argument"),
        (["show", "last"], "There are no runs"),
        (["export", "2020"], "There are no runs"),
        (["runs", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_input_is_one_sentence(
    draftree: Callable[..., Said], arguments: list[str], sentence: str
) -> None:
    said = draftree(*arguments)
    assert said.code == 2
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list_runs() == []


def test_json_speaks_of_errors_too(draftree: Callable[..., Said]) -> None:
    said = draftree("run", "--prompt", "", "--json")
    assert said.code == 2
    assert "prompt is empty" in said.json["error"]
    assert said.json["exit_code"] == 2


def test_another_target_has_no_default_draft(draftree: Callable[..., Said], tiny_pair: Any) -> None:
    said = draftree("run", "--prompt", "a", "-m", "speculative", "--target", tiny_pair.target)
    assert said.code == 2
    assert "--draft" in said.err
    said = draftree(
        "run", "--prompt", "a", "-m", "autoregressive", "-n", "2", "--target", tiny_pair.target
    )
    assert said.code == 0
    assert list_runs()[0].spec["draft"] is None


def test_an_unwritable_run_folder(
    draftree: Callable[..., Said],
    models: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "file" / "runs"))
    said = draftree("run", "--prompt", "a", *models)
    assert said.code == 2
    assert "DRAFTREE_RUNS" in said.err


def test_truncated_weights(draftree: Callable[..., Said], tiny_pair: Any, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_pair.target, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    said = draftree("run", "-m", "autoregressive", "--prompt", "a", "--target", str(broken))
    assert said.code == 2
    assert "damaged or cut short" in said.err


def test_nan_logits_fail_the_run(
    draftree: Callable[..., Said], models: list[str], tiny_pair: Any, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    poisoned = tmp_path / "poisoned"
    shutil.copytree(tiny_pair.target, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["lm_head.weight"][:] = float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    said = draftree("run", "-m", "autoregressive", "-p", "a", "--target", str(poisoned), "--json")
    assert said.code == 1
    assert said.json["status"] == "failed"
    assert "NaN" in said.json["message"]
    assert list_runs()[0].status == "failed"


# --- looking back ---


@pytest.fixture
def hostile_run(tmp_path: Path) -> str:
    """A stored run whose prompt, output and tokens try to take over the terminal."""
    sys.path.insert(0, str(Path(__file__).parent / "store"))
    from store_records import SPEC, done, request, step

    from workbench.steptext import StepTexts
    from workbench.store import Recorder, RunStatus

    class Bad:
        def add(self, tokens: list[int]) -> list[str]:
            return [f"\x1b]0;owned\x07 [bold]{token} 😀\u202e" for token in tokens]

    evil = "\x1b[31m<b>prompt</b> [red]😀[/red]\x9b2J\r" + "x" * 100_000
    texts = StepTexts(piece=lambda token: f"\x1b[3{token % 8}m[/]{token}", incremental=Bad)
    recorder = Recorder(SPEC | {"prompt": evil, "options": {"length": evil}}, texts=texts)
    recorder.begin(mode="eager", plain_step_ns=4000, environment={})
    recorder.request_started(request(prompt=evil))
    for number in range(3):
        recorder.append(step(number))
    recorder.request_done(done(text=evil))
    recorder.finish(RunStatus.FAILED, "\x1b[2Jgone")
    return recorder.run_id


def no_controls(text: str) -> bool:
    return not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]


def test_nothing_raw_reaches_the_terminal(
    draftree: Callable[..., Said], hostile_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["runs"],
        ["show", "last"],
        ["show", "last", "--step", "0"],
        ["runs", "--json"],
        ["show", "last", "--json"],
        ["show", "last", "--step", "1", "--json"],
        ["show", "no\x1b[2Jsuch"],
        ["run", "--prompt", "x", "--method", "\x1b[2J"],
    ):
        said = draftree(*arguments)
        assert no_controls(said.out + said.err), arguments
        assert "\u202e" not in said.out + said.err, arguments


def test_show_a_step_as_a_tree(draftree: Callable[..., Said], hostile_run: str) -> None:
    said = draftree("show", "last", "--step", "1")
    assert said.code == 0
    tree = [line for line in said.out.splitlines() if "─" in line or line.startswith("●")]
    symbols = [line.lstrip("│ ├└─")[0] for line in tree]
    assert symbols == ["●", "✓", "✗", "✓", "+", "·", "·", "✂"]
    assert tree[1].startswith("├─ ✓")
    assert tree[3].startswith("│  └─ ✓")
    assert tree[4].startswith("│     └─ +")
    assert tree[7].startswith("   └─ ✂")
    assert "draft   90.48%" in tree[1]
    assert "target   81.87%" in tree[1]
    assert "score 0.01" in said.out
    assert "bonus" in said.out
    assert draftree("show", hostile_run[:12], "-s", "-1").out.startswith(
        f"run {hostile_run}, request 0, step 2"
    )
    assert draftree("show", "last", "--step", "9").code == 2
    assert draftree("show", "last", "--request", "4").code == 2


def test_show_as_json(draftree: Callable[..., Said], hostile_run: str) -> None:
    overview = draftree("show", "last", "--json").json
    assert overview["run_id"] == hostile_run
    assert overview["status"] == "failed"
    assert overview["spec"]["prompt"].startswith("\x1b[31m<b>")
    assert overview["requests"][0]["num_kept"] == 16
    step = draftree("show", "last", "--step", "0", "--json").json
    assert step["path"] == [0, 1, 4]
    assert [node["fate"] for node in step["nodes"]][-1] == "pruned"
    assert step["nodes"][5]["target_logprob"] is None
    assert step["stages"]["score"] == 5000


def test_runs_lists_newest_first(draftree: Callable[..., Said], hostile_run: str) -> None:
    said = draftree("runs")
    assert hostile_run in said.out
    assert "failed" in said.out
    found = draftree("runs", "--json").json["runs"]
    assert found[0]["run_id"] == hostile_run


def test_no_runs_is_said_with_what_to_do(draftree: Callable[..., Said]) -> None:
    said = draftree("runs")
    assert (said.code, said.out) == (0, "")
    assert "draftree run" in said.err


@pytest.mark.parametrize("form", ["parquet", "csv", "json"])
def test_export(draftree: Callable[..., Said], hostile_run: str, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    said = draftree("export", "last", "--format", form, "--out", str(out), "--json")
    assert said.code == 0
    assert sorted(Path(file).name for file in said.json["files"]) == sorted(
        f"{table}.{form}" for table in TABLES
    )
    if form == "parquet":
        import pandas

        nodes = pandas.read_parquet(out / "node.parquet").to_dict("records")
    elif form == "csv":
        nodes = list(csv.DictReader((out / "node.csv").open(newline="")))
    else:
        nodes = json.loads((out / "node.json").read_text())
    assert len(nodes) == 21
    assert [node["fate"] for node in nodes[:2]] == ["root", "accepted"]


def test_export_refuses(draftree: Callable[..., Said], hostile_run: str, tmp_path: Path) -> None:
    said = draftree("export", "last", "--format", "xlsx", "--out", str(tmp_path / "o"))
    assert (said.code, "parquet, csv, json" in said.err) == (2, True)
    (tmp_path / "file").touch()
    said = draftree("export", "last", "--out", str(tmp_path / "file"))
    assert (said.code, "cannot be written" in said.err) == (2, True)


def test_methods(draftree: Callable[..., Said]) -> None:
    said = draftree("methods")
    for name in method_names():
        assert name in said.out
    found = {method["name"]: method for method in draftree("methods", "--json").json["methods"]}
    assert list(found) == method_names()
    options = {option["name"]: option for option in found["dynamic-tree"]["options"]}
    assert options["policy"]["default"] == "eagle2"
    assert "opt-tree" in options["policy"]["choices"]
    for method in found.values():
        assert method["summary"]
        assert all(option["help"] for option in method["options"])


def test_doctor(
    draftree: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for name in ("pycode-target", "pycode-draft", "pycode-bytes", "pycode-exit"):
        folder = data / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / file).write_text("{}")
    (data / "prompts").mkdir()
    (data / "prompts" / "code.jsonl").write_text('"def f("\n')
    monkeypatch.setenv("DRAFTREE_DATA", str(data))
    said = draftree("doctor", "--json")
    checks = {check["name"]: check for check in said.json["checks"]}
    missing = [name for name, check in checks.items() if check["ok"] is False]
    assert [name for name in missing if name != "app"] == []
    assert checks["torch"]["ok"]
    (data / "models" / "pycode-draft" / "model.safetensors").unlink()
    said = draftree("doctor")
    assert said.code == 1
    assert "lacks model.safetensors" in said.out
    assert "draftree train pair" in said.out


# --- the program as a whole ---


def test_help_is_instant_and_every_command_has_some() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _err = process("--help").communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    for name in cli.COMMANDS:
        assert name.encode() in out
    code = (
        "import sys; from workbench import cli; cli.run_command(['--help']);"
        "print([m for m in ('torch', 'pandas', 'duckdb', 'transformers') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert loaded.stdout.strip().endswith("[]")


def test_no_arguments_show_the_help(draftree: Callable[..., Said]) -> None:
    said = draftree()
    assert said.code == 0
    assert "draftree run" in said.out
    assert draftree("--version").out.startswith("draftree")


def test_commands_are_where_they_are_said_to_be() -> None:
    for name in ("run", "methods", "runs", "show", "export", "doctor", "app", "train"):
        assert cli.load_command(name).name == name
    assert set(typer_main.get_command(cli.app).commands) == set(cli.COMMANDS)  # type: ignore[attr-defined]


def test_ctrl_c_ends_the_run_and_keeps_it(models: list[str]) -> None:
    arguments = ["run", "-m", "speculative", "-p", "def f(", *models, "--repeats", "1000"]
    running = process(*arguments)
    try:
        deadline = time.monotonic() + 120
        while not any(entry.summary.get("steps") for entry in list_runs()):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    entry = list_runs()[0]
    assert entry.status == "cancelled"
    assert f"Stopped; what was decoded is in run {entry.run_id}" in err.decode()
    assert b"tokens per second" in out
    assert b"Traceback" not in err
    with open_run("last") as stored:
        assert not stored.steps().empty


def test_a_reader_that_has_seen_enough(hostile_run: str) -> None:
    listing = process("show", "last", "--json")
    assert listing.stdout is not None
    listing.stdout.read(10)
    listing.stdout.close()
    assert listing.wait(60) in (0, 1)
    assert listing.stderr is not None
    assert b"Traceback" not in listing.stderr.read()


def test_an_ascii_terminal_gets_escapes(hostile_run: str) -> None:
    out, err = process(
        "show", "last", "--step", "0", env={"PYTHONIOENCODING": "ascii"}
    ).communicate(timeout=60)
    assert b"Traceback" not in err
    assert out.isascii()


def test_app_serves_on_this_machine_only(
    draftree: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[list[str]] = []

    class Server:
        def __init__(self, command: list[str]) -> None:
            started.append(command)

        def wait(self) -> int:
            return 0

    script = tmp_path / "app.py"
    monkeypatch.setattr("workbench.commands.app.app_file", lambda: script)
    monkeypatch.setattr("workbench.commands.app.subprocess.Popen", Server)
    assert draftree("app").code == 2
    script.touch()
    assert draftree("app", "--port", "9000", "--no-browser").code == 0
    command = " ".join(started[0])
    assert f"run {script}" in command
    for setting in (
        "--server.address 127.0.0.1",
        "--server.port 9000",
        "--browser.gatherUsageStats false",
        "--server.headless true",
    ):
        assert setting in command


def test_a_run_whose_file_is_gone(draftree: Callable[..., Said], hostile_run: str) -> None:
    run_file(hostile_run).unlink()
    said = draftree("show", "last")
    assert (said.code, "is gone" in said.err) == (2, True)
