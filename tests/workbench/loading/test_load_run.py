"""Load runs on a tiny pair: same tokens as alone, rows kept, cancels, refusals, and all trouble."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DecodeError, UserError
from engine.serving.trace import ArrivalRow, Tick
from workbench import job
from workbench.events import Event, LoadFinished, LoadStarted, StepDone
from workbench.loading import plan as planning
from workbench.loading import run as loading
from workbench.loading.metrics import metrics_from_json, of_rows
from workbench.loading.spec import LoadSpec
from workbench.loading.state import LoadState
from workbench.spec import RunSpec
from workbench.store import list_runs, open_run, serving
from workbench.store.windows import steps_done

PROMPTS = ["def one(a):", "import os\n", "class Two:\n    x = 1", "for i in range(9):"]


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in PROMPTS))
    return str(file)


@pytest.fixture
def spec(tiny_pair: Any, prompts: str) -> Callable[..., LoadSpec]:
    def make(**changes: Any) -> LoadSpec:
        values = {
            "target": tiny_pair.target, "draft": tiny_pair.draft, "workload": prompts,
            "requests": 8, "rate": 200.0, "max_new_tokens": 12, "slots": 3, "execution": "eager",
            "ignore_eos": True,
        }  # fmt: skip
        return LoadSpec(**values | changes)

    return make


class Told(list[Event]):
    """All events, and stop once a condition on them holds."""

    def __init__(self, until: Callable[[Told], bool] = lambda told: False) -> None:
        super().__init__()
        self._until = until

    def stop(self) -> bool:
        return self._until(self)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


def serve(spec: LoadSpec, told: Told | None = None) -> tuple[LoadFinished, Told]:
    told = Told() if told is None else told
    return loading.execute(spec, told.append, told.stop), told


def texts_of(run_id: str) -> dict[int, str]:
    with open_run(run_id) as run:
        rows = run.requests()
        return dict(zip(rows["request"], rows["text"], strict=True))


def test_every_request_has_the_tokens_it_would_have_alone(spec: Any, prompts: str) -> None:
    asked = spec()
    finished, told = serve(asked)
    assert (finished.status, finished.message) == ("finished", "")
    alone: list[Event] = []
    values = {name: getattr(asked, name) for name in RunSpec.model_fields} | {"batch": 1}
    plain = job.execute(RunSpec(**values | {"repeats": 1}), alone.append, lambda: False)
    expected = texts_of(plain.run_id)
    found = texts_of(finished.run_id)
    assert [found[n] for n in range(8)] == [expected[n % 4] for n in range(8)], "greedy"
    assert told[-1] is finished
    assert [type(event) for event in told].count(LoadStarted) == 1
    assert not told.of(StepDone), "trees stay in the store; the pipe has rows"


def test_sampled_tokens_depend_on_the_index_and_not_on_the_load(spec: Any) -> None:
    sampled = {"temperature": 0.9, "seed": 5}
    calm, _ = serve(spec(**sampled, slots=1, budgets="fixed:2"))
    hurried, _ = serve(spec(**sampled, slots=8, rate=5000.0, policy="shortest-first"))
    assert texts_of(calm.run_id) == texts_of(hurried.run_id)


def test_what_is_kept(spec: Any) -> None:
    finished, told = serve(spec(clients=2, slo={"ttft": 1e6}, deadline_s="100"))
    with open_run(finished.run_id) as run:
        assert isinstance(run.info.spec, LoadSpec)
        assert run.info.plain_step_ns > 0
        rows, ticks = serving.arrival_rows(run), serving.tick_rows(run)
        assert [row.request for row in rows] == list(range(8))
        assert all(row.reason == "length" and row.num_kept == 12 for row in rows)
        assert all(
            row.arrival_ns <= row.admitted_ns <= row.prefilled_ns <= row.first_token_ns
            <= row.ended_ns for row in rows
        )  # fmt: skip
        steps = run.steps()
        assert len(ticks) == steps["batch_step"].nunique() == run.info.summary["passes"]
        assert sum(len(one.shares) for one in ticks) == len(steps)
        assert sum(share.kept for one in ticks for share in one.shares) == 8 * 12
        assert steps["time_ns"].tolist() == sorted(steps["time_ns"])
        assert set(steps["time_ns"]) == {one.row.end_ns for one in ticks}
        replayed = steps_done(run, [0, 1], request=5, repeat=0)
        assert replayed[0].record.request == 5
        assert "".join("".join(one.emitted_text) for one in replayed.values())
        run.tree(3, 0).check_integrity()
    assert [one.row for one in told.of(Tick)] == [one.row for one in ticks]
    live = of_rows(told.of(ArrivalRow), told.of(Tick), slo={"ttft": 1e6}, slots=3)
    assert metrics_from_json(finished.metrics) == live, "stored and live rows give the same"
    assert live.within_slo == 1.0
    assert live.deadlines_met == 1.0


def test_a_closed_loop_never_has_more_under_way_than_clients(spec: Any) -> None:
    finished, told = serve(spec(arrivals="closed", clients=2, requests=7, slots=4))
    assert finished.metrics["completed"] == 7
    assert max(one.row.active for one in told.of(Tick)) <= 2


def test_given_up_timed_out_and_refused(spec: Any) -> None:
    many = spec(requests=30, rate=5000.0, slots=1, max_waiting=4, max_new_tokens=40)
    finished, _ = serve(many)
    assert finished.metrics["refused"] > 10
    with open_run(finished.run_id) as run:
        refused = [row for row in serving.arrival_rows(run) if row.reason == "refused"]
        assert len(run.requests()) == 30 - len(refused), "only what had a slot was decoded"
    assert "requests are waiting" in refused[0].message
    given_up, _ = serve(spec(cancel_fraction=1.0, cancel_after_s="0.000001", max_new_tokens=200))
    assert given_up.metrics["cancelled"] == 8
    late, _ = serve(spec(timeout_s=1e-6))
    assert late.metrics["timed_out"] == 8


def test_requests_that_can_never_run_are_refused_and_the_others_served(
    spec: Any, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [{"arrival": 0, "prompt": "x" * 400}, {"arrival": 0.01, "question": "2"}]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    finished, _ = serve(spec(trace=str(trace), arrivals="trace", requests=None))
    assert (finished.metrics["refused"], finished.metrics["completed"]) == (1, 1)
    with open_run(finished.run_id) as run:
        assert "400 tokens" in serving.arrival_rows(run)[0].message
        assert run.requests()["prompt"].tolist() == [PROMPTS[1]]


def test_lengths_are_drawn(spec: Any) -> None:
    finished, _ = serve(spec(prompt_tokens="uniform:20-30", answer_tokens="uniform:2-5"))
    with open_run(finished.run_id) as run:
        rows, requests = serving.arrival_rows(run), run.requests()
    assert all(20 <= row.num_prompt <= 30 for row in rows)
    assert len({row.num_prompt for row in rows}) > 2
    assert all(2 <= row.num_kept <= 5 for row in rows)
    assert all(
        one["prompt"].endswith(PROMPTS[one["request"] % 4]) for _, one in requests.iterrows()
    )


def test_several_pairs_share_the_scheduler(spec: Any, tiny_pair: Any) -> None:
    pairs = [
        {"name": "big", "target": tiny_pair.target, "draft": tiny_pair.draft},
        {"name": "small", "target": tiny_pair.draft, "draft": tiny_pair.draft, "weight": 2.0},
    ]
    finished, told = serve(spec(pairs=pairs, requests=12))
    assert finished.metrics["completed"] == 12
    with open_run(finished.run_id) as run:
        served = {row.pair for row in serving.arrival_rows(run)}
        steps = run.steps()
        assert steps["batch_step"].nunique() == len(told.of(Tick)) == run.info.summary["passes"]
        assert set(run.info.environment["pairs"]) == {"big", "small"}
    assert served == {"big", "small"}


def test_a_stop_cancels_what_is_under_way_and_keeps_the_rest(spec: Any) -> None:
    told = Told(lambda told: len(told.of(Tick)) >= 6)
    begun = time.monotonic()
    finished, _ = serve(spec(requests=5000, rate=50.0, max_new_tokens=100), told)
    assert time.monotonic() - begun < 60
    assert finished.status == "cancelled"
    assert finished.metrics["cancelled"] > 0
    assert finished.metrics["unended"] == 0
    assert list_runs()[0].status == "cancelled"
    with open_run(finished.run_id) as run:
        assert len(run.steps()) > 0
        assert not run.requests()["finish_reason"].isna().any()


def test_a_stop_while_nothing_comes_is_heeded_at_once(spec: Any) -> None:
    stopping = time.monotonic() + 0.2
    told = Told(lambda told: bool(told.of(LoadStarted)) and time.monotonic() > stopping)
    finished, _ = serve(spec(rate=0.001), told)
    assert (finished.status, finished.metrics) == ("cancelled", {})


def test_a_stop_before_anything_is_kept(spec: Any) -> None:
    finished, _ = serve(spec(), Told(lambda told: True))
    assert (finished.run_id, finished.status) == ("", "cancelled")
    assert list_runs() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "none"}, "none"),
        ({"options": {"nodes": "many"}}, "nodes"),
        ({"workload": "no-such-file"}, "no workload or file"),
        ({"trace": "no-such-trace", "arrivals": "trace"}, "no-such-trace cannot be read"),
        ({"target": "/no/model"}, "/no/model"),
    ],
)
def test_wrong_input_keeps_no_run(spec: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        serve(spec(**changes))
    assert list_runs() == []


def test_a_question_that_the_workload_lacks_is_named(spec: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival,question\n0,1\n1,77\n")
    with pytest.raises(UserError, match=r"Request 2 of the trace asks question '77'.*1, 2, 3, 4"):
        serve(spec(trace=str(trace), arrivals="trace"))


def test_pairs_of_different_vocabularies_are_refused(
    spec: Any, tiny_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [{"name": name, "target": tiny_pair.target, "draft": tiny_pair.draft} for name in "ab"]
    load_pair, loaded = planning.models.load_pair, []

    def other(one: RunSpec, **rest: Any) -> Any:
        pair = load_pair(one, **rest)
        loaded.append(pair)
        if len(loaded) == 2:
            import copy

            tokenizer = copy.deepcopy(pair.target.tokenizer)
            tokenizer.add_tokens(["<more>"])
            changed = copy.copy(pair.target)
            object.__setattr__(changed, "tokenizer", tokenizer)
            pair = pair._replace(target=changed)
        return pair

    monkeypatch.setattr(planning.models, "load_pair", other)
    with pytest.raises(UserError, match=r"Pair b .* has another vocabulary than pair a"):
        serve(spec(pairs=pairs))


class Troubled:
    """An engine whose steps fail from some number on."""

    def __init__(self, engine: Any, error: Exception, at: int) -> None:
        self._engine, self._error, self._left = engine, error, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, budgets: Any = None) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._engine.step(budgets)


def test_failing_steps_lose_requests_and_say_why(
    spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = loading.engine_for
    error = DecodeError("The target's logits are NaN.")
    monkeypatch.setattr(loading, "engine_for", lambda *a, **k: Troubled(build(*a, **k), error, 2))
    finished, _ = serve(spec(requests=4))
    assert finished.status == "failed"
    assert finished.message == "No request completed: The target's logits are NaN."
    assert finished.metrics["lost"] == 4
    assert list_runs()[0].message == finished.message


def test_a_full_disk_ends_the_run_as_failed(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.store import writer

    insert = writer.Recorder._insert

    def full(self: Any, table: str, rows: Any) -> None:
        if table == "tick" and self.summary.steps > 5:
            raise OSError("No space left on device")
        insert(self, table, rows)

    monkeypatch.setattr(writer.Recorder, "_insert", full)
    finished, _ = serve(spec(requests=5000, rate=50.0))
    assert finished.status == "failed"
    assert "could not be written" in finished.message
    assert list_runs()[0].status == "failed"


def test_a_bug_ends_the_run_as_failed_and_is_not_swallowed(
    spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = loading.engine_for
    error = ZeroDivisionError("oops")
    monkeypatch.setattr(loading, "engine_for", lambda *a, **k: Troubled(build(*a, **k), error, 1))
    with pytest.raises(ZeroDivisionError):
        serve(spec())
    assert (list_runs()[0].status, list_runs()[0].message) == ("failed", "ZeroDivisionError: oops")


def test_the_live_state_of_a_real_run(spec: Any) -> None:
    state = LoadState()
    asked = spec()
    state.begin(asked)
    finished = loading.execute(asked, state.fold, lambda: False)
    now = state.snapshot()
    assert (now.status, now.counts.completed, now.fraction) == ("finished", 8, 1.0)
    assert now.output_tokens == finished.metrics["output_tokens"] == 96
    assert now.latencies["itl"].count == finished.metrics["latencies"]["itl"]["count"]
