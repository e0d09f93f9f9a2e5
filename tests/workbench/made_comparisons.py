"""Comparisons with known times, without a model: what an arm gains is given by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench import metrics
from workbench.comparing.arms import BASELINES, PLAIN
from workbench.comparing.expand import expand, read_arm
from workbench.comparing.result import ArmRun, CompareSpec, Comparison, Sample, new_comparison_id
from workbench.events import RunSummary
from workbench.store.index import now_iso

STEP_NS = 5_000_000
PROMPTS = 3


def gain(label: str) -> float:
    """The speedup an arm is made to have."""
    method, options = read_arm(label)
    if method == PLAIN:
        return 1.0
    if method in BASELINES:
        return 0.95
    nodes, depth = int(options.get("nodes", 6)), int(options.get("depth", 4))
    return 1.6 - 0.02 * (nodes - 6) ** 2 - 0.05 * abs(depth - 4)


def make_comparison(
    spec: CompareSpec, *, sweep: str = "", status: str = "finished", broken: Sequence[str] = ()
) -> Comparison:
    """What measuring `spec` would find; arms in `broken` decode nothing and say why."""
    labels = [PLAIN, *(one for one in expand(spec.methods) if one != PLAIN), *spec.baselines]
    arms = [
        _arm(label, workload, spec, broken=label in broken)
        for workload in spec.workloads
        for label in dict.fromkeys(labels)
    ]
    return Comparison(
        comparison_id=new_comparison_id(),
        status=status,
        started=now_iso(),
        finished=now_iso(),
        spec=spec,
        command="draftree compare",
        environment={},
        workloads={
            name: {
                "requests": PROMPTS,
                "questions": PROMPTS,
                "prompt_tokens": [8, 20],
                "categories": [],
            }
            for name in spec.workloads
        },
        arms=arms,
        sweep=sweep,
    )


def _arm(label: str, workload: str, spec: CompareSpec, *, broken: bool) -> ArmRun:
    method, options = read_arm(label)
    drafts = method not in (PLAIN, *BASELINES)
    kept = spec.max_new_tokens
    steps = kept // 2 if drafts else kept
    samples = [] if broken else [
        Sample(
            request=request, repeat=repeat, question_id=f"q{request}", category="", turn=0,
            num_prompt=10, kept=kept, steps=steps, emitted=kept,
            drafted=4 * steps if drafts else 0, accepted=kept - steps, prefill_ns=1_000_000,
            decode_ns=int(kept * STEP_NS / gain(label) * (1 + 0.01 * request + 0.005 * repeat)),
            repetition=0.1,
        )
        for request in range(min(PROMPTS, spec.limit or PROMPTS))
        for repeat in range(spec.repeats)
    ]  # fmt: skip
    return ArmRun(
        label=label, method=method, options=dict(options), verify="match", dtype="float32",
        cache=True, execution="eager", workload=workload, mode="eager",
        run_id="20260101-000000-0000", samples=samples, summary=_summary(samples, drafts=drafts),
        matched=len(samples), compared=len(samples), error="It broke." if broken else "",
    )  # fmt: skip


def _summary(samples: Sequence[Sample], *, drafts: bool) -> dict[str, Any]:
    steps = sum(sample.steps for sample in samples)
    decode_ns = sum(sample.decode_ns for sample in samples)
    accepted = sum(sample.accepted for sample in samples)
    stages = dict.fromkeys(metrics.STAGES, 0)
    stages["score"], stages["draft"] = int(0.7 * decode_ns), int(0.2 * decode_ns)
    stages["unaccounted"] = decode_ns - stages["score"] - stages["draft"]
    return RunSummary(
        requests=len(samples), steps=steps, passes=steps, kept=sum(s.kept for s in samples),
        emitted=sum(s.emitted for s in samples), drafted=sum(s.drafted for s in samples),
        accepted=accepted, decode_ns=decode_ns, stages_ns=stages,
        histogram=[steps - accepted, accepted] if drafts else [],
        tested_at_depth=[0, steps] if drafts else [],
        accepted_at_depth=[0, accepted] if drafts else [],
        tested_at_rank=[steps] if drafts else [], accepted_at_rank=[accepted] if drafts else [],
    ).as_json()  # fmt: skip
