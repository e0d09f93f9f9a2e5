"""Many replicas behind a router, fast enough for a thousand of them.

Each replica is what a scheduler with one simulated decoder is under first-come, to the nanosecond
(a test compares them), without the records: events on a heap, arrays per batch.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from engine.clock import shared_out
from engine.errors import UserError
from engine.pass_inputs import READ_AT_ONCE
from engine.serving.simulate.model import StepModel

#: requests that rates of batches are averaged over
_RATED = 256
#: tokens of a prompt, as the router takes others' to be, and what parts replicas that are alike
_USUAL_PROMPT, _TIE_NS = 256, 1e3
#: routers by name
ROUTERS = ("predicted", "shortest-queue", "round-robin")


class Load(NamedTuple):
    """Requests in the order in which they come."""

    arrival_ns: np.ndarray
    prompt: np.ndarray  # tokens
    tokens: np.ndarray  # of the answer

    @classmethod
    def poisson(
        cls,
        count: int,
        *,
        rate: float,
        seed: int,
        prompt: tuple[int, int],
        tokens: tuple[int, int],
    ) -> Load:
        """`rate` requests per second; prompts and answers of evenly drawn length."""
        rng = np.random.default_rng(seed)
        gaps = rng.exponential(1e9 / rate, count)
        return cls(
            np.cumsum(gaps).astype(np.int64),
            rng.integers(prompt[0], prompt[1] + 1, count),
            rng.integers(tokens[0], tokens[1] + 1, count),
        )


class Served(NamedTuple):
    """What became of a load, by request; and of the fleet's time and nodes."""

    replica: np.ndarray
    admitted_ns: np.ndarray
    first_token_ns: np.ndarray
    ended_ns: np.ndarray
    busy_ns: int  # of all replicas together
    num_steps: int
    request_steps: int
    drafted: int


