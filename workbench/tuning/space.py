"""What a search varies: ranges and choices, derived from what a method declares of its options.

Declared bounds say what is possible (`nodes` up to 255), not what is worth a look: an option is
searched up to four times its default, on a logarithmic scale where that is wide. Common options,
text and those a method excepts stay at their defaults unless they are named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import UserError
from engine.options import SUBLAYERS, OptionInfo
from workbench.comparing.expand import values_of
from workbench.tuning.sublayers import Sublayers

if TYPE_CHECKING:
    import optuna

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
#: an option is searched up to so many times its default, and up to `_FROM_ZERO` where that is 0
_TIMES, _FROM_ZERO = 4, 8
#: whole numbers from 1 up over a range so wide are taken on a logarithmic scale
_WIDE = 8
#: defaults above this are not searched down to the smallest value allowed
_LARGE = 32


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included."""

    name: str
    low: float
    high: float
    step: float  # 1 for whole numbers
    log: bool = False  # whole numbers only

    @property
    def whole(self) -> bool:
        """Whether only whole numbers count."""
        return self.step == 1

    @property
    def size(self) -> int:
        """How many values there are."""
        return 1 + round((self.high - self.low) / self.step)

    @property
    def starts(self) -> list[Any]:
        """None is known to be worth a try before others."""
        return []

    def params(self, value: Any) -> dict[str, Any]:
        """What the sampler must answer for this value to be tried."""
        return {self.name: value}

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value that the sampler wants tried."""
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return rounded(trial.suggest_float(self.name, self.low, self.high, step=self.step))

    def nearest(self, value: Any) -> Any:
        """The value of the range that is nearest to `value`."""
        place = round((min(max(value, self.low), self.high) - self.low) / self.step)
        found = self.low + place * self.step
        return int(found) if self.whole else rounded(found)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


class Choice(NamedTuple):
    """One of some values."""

    name: str
    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def starts(self) -> list[Any]:
        """None is known to be worth a try before others."""
        return []

    def params(self, value: Any) -> dict[str, Any]:
        """What the sampler must answer for this value to be tried."""
        return {self.name: value}

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value that the sampler wants tried."""
        return trial.suggest_categorical(self.name, self.values)

    def nearest(self, value: Any) -> Any:
        """`value` where it is one of the choices, else the first of them."""
        return value if value in self.values else self.values[0]

    def __str__(self) -> str:
        words = {True: "on", False: "off"}
        return ", ".join(
            words.get(v, str(v)) if isinstance(v, bool) else str(v) for v in self.values
        )


Dimension = Range | Choice | Sublayers


def derive(
    method: str,
    *,
    fix: Mapping[str, Any] | None = None,
    space: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
    num_layers: int = 0,
) -> list[Dimension]:
    """What a search of `method` varies.

    `fix` holds options that stay as they are, `space` ranges and lists as typed (`4..32`,
    `[a,b]`), `only` the names of all that is to vary besides those of `space`. `num_layers` is the
    target's, for a method that `needs_layers`; 0: only to be told of.

    Raises:
        UserError: an unknown option, a value the method does not take, or nothing left to vary.
    """
    from engine.registry import describe, parse_options

    infos = {info.name: info for info in describe(method)}
    fixed, typed, named = _named(fix or {}), _named(space or {}), [_name(one) for one in only]
    for name in [*typed, *named]:
        if name not in infos:
            known = ", ".join(infos) or "none"
            raise UserError(f"{method} has no option {name!r}; it has: {known}.")
        if name in fixed:
            raise UserError(f"Option {name} is both fixed and to be searched; give it one of them.")
    parse_options(method, dict(fixed))
    settled = {  # what governs others and is not searched itself
        name: info.default
        for name, info in infos.items()
        if name not in [*named, *typed] and (named or not info.tune)
    } | fixed
    found: list[Dimension] = []
    for name, info in infos.items():
        if name in fixed:
            continue
        if not info.matters(settled):
            if name in typed or name in named:
                (governing, values), *_ = info.where.items()
                raise UserError(
                    f"Option {name} of {method} matters only where {governing} is "
                    f"{' or '.join(values)}: --fix {governing}={values[0]}."
                )
            continue
        if name in typed:
            found.append(_typed(method, info, typed[name]))
        elif name in named or (not named and info.tune):
            derived = _derived(info, num_layers)
            if derived is None and name in named:
                raise UserError(
                    f"Option {name} of {method} is text, which has no range; say what to try: "
                    f"--space {name}=[a|b]."
                )
            found += [derived] if derived is not None else []
    found = [dimension for dimension in found if dimension.size > 1]
    if not found:
        reason = "has no option to search" if not infos else "has nothing left to vary"
        raise UserError(f"{method} {reason}; give --space NAME=LOW..HIGH, or another method.")
    return found


