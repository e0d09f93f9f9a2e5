"""What a comparison says while it works, and whether it was asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from workbench.comparing.decoders import ShouldStop, StoppedError
from workbench.events import Event, Progress


@dataclass(slots=True)
class Telling:
    """Hands on progress and gathers notes: sentences about what was left out or chosen."""

    emit: Callable[[Event], None]
    should_stop: ShouldStop
    notes: list[str] = field(default_factory=list)

    def progress(self, phase: str, message: str, fraction: float | None = None) -> None:
        """Say what goes on. Raises StoppedError where stop was asked for."""
        if self.should_stop():
            raise StoppedError
        self.emit(Progress(phase, message, fraction))

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


class Pace:
    """How much of the whole is done, in time: arms differ, so each is given its own pace."""

    def __init__(self, parts: int) -> None:
        """`parts`: workloads times groups, taken to be alike."""
        self._parts, self._part = parts, -1
        self._spent: dict[str, list[float]] = {}
        self._rounds = 0

    def begin(self, labels: Sequence[str], *, rounds: int) -> None:
        """A part begins: every arm will be timed `rounds` times."""
        self._part += 1
        self._spent = {label: [] for label in labels}
        self._rounds = rounds

    def add(self, label: str, seconds: float) -> None:
        """An arm was timed."""
        self._spent[label].append(seconds)

    @property
    def fraction(self) -> float:
        """Share of the whole that is done, 0 to 1."""
        known = [sum(spent) / len(spent) for spent in self._spent.values() if spent]
        usual = sum(known) / len(known) if known else 1.0
        done = sum(sum(spent) for spent in self._spent.values())
        left = 0.0
        for spent in self._spent.values():
            pace = sum(spent) / len(spent) if spent else usual
            left += pace * (self._rounds - len(spent))
        within = done / (done + left) if done + left else 0.0
        return min(1.0, (self._part + within) / self._parts)
