"""The protocol of comparisons, on tiny models and on decoders of known speed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from tiny_pair import PairFolders, write_pair

from engine.errors import DecodeError, UserError
from engine.records import FinishReason, RequestRecord, StageTimes
from engine.requests import Request
from workbench.compare import CompareSpec, Comparison, compare
from workbench.comparing import decoders, result, wording
from workbench.comparing.arms import Arm, parse_arm, parse_arms, split_methods
from workbench.comparing.decoders import Decoded, Site, StoppedError
from workbench.comparing.dtypes import why_unusable
from workbench.comparing.rows import Row, rows
from workbench.comparing.telling import Pace
from workbench.events import Progress, RunFinished
from workbench.statistics import Finding
from workbench.store.index import list_runs
from workbench.store.reader import open_run

PROMPTS = ["def add(a, b):", "class Tree:", "import os", "for x in y:"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairFolders:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workload(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return str(file)


@pytest.fixture
def spec(pair: PairFolders, workload: str) -> CompareSpec:
    return CompareSpec(
        methods=["speculative:length=3"],
        workloads=[workload],
        target=str(pair.target),
        draft=str(pair.draft),
        max_new_tokens=12,
        repeats=2,
        limit=2,
        executions=["eager"],
        device="cpu",
        threads=1,
    )


# --- the real thing -----------------------------------------------------------------------------


def by_method(found: Comparison) -> dict[str, Row]:
    return {row.method: row for row in rows(found)}


def test_a_comparison_end_to_end(spec: CompareSpec, tmp_path: Path) -> None:
    events: list = []
    found = compare(spec, events.append, runs=tmp_path / "runs", command="draftree compare ...")
    table = by_method(found)
    assert list(table) == [
        "autoregressive",
        "speculative:length=3",
        "hf-generate",
        "hf-assisted",
        "draft-alone",
    ]
    for name in ("autoregressive", "speculative:length=3", "hf-generate", "hf-assisted"):
        assert table[name].matched_requests == table[name].requests == 2, name
        assert not any(arm.differences for arm in found.arms)
    assert table["draft-alone"].matched_requests is None
    assert table["autoregressive"].tokens_per_step == 1.0
    assert table["autoregressive"].speedup == (1.0, 1.0, 1.0)
    assert table["autoregressive"].acceptance_rate is None
    speculative = table["speculative:length=3"]
    assert speculative.tokens_per_step > 1.0
    assert 0.0 < speculative.acceptance_rate <= 1.0
    assert speculative.speedup.low <= speculative.speedup.value <= speculative.speedup.high
    assert all(prompt.tokens == 12 for row in table.values() for prompt in row.prompts)
    assert speculative.stages_ns["score"] > 0
    assert table["hf-assisted"].setting.startswith("tokens=")
    assert "hf-assisted ran with its best" in " ".join(found.notes)
    fractions = [e.fraction for e in events if isinstance(e, Progress) and e.phase == "measure"]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert 0.5 < fractions[-1] <= 1.0


def test_every_arm_is_a_stored_run_of_the_comparison(spec: CompareSpec, tmp_path: Path) -> None:
    events: list = []
    found = compare(spec, events.append, runs=tmp_path / "runs")
    entries = {entry.run_id: entry for entry in list_runs(tmp_path / "runs")}
    assert set(entries) == {arm.run_id for arm in found.arms}
    assert {e.run_id for e in events if isinstance(e, RunFinished)} == set(entries)
    for arm in found.arms:
        with open_run(arm.run_id, tmp_path / "runs") as run:
            assert run.info.status == "finished"
            assert run.info.spec.comparison == found.comparison_id
            assert run.info.spec.arm == arm.label
            assert run.info.spec.ignore_eos
            assert len(run.requests()) == 4
            assert run.info.summary["kept"] == 48
            assert run.info.summary["tokens_per_second"] > 0
            steps = run.steps()
        if not arm.method.startswith("hf-"):
            assert len(steps) == sum(sample.steps for sample in arm.samples)
            assert run.info.summary["passes"] == len(steps)
    alone = next(arm for arm in found.arms if arm.method == "draft-alone")
    assert entries[alone.run_id].spec["method"] == "autoregressive"
    assert entries[alone.run_id].spec["target"] == spec.draft


def test_a_comparison_survives_being_stored(spec: CompareSpec, tmp_path: Path) -> None:
    found = compare(spec, runs=tmp_path / "runs")
    again = result.load(found.comparison_id, tmp_path / "runs")
    assert again.as_json() == found.as_json()
    assert [row.as_json() for row in rows(again)] == [row.as_json() for row in rows(found)]
    assert result.load("compare-", tmp_path / "runs").comparison_id == found.comparison_id
    with pytest.raises(UserError, match="no comparison 'compare-1'"):
        result.load("compare-1", tmp_path / "runs")
    (tmp_path / "runs" / "comparisons" / f"{found.comparison_id}.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        result.load(found.comparison_id, tmp_path / "runs")


def test_rows_are_json_with_the_promised_names(spec: CompareSpec, tmp_path: Path) -> None:
    values = rows(compare(spec, runs=tmp_path / "runs"))[1].as_json()
    promised = {
        "method",
        "tokens_per_second",
        "speedup",
        "speedup_low",
        "speedup_high",
        "tokens_per_step",
        "acceptance_rate",
        "matched_requests",
        "requests",
        "stages",
    }
    assert promised <= set(values)
    json.dumps(values, allow_nan=False)


def test_sampling_is_compared_by_tokens_only_where_they_must_agree(
    spec: CompareSpec, tmp_path: Path
) -> None:
    sampled = spec.model_copy(
        update={
            "temperature": 0.8,
            "repeats": 1,
            "methods": ["speculative", "speculative:verify=multi-step"],
        }
    )
    found = compare(sampled, runs=tmp_path / "runs")
    table = by_method(found)
    assert table["speculative"].matched_requests == 2
    assert table["speculative:verify=multi-step"].matched_requests is None
    assert "distribution" in table["speculative:verify=multi-step"].why
    assert table["hf-generate"].matched_requests is None


def test_cache_and_dtypes_make_groups_with_their_own_baseline(
    spec: CompareSpec, tmp_path: Path
) -> None:
    wide = spec.model_copy(
        update={"caches": [True, False], "dtypes": ["float32", "float16"], "repeats": 1}
    )
    found = compare(wide, runs=tmp_path / "runs")
    table = rows(found)
    plain = [row for row in table if row.method == "autoregressive"]
    assert [(row.dtype, row.cache) for row in plain] == [
        ("float32", True),
        ("float32", False),
        ("float16", True),
        ("float16", False),
    ]
    assert all(row.speedup.value == 1.0 for row in plain)
    assert sum(row.method == "hf-assisted" for row in table) == 2
    assert any("hf-assisted" in note and "without cache" in note for note in found.notes)
    full = [row for row in table if row.dtype == "float32"]
    assert all(row.matched_requests in (None, row.requests) for row in full)


def test_without_a_draft_the_baselines_that_need_one_are_left_out(
    spec: CompareSpec, tmp_path: Path
) -> None:
    found = compare(spec.model_copy(update={"draft": None, "methods": []}), runs=tmp_path / "runs")
    assert list(by_method(found)) == ["autoregressive", "hf-generate"]
    with pytest.raises(UserError, match="needs a draft model"):
        compare(spec.model_copy(update={"draft": None}), runs=tmp_path / "runs")


def test_second_turns_have_the_same_prompt_for_every_arm(spec: CompareSpec, tmp_path: Path) -> None:
    file = tmp_path / "turns.jsonl"
    file.write_text(json.dumps({"question_id": 1, "turns": ["Hello", "And then?"]}))
    found = compare(
        spec.model_copy(update={"workloads": [str(file)], "repeats": 1}), runs=tmp_path / "runs"
    )
    lengths = {tuple(sample.num_prompt for sample in arm.samples) for arm in found.arms}
    assert len(lengths) == 1
    first, second = lengths.pop()
    assert second > first + len("And then?")


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"methods": ["nope"]}, "Method 'nope' is unknown"),
        ({"methods": ["speculative:lenth=3"]}, "no option 'lenth'"),
        ({"methods": ["speculative:length=0"]}, "length"),
        ({"methods": ["speculative:verify=typical,typical_alpha=2"]}, "typical_alpha.* is '2'"),
        ({"methods": ["speculative:typical_alpha=0.2"]}, "go with verify=typical"),
        ({"methods": ["speculative:kernels=fast"]}, "kernels of speculative is 'fast'"),
        ({"methods": ["hf-assisted:schedule=none"]}, "constant, heuristic"),
        ({"workloads": ["no-such"]}, "no workload or file"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"max_new_tokens": 250}, "do not fit into the context of 256"),
        ({"target": "/nowhere/model"}, "/nowhere/model"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_kept(
    spec: CompareSpec, tmp_path: Path, change: dict, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        compare(spec.model_copy(update=change), runs=tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []
    assert not (tmp_path / "runs" / "comparisons").exists()


def test_arms_are_parsed_with_their_commas() -> None:
    text = (
        "autoregressive,dynamic-tree:policy=eagle2,nodes=8,static-tree:expansion=4,2,2,speculative"
    )
    assert split_methods(text) == [
        "autoregressive",
        "dynamic-tree:policy=eagle2,nodes=8",
        "static-tree:expansion=4,2,2",
        "speculative",
    ]
    arm = parse_arm("speculative:length=4,verify=multi-step,children=sampled")
    assert arm == Arm(
        arm.label, "speculative", {"length": "4"}, verify="multi-step", children="sampled"
    )
    arm = parse_arm("speculative:length=4,kernels=off")
    assert (arm.kernels, arm.label) == ("off", "speculative:length=4,kernels=off")
    labels = [arm.label for arm in parse_arms("speculative,speculative,hf-assisted:tokens=2")]
    assert labels == [
        "autoregressive",
        "speculative",
        "hf-assisted:tokens=2",
        "hf-generate",
        "draft-alone",
    ]
    for bad in ("speculative:3", "speculative:verify=maybe", "hf-generate:a=1", ""):
        with pytest.raises(UserError):
            parse_arm(bad)


def test_a_dtype_that_kills_the_process_becomes_a_sentence(
    monkeypatch: pytest.MonkeyPatch, spec: CompareSpec, tmp_path: Path
) -> None:
    deadly = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
    monkeypatch.setattr("workbench.comparing.dtypes._PROBE", deadly)
    why_unusable.cache_clear()
    try:
        assert "SIGILL" in why_unusable("bfloat16", "cpu")
        assert why_unusable("float32", "cpu") is None
        assert why_unusable("bfloat16", "cuda") is None
        with pytest.raises(UserError, match="bfloat16 arithmetic ends the process with SIGILL"):
            compare(spec.model_copy(update={"dtypes": ["bfloat16"]}), runs=tmp_path / "runs")
        both = spec.model_copy(update={"dtypes": ["float32", "bfloat16"], "repeats": 1})
        found = compare(both, runs=tmp_path / "runs")
        assert {row.dtype for row in rows(found)} == {"float32"}
        assert any("SIGILL" in note for note in found.notes)
    finally:
        why_unusable.cache_clear()


# --- decoders of known speed --------------------------------------------------------------------


@dataclass
class Scripted:
    """A decoder that claims a speed and logs when it was asked."""

    arm: Arm
    log: list[tuple[str, int, int, int]]
    ns_per_token: float
    token: Callable[[Request], int] = lambda request: 7
    fail_at: int | None = None
    mode: str = "eager"
    setting: str = ""
    choices: tuple = ()
    calls: int = field(default=0)

    def plain_step_ns(self, request: Request) -> int:
        return 1000

    def decode(self, request: Request, should_stop: Callable[[], bool]) -> Decoded:
        if should_stop():
            raise StoppedError
        if self.calls == self.fail_at:
            raise DecodeError("NaN logits")
        self.calls += 1
        count = request.max_new_tokens
        self.log.append((self.arm.label, request.index, request.repeat, count))
        record = RequestRecord(
            request=request.index,
            question_id=request.question_id,
            category=request.category,
            turn=request.turn,
            repeat=request.repeat,
            prompt=request.prompt,
            prompt_ids=list(request.prompt_ids),
            token_ids=[self.token(request)] * count,
            text="",
            finish_reason=FinishReason.LENGTH,
            num_steps=count,
            num_emitted=count,
            num_drafted=0,
            num_accepted=0,
            prefill_ns=1_000,
            # prompts of different length: pairing matters
            decode_ns=int(self.ns_per_token * count * (1 + request.index)),
            repetition=0.0,
        )
        return Decoded(record, [], StageTimes(score=record.decode_ns))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """Replace all decoders; returns the log of their work."""

    def install(ns: dict[str, float], **settings: dict[str, object]) -> list:
        log: list = []

        def build(arm: Arm, site: Site) -> Scripted:
            own = {
                name: values[arm.label] for name, values in settings.items() if arm.label in values
            }
            return Scripted(arm, log, ns.get(arm.label, 10_000.0), **own)

        monkeypatch.setattr(decoders, "build", build)
        return log

    return install


def test_arms_are_warmed_up_first_and_then_interleaved_in_moving_order(
    spec: CompareSpec, tmp_path: Path, scripted
) -> None:
    log = scripted({})
    compare(spec.model_copy(update={"max_new_tokens": 40}), runs=tmp_path / "runs")
    arms = ["autoregressive", "speculative:length=3", "hf-generate", "hf-assisted", "draft-alone"]
    warm, timed = log[:5], log[5:]
    assert [entry[0] for entry in warm] == arms
    assert all(count < 40 for *_, count in warm)
    assert all(count == 40 for *_, count in timed)
    rounds = [timed[at : at + 5] for at in range(0, len(timed), 5)]
    assert [(one[0][1], one[0][2]) for one in rounds] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    for one in rounds:
        assert sorted(entry[0] for entry in one) == sorted(arms)
        assert len({entry[1:3] for entry in one}) == 1
    assert len({one[0][0] for one in rounds}) == 4  # somebody else begins each time


def test_rows_pair_by_prompt_and_take_medians(spec: CompareSpec, tmp_path: Path, scripted) -> None:
    scripted({"speculative:length=3": 5_000.0, "hf-generate": 20_000.0})
    found = compare(spec, runs=tmp_path / "runs")
    for arm in found.arms:  # one repeat went wrong: the median does not mind
        for sample in arm.samples:
            if sample.repeat == 1 and arm.method == "speculative":
                sample.decode_ns += 10
    table = by_method(found)
    fast, slow = table["speculative:length=3"], table["hf-generate"]
    assert fast.speedup.value == pytest.approx(2.0, rel=1e-3)
    assert fast.finding is Finding.PAYS
    assert fast.latency_reduction == pytest.approx(50.0, rel=1e-3)
    assert slow.speedup.value == pytest.approx(0.5)
    assert slow.finding is Finding.COSTS
    assert slow.tokens_per_second == pytest.approx(24 / ((1 + 2) * 12 * 20e-6))
    assert fast.end_to_end.value < fast.speedup.value
    assert [prompt.speedup for prompt in fast.prompts] == pytest.approx([2.0, 2.0], rel=1e-3)


def test_a_stop_keeps_what_is_complete(spec: CompareSpec, tmp_path: Path, scripted) -> None:
    log = scripted({})
    found = compare(spec, should_stop=lambda: len(log) >= 5 + 7, runs=tmp_path / "runs")
    assert found.status == "cancelled"
    assert [len(arm.samples) for arm in found.arms] == [1, 2, 2, 1, 1]  # stopped in round two
    table = rows(found)
    assert len(table) == 5
    assert {row.requests for row in table} == {1}  # of pairs alone
    assert {entry.status for entry in list_runs(tmp_path / "runs")} == {"cancelled"}
    assert result.load(found.comparison_id, tmp_path / "runs").status == "cancelled"


def test_a_stop_before_the_first_timing_leaves_nothing(
    spec: CompareSpec, tmp_path: Path, scripted
) -> None:
    scripted({})
    found = compare(spec, should_stop=lambda: True, runs=tmp_path / "runs")
    assert found.status == "cancelled"
    assert rows(found) == []
    assert list_runs(tmp_path / "runs") == []
    assert result.comparison_ids(tmp_path / "runs") == []


def test_an_arm_that_fails_is_named_and_the_others_go_on(
    spec: CompareSpec, tmp_path: Path, scripted
) -> None:
    scripted({}, fail_at={"hf-generate": 3})
    found = compare(spec, runs=tmp_path / "runs")
    failed = next(arm for arm in found.arms if arm.label == "hf-generate")
    assert failed.error == "NaN logits"
    assert len(failed.samples) == 2
    others = [arm for arm in found.arms if arm is not failed]
    assert all(len(arm.samples) == 4 and not arm.error for arm in others)
    with open_run(failed.run_id, tmp_path / "runs") as run:
        assert (run.info.status, run.info.message) == ("failed", "NaN logits")


def test_nothing_can_be_compared_without_plain_decoding(
    spec: CompareSpec, tmp_path: Path, scripted
) -> None:
    scripted({}, fail_at={"autoregressive": 2})
    with pytest.raises(DecodeError, match="NaN"):
        compare(spec, runs=tmp_path / "runs")
    assert {entry.status for entry in list_runs(tmp_path / "runs")} == {"failed"}


def test_other_tokens_are_found_and_judged(spec: CompareSpec, tmp_path: Path, scripted) -> None:
    wrong = {"speculative:length=3": lambda request: 7 + (request.index == 1)}
    scripted({}, token=wrong)
    found = compare(spec, runs=tmp_path / "runs")
    table = by_method(found)
    assert table["speculative:length=3"].matched_requests == 1
    assert table["hf-generate"].matched_requests == 2
    assert [p.matched for p in table["speculative:length=3"].prompts] == [True, False]
    arm = next(arm for arm in found.arms if arm.differences)
    (difference,) = arm.differences
    assert (difference.request, difference.position) == (1, 0)
    assert (difference.expected, difference.got) == (7, 8)
    assert difference.verdict == "bug"
    assert math.isfinite(difference.top2_gap)


def test_pace_weighs_arms_by_their_time() -> None:
    pace = Pace(parts=2)
    pace.begin(["slow", "fast"], rounds=2)
    assert pace.fraction == 0.0
    pace.add("slow", 9.0)
    pace.add("fast", 1.0)
    assert pace.fraction == pytest.approx(0.25)
    pace.add("slow", 9.0)
    assert pace.fraction == pytest.approx(0.475)
    pace.add("fast", 1.0)
    pace.begin(["slow", "fast"], rounds=2)
    assert pace.fraction == 0.5


def test_the_thresholds_of_an_arm_reach_its_engine() -> None:
    arm = parse_arm("speculative:length=2,verify=typical,typical_epsilon=0.5")
    assert arm.typical == (0.5, 0.3)
    assert arm.options == {"length": "2"}


def test_a_lossy_arm_is_marked_wherever_it_appears(spec: CompareSpec, tmp_path: Path) -> None:
    arms = ["speculative:verify=typical", "speculative"]
    for temperature, lossy in ((0.9, True), (0.0, False)):
        changed = spec.model_copy(update={"methods": arms, "temperature": temperature})
        found = rows(compare(changed, runs=tmp_path / "runs"))
        row = next(row for row in found if "typical" in row.method)
        assert row.lossy is lossy
        assert (wording.lossless(row) == "lossy") is lossy
        assert ("changes the law" in wording.lossless_summary(found)) is lossy
