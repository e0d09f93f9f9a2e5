"""Mixes of lengths and times as people write them: `64`, `uniform:16-128`, `lognormal:64:0.5`.

One grammar serves prompts, answers, waits and deadlines. A draw depends on the generator that it is
given and on nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: lengths as the workload has them: prompts whole, answers until the model ends them
WORKLOAD = "workload"
GRAMMAR = "a number, uniform:LOW-HIGH or lognormal:MEDIAN:SIGMA"


@dataclass(frozen=True, slots=True)
class Mix:
    """A law of positive numbers. `low` and `high` are its bounds, or its median and sigma."""

    kind: Literal["fixed", "uniform", "lognormal"]
    low: float
    high: float = 0.0

    def draw(self, random: np.random.Generator) -> float:
        """One number."""
        if self.kind == "uniform":
            return float(random.uniform(self.low, self.high))
        if self.kind == "lognormal":
            return float(self.low * math.exp(self.high * random.standard_normal()))
        return self.low

    def draw_count(self, random: np.random.Generator, *, most: int) -> int:
        """One whole number from 1 to `most`; ends of a uniform mix are as likely as the rest."""
        if self.kind == "uniform":
            found = int(random.integers(round(self.low), round(self.high) + 1))
        else:
            found = round(self.draw(random))
        return min(max(1, found), most)

    @property
    def typical(self) -> float:
        """Its median."""
        return (self.low + self.high) / 2 if self.kind == "uniform" else self.low


def parse_mix(text: str) -> Mix:
    """The mix that a text names. Raises ValueError with what would be right."""
    kind, _, rest = str(text).strip().partition(":")
    try:
        if kind == "uniform":
            low, dash, high = rest.partition("-")
            mix = Mix("uniform", float(low), float(high)) if dash else None
        elif kind == "lognormal":
            median, _, sigma = rest.partition(":")
            mix = Mix("lognormal", float(median), float(sigma or 0.5))
        else:
            mix = Mix("fixed", float(text))
    except ValueError:
        mix = None
    if mix is None:
        raise ValueError(GRAMMAR)
    numbers = (mix.low, mix.high)
    if not all(map(math.isfinite, numbers)) or mix.low <= 0 or mix.high < 0:
        raise ValueError(f"{GRAMMAR}, with numbers above 0")
    if mix.kind == "uniform" and mix.high < mix.low:
        raise ValueError("uniform:LOW-HIGH with LOW not above HIGH")
    return mix
