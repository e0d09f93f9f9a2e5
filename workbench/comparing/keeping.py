"""Each arm as a run of its own in the store, written between timed requests, never during one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from engine.records import RequestRecord, StepRecord
from workbench import environment
from workbench.comparing.decoders import (
    Decoded,
    Decoder,
    EngineDecoder,
    StoppedError,
    add_totals,
)
from workbench.comparing.prepare import Group, run_spec
from workbench.comparing.result import ArmRun, Sample
from workbench.events import Event, RunFinished
from workbench.spec import RunSpec
from workbench.steptext import StepTexts
from workbench.store.schema import RunStatus
from workbench.store.writer import Recorder

_NEVER_S = 1e9


class QuietRecorder(Recorder):
    """Writes when told to and at the end, so that no thread works while something is timed."""

    def __init__(self, spec: RunSpec, **settings: Any) -> None:
        super().__init__(spec.model_dump(mode="json"), flush_s=_NEVER_S, **settings)


class SoleReaderTexts(StepTexts):
    """Texts for the recorder alone: nobody else will ask, so nothing is kept for them."""

    def emitted(self, record: StepRecord) -> list[str]:
        """The text each emitted token adds."""
        text = super().emitted(record)
        self._waiting.clear()
        return text


@dataclass(slots=True)
class KeptArm:
    """An arm on one workload while it is measured."""

    run: ArmRun
    decoder: Decoder
    recorder: QuietRecorder
    records: dict[tuple[int, int], RequestRecord] = field(default_factory=dict)  # request, repeat
    num_steps: int = 0
    _without_steps: list[Decoded] = field(default_factory=list)

    def keep(self, decoded: Decoded) -> None:
        """Keep a request that was decoded in full."""
        repeat = decoded.record.repeat
        before = self.num_steps
        self.recorder.lanes(lane._replace(step=lane.step + before) for lane in decoded.lanes)
        for step in decoded.steps:
            step.tree.draft_probs = {}  # large, and not stored
            step.batch_step = self.num_steps  # the engine counts warm-ups and other workloads too
            self.num_steps += 1
            self.recorder.append(step, repeat)
        self.recorder.request_done(decoded.record)
        if not decoded.steps:
            self._without_steps.append(decoded)
        self.records[decoded.record.request, repeat] = decoded.record
        self.run.samples.append(Sample.of(decoded.record))

    def add_totals(self) -> None:
        """Complete the summary of an arm that shows no steps."""
        for decoded in self._without_steps:
            add_totals(self.recorder.summary, decoded)


@contextmanager
def keeping(
    group: Group, workload: str, *, comparison: str, folder: Path, emit: Callable[[Event], None]
) -> Iterator[list[KeptArm]]:
    """Runs for all arms of a group, closed with the status that fits whatever happens."""
    plain_step_ns = group.plain_step_ns(workload)
    kept: list[KeptArm] = []
    status, message = RunStatus.FAILED, ""
    try:
        for decoder in group.decoders:
            kept.append(_open(group, decoder, workload, comparison, folder, plain_step_ns))
        yield kept
        status = RunStatus.FINISHED
    except (StoppedError, KeyboardInterrupt):
        status = RunStatus.CANCELLED
        raise
    except Exception as error:
        message = str(error)
        raise
    finally:
        for one in kept:
            _close(one, status, message, emit)


def _open(
    group: Group,
    decoder: Decoder,
    workload: str,
    comparison: str,
    folder: Path,
    plain_step_ns: int | None,
) -> KeptArm:
    from engine.text import IncrementalText, visible_piece

    site, arm = group.site, decoder.arm
    spec = run_spec(site, arm, workload).model_copy(update={"comparison": comparison})
    tokenizer = site.pair.target.tokenizer
    texts = SoleReaderTexts(
        piece=partial(visible_piece, tokenizer), incremental=partial(IncrementalText, tokenizer)
    )
    recorder = QuietRecorder(spec, folder=folder, texts=texts)
    known = environment.describe(spec, **site.pair_of(arm).as_models(), mode=decoder.mode)
    if decoder.setting:
        known["setting"] = decoder.setting
    if isinstance(decoder, EngineDecoder) and decoder.engine.parallel is not None:
        known["parallel"] = decoder.engine.parallel.description
    recorder.begin(mode=decoder.mode, plain_step_ns=plain_step_ns, environment=known)
    run = ArmRun(
        label=arm.label,
        method=arm.method,
        options=arm.options,
        verify=arm.verify,
        dtype=site.setting.dtype,
        cache=site.setting.cache,
        execution=site.setting.execution,
        workload=workload,
        mode=decoder.mode,
        run_id=recorder.run_id,
        setting=decoder.setting,
    )
    return KeptArm(run, decoder, recorder)


def _close(one: KeptArm, status: RunStatus, message: str, emit: Callable[[Event], None]) -> None:
    one.recorder.flush()
    one.add_totals()
    if one.run.error:
        status, message = RunStatus.FAILED, one.run.error
    status = one.recorder.finish(status, message)
    one.run.error = one.run.error or one.recorder.error or ""
    one.run.summary = one.recorder.summary.as_json()
    emit(RunFinished(one.run.run_id, str(status), one.recorder.summary, message))
