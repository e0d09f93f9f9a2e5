"""Draft rows that stay on the GPU: the host gets the few best tokens of each, not the vocabulary.

Logits of a draft pass are nodes x vocabulary, and a policy looks at a handful of tokens of each
row. Torch finds them where the logits are, for all rows when the first is asked for; one copy into
pinned memory brings them to the host, and one event is waited for. SAMPLED children are drawn by
NumPy from the whole row, which the rules that judge them take too: those rows are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from engine.device_buffers import Wait, to_pinned
from engine.device_sampling import warp_on_device
from engine.growth import Candidates, Chooser, Row, to_width
from engine.models import LoadedModel
from engine.runner import NodeLogits, check_finite
from engine.sampling import Sampling

#: candidates looked for at least: more cost next to nothing, and a second look costs a wait
FEWEST = 8
#: rows looked through at once: in float64 each takes some ten times its vocabulary in bytes
_AT_ONCE = 32


class NoiseAt(NamedTuple):
    """The noise that each row's COUPLED children are chosen under."""

    table_DV: torch.Tensor  # float64
    row_R: torch.Tensor  # int64, the row of the table


class DevicePass:
    """One draft pass's logits on the device, and the best tokens of its rows once asked for.

    With noise children are COUPLED, else FIXED.
    """

    def __init__(
        self,
        found: NodeLogits,
        loaded: LoadedModel,
        *,
        vocab_size: int,
        sampling: Sampling,
        noise: NoiseAt | None = None,
        copy: Callable[[torch.Tensor], tuple[torch.Tensor, Wait]] = to_pinned,
    ) -> None:
        self._found = found
        self._loaded = loaded
        self._vocab_size = vocab_size
        self._sampling = sampling
        self._noise = noise
        self._copy = copy
        self._most = 0  # candidates of each row that were looked for
        self._host_CRK: np.ndarray  # their tokens, log q and, if COUPLED, scores

    def best(self, row: int, count: int) -> Candidates:
        """Up to `count` candidates of a row.

        Raises DecodeError where a row of the pass is not finite.
        """
        if count > self._most:
            self._find(max(FEWEST, 1 << (count - 1).bit_length()))
        tokens, logprobs, scores = (self._host_CRK[column, row, :count] for column in (0, 1, -1))
        if not scores[-1] > -np.inf:
            there = scores > -np.inf
            tokens, logprobs, scores = tokens[there], logprobs[there], scores[there]
        return Candidates(tokens.astype(np.int64), logprobs, scores)

    def _find(self, most: int) -> None:
        count = min(most, self._vocab_size, self._found.logits_RV.shape[1])
        num_rows = len(self._found.log_norm_R)
        with torch.inference_mode():
            parts = [
                self._look_through(slice(first, first + _AT_ONCE), count)
                for first in range(0, num_rows, _AT_ONCE)
            ]
        host, wait = self._copy(torch.cat(parts))
        wait()
        found_RX = host.numpy()
        check_finite(found_RX[:, -1], self._loaded)
        self._host_CRK = found_RX[:, :-1].reshape(num_rows, -1, count).transpose(1, 0, 2)
        self._most = most

    def _look_through(self, rows: slice, count: int) -> torch.Tensor:
        """Tokens, log q and, if COUPLED, scores of these rows, and norms, float64 (R, CK + 1)."""
        logits_RV = self._found.logits_RV[rows, : self._vocab_size]
        log_norm_R1 = self._found.log_norm_R[rows, None]
        if self._noise is None:
            tokens_RK, best_RK = top_of_rows(logits_RV, count)
            columns = [tokens_RK, best_RK.float() - log_norm_R1]
        else:
            log_q_RV = warp_on_device(logits_RV, self._sampling)
            noise_RV = self._noise.table_DV[self._noise.row_R[rows]]
            perturbed_RV = log_q_RV + noise_RV[:, : log_q_RV.shape[1]]
            tokens_RK, best_RK = top_of_rows(perturbed_RV, count)
            scores_RK = best_RK - perturbed_RV.logsumexp(-1, keepdim=True)
            columns = [tokens_RK, log_q_RV.gather(1, tokens_RK), scores_RK]
        columns.append(log_norm_R1)
        return torch.cat([column.double() for column in columns], 1)  # one way to the host

    @cached_property
    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """Whole rows on the host, as wide as the target's, and their norms: a copy of megabytes."""
        logits_RV, log_norm_R = self._found.on_host()
        check_finite(log_norm_R, self._loaded)
        return to_width(logits_RV, self._vocab_size), log_norm_R


class DeviceRow(Row):
    """One row of a pass."""

    __slots__ = ("_at", "_whole")

    def __init__(self, whole: DevicePass, at: int) -> None:
        self._whole, self._at = whole, at

    @property
    def logits_V(self) -> np.ndarray:  # type: ignore[override]
        return self._whole.on_host[0][self._at]

    @property
    def log_norm(self) -> float:  # type: ignore[override]
        return float(self._whole.on_host[1][self._at])

    def likeliest(self, count: int, *, kernels: bool = True) -> Candidates:
        return self._whole.best(self._at, count)

    def coupled(self, count: int, *, chooser: Chooser, position: int) -> Candidates:
        """Under the noise that the pass was given for this row: that of `position`."""
        return self._whole.best(self._at, count)


def top_of_rows(scores_RV: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` best of each row, best first, of equals the lower index: indices and scores.

    `topk` is sure of the scores but takes any of equals, of which bfloat16 logits have many. So
    the last of its scores decides who is in, and a second look takes them by index.
    """
    width = scores_RV.shape[1]
    least_R1 = scores_RV.topk(count, dim=-1).values[:, -1:]
    down_V = torch.arange(width, 0, -1, dtype=torch.int32, device=scores_RV.device)
    at_least = torch.where(scores_RV >= least_R1, down_V, 0)
    order_RV = torch.where(scores_RV > least_R1, down_V + width, at_least)
    index_RK = order_RV.topk(count, dim=-1).indices
    own_RK = scores_RV.gather(1, index_RK) + 0.0  # -0.0 and 0.0 are equals, and sorted as such
    best_RK, place_RK = own_RK.sort(dim=-1, descending=True, stable=True)
    return index_RK.gather(1, place_RK), best_RK
