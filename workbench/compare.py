"""Comparing methods: one protocol, that of docs/measuring.md.

Arms of one setting (dtype, cache, execution) form a group: same models, same prompts in tokens,
same counts (EOS is ignored). Every arm is built, compiled and warmed up before the first is
timed; then prompt after prompt is decoded by all arms in turn, in an order that moves on every
time, over all repeats.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

from engine.errors import DecodeError, UserError
from engine.requests import Request
from workbench import environment
from workbench.comparing import result
from workbench.comparing.arms import BASELINES, DRAFT_ALONE, PLAIN, Arm, parse_arms
from workbench.comparing.decoders import ShouldStop, StoppedError
from workbench.comparing.dtypes import why_unusable
from workbench.comparing.keeping import KeptArm, keeping
from workbench.comparing.prepare import Group, Setting, prepare, run_spec
from workbench.comparing.result import ArmRun, CompareSpec, Comparison
from workbench.comparing.telling import Pace, Telling
from workbench.events import Event, MeasuringStarted
from workbench.job import use_threads
from workbench.losslessness import Difference, judge
from workbench.spec import LOSSY
from workbench.store.index import now_iso, prepare_folder
from workbench.workloads import load_workload

__all__ = ["CompareSpec", "Comparison", "compare"]


def compare(
    spec: CompareSpec,
    emit: Callable[[Event], None] = lambda event: None,
    should_stop: ShouldStop = lambda: False,
    *,
    runs: Path | None = None,
    command: str = "",
    sweep: str = "",
) -> Comparison:
    """Measure all arms and keep what was found; when stopped, what was complete.

    `emit` gets `MeasuringStarted`, `Progress` and, for each stored arm, `RunFinished`. `command` is
    what a person would type to run it again, `sweep` the sweep that it is a part of.

    Raises:
        UserError: wrong input, found before anything was timed.
        DecodeError: plain decoding itself failed, so there is nothing to compare with.
    """
    telling = Telling(emit, should_stop)
    folder = prepare_folder(runs)
    arms = parse_arms(spec.methods, spec.baselines)
    questions = {name: load_workload(name, limit=spec.limit) for name in spec.workloads}
    dtypes = _usable_dtypes(spec, telling)
    use_threads(spec.threads)
    found = Comparison(
        comparison_id=result.new_comparison_id(),
        status="failed",
        started=now_iso(),
        finished="",
        spec=spec,
        command=command,
        environment={},
        workloads={},
        arms=[],
        notes=telling.notes,
        sweep=sweep,
    )
    emit(MeasuringStarted(found.comparison_id))
    groups = list(product(dtypes, dict.fromkeys(spec.caches), dict.fromkeys(spec.executions)))
    pace = Pace(parts=len(groups) * len(questions))
    try:
        for dtype, cache, execution in groups:
            setting = Setting(dtype=dtype, cache=cache, execution=execution)
            group = prepare(spec, arms, questions, setting=setting, telling=telling)
            _describe(found, group)
            for workload in questions:
                _measure(found, group, workload, pace=pace, telling=telling, folder=folder)
                _keep_so_far(found, folder)
        found.status = "finished"
    except StoppedError:
        found.status = "cancelled"
    finally:
        found.finished = now_iso()
        if any(arm.samples for arm in found.arms):
            result.save(found, folder)
    return found


def _keep_so_far(found: Comparison, folder: Path) -> None:
    """What a process that is killed later leaves behind; it reads as interrupted."""
    found.status = "interrupted"
    if any(arm.samples for arm in found.arms):
        result.save(found, folder)
    found.status = "failed"


def _measure(
    found: Comparison,
    group: Group,
    workload: str,
    *,
    pace: Pace,
    telling: Telling,
    folder: Path,
) -> None:
    """One workload by all arms of a group, timed and compared token by token."""
    store = keeping(
        group, workload, comparison=found.comparison_id, folder=folder, emit=telling.emit
    )
    with store as kept:
        found.arms += [one.run for one in kept]
        try:
            with settled():
                _rounds(
                    kept,
                    group.requests[workload],
                    repeats=found.spec.repeats,
                    pace=pace,
                    telling=telling,
                )
        finally:
            _compare_texts(kept, group)


def _rounds(
    kept: list[KeptArm], requests: list[Request], *, repeats: int, pace: Pace, telling: Telling
) -> None:
    """Prompt after prompt by all arms in turn; who begins moves on every time."""
    pace.begin([one.run.label for one in kept], rounds=repeats * len(requests))
    for repeat in range(repeats):
        for at, request in enumerate(requests):
            first = (repeat * len(requests) + at) % len(kept)
            for one in kept[first:] + kept[:first]:
                if one.run.error:
                    continue
                where = f"{one.run.workload}: prompt {at + 1} of {len(requests)}"
                round_ = f", repeat {repeat + 1} of {repeats}" if repeats > 1 else ""
                telling.progress("measure", f"{where}{round_}, {one.run.label}", pace.fraction)
                began = time.perf_counter()
                _decode(one, replace(request, repeat=repeat), telling.should_stop)
                pace.add(one.run.label, time.perf_counter() - began)
            for one in kept:
                one.recorder.flush()


def _decode(one: KeptArm, request: Request, should_stop: ShouldStop) -> None:
    """Decode and keep; an arm that fails is out, but nothing can be compared without plain."""
    one.recorder.request_started(request)
    try:
        one.keep(one.decoder.decode(request, should_stop))
    except DecodeError as error:
        one.run.error = str(error)
        if one.run.method == PLAIN:
            raise


@contextmanager
def settled() -> Iterator[None]:
    """Without the garbage of loading and compiling, which a collection would walk through."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _compare_texts(kept: list[KeptArm], group: Group) -> None:
    """Every output of every arm against plain decoding's first one, token by token."""
    plain = {request: one for (request, repeat), one in kept[0].records.items() if repeat == 0}
    for one in kept:
        one.run.why = why_not_comparable(one.run, greedy=group.site.sampling.greedy)
        if one.run.why:
            continue
        found: dict[int, Difference] = {}
        seen = set()
        for (request, _), record in sorted(one.records.items()):
            if request not in plain or request in found:
                continue
            seen.add(request)
            difference = judge(
                plain[request],
                record,
                target=group.site.pair.target,
                sampling=group.site.sampling,
            )
            if difference is not None:
                found[request] = difference
        one.run.compared, one.run.matched = len(seen), len(seen) - len(found)
        one.run.differences = list(found.values())


