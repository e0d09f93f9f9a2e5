"""Is the text the target's own? Exact match with plain decoding, and a judgement of differences.

At the first difference the target is asked again, in two orders of summation. Where both tokens
lie within what two orders give at this dtype the verdict is "numerics", else "bug".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.sampling import Sampling, gumbel, warp

if TYPE_CHECKING:
    from engine.models import LoadedModel
    from engine.records import RequestRecord

#: how much farther than two passes seen here two other passes may lie apart
_MARGIN = 8.0
#: tokens among which two passes are compared: far ones differ more and never win
_TOP = 16


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an output leaves the plain one, and why. Gaps are in nats, of what is compared there.

    What is compared is log p when greedy, and log p + noise when sampling.
    """

    request: int
    question_id: str
    position: int  # in the output, from 0
    expected: int | None  # the plain token; None: the plain output had ended
    got: int | None
    top2_gap: float  # the target's first less its second choice
    shortfall: float  # its first choice less the lower of both tokens; inf: cut by top-k or top-p
    cut_distance: float | None  # of a token that was cut, how far from the cut
    tolerance: float
    verdict: str  # "numerics" or "bug"
    expected_text: str = ""
    got_text: str = ""


def first_difference(expected: Sequence[int], got: Sequence[int]) -> int | None:
    """Index of the first token that differs, or at which one of both has ended; None: equal."""
    for at, (one, other) in enumerate(zip(expected, got, strict=False)):
        if one != other:
            return at
    return None if len(expected) == len(got) else min(len(expected), len(got))


def judge(
    expected: RequestRecord, got: RequestRecord, *, target: LoadedModel, sampling: Sampling
) -> Difference | None:
    """Compare an output with plain decoding's; None where they are equal."""
    at = first_difference(expected.token_ids, got.token_ids)
    if at is None:
        return None
    one = expected.token_ids[at] if at < len(expected.token_ids) else None
    other = got.token_ids[at] if at < len(got.token_ids) else None
    prefix = [*expected.prompt_ids, *expected.token_ids[:at]]
    first_V, again_V = _logits_twice(target, prefix)
    compared = _Compared(first_V, sampling, request=expected.request, position=len(prefix))
    tolerance = _tolerance(first_V, again_V, dtype=target.dtype)
    if not sampling.greedy:
        tolerance /= sampling.temperature
    tokens = [token for token in (one, other) if token is not None]
    shortfall = compared.shortfall(tokens)
    cut = compared.cut_distance(tokens)
    near = min(shortfall, np.inf if cut is None else cut) <= tolerance
    return Difference(
        request=expected.request,
        question_id=expected.question_id,
        position=at,
        expected=one,
        got=other,
        top2_gap=compared.top2_gap,
        shortfall=shortfall,
        cut_distance=cut,
        tolerance=tolerance,
        # an output that is merely shorter or longer cannot be blamed on summation
        verdict="numerics" if near and len(tokens) == 2 else "bug",
        expected_text=_piece(target, one),
        got_text=_piece(target, other),
    )


class _Compared:
    """What decides the next token: log p, and the noise of its position when sampling."""

    def __init__(
        self, logits_V: np.ndarray, sampling: Sampling, *, request: int, position: int
    ) -> None:
        self._logits_V, self._sampling = logits_V, sampling
        if sampling.greedy:
            self.score_V = logits_V
        else:
            noise_V = gumbel(sampling, request=request, position=position, vocab_size=len(logits_V))
            self.score_V = warp(logits_V, sampling) + noise_V

    @property
    def top2_gap(self) -> float:
        second, first = np.partition(self.score_V, -2)[-2:]
        return float(first - second)

    def shortfall(self, tokens: list[int]) -> float:
        return float(self.score_V.max() - min(self.score_V[token] for token in tokens))

    def cut_distance(self, tokens: list[int]) -> float | None:
        """Of the tokens that were cut, the largest distance to the cut; None: none was."""
        cut = [token for token in tokens if np.isneginf(self.score_V[token])]
        if not cut:
            return None
        kept_V = np.isfinite(self.score_V)
        scaled_V = self._logits_V / self._sampling.temperature
        return float(max(scaled_V[kept_V].min() - scaled_V[token] for token in cut))


def _logits_twice(target: LoadedModel, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits after `tokens`, float64 (V): in one pass over all, and of the last token alone."""
    import torch
    from transformers import DynamicCache

    model = target.model
    ids = torch.tensor([tokens], device=model.device)
    with torch.inference_mode():
        whole = model(ids, use_cache=False).logits[0, -1]
        if len(tokens) == 1:
            return (_float64(whole),) * 2
        past = DynamicCache(config=model.config)
        model(ids[:, :-1], past_key_values=past, use_cache=True)
        last = model(ids[:, -1:], past_key_values=past, use_cache=True).logits[0, -1]
    return _float64(whole), _float64(last)


def _float64(logits_V: object) -> np.ndarray:
    return logits_V.double().cpu().numpy()  # type: ignore[attr-defined]


def _tolerance(first_V: np.ndarray, again_V: np.ndarray, *, dtype: str) -> float:
    """Nats by which two passes may differ: seen here with a margin, within the dtype's bounds."""
    from engine.models import DTYPES
    from engine.selfcheck import TOLERANCE

    most = TOLERANCE[DTYPES[dtype]]
    top = np.argsort(first_V)[-_TOP:]
    gaps = (first_V[top] - first_V[top[-1]]) - (again_V[top] - again_V[top[-1]])
    return float(np.clip(_MARGIN * np.abs(gaps).max(), 0.01 * most, most))


def _piece(target: LoadedModel, token: int | None) -> str:
    from engine.text import visible_piece

    return "(end)" if token is None else visible_piece(target.tokenizer, token)
