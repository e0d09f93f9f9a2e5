"""Searching which sublayers of the target to skip: one yes or no for each attention and MLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.drafters.skip_sets import parse_set, set_text, starting_points
from engine.parts import Sublayer

if TYPE_CHECKING:
    import optuna


class Sublayers(NamedTuple):
    """Sets of sublayers, written as the option is typed. `num_layers` 0: not known yet."""

    name: str
    num_layers: int

    @property
    def size(self) -> int:
        """How many sets there are, the empty one left out: skipping nothing is plain decoding."""
        return max(4**self.num_layers - 1, 2)

    @property
    def starts(self) -> list[str]:
        """Sets that are known to be worth a try."""
        if not self.num_layers:
            return []
        return [set_text(one) for one in starting_points(self.num_layers).values()]

    def suggest(self, trial: optuna.Trial) -> str | None:
        """A set that the sampler wants tried; None where it chose nothing."""
        chosen = [
            one
            for label, one in self._all().items()
            if trial.suggest_categorical(label, (False, True))
        ]
        return set_text(chosen) if chosen else None

    def nearest(self, value: Any) -> str:
        """The set itself where it is one of this model, else the first known start."""
        if not self.num_layers:
            return str(value)
        known = parse_set(str(value))
        inside = known and all(layer < self.num_layers for _, layer in known)
        return set_text(known) if known and inside else self.starts[0]

    def params(self, value: str) -> dict[str, bool]:
        """What the sampler must answer for this set to be tried."""
        chosen = parse_set(value) or frozenset()
        return {label: one in chosen for label, one in self._all().items()}

    def _all(self) -> dict[str, Sublayer]:
        return {
            f"{kind[0]}{layer}": Sublayer(kind, layer)  # type: ignore[arg-type]
            for layer in range(self.num_layers)
            for kind in ("attention", "mlp")
        }

    def __str__(self) -> str:
        return "any set of sublayers"
