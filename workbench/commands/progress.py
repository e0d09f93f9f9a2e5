"""Progress of a comparison or a sweep in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from workbench.events import Event
from workbench.events import Progress as Said
from workbench.measuring import MEASURE


@contextmanager
def progress() -> Iterator[Callable[[Event], None]]:
    """A bar with the time left in a terminal; elsewhere a line for each phase."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from workbench.terminal import err, one_line, say

    if not err().is_terminal:
        phases: list[str] = []

        def tell(event: Event) -> None:
            if isinstance(event, Said) and [event.phase] != phases[-1:]:
                phases.append(event.phase)
                say(event.message)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(event: Event) -> None:
            if isinstance(event, Said):
                timed = event.phase == MEASURE
                bar.update(
                    task,
                    description=one_line(event.message, 90),
                    total=1.0 if timed else None,
                    completed=event.fraction if timed else None,
                )

        yield show
