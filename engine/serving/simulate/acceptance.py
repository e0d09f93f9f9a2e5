"""What was accepted in measured steps, for trees that were not drafted there.

A run with wide trees tells of smaller ones too: the nodes of a step in best-first order, and those
of them on the accepted path, say what any tree made of the first of them would have had accepted.
A simulated request walks along a measured one from a random place, so that easy and hard stretches
of text last as long as they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.calibration import Calibration
from engine.records import Fate, StepRecord

#: shares of a step's rows that are kept in files
_FILE_KEYS = ("reach", "depth", "taken", "rank", "request", "position", "emitted")


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredSteps:
    """S steps. Letters: N nodes besides the root, best first by path probability; D levels."""

    #: float32, calibrated chance that a node is accepted, 0 where a step had fewer nodes
    reach_SN: np.ndarray
    depth_SN: np.ndarray  # uint8, 0 where there is none
    taken_SN: np.ndarray  # bool, whether it was accepted
    rank_SD: np.ndarray  # uint8, rank of the accepted node at depth 1, 2, ...; 255: none
    request_S: np.ndarray  # int32, whose step it was
    position_S: np.ndarray  # int32, tokens before it
    emitted_S: np.ndarray  # int32
    _at: np.ndarray  # step at or next after each position of each measured request, end to end
    _first: np.ndarray  # where a measured request's positions begin in `_at`
    _length: np.ndarray

    @property
    def num_steps(self) -> int:
        return len(self.request_S)

    @property
    def num_nodes(self) -> int:
        """Most drafted nodes of a step."""
        return self.reach_SN.shape[1]

    @property
    def num_requests(self) -> int:
        """Requests that were measured."""
        return len(self._first)

    def walk(self, seed: int, requests: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """For each request by its index, whom it walks along and from where.

        Every measured token is as likely a start: requests drawn evenly would make much of short
        ones, whose tokens are all early and harder to guess.
        """
        drawn = [np.random.default_rng((seed, index)).random() for index in requests]
        token = (np.array(drawn) * self._length.sum()).astype(np.int64)
        ends = np.cumsum(self._length)
        source = np.searchsorted(ends, token, side="right")
        return source, token - (ends - self._length)[source]

    def at(self, source_B: np.ndarray, position_B: np.ndarray) -> np.ndarray:
        """The measured step for each request at its position, counted on round and round."""
        return self._at[self._first[source_B] + position_B % self._length[source_B]]

    def of_best(self) -> np.ndarray:
        """Accepted tokens with the first 0, 1, ..., N nodes: uint8 (S, N + 1)."""
        counts = np.cumsum(self.taken_SN, axis=1, dtype=np.uint8)
        return np.pad(counts, ((0, 0), (1, 0)))

    def of_expansion(self, expansion: Sequence[int]) -> np.ndarray:
        """Accepted tokens with a static tree that gives every node at depth i - 1 k_i children.

        int64 (S). A path that went on beyond the measured tree counts as ended there, so measure
        with trees that are wider and deeper than the expansion.
        """
        depth = min(len(expansion), self.rank_SD.shape[1])
        inside = self.rank_SD[:, :depth] < np.asarray(expansion[:depth])
        return np.cumprod(inside, axis=1).sum(axis=1)

    # -- making and keeping --------------------------------------------------------------------

    @classmethod
    def from_steps(
        cls, steps: Iterable[StepRecord], calibration: Calibration | None = None
    ) -> MeasuredSteps:
        """From the records of a run, in any order; calibrated by itself unless told otherwise.

        Raises ValueError where nothing was drafted.
        """
        known = sorted(steps, key=lambda step: (step.request, step.position))
        if calibration is None:
            calibration = Calibration()
            for step in known:
                calibration.learn(step.tree, step.verdict)
        nodes = max((step.tree.num_drafted for step in known), default=0)
        levels = max((int(step.tree.depth_M.max()) for step in known), default=0)
        if not nodes:
            raise ValueError("these steps drafted nothing: acceptance cannot be read off them")
        reach = np.zeros((len(known), nodes), np.float32)
        depth = np.zeros((len(known), nodes), np.uint8)
        taken = np.zeros((len(known), nodes), bool)
        rank = np.full((len(known), levels), 255, np.uint8)
        for at, step in enumerate(known):
            _read(step, calibration, reach[at], depth[at], taken[at], rank[at])
        return cls._from_arrays(
            reach, depth, taken, rank,
            np.array([step.request for step in known], np.int32),
            np.array([step.position for step in known], np.int32),
            np.array([len(step.emitted) for step in known], np.int32),
        )  # fmt: skip

    @classmethod
    def _from_arrays(
        cls,
        reach: np.ndarray,
        depth: np.ndarray,
        taken: np.ndarray,
        rank: np.ndarray,
        request: np.ndarray,
        position: np.ndarray,
        emitted: np.ndarray,
    ) -> MeasuredSteps:
        tables = []
        for index in np.unique(request):
            steps = np.flatnonzero(request == index)
            begin = position[steps[0]]
            offsets = np.arange(position[steps[-1]] + emitted[steps[-1]] - begin)
            next_at = np.searchsorted(position[steps] - begin, offsets)
            tables.append(steps[np.where(next_at < len(steps), next_at, 0)])
        lengths = np.array([len(table) for table in tables], np.int64)
        return cls(
            reach, depth, taken, rank, request, position, emitted,
            np.concatenate(tables), np.cumsum(lengths) - lengths, lengths,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write a compressed NumPy archive."""
        np.savez_compressed(
            path,
            reach=self.reach_SN.astype(np.float16),
            depth=self.depth_SN,
            taken=np.packbits(self.taken_SN, axis=1),
            rank=self.rank_SD,
            request=self.request_S,
            position=self.position_S,
            emitted=self.emitted_S,
        )

    @classmethod
    def load(cls, path: Path) -> MeasuredSteps:
        """The way back. Raises ValueError or OSError for a file that is none."""
        with np.load(path, allow_pickle=False) as stored:
            if not set(_FILE_KEYS) <= set(stored.files):
                raise ValueError(f"{path} holds no measured steps")
            found = {key: stored[key] for key in _FILE_KEYS}
        nodes = found["reach"].shape[1]
        found["reach"] = found["reach"].astype(np.float32)
        found["taken"] = np.unpackbits(found["taken"], axis=1, count=nodes).astype(bool)
        return cls._from_arrays(**found)


def _read(
    step: StepRecord,
    calibration: Calibration,
    reach_N: np.ndarray,
    depth_N: np.ndarray,
    taken_N: np.ndarray,
    rank_D: np.ndarray,
) -> None:
    """One step's tree into its rows."""
    tree, fates = step.tree, step.verdict.fate_N
    parents, logprobs = tree.parents_M.tolist(), tree.draft_logprob_M.tolist()
    ranks = tree.rank_M.tolist()
    score, chance = [0.0], [1.0]
    for node in range(1, tree.num_nodes):
        score.append(score[parents[node]] + min(logprobs[node], 0.0))
        own = calibration.chance(ranks[node], logprobs[node])
        chance.append(chance[parents[node]] * own)
    order = np.argsort(-np.asarray(score[1:]), kind="stable") + 1
    count = len(order)
    reach_N[:count] = np.asarray(chance)[order]
    depth_N[:count] = tree.depth_M[order]
    taken_N[:count] = fates[order] == Fate.ACCEPTED
    path = step.verdict.path_A[1:]
    rank_D[: len(path)] = tree.rank_M[path]