def suggest(
    trial: optuna.Trial, method: str, space: Iterable[Dimension], fix: Mapping[str, Any]
) -> dict[str, Any] | None:
    """A point that the sampler wants tried, without the options that do not matter in it.

    None where what it wants is none.
    """
    from engine.registry import describe

    infos = {info.name: info for info in describe(method)}
    values = {name: info.default for name, info in infos.items()} | _named(fix)
    point: dict[str, Any] = {}
    for one in space:
        if infos[one.name].matters(values | point):
            point[one.name] = one.suggest(trial)
    return None if None in point.values() else point


def first_points(
    method: str, space: Sequence[Dimension], fix: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Where a search begins, as the sampler's answers: the defaults, then known good starts."""
    usual = defaults(method, space, fix)
    starts = [usual | {one.name: start} for one in space for start in one.starts]
    points: list[dict[str, Any]] = []
    for values in [usual, *starts]:
        point = {k: v for one in space for k, v in one.params(values[one.name]).items()}
        if point not in points:
            points.append(point)
    return points


def needs_layers(method: str) -> bool:
    """Whether a search of this method must know how many layers the target has."""
    from engine.registry import describe

    return any(info.tune == SUBLAYERS for info in describe(method))


def num_points(space: Iterable[Dimension]) -> int:
    """How many combinations there are at most."""
    return math.prod(dimension.size for dimension in space)


def defaults(method: str, space: Iterable[Dimension], fix: Mapping[str, Any]) -> dict[str, Any]:
    """The point of the space that is nearest to the method's defaults."""
    from engine.registry import parse_options

    options = parse_options(method, dict(fix))
    return {one.name: one.nearest(getattr(options, one.name)) for one in space}


def rounded(value: float) -> float:
    """Without the dust of adding steps up."""
    return round(value, 6)


def _derived(info: OptionInfo, num_layers: int) -> Dimension | None:
    if info.tune == SUBLAYERS:
        return Sublayers(info.name, num_layers)
    if info.choices:
        return Choice(info.name, info.choices)
    if isinstance(info.tune, tuple):
        return Choice(info.name, info.tune)
    if info.type == "bool":
        return Choice(info.name, (False, True))
    if info.type not in ("int", "float") or info.default is None:
        return None
    high = _TIMES * info.default if info.default > 0 else _FROM_ZERO
    high = high if info.max is None else min(high, info.max)
    low = info.min if info.min is not None else min(0, info.default)
    if info.type == "int":
        low = low if info.default <= _LARGE else max(low, info.default // _WIDE)
        return _whole(info.name, math.ceil(low), math.floor(high))
    return _real(info.name, float(low), float(high))


def _typed(method: str, info: OptionInfo, text: str) -> Dimension:
    """What was typed for an option, each value checked as the method checks it."""
    from engine.registry import parse_options

    def checked(value: str) -> Any:
        return getattr(parse_options(method, {info.name: value.strip()}), info.name)

    text = text.strip()
    ends = _RANGE.fullmatch(text)
    if ends is None:
        listed = values_of(text, info.name, method) if text.startswith("[") else [text]
        return Choice(info.name, tuple(dict.fromkeys(checked(value) for value in listed)))
    if info.type not in ("int", "float"):
        raise UserError(
            f"Option {info.name} of {method} is no number, and has no range {text}; list what to "
            f"try: --space {info.name}=[a,b]."
        )
    low, high = checked(ends[1]), checked(ends[2])
    if low > high:
        raise UserError(f"The range of {info.name} is {text}; write the smaller number first.")
    if info.type == "int":
        return _whole(info.name, low, high)
    return _real(info.name, low, high)


def _whole(name: str, low: float, high: float) -> Range:
    high = max(low, high)
    return Range(name, low, high, 1, log=low >= 1 and high / low >= _WIDE)


def _real(name: str, low: float, high: float) -> Range:
    if high <= low:
        return Range(name, low, low, 0.1)
    step = 10.0 ** math.floor(math.log10((high - low) / 20))
    return Range(name, low, rounded(low + math.floor((high - low) / step + 1e-9) * step), step)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {_name(name): value for name, value in values.items()}


def _name(text: str) -> str:
    return text.strip().replace("-", "_")
