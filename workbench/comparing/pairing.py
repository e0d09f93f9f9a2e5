"""What an arm and plain decoding of the same setting both decoded, request by request."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench import metrics
from workbench.comparing.result import ArmRun, Sample
from workbench.statistics import Interval, medians, paired_speedup

Key = tuple[int, int]  # request, repeat


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds of one request over its repeats."""

    prefill: list[int]
    decode: list[int]

    @property
    def whole(self) -> list[int]:
        """Prefill included."""
        return [prefill + decode for prefill, decode in zip(self.prefill, self.decode, strict=True)]


@dataclass(frozen=True, slots=True)
class Pairing:
    """An arm beside plain decoding. Lists go by request, in the order of their numbers."""

    samples: list[Sample]  # of the arm, all repeats
    first: list[Sample]  # of these, the first of each request
    mine: list[Times]
    base: list[Times]  # plain decoding's
    plain_step_ns: float

    @property
    def decode_ns_P(self) -> np.ndarray:
        """Of the arm: medians over the repeats."""
        return medians([times.decode for times in self.mine])

    @property
    def base_decode_ns_P(self) -> np.ndarray:
        """Of plain decoding."""
        return medians([times.decode for times in self.base])

    def speedup(self, seed: int) -> Interval:
        """Plain decoding's time over the arm's, without prefill."""
        return paired_speedup(self.base_decode_ns_P, self.decode_ns_P, seed=seed)

    def end_to_end(self, seed: int) -> Interval:
        """The same with prefill."""
        mine, base = (medians([times.whole for times in some]) for some in (self.mine, self.base))
        return paired_speedup(base, mine, seed=seed)


def paired(arm: ArmRun, plain: ArmRun) -> Pairing | None:
    """None where they share nothing: after a stop, one may be ahead of the other."""
    ours, theirs = _by_key(arm), _by_key(plain)
    keys = sorted(ours.keys() & theirs.keys())
    if not keys:
        return None
    requests = sorted({request for request, _ in keys})
    return Pairing(
        samples=[ours[key] for key in keys],
        first=[ours[min(key for key in keys if key[0] == request)] for request in requests],
        mine=[_times(ours, keys, request) for request in requests],
        base=[_times(theirs, keys, request) for request in requests],
        plain_step_ns=metrics.ratio(
            sum(theirs[key].decode_ns for key in keys), sum(theirs[key].steps for key in keys)
        ),
    )


def _times(samples: dict[Key, Sample], keys: list[Key], request: int) -> Times:
    own = [samples[key] for key in keys if key[0] == request]
    return Times([s.prefill_ns for s in own], [max(s.decode_ns, 1) for s in own])


def _by_key(arm: ArmRun) -> dict[Key, Sample]:
    return {(sample.request, sample.repeat): sample for sample in arm.samples}
