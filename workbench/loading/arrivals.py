"""When requests come, in seconds from the start: open-loop laws, each an endless stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workbench.loading.spec import LoadSpec


def open_loop(spec: LoadSpec, random: np.random.Generator) -> Iterator[float]:
    """Seconds of arrival in order; the mean rate is `spec.rate` under every law."""
    if spec.arrivals == "bursty":
        return gamma(spec.rate, spec.burstiness, random)
    if spec.arrivals == "on-off":
        return on_off(spec.rate, spec.on_s, spec.off_s, random)
    return poisson(spec.rate, random)


def poisson(rate: float, random: np.random.Generator) -> Iterator[float]:
    """A Poisson process: gaps are exponential with mean 1 / rate."""
    at = 0.0
    while True:
        at += random.exponential(1.0 / rate)
        yield at


def gamma(rate: float, burstiness: float, random: np.random.Generator) -> Iterator[float]:
    """Gaps of a gamma law of this shape and mean 1 / rate; below 1 they bunch, 1 is Poisson.

    Their coefficient of variation is 1 / sqrt(burstiness), as in vLLM's serving benchmark.
    """
    at = 0.0
    while True:
        at += random.gamma(burstiness, 1.0 / (rate * burstiness))
        yield at


def on_off(rate: float, on_s: float, off_s: float, random: np.random.Generator) -> Iterator[float]:
    """A Poisson process that runs for `on_s`, rests for `off_s`, and so on, beginning with on."""
    for busy in poisson(rate * (on_s + off_s) / on_s, random):
        yield busy + busy // on_s * off_s
