"""What one step leaves behind, in plain NumPy: enough to replay it without a model.

Words (`step`, `drafted`, `accepted`, `bonus`, `correction`, `emitted`, `kept`) are defined in
docs/measuring.md and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np

from engine.tree import TokenTree


class Fate(IntEnum):
    """What became of a node."""

    ROOT = 0
    ACCEPTED = 1
    REJECTED = 2
    NOT_REACHED = 3  # its parent was not accepted, or an earlier sibling was
    PRUNED = 4  # dropped while the tree grew; the target never saw it


class Origin(IntEnum):
    """How an emitted token came about."""

    DRAFT = 1  # accepted
    BONUS = 2  # the target's token after a path that ended at a leaf
    CORRECTION = 3  # the target's token at a node that had children, none of them accepted


class FinishReason(StrEnum):
    """Why a request ended."""

    EOS = "eos"
    STOP_STRING = "stop-string"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"


class StageTimes(NamedTuple):
    """Nanoseconds of one step by stage. `unaccounted` is the rest of the wall time."""

    draft: int = 0
    build: int = 0
    score: int = 0
    verify: int = 0
    commit: int = 0
    record: int = 0
    unaccounted: int = 0

    @property
    def wall(self) -> int:
        return sum(self)


@dataclass(slots=True)
class Verdict:
    """The outcome of verifying one tree."""

    path_A: list[int]  # accepted nodes, the root first
    next_token: int  # bonus or correction
    origin: Origin  # of `next_token`
    fate_N: np.ndarray  # uint8, `Fate`
    accept_prob_N: (
        np.ndarray
    )  # float32; chance that the rule accepted the node when tested, else NaN

    @property
    def num_accepted(self) -> int:
        return len(self.path_A) - 1


@dataclass(slots=True)
class StepRecord:
    """One target pass over one request's tree."""

    request: int  # index of the request in the workload, the turn folded in
    step: int  # 0-based, per request
    position: int  # position of the first emitted token in the sequence (prompt included)
    tree: TokenTree
    verdict: Verdict
    target_logprob_M: np.ndarray  # float32, log p of each node given its path; NaN if pruned
    emitted: list[int]  # accepted tokens, then bonus or correction
    num_kept: int  # emitted less what EOS, a stop string or max_new_tokens cut off
    emitted_logprob: np.ndarray  # float32, log p of each emitted token, unwarped
    top2_gap: np.ndarray  # float32, log p of the target's first less its second choice there
    times: StageTimes
    batch: int = 1  # requests in the same target pass; times are of the whole pass
    batch_step: int = 0  # number of that pass in the run
    time_ns: int = 0  # when the step ended, from the start of the run
    budget: int = 0  # most nodes the tree might have had


@dataclass(slots=True)
class RequestRecord:
    """One finished request (one turn of a conversation)."""

    request: int
    question_id: str
    category: str
    turn: int
    repeat: int
    prompt: str
    prompt_ids: list[int]
    token_ids: list[int]  # kept tokens only
    text: str
    finish_reason: FinishReason
    num_steps: int
    num_emitted: int
    num_drafted: int
    num_accepted: int
    prefill_ns: int
    decode_ns: int  # wall time from the end of prefill to the last kept token
    repetition: float  # share of 8-grams of the output that occurred in it before

    @property
    def num_kept(self) -> int:
        return len(self.token_ids)
