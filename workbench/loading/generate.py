"""The requests of a load run, as they come and as their clients give them up.

Driven by whoever has the clock, real or simulated: `due`, `cancels` and `ended` are told the time.
What a request is depends on the seed and its index alone, never on when it was asked or who was
quick; so its tokens are the same under every load.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import UserError
from workbench.loading.arrivals import open_loop
from workbench.loading.mixes import WORKLOAD, parse_mix
from workbench.loading.spec import LoadSpec
from workbench.loading.trace_file import Line

_NS = 1_000_000_000
#: streams of randomness: what is drawn for one never shifts another
_ARRIVALS, _PROMPT, _ANSWER, _CANCEL, _DEADLINE, _CLIENT, _PAIR, _THINK = range(8)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request before its prompt is made. Times are nanoseconds on the scheduler's clock."""

    index: int
    arrival_ns: int
    client: str
    pair: str
    max_new_tokens: int
    num_prompt: int | None = None  # None: as long as the workload's
    prompt: str | None = None
    question: str | None = None  # its id; None: the next one of the workload
    deadline_ns: int | None = None
    timeout_ns: int | None = None
    cancel_ns: int | None = None


class Source:
    """Says what is due. One thread uses it."""

    def __init__(
        self, spec: LoadSpec, *, trace: Sequence[Line] = (), most_prompt: int = 1 << 30
    ) -> None:
        """`trace` holds the lines of `spec.trace`; no drawn prompt is longer than `most_prompt`.

        Raises UserError for lines that name a pair that is not there.
        """
        self._spec, self._most_prompt = spec, most_prompt
        self._pairs = [pair.name for pair in spec.pair_specs]
        self._lines = list(trace)[: spec.requests]
        self._check_pairs()
        self._issued = 0
        self._cancels: list[tuple[int, int]] = []  # heap of (when, request)
        self._live: set[int] = set()
        self._who: dict[int, int] = {}  # of a closed loop: request -> number of its client
        self._coming: Iterator[tuple[int, int]] = iter(())  # open loop: (when, index)
        self._ready: list[tuple[int, int]] = []  # heap of (when, client), or the next arrival
        if spec.arrivals == "closed":
            self._ready = [(self._think(client, 0), client) for client in range(spec.clients)]
            heapq.heapify(self._ready)
            self._thoughts = dict.fromkeys(range(spec.clients), 1)
        else:
            self._coming = self._open()
            self._advance()

    # -- what is left --------------------------------------------------------------------------

    @property
    def issued(self) -> int:
        """Requests that have come."""
        return self._issued

    @property
    def total(self) -> int | None:
        """Requests that will have come in the end, None where a clock decides."""
        if self._spec.arrivals == "trace":
            return len(self._lines) if self._spec.duration_s is None else None
        return self._spec.requests if self._spec.duration_s is None else None

    @property
    def exhausted(self) -> bool:
        """Whether no more requests will come, whatever ends."""
        if self._spec.arrivals != "closed":
            return not self._ready
        return self._full() or (not self._ready and not self._who)

    def next_ns(self) -> int | None:
        """When `due` or `cancels` will give something next, None while only an end can bring it."""
        coming = [] if self._spec.arrivals == "closed" and self._full() else self._ready[:1]
        return min((when for when, _ in [*coming, *self._cancels[:1]]), default=None)

    # -- what happens --------------------------------------------------------------------------

    def due(self, now_ns: int) -> list[Wanted]:
        """Requests that have come by now, each with the time at which it came."""
        found = []
        while self._ready and self._ready[0][0] <= now_ns:
            if self._spec.arrivals == "closed":
                if self._full():
                    break
                when, client = heapq.heappop(self._ready)
                one = self._closed_request(when, client)
                if one is None:
                    continue
            else:
                when, index = self._ready.pop()
                one = self._request(index, when)
                self._advance()
            found.append(one)
            self._issued += 1
            self._live.add(one.index)
            if one.cancel_ns is not None:
                heapq.heappush(self._cancels, (one.cancel_ns, one.index))
        return found

    def cancels(self, now_ns: int) -> list[int]:
        """Requests whose clients have given up by now and that have not ended."""
        found = []
        while self._cancels and self._cancels[0][0] <= now_ns:
            _, index = heapq.heappop(self._cancels)
            if index in self._live:
                found.append(index)
        return found

    def ended(self, index: int, now_ns: int) -> None:
        """A request has ended, or was refused: in a closed loop its client thinks, and asks."""
        self._live.discard(index)
        client = self._who.pop(index, None)
        if client is not None:
            thought = self._thoughts[client]
            self._thoughts[client] += 1
            heapq.heappush(self._ready, (now_ns + self._think(client, thought), client))

    # -- inside --------------------------------------------------------------------------------

    def _full(self) -> bool:
        return self._spec.requests is not None and self._issued >= self._spec.requests

    def _random(self, stream: int, *keys: int) -> np.random.Generator:
        return np.random.default_rng([self._spec.seed % (1 << 63), stream, *keys])

    def _open(self) -> Iterator[tuple[int, int]]:
        spec = self._spec
        if spec.arrivals == "trace":
            times = [
                (round(line.arrival / spec.trace_speed * _NS), index)
                for index, line in enumerate(self._lines)
            ]
            times.sort(key=lambda one: one[0])  # stable: equal ones as in the file
            coming: Iterator[tuple[int, int]] = iter(times)
        else:
            seconds = open_loop(spec, self._random(_ARRIVALS))
            coming = ((round(at * _NS), index) for index, at in enumerate(seconds))
        for when, index in coming:
            if spec.duration_s is not None and when >= spec.duration_s * _NS:
                return
            if spec.arrivals != "trace" and spec.requests is not None and index >= spec.requests:
                return
            yield when, index

    def _advance(self) -> None:
        self._ready = [one for one in [next(self._coming, None)] if one is not None]

    def _think(self, client: int, thought: int) -> int:
        return round(
            parse_mix(self._spec.think_s).draw(self._random(_THINK, client, thought)) * _NS
        )

    def _closed_request(self, when: int, client: int) -> Wanted | None:
        """The next request of a client; None once the time for new ones is over."""
        if self._spec.duration_s is not None and when >= self._spec.duration_s * _NS:
            return None
        one = self._request(self._issued, when, client=client)
        self._who[one.index] = client
        return one

    def _request(self, index: int, when: int, *, client: int | None = None) -> Wanted:
        spec = self._spec
        line = self._lines[index] if spec.arrivals == "trace" else None
        after = {
            name: None if seconds is None else when + round(seconds * _NS)
            for name, seconds in self._seconds_after(index, line).items()
        }
        number = self._client(index) if client is None else client
        return Wanted(
            index=index,
            arrival_ns=when,
            client=(line and line.client) or f"client-{number + 1}",
            pair=(line and line.pair) or self._pair(index),
            max_new_tokens=(line and line.max_new_tokens) or self._answer(index),
            num_prompt=self._num_prompt(index, line),
            prompt=None if line is None else line.prompt,
            question=None if line is None else line.question,
            deadline_ns=after["deadline"],
            timeout_ns=after["timeout"],
            cancel_ns=after["cancel"],
        )

    def _seconds_after(self, index: int, line: Line | None) -> dict[str, float | None]:
        """Deadline, timeout and cancel in seconds after arrival; a line's own come first."""
        spec = self._spec
        deadline = cancel = None
        if spec.deadline_s is not None:
            deadline = parse_mix(spec.deadline_s).draw(self._random(_DEADLINE, index))
        if spec.cancel_fraction:
            random = self._random(_CANCEL, index)
            if random.random() < spec.cancel_fraction:
                cancel = parse_mix(spec.cancel_after_s).draw(random)
        usual = {"deadline": deadline, "timeout": spec.timeout_s, "cancel": cancel}
        if line is None:
            return usual
        own = {"deadline": line.deadline, "timeout": line.timeout, "cancel": line.cancel}
        return {name: usual[name] if own[name] is None else own[name] for name in usual}

    def _num_prompt(self, index: int, line: Line | None) -> int | None:
        if line is not None and (line.prompt_tokens or line.prompt or line.question):
            return line.prompt_tokens
        if self._spec.prompt_tokens == WORKLOAD:
            return None
        mix = parse_mix(self._spec.prompt_tokens)
        return mix.draw_count(self._random(_PROMPT, index), most=self._most_prompt)

    def _answer(self, index: int) -> int:
        most = self._spec.max_new_tokens
        if self._spec.answer_tokens == WORKLOAD:
            return most
        return parse_mix(self._spec.answer_tokens).draw_count(
            self._random(_ANSWER, index), most=most
        )

    def _client(self, index: int) -> int:
        return self._one_of(self._spec.weights or [1.0] * self._spec.clients, _CLIENT, index)

    def _pair(self, index: int) -> str:
        weights = [pair.weight for pair in self._spec.pairs] or [1.0]
        return self._pairs[self._one_of(weights, _PAIR, index)]

    def _one_of(self, weights: Sequence[float], stream: int, index: int) -> int:
        if len(weights) == 1:
            return 0
        shares = np.cumsum(np.asarray(weights, float) / sum(weights))
        found = int(np.searchsorted(shares, self._random(stream, index).random(), side="right"))
        return min(found, len(weights) - 1)

    def _check_pairs(self) -> None:
        for number, line in enumerate(self._lines, 1):
            if line.pair is not None and line.pair not in self._pairs:
                known = ", ".join(filter(None, self._pairs)) or "none; name them with --pair"
                raise UserError(
                    f"Request {number} of {self._spec.trace} is for pair {line.pair!r}; there are: "
                    f"{known}."
                )
