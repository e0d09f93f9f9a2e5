"""A run from spec to store: on a tiny real pair, and on an engine that misbehaves on cue."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DecodeError, UserError
from tests.engine.heads_fixture import with_head
from workbench import job, metrics, models
from workbench.events import (
    Event,
    Progress,
    RequestDone,
    RequestStarted,
    RunFinished,
    RunStarted,
    StepDone,
)
from workbench.spec import RunSpec
from workbench.store import list_runs, open_run

QUESTIONS = (
    '{"question_id": "a", "category": "chat", "turns": ["def f(x):", "and now g"]}\n'
    '{"question_id": "b", "category": "code", "turns": ["import os"]}\n'
    '{"question_id": "c", "category": "code", "turns": ["class A", "class B", "class C"]}\n'
)


def never() -> bool:
    return False


def spec_for(pair: Any, **changes: Any) -> RunSpec:
    values = {
        "method": "speculative",
        "target": pair.target,
        "draft": pair.draft,
        "prompt": "def walk(",
        "max_new_tokens": 12,
        "execution": "eager",
        "ignore_eos": True,
    }
    if "workload" in changes:
        values.pop("prompt")
    return RunSpec(**(values | changes))


def run(spec: RunSpec, **settings: Any) -> tuple[RunFinished, list[Event]]:
    events: list[Event] = []
    finished = job.execute(spec, events.append, settings.pop("should_stop", never), **settings)
    return finished, events


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "question.jsonl"
    path.write_text(QUESTIONS)
    return str(path)


# --- a whole run ---


def test_a_prompt_from_spec_to_store(tiny_pair: Any) -> None:
    spec = spec_for(tiny_pair)
    finished, events = run(spec)
    assert finished.status == "finished"
    assert events[-1] is finished
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("Progress") < kinds.index("RunStarted") < kinds.index("RequestStarted")
    started = of(RunStarted, events)[0]
    assert started.mode == "eager"
    assert started.plain_step_ns > 0
    done = of(RequestDone, events)[0].record
    assert len(done.token_ids) == 12
    text = "".join(
        piece
        for event in of(StepDone, events)
        for piece in event.emitted_text[: event.record.num_kept]
    )
    assert done.text.startswith(text.rstrip("\ufffd"))
    with open_run(finished.run_id) as stored:
        assert stored.info.spec == spec
        assert len(stored.steps()) == done.num_steps
        kept = stored.tokens().query("kept")["token"].tolist()
        assert kept == done.token_ids
        assert stored.requests()["text"].tolist() == [done.text]
        environment = stored.info.environment
    assert environment["models"]["target"]["content_hash"]
    assert environment["tokenizers_match"] is True
    assert environment["packages"]["torch"]
    assert environment["attention"]


def test_the_summary_is_what_the_steps_say(tiny_pair: Any) -> None:
    finished, events = run(spec_for(tiny_pair, max_new_tokens=40))
    again = metrics.summarise(
        [event.record for event in of(StepDone, events)],
        [event.record for event in of(RequestDone, events)],
    )
    assert finished.summary == again
    assert again.kept == 40
    assert 0 < again.accepted < again.drafted
    walls = sum(event.record.times.wall for event in of(StepDone, events))
    assert again.decode_ns == walls == sum(again.stages_ns.values())
    request_ns = of(RequestDone, events)[0].record.decode_ns
    assert walls == pytest.approx(request_ns, rel=0.2), "steps and request agree on the wall time"
    assert list_runs()[0].summary["steps"] == again.steps


def test_a_workload_with_turns_and_repeats(tiny_pair: Any, workload: str) -> None:
    finished, events = run(spec_for(tiny_pair, workload=workload, repeats=2, max_new_tokens=5))
    assert of(RunStarted, events)[0].num_requests == 12
    done = [event.record for event in of(RequestDone, events)]
    assert [(d.question_id, d.turn, d.request) for d in done[:6]] == [
        ("a", 0, 0), ("a", 1, 1), ("b", 0, 2), ("c", 0, 3), ("c", 1, 4), ("c", 2, 5),
    ]  # fmt: skip
    assert [d.repeat for d in done] == [0] * 6 + [1] * 6
    assert [d.token_ids for d in done[:6]] == [d.token_ids for d in done[6:]]
    assert done[1].prompt == f"def f(x):{done[0].text}\n\nand now g"
    assert done[5].prompt.startswith(f"class A{done[3].text}\n\nclass B{done[4].text}\n\nclass C")
    with open_run(finished.run_id) as stored:
        assert len(stored.requests()) == 12
        assert len(stored.steps(repeat=1)) == len(stored.steps(repeat=0))


def test_an_index_depends_only_on_the_questions_before(tiny_pair: Any, workload: str) -> None:
    _, whole = run(spec_for(tiny_pair, workload=workload, max_new_tokens=3))
    _, part = run(spec_for(tiny_pair, workload=workload, max_new_tokens=3, limit=2))
    started = [(e.request, e.question_id) for e in of(RequestStarted, whole)]
    assert [(e.request, e.question_id) for e in of(RequestStarted, part)] == started[:3]


def test_a_batch_gives_the_same_texts_and_counts_time_once(tiny_pair: Any, workload: str) -> None:
    settings = {"workload": workload, "max_new_tokens": 8, "temperature": 0.8, "seed": 3}
    _, alone = run(spec_for(tiny_pair, **settings))
    finished, together = run(spec_for(tiny_pair, batch=3, **settings))
    texts = [{e.record.request: e.record.text for e in of(RequestDone, ev)}
             for ev in (alone, together)]  # fmt: skip
    assert texts[0] == texts[1]
    steps = [event.record for event in of(StepDone, together)]
    assert max(step.batch for step in steps) == 3
    passes = {step.batch_step: step.times.wall for step in steps}
    assert finished.summary.decode_ns == sum(passes.values())
    assert finished.summary.passes == len(passes) < finished.summary.steps


def test_chat_templates_are_applied_and_can_be_left_out(
    tiny_pair: Any, tmp_path: Path, workload: str
) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "chatty"
    shutil.copytree(tiny_pair.target, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    chatty = {"method": "autoregressive", "target": str(folder), "draft": None, "limit": 1,
              "workload": workload, "max_new_tokens": 3}  # fmt: skip
    _, events = run(spec_for(tiny_pair, **chatty))
    first, second = (event.record for event in of(RequestDone, events))
    assert first.prompt == "[user]def f(x):[assistant]"
    assert second.prompt == f"{first.prompt}{first.text}[user]and now g[assistant]"
    _, plain = run(spec_for(tiny_pair, **chatty, chat_template=False))
    assert of(RequestDone, plain)[0].record.prompt == "def f(x):"


def test_half_a_character_is_never_told(tiny_pair: Any) -> None:
    _, events = run(spec_for(tiny_pair, max_new_tokens=60, temperature=1.5, prompt="é😀"))
    for event in of(StepDone, events):
        for text in event.emitted_text:
            text.encode()  # no lone surrogates
        assert len(event.emitted_text) == len(event.record.emitted)
        assert len(event.pieces_M) == len(event.record.tree.tokens_M)


def test_models_stay_loaded(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run(spec_for(tiny_pair))
    monkeypatch.setattr("engine.models.load_model", lambda *a, **k: pytest.fail("loaded again"))
    finished, events = run(spec_for(tiny_pair, temperature=0.5))
    assert finished.status == "finished"
    assert not [e for e in of(Progress, events) if e.message.startswith("Loading /")]


def test_a_model_that_changed_on_disk_is_loaded_again(tiny_pair: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_pair.target, folder)
    first = models.load(str(folder), dtype="float32", device="cpu")
    assert models.load(str(folder), dtype="float32", device="cpu") is first
    (folder / "model.safetensors").touch()
    assert models.load(str(folder), dtype="float32", device="cpu") is not first


def test_acceptance_measured_on_a_run_shapes_a_tree(tiny_pair: Any) -> None:
    measured, _ = run(spec_for(tiny_pair, method="static-tree", max_new_tokens=40))
    wanted = {"acceptance": f"run:{measured.run_id}", "nodes": 5}
    finished, _ = run(spec_for(tiny_pair, method="static-tree", options=wanted))
    with open_run(finished.run_id) as stored:
        kept = stored.info.spec.options["acceptance"]
    vector = metrics.acceptance_vector(measured.summary)
    assert [float(x) for x in kept.split(",")] == pytest.approx(vector, abs=1e-4)


def test_guesses_measured_on_a_run_shape_the_tree_of_heads(tiny_pair: Any) -> None:
    heads = with_head("medusa", {}, models.load(tiny_pair.target, dtype="float32", device="cpu"))
    first = spec_for(tiny_pair, method="medusa", options=heads | {"tree": "medusa"})
    measured, _ = run(first.model_copy(update={"max_new_tokens": 80}))
    steps = []
    with open_run(measured.run_id) as stored:
        for step in stored.steps()["step"]:
            steps.append(stored.step_record(0, int(step)))
    tested: dict[tuple[int, int], list[bool]] = {}
    for step in steps:
        for node in range(1, step.tree.num_nodes):
            if step.tree.parents_M[node] in step.verdict.path_A:
                place = int(step.tree.depth_M[node]), int(step.tree.rank_M[node])
                tested.setdefault(place, []).append(node in step.verdict.path_A)
    wanted = heads | {"acceptance": f"run:{measured.run_id}", "nodes": 3}
    finished, _ = run(spec_for(tiny_pair, method="medusa", options=wanted))
    with open_run(finished.run_id) as stored:
        levels = stored.info.spec.options["acceptance"].split(";")
        head = stored.info.environment["head"]
        trees = [stored.tree(0, int(step)) for step in stored.steps()["step"]]
    found = {
        (depth, rank): float(share)
        for depth, level in enumerate(levels, 1)
        for rank, share in enumerate(level.split(","))
    }
    assert len(found) > 10
    assert head["path"] == heads["head"]
    assert len(head["content_hash"]) == 16
    for place, share in found.items():
        assert share == pytest.approx(sum(tested[place]) / len(tested[place]), abs=1e-4)
    best = max((share, -rank) for (depth, rank), share in found.items() if depth == 1)
    assert all(tree.rank_M[1] == -best[1] for tree in trees if tree.num_drafted)


def test_guesses_are_measured_on_runs_of_heads_only(tiny_pair: Any) -> None:
    other, _ = run(spec_for(tiny_pair))
    wanted = {"acceptance": f"run:{other.run_id}"}
    with pytest.raises(UserError, match="drafted with speculative"):
        run(spec_for(tiny_pair, method="medusa", options=wanted))


# --- stopping ---


def test_stop_takes_effect_within_a_step(tiny_pair: Any) -> None:
    stop = threading.Event()
    seen: list[Event] = []

    def emit(event: Event) -> None:
        seen.append(event)
        if isinstance(event, StepDone):
            stop.set()

    finished = job.execute(spec_for(tiny_pair, max_new_tokens=200), emit, stop.is_set)
    assert finished.status == "cancelled"
    record = of(RequestDone, seen)[0].record
    assert str(record.finish_reason) == "cancelled"
    assert 0 < len(record.token_ids) < 200
    with open_run(finished.run_id) as stored:
        assert stored.info.status == "cancelled"
        assert len(stored.steps()) == record.num_steps


def test_stopped_while_loading_keeps_no_run(tiny_pair: Any) -> None:
    finished, events = run(spec_for(tiny_pair), should_stop=lambda: True)
    assert (finished.status, finished.run_id) == ("cancelled", "")
    assert events == [finished]
    assert list_runs() == []


def test_a_listener_that_fails_does_not_end_the_run(tiny_pair: Any) -> None:
    def emit(event: Event) -> None:
        raise BrokenPipeError

    assert job.execute(spec_for(tiny_pair), emit, never).status == "finished"


# --- wrong input: a sentence, and no run kept ---


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "x" * 300}, "has 300 tokens; the model takes 256"),
        ({"prompt": "\udc80"}, "not valid Unicode"),
        ({"method": "magic"}, "'magic' is unknown; there are: autoregressive"),
        ({"options": {"lenght": 3}}, "no option 'lenght'; it has: length"),
        ({"options": {"length": -1}}, "length of speculative is -1"),
        ({"method": "static-tree", "options": {"expansion": "2,,x"}}, "'2,,x' is malformed"),
        ({"method": "static-tree", "options": {"acceptance": "run:2020"}}, "draftree run"),
        ({"method": "medusa", "options": {"acceptance": "0.5,x"}}, "'0.5,x' is malformed"),
        ({"method": "medusa", "options": {"tree": "0.x"}}, "'0.x' is malformed"),
        ({"method": "medusa"}, "draftree train medusa"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"draft": None}, "--draft"),
        ({"target": "/no/such/model"}, "/no/such/model"),
        ({"device": "tpu"}, "'tpu' is unknown"),
        ({"workload": "/no/such/file"}, "/no/such/file"),
        ({"verify": "multi-step", "temperature": 0.5, "children": "fixed"}, "sampled"),
    ],
)
def test_wrong_input(tiny_pair: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(spec_for(tiny_pair, **changes))
    assert list_runs() == []
    leftovers = [path.name for path in Path(job.prepare_folder()).iterdir()]
    assert leftovers == []


def test_vocabularies_that_differ(tiny_pair: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "other"
    shutil.copytree(tiny_pair.draft, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"257.*258"):
        run(spec_for(tiny_pair, draft=str(folder)))


def test_an_unwritable_folder_is_found_before_models_are_loaded(
    tiny_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.load_model", lambda *a, **k: pytest.fail("loaded"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Runs cannot be stored"):
        run(spec_for(tiny_pair), runs=tmp_path / "file")


# --- trouble on the way: a failed run, nothing lost ---


class Troubled:
    """The real engine, until step `at`."""

    def __init__(self, engine: Any, error: BaseException, at: int) -> None:
        self._engine, self._error, self._left = engine, error, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> Any:
        if self._left == 0:
            raise self._error
        self._left -= 1
        return self._engine.step()


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def plan(error: BaseException, at: int = 2) -> None:
        build = job._Job._build
        monkeypatch.setattr(job._Job, "_build", lambda self, p: Troubled(build(self, p), error, at))

    return plan


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DecodeError("The target's logits are NaN at step 2."), "logits are NaN"),
        (MemoryError(), "Memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried 9 TB"), "Memory ran out"),
        (UserError("The second turn is too long."), "second turn"),
    ],
)
def test_failing_on_the_way(
    tiny_pair: Any, trouble: Callable[..., None], error: Exception, sentence: str
) -> None:
    trouble(error)
    finished, events = run(spec_for(tiny_pair))
    assert finished.status == "failed"
    assert sentence in finished.message
    assert events[-1] is finished
    with open_run(finished.run_id) as stored:
        assert stored.info.status == "failed"
        assert sentence in stored.info.message
        assert len(stored.steps()) == 2


def test_a_bug_is_raised_and_the_run_says_failed(
    tiny_pair: Any, trouble: Callable[..., None]
) -> None:
    trouble(ZeroDivisionError("oops"))
    with pytest.raises(ZeroDivisionError):
        run(spec_for(tiny_pair))
    assert list_runs()[0].status == "failed"
    assert "ZeroDivisionError" in list_runs()[0].message


def test_writing_that_fails_ends_the_run(tiny_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.store.writer import Recorder

    def full(self: Recorder) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recorder, "_flush", full)
    monkeypatch.setattr("workbench.store.writer.FLUSH_S", 0.01)
    finished, events = run(spec_for(tiny_pair, max_new_tokens=200))
    assert finished.status == "failed"
    assert "No space left on device" in finished.message
    kept = [event.record.num_kept for event in of(StepDone, events)]
    assert sum(kept) < 200, "it ended as soon as it was known"
    assert list_runs()[0].status == "failed"
