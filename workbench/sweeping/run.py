"""Measuring a sweep: part after part, each a comparison with plain decoding in it.

A part that was cut short does not count: its cells are measured again when the sweep goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.errors import UserError
from workbench.compare import compare
from workbench.comparing.arms import BASELINES, Arm, check_options, parse_arm
from workbench.comparing.result import Comparison
from workbench.events import Event, MeasuringStarted, Progress
from workbench.measuring import MEASURE
from workbench.store.index import now_iso, prepare_folder
from workbench.sweeping.keeping import Sweep, begin, save_sweep
from workbench.sweeping.spec import SweepSpec

Compare = Callable[..., Comparison]


def sweep(
    spec: SweepSpec,
    emit: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    runs: Path | None = None,
    fresh: bool = False,
    measure: Compare = compare,
) -> Sweep:
    """Measure the cells that are not measured yet; `fresh` begins anew. Stopped, it can go on.

    Raises:
        UserError: wrong input, or a sweep of this name that this one cannot go on with.
        DecodeError: plain decoding itself failed.
    """
    cells = spec.cells()
    _check([parse_arm(label) for label in cells])
    folder = prepare_folder(runs)
    found = begin(spec, folder, fresh=fresh)
    emit(MeasuringStarted(spec.name))
    done = len(cells) - len(found.left)
    status = "failed"
    try:
        for part in _parts(found.left, spec.together):
            one = measure(
                spec.part(part),
                _within(emit, done, len(part), len(cells)),
                should_stop,
                runs=folder,
                command=f"draftree sweep {spec.name}.json",
                sweep=spec.name,
            )
            if one.status != "finished":
                status = "cancelled"
                break
            _take(found, one, part)
            save_sweep(found, folder)
            done += len(part)
        else:
            status = "finished"
    finally:
        found.status, found.finished = status, now_iso()
        save_sweep(found, folder)
    return found


def _take(found: Sweep, one: Comparison, part: list[str]) -> None:
    """A finished part: its cells are done, except arms that broke off or were left out."""
    errors = {arm.label: arm.error for arm in one.arms if arm.error}
    measured = {arm.label for arm in one.arms if arm.samples and not arm.error}
    for label in part:
        if label in measured:
            found.cells[label] = one.comparison_id
        else:
            found.failed[label] = errors.get(label) or "It was left out."
    found.notes += [note for note in one.notes if note not in found.notes]


def _parts(labels: list[str], size: int) -> Iterator[list[str]]:
    """Labels in parts of about `size`, all nearly alike in length."""
    count = -(-len(labels) // size)
    for at in range(count):
        yield labels[at * len(labels) // count : (at + 1) * len(labels) // count]


def _within(
    emit: Callable[[Event], None], done: int, size: int, total: int
) -> Callable[[Event], None]:
    """Tells of a part as of a piece of the whole."""
    which = f"cell {done + 1}" if size == 1 else f"cells {done + 1} to {done + size}"

    def take(event: Event) -> None:
        if isinstance(event, MeasuringStarted):
            return
        if isinstance(event, Progress):
            fraction = event.fraction
            if event.phase == MEASURE and fraction is not None:
                fraction = (done + fraction * size) / total
            message = f"{which} of {total}: {event.message}"
            event = Progress(event.phase, message[0].upper() + message[1:], fraction)
        emit(event)

    return take


def _check(arms: list[Arm]) -> None:
    """Find shapes that are malformed before hours are spent. Raises UserError."""
    from engine.registry import METHODS

    for arm in arms:
        if arm.method not in BASELINES:
            METHODS[arm.method].max_nodes(check_options(arm.method, arm.options))
    if not any(arm.method not in BASELINES for arm in arms):
        raise UserError("The sweep names no method; give methods with options that are lists.")
