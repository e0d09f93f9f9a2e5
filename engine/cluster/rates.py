"""What a replica's steps teach about its speed, and from that when a request would be done there.

Every figure is learned from `TickRow`s and prefills as they run, older ones fading; before there is
one, the fleet's figures stand in, and before any, a token counts as one unit of time: then the
replica with the least work ahead is the one that is predicted to finish first.
"""

from __future__ import annotations

from dataclasses import dataclass

#: weight that a step keeps per later step: the last hundred or so decide
_FADE = 0.98
#: a slope needs this much spread of batch sizes (variance, in requests squared)
_LEAST_SPREAD = 0.05


@dataclass(slots=True)
class Rates:
    """Learned speed of one replica, or of a fleet. Times are nanoseconds."""

    # weighted sums over steps: weight, requests, time, and their products
    _w: float = 0.0
    _a: float = 0.0
    _t: float = 0.0
    _aa: float = 0.0
    _at: float = 0.0
    _kept: float = 0.0
    _prompt: float = 0.0
    _prefill_ns: float = 0.0

    @property
    def known(self) -> bool:
        """Whether a step was seen."""
        return self._w > 0.0 and self._kept > 0.0

    def note_step(self, active: int, duration_ns: int, kept: int) -> None:
        """A step of `active` requests, all of whose kept tokens were `kept`."""
        for name in ("_w", "_a", "_t", "_aa", "_at", "_kept"):
            setattr(self, name, _FADE * getattr(self, name))
        self._w += 1.0
        self._a += active
        self._t += duration_ns
        self._aa += active * active
        self._at += active * duration_ns
        self._kept += kept

    def note_prefill(self, num_prompt: int, duration_ns: int) -> None:
        """A prompt of so many tokens was prefilled."""
        self._prompt = _FADE * self._prompt + num_prompt
        self._prefill_ns = _FADE * self._prefill_ns + duration_ns

    @property
    def prefill_ns(self) -> float:
        """Time per prompt token, 0 where none was prefilled yet."""
        return self._prefill_ns / self._prompt if self._prompt else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Kept tokens of one request's share of a step."""
        return self._kept / self._a if self.known else 1.0

    def step_ns(self, active: float) -> float:
        """Time of a step of so many requests: a line through the steps seen, never falling."""
        if not self.known:
            return 1.0
        mean_a, mean_t = self._a / self._w, self._t / self._w
        spread = self._aa / self._w - mean_a * mean_a
        slope = 0.0
        if spread > _LEAST_SPREAD:
            slope = max(0.0, (self._at / self._w - mean_a * mean_t) / spread)
        # a line that starts below nothing: steps then cost in proportion to their requests
        slope = min(slope, mean_t / mean_a)
        return mean_t + slope * (active - mean_a)

    def token_ns(self, active: float) -> float:
        """Time for one token of one request in a batch of so many."""
        return self.step_ns(active) / self.tokens_per_step


def finish_ns(
    rates: Rates, *, slots: int, requests: int, tokens: float, prompts: int, own: float, prompt: int
) -> float:
    """Time until a request would be done behind those that a replica already has.

    rates: learned speed.
    slots: requests that it decodes together.
    requests: that it has, under way or waiting.
    tokens: that those are still expected to emit.
    prompts: prompt tokens of those that are not prefilled yet.
    own, prompt: tokens that the request is expected to emit, and of its prompt.

    Where no slot is free, all but `slots - 1` of the requests ahead must end first; that share of
    their tokens comes at the rate of a full batch. Prefills hold up the whole batch, so all count.
    """
    beside = min(requests + 1, slots)
    wait = 0.0
    if requests >= slots:
        share = (requests - slots + 1) / requests
        wait = share * tokens * rates.token_ns(slots) / slots
    return wait + (prompts + prompt) * rates.prefill_ns + own * rates.token_ns(beside)
