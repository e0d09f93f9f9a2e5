"""What a worker can be asked to do: a run, a load run, a comparison, a sweep, a study, a training.

The page's process imports this to name and send jobs; engines are imported when one is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import DecodeError
from workbench.comparing.expand import expand
from workbench.comparing.result import CompareSpec
from workbench.events import Event, MeasuringFinished
from workbench.loading.spec import LoadSpec
from workbench.spec import RunSpec
from workbench.sweeping.spec import SweepSpec
from workbench.training.spec import TrainSpec
from workbench.tuning.spec import TuneSpec

RUN, LOAD, COMPARE, SWEEP, TUNE, TRAIN = "run", "load", "compare", "sweep", "tune", "train"
KINDS: dict[str, type[RunSpec] | type[CompareSpec] | type[TrainSpec]] = {
    RUN: RunSpec,
    LOAD: LoadSpec,
    COMPARE: CompareSpec,
    SWEEP: SweepSpec,
    TUNE: TuneSpec,
    TRAIN: TrainSpec,
}

#: a load's is a kind of run's, a sweep's and a study's are kinds of comparison's
Spec = RunSpec | CompareSpec | TrainSpec


def kind_of(spec: Spec) -> str:
    """The kind of job that does this spec."""
    return next(kind for kind, known in KINDS.items() if type(spec) is known)


def under_way(spec: Spec) -> str:
    """A job in words that begin a sentence: "A comparison of 3 arms on code is under way"."""
    if isinstance(spec, SweepSpec):
        return f"The sweep {spec.name} is under way"
    if isinstance(spec, TuneSpec):
        return f"The study {spec.name} is under way"
    if isinstance(spec, CompareSpec):
        arms = len(expand(spec.methods))
        many = "1 arm" if arms == 1 else f"{arms} arms"
        return f"A comparison of {many} on {_listed(spec.workloads)} is under way"
    if isinstance(spec, TrainSpec):
        return f"The training {spec.name} is under way"
    what = "load run" if isinstance(spec, LoadSpec) else "run"
    return f"A {what} of {spec.method} is under way"


def execute(
    spec: Spec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    *,
    runs: Path | None = None,
) -> None:
    """Do a job of any kind; the last event says how it ended.

    Raises:
        UserError: wrong input, found before anything was done.
    """
    if isinstance(spec, LoadSpec):
        from workbench.loading.run import execute as load

        load(spec, emit, should_stop, runs=runs)
        return
    if isinstance(spec, RunSpec):
        from workbench.job import execute as run

        run(spec, emit, should_stop, runs=runs)
        return
    try:
        if isinstance(spec, TrainSpec):
            from workbench.training.run import train

            emit(train(spec, emit, should_stop, runs=runs))
            return
        emit(_DO[kind_of(spec)](spec, emit, should_stop, runs))
    except DecodeError as error:
        emit(MeasuringFinished("", "failed", str(error)))


def _compare(
    spec: CompareSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    runs: Path | None,
) -> MeasuringFinished:
    from workbench.compare import compare
    from workbench.report.again import compare_command

    found = compare(spec, emit, should_stop, runs=runs, command=compare_command(spec))
    kept = any(arm.samples for arm in found.arms)
    return MeasuringFinished(found.comparison_id if kept else "", found.status)


def _sweep(
    spec: CompareSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    runs: Path | None,
) -> MeasuringFinished:
    from workbench.sweeping.run import sweep

    assert isinstance(spec, SweepSpec)
    found = sweep(spec, emit, should_stop, runs=runs)
    return MeasuringFinished(found.spec.name, found.status)


def _tune(
    spec: CompareSpec,
    emit: Callable[[Event], None],
    should_stop: Callable[[], bool],
    runs: Path | None,
) -> MeasuringFinished:
    from workbench.tuning.run import tune

    assert isinstance(spec, TuneSpec)
    found = tune(spec, emit, should_stop, runs=runs)
    return MeasuringFinished(found.spec.name if found.trials else "", found.status)


_DO = {COMPARE: _compare, SWEEP: _sweep, TUNE: _tune}


def _listed(words: Sequence[str]) -> str:
    names = [Path(word).name for word in words]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
