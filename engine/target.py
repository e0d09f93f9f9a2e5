"""The target model: scores whole trees in one pass, keeps the accepted path."""

from __future__ import annotations

import numpy as np

from engine.runner import NodeLogits, Nodes, TreeRunner, check_finite
from engine.tree import TokenTree


class Scores:
    """Target logits of one request's tree, on the host, with what is derived on demand.

    `engine/device_scores.py` has those that stay on a GPU: there `logits_NV` is a costly copy.
    """

    def __init__(self, logits_NV: np.ndarray, log_norm_N: np.ndarray) -> None:
        self.logits_NV = logits_NV
        self.log_norm_N = log_norm_N  # logsumexp of each row

    @property
    def vocab_size(self) -> int:
        return int(self.logits_NV.shape[1])

    def best(self, node: int) -> int:
        """The likeliest token after `node`, the first of equals."""
        return int(self.logits_NV[node].argmax())

    def node_logprobs(self, tree: TokenTree) -> np.ndarray:
        """log p of every node given its path, float32 (M); NaN where the target did not look."""
        out = np.full(len(tree.tokens_M), np.nan, np.float32)
        out[0] = 0.0
        known = slice(1, tree.num_nodes)
        parents = tree.parents_M[known]
        out[known] = self.logits_NV[parents, tree.tokens_M[known]] - self.log_norm_N[parents]
        return out

    def logprob(self, node: int, token: int) -> float:
        """log p of a token after `node`."""
        return float(self.logits_NV[node, token] - self.log_norm_N[node])

    def top2_gap(self, nodes_A: list[int]) -> np.ndarray:
        """log p of the first less the second choice after each node."""
        rows = self.logits_NV[nodes_A]  # a copy
        each = np.arange(len(rows))
        best = rows.argmax(-1)
        first = rows[each, best]
        rows[each, best] = -np.inf
        return first - rows.max(-1)


def stays_on_device(found: NodeLogits) -> bool:
    """Whether logits are left where the pass put them."""
    return found.logits_RV.is_cuda


class Target:
    """Admit, score, commit, release: the four verbs of a step on the target's side."""

    def __init__(self, runner: TreeRunner) -> None:
        self.runner = runner

    def admit(self, prompts: dict[int, list[int]]) -> None:
        """Prefill free slots with all but the last prompt token: that one is the first root."""
        self.runner.admit_all({slot: prompt_P[:-1] for slot, prompt_P in prompts.items()})

    def score(self, trees: dict[int, TokenTree]) -> dict[int, Scores]:
        """One pass over all nodes of all trees.

        Raises DecodeError on NaN logits, or the scores do when first looked at.
        """
        found = self.runner.forward(
            {
                slot: Nodes(tree.tokens_M[: tree.num_nodes], tree.parents_M[: tree.num_nodes])
                for slot, tree in trees.items()
            }
        )
        if stays_on_device(found):
            from engine.device_scores import device_scores

            return device_scores(found, trees, self.runner.loaded)
        logits_RV, log_norm_R = found.on_host()
        out: dict[int, Scores] = {}
        for slot, tree in trees.items():
            rows = slice(found.first[slot], found.first[slot] + tree.num_nodes)
            check_finite(log_norm_R[rows], self.runner.loaded)
            out[slot] = Scores(logits_RV[rows], log_norm_R[rows])
        return out

    def whole(self) -> Target:
        """All layers in one pass over the same rows: what plain decoding runs."""
        return self

    def commit(self, slot: int, path_A: list[int]) -> None:
        """Keep root and accepted nodes in the cache, forget the rest of the tree."""
        self.runner.keep(slot, path_A)

    def release(self, slot: int) -> None:
        self.runner.release(slot)
