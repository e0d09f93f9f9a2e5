"""Scores that stay on the GPU: the host gets five numbers per node, the logits only if asked for.

Logits of a pass are nodes x vocabulary, megabytes that a step does not need on the host. What it
and the recorder need is worked out on the device, copied behind the pass into pinned memory, and
waited for when it is first looked at: by the verifier, once per step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from engine.device_buffers import Wait, to_pinned
from engine.models import LoadedModel
from engine.runner import NodeLogits, check_finite, to_numpy
from engine.target import Scores
from engine.tree import TokenTree


class Facts(NamedTuple):
    """Of every row of a pass, on the host, float32."""

    log_norm_R: np.ndarray
    logprob_R: np.ndarray  # of the node's own token given its parent; 0 at a root
    gap_R: np.ndarray  # first less second choice after the node
    best_R: np.ndarray  # token of the first choice: exact, ids end far below 2**24
    best_logprob_R: np.ndarray


class DevicePass:
    """One pass's logits on the device, and its facts on their way to the host."""

    def __init__(
        self,
        found: NodeLogits,
        trees: dict[int, TokenTree],
        loaded: LoadedModel,
        *,
        copy: Callable[[torch.Tensor], tuple[torch.Tensor, Wait]],
    ) -> None:
        self.found = found
        self._loaded = loaded
        self._num_nodes = {slot: tree.num_nodes for slot, tree in trees.items()}
        self._host, self._wait = copy(self._work_out(trees))

    def _work_out(self, trees: dict[int, TokenTree]) -> torch.Tensor:
        """The facts, (5, R), queued behind the pass."""
        logits_RV, log_norm_R, first = self.found
        wanted_2R = np.zeros((2, len(log_norm_R)), np.int64)  # row of the parent, token; 0 at roots
        inner_R = np.zeros(len(log_norm_R), bool)
        for slot, tree in trees.items():
            rows = slice(first[slot] + 1, first[slot] + tree.num_nodes)
            wanted_2R[0, rows] = first[slot] + tree.parents_M[1 : tree.num_nodes]
            wanted_2R[1, rows] = tree.tokens_M[1 : tree.num_nodes]
            inner_R[rows] = True
        parent_R, token_R = torch.from_numpy(wanted_2R).to(logits_RV.device, non_blocking=True)
        inner = torch.from_numpy(inner_R).to(logits_RV.device, non_blocking=True)
        with torch.inference_mode():
            own_R = logits_RV[parent_R, token_R].float() - log_norm_R[parent_R]
            best_R = logits_RV.argmax(-1, keepdim=True)
            first_R = logits_RV.gather(1, best_R)
            logits_RV.scatter_(1, best_R, -torch.inf)  # the second choice without a copy
            second_R = logits_RV.amax(-1)
            logits_RV.scatter_(1, best_R, first_R)
            top_R = first_R[:, 0].float()
            facts = (
                log_norm_R,
                torch.where(inner, own_R, torch.zeros_like(own_R)),
                top_R - second_R.float(),
                best_R[:, 0].float(),
                top_R - log_norm_R,
            )
            return torch.stack(facts)

    @cached_property
    def facts(self) -> Facts:
        """Waits for the copy. Raises DecodeError where a row of a tree is not finite."""
        self._wait()
        facts = Facts(*self._host.numpy())
        for slot, num_nodes in self._num_nodes.items():
            start = self.found.first[slot]
            check_finite(facts.log_norm_R[start : start + num_nodes], self._loaded)
        return facts


class DeviceScores(Scores):
    """One request's share of a pass."""

    def __init__(self, whole: DevicePass, slot: int, num_nodes: int) -> None:
        self.whole = whole
        self._first = whole.found.first[slot]
        self._rows = slice(self._first, self._first + num_nodes)
        #: (node, token) -> log p that is on the host already
        self.known: dict[tuple[int, int], float] = {}

    @cached_property
    def logits_NV(self) -> np.ndarray:  # type: ignore[override]
        """float32 on the host: a copy of megabytes, for methods and rules that need them."""
        assert self.whole.facts  # NaN is named before anybody computes with it
        return to_numpy(self.whole.found.logits_RV[self._rows])

    @property
    def vocab_size(self) -> int:
        return int(self.whole.found.logits_RV.shape[1])

    @property
    def log_norm_N(self) -> np.ndarray:  # type: ignore[override]
        return self.whole.facts.log_norm_R[self._rows]

    def best(self, node: int) -> int:
        return int(self.whole.facts.best_R[self._first + node])

    def node_logprobs(self, tree: TokenTree) -> np.ndarray:
        out = np.full(len(tree.tokens_M), np.nan, np.float32)
        out[: tree.num_nodes] = self.whole.facts.logprob_R[self._rows]
        return out

    def logprob(self, node: int, token: int) -> float:
        if (node, token) in self.known:
            return self.known[node, token]
        row, facts = self._first + node, self.whole.facts
        if token == int(facts.best_R[row]):
            return float(facts.best_logprob_R[row])
        return float(self.whole.found.logits_RV[row, token]) - float(facts.log_norm_R[row])

    def top2_gap(self, nodes_A: list[int]) -> np.ndarray:
        return self.whole.facts.gap_R[self._rows][nodes_A]


def device_scores(
    found: NodeLogits, trees: dict[int, TokenTree], loaded: LoadedModel
) -> dict[int, Scores]:
    """Scores of a pass whose logits are on a CUDA device, by slot. Nothing waits here."""
    whole = DevicePass(found, trees, loaded, copy=to_pinned)
    return {slot: DeviceScores(whole, slot, tree.num_nodes) for slot, tree in trees.items()}