def why_not_comparable(run: ArmRun | Arm, *, greedy: bool) -> str:
    """Why an arm's tokens say nothing beside plain decoding's; empty where they do."""
    if run.method == DRAFT_ALONE:
        return "another model's text"
    if greedy:
        return ""
    if run.method in BASELINES:
        return "draws its own random numbers"
    if run.verify in LOSSY:
        return f"{run.verify} acceptance is lossy: it changes the output's law"
    if run.verify != "match":
        return f"rule {run.verify} keeps the distribution, not the tokens"
    return ""


def _describe(found: Comparison, group: Group) -> None:
    """What the group ran on and what it decodes; later groups of other dtypes add nothing."""
    if found.environment:
        return
    site, plain = group.site, group.decoders[0]
    workload = next(iter(group.requests))
    spec = run_spec(site, plain.arm, workload)
    found.environment = environment.describe(spec, **site.pair.as_models(), mode=plain.mode)
    for name, requests in group.requests.items():
        lengths = [len(request.prompt_ids) for request in requests]
        found.workloads[name] = {
            "requests": len(requests),
            "questions": len({request.question_id for request in requests}),
            "prompt_tokens": [min(lengths), max(lengths)],
            "categories": sorted({request.category for request in requests} - {""}),
        }


def _usable_dtypes(spec: CompareSpec, telling: Telling) -> list[str]:
    from engine.models import resolve_device

    device = resolve_device(spec.device)
    why = {dtype: why_unusable(dtype, device) for dtype in dict.fromkeys(spec.dtypes)}
    usable: list[str] = [dtype for dtype, reason in why.items() if not reason]
    reasons = [reason for reason in why.values() if reason]
    if not usable:
        raise UserError(" ".join(reasons))
    for reason in reasons:
        telling.note(f"Left out: {reason}")
    return usable