class Fleet:
    """`replicas` alike, each of `num_slots` slots. Raises UserError for what is no router."""

    def __init__(
        self,
        model: StepModel,
        *,
        replicas: int,
        num_slots: int,
        router: str = "predicted",
        seed: int = 0,
    ) -> None:
        if router not in ROUTERS:
            raise UserError(f"Router {router!r} is unknown; there are: {', '.join(ROUTERS)}.")
        self._model, self._num_slots, self._seed = model, num_slots, seed
        self._replicas = [_Replica(num_slots) for _ in range(replicas)]
        self._here = np.zeros(replicas, np.int64)  # requests at each replica
        self._owed = np.zeros(replicas)  # tokens that they want still
        self._queued = np.zeros(replicas, np.int64)  # of those here, not begun
        self._prefill_ns = model.costs.prefill_ms(_USUAL_PROMPT) * 1e6
        self._route: Callable[[int, int], int] = {
            "predicted": self._predicted,
            "shortest-queue": lambda index, tokens: int(self._here.argmin()),
            "round-robin": lambda index, tokens: index % replicas,
        }[router]
        #: tokens per nanosecond of a replica whose batch has 0, 1, 2, ... requests
        self.rate_B = self._rates(num_slots)

    def _rates(self, num_slots: int) -> np.ndarray:
        """From simulated steps of each batch size, each of other requests.

        A token never takes less time in a larger batch: else chance would draw requests to a size.
        """
        steps = self._model.steps
        source, start = steps.walk(self._seed, range(_RATED))
        each_ns = [0.0]  # a token of one request
        for batch in range(1, num_slots + 1):
            tokens = ms = 0.0
            for first in range(0, _RATED, max(batch, _RATED // 32)):
                at = np.arange(first, first + batch) % _RATED
                taken = self._model.step(source[at], start[at], np.full(batch, 256.0))
                tokens, ms = tokens + float(taken.emitted_B.sum()), ms + taken.ms
            each_ns.append(max(each_ns[-1], ms * 1e6 * batch / tokens))
        return np.arange(num_slots + 1) / np.maximum(each_ns, 1.0)

    def _predicted(self, index: int, tokens: int) -> int:
        """Where the request would be over first: what is owed before it, then its own answer.

        A slot that is free has no wait but for prompts that come first; then the batch turns out
        its share for each request. Of replicas that promise the same the emptiest is taken.
        """
        batch = np.minimum(self._here + 1, self._num_slots)
        waiting = np.maximum(self._here + 1 - self._num_slots, 0)
        share = np.where(self._here > 0, self._owed / np.maximum(self._here, 1), 0.0)
        before = waiting * share / self.rate_B[batch]
        before += self._queued * self._prefill_ns + self._here * _TIE_NS
        return int((before + tokens * batch / self.rate_B[batch]).argmin())

    def serve(self, load: Load) -> Served:
        """Run the load to its end."""
        count = len(load.arrival_ns)
        source, start = self._model.steps.walk(self._seed, range(count))
        book = _Book(load, source, start, self._model)
        due: list[tuple[int, int]] = []  # when a replica is free to go on
        for index in range(count):
            at = int(load.arrival_ns[index])
            # a replica that is free at this very moment takes the new one along
            while due and due[0][0] < at:
                self._go_on(heapq.heappop(due), book, due)
            number = self._route(index, int(load.tokens[index]))
            replica = self._replicas[number]
            book.replica[index] = number
            replica.waiting.append(index)
            self._queued[number] += 1
            self._here[number] += 1
            self._owed[number] += load.tokens[index]
            if not replica.scheduled:
                replica.scheduled = True
                heapq.heappush(due, (at, number))
        while due:
            self._go_on(heapq.heappop(due), book, due)
        return book.served()

    def _go_on(self, event: tuple[int, int], book: _Book, due: list[tuple[int, int]]) -> None:
        """The last step is over; admit what fits, one step, due again when that is over."""
        now, number = event
        replica = self._replicas[number]
        self._here[number] -= replica.ended
        self._owed[number] -= replica.kept
        replica.scheduled = self._here[number] > 0
        if not replica.scheduled:
            replica.ended = replica.kept = 0
            return
        after = book.admit(replica, now)
        self._queued[number] = len(replica.waiting)
        after, replica.kept, replica.ended = book.step(replica, after)
        book.busy_ns += after - now
        heapq.heappush(due, (after, number))


class _Replica:
    """The request in each slot, -1 where none is; and those that wait."""

    __slots__ = ("ended", "kept", "scheduled", "slots", "waiting")

    def __init__(self, num_slots: int) -> None:
        self.slots = np.full(num_slots, -1, np.int64)
        self.waiting: deque[int] = deque()
        self.scheduled = False
        self.kept = self.ended = 0  # tokens and requests of the step under way


class _Book:
    """What is known of every request, as arrays."""

    def __init__(self, load: Load, source: np.ndarray, start: np.ndarray, model: StepModel) -> None:
        self._load, self._source, self._start, self._model = load, source, start, model
        count = len(source)
        self.replica = np.zeros(count, np.int64)
        self._kept = np.zeros(count, np.int64)
        self._admitted, self._first, self._ended = (np.full(count, -1, np.int64) for _ in range(3))
        self.busy_ns = 0
        self._steps = self._request_steps = self._drafted = 0

    def admit(self, replica: _Replica, now: int) -> int:
        """Prefill what fits, as the scheduler does; when that is over."""
        if not replica.waiting:
            return now
        free = np.flatnonzero(replica.slots < 0)
        most = READ_AT_ONCE if len(free) < len(replica.slots) else np.inf
        indices: list[int] = []
        sizes: list[int] = []
        while replica.waiting and len(indices) < len(free):
            size = int(self._load.prompt[replica.waiting[0]])
            if sizes and sum(sizes) + size > most:
                break
            indices.append(replica.waiting.popleft())
            sizes.append(size)
        if not indices:
            return now
        replica.slots[free[: len(indices)]] = indices
        end = now + round(self._model.costs.prefill_ms(sum(sizes)) * 1e6)
        self._admitted[indices] = [begin for begin, _ in shared_out(now, end, sizes)]
        return end

    def step(self, replica: _Replica, now: int) -> tuple[int, int, int]:
        """One step; when it is over, tokens kept, requests ended."""
        taken_slots = np.flatnonzero(replica.slots >= 0)
        active = replica.slots[taken_slots]
        kept_B = self._kept[active]
        taken = self._model.step(
            self._source[active],
            self._start[active] + kept_B,
            (self._load.prompt[active] + kept_B).astype(float),
            span=int(taken_slots[-1]) + 1,
        )
        now += round(taken.ms * 1e6)
        new_B = np.minimum(taken.emitted_B, self._load.tokens[active] - kept_B)
        self._kept[active] = kept_B + new_B
        self._first[active[kept_B == 0]] = now
        over = self._kept[active] == self._load.tokens[active]
        self._ended[active[over]] = now
        replica.slots[taken_slots[over]] = -1
        self._steps += 1
        self._request_steps += len(active)
        self._drafted += int(taken.choice.nodes_B.sum())
        return now, int(new_B.sum()), int(over.sum())

    def served(self) -> Served:
        assert (self._ended >= 0).all(), "a request never ended"
        return Served(
            self.replica, self._admitted, self._first, self._ended, self.busy_ns,
            self._steps, self._request_steps, self._drafted,
        )  # fmt: skip
