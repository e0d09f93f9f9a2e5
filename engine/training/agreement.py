"""Does the draft say what the target says? Measured on text the target writes greedily.

Everything here is arithmetic on teacher-forced logits; no decoding engine is involved, so these
figures predict what the engine should reach, and check it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedModel

from engine.training.batches import TokenArray
from engine.training.models import end_of_text, precision
from engine.training.teacher import write_rollouts

NGRAM = 8
"""Length of the n-grams by which repetition is told."""

LOOP = 0.5
"""A text counts as a loop when this share of its 8-grams occurred in it before."""


class PromptAgreement(NamedTuple):
    """Draft against target on one greedy continuation."""

    tokens: list[int]
    """What the target wrote."""
    rank: list[int]
    """For each token, how many tokens the draft held more probable; 0 is agreement."""
    repeated: float
    """Share of the text's 8-grams that occurred in it before."""

    @property
    def fresh(self) -> list[int]:
        """The ranks of tokens that do not complete an n-gram written before."""
        said_before = repeated_mask(self.tokens)
        return [rank for rank, old in zip(self.rank, said_before, strict=True) if not old]

    @property
    def opening(self) -> list[int]:
        """The ranks before the text first repeats itself."""
        said_before = repeated_mask(self.tokens)
        length = said_before.index(True) - (NGRAM - 1) if True in said_before else len(self.rank)
        return self.rank[: max(0, length)]

    @property
    def is_loop(self) -> bool:
        """Whether the text repeats itself so much that agreement on it is cheap."""
        return self.repeated >= LOOP


class Agreement(NamedTuple):
    """Draft against target over prompts whose continuation is no loop; None where all are."""

    prompts: int
    loops: int
    """Prompts left out because their continuation is a loop."""
    top1: float | None
    """Share of tokens that are the draft's first choice."""
    top2: float | None
    top4: float | None
    tokens_per_step: float | None
    """Of greedy chain drafting with four tokens, the target's own token included."""
    repeated: float
    """Mean share of repeated 8-grams over all prompts, loops included."""
    fresh_tokens: int
    """Over all prompts: tokens that do not complete an 8-gram written before."""
    fresh_top1: float | None
    """Share of those that are the draft's first choice."""
    opening_tokens: int
    """Over all prompts: tokens before the text first repeats itself."""
    opening_tokens_per_step: float | None
    """Of greedy chain drafting over those alone: the strictest figure here."""


def measure_prompt(
    target: LlamaForCausalLM,
    draft: LlamaForCausalLM,
    prompt: Sequence[int],
    *,
    new_tokens: int = 128,
) -> PromptAgreement:
    """Let the target continue `prompt` greedily and rank its tokens under the draft."""
    written = write_rollouts(
        target,
        torch.tensor([list(prompt)], device=target.device),
        new_tokens=new_tokens + 1,
        temperature=0.0,
        top=1,
        generator=torch.Generator(device=target.device),
    )
    tokens = torch.from_numpy(written.tokens_RT).long().to(draft.device)
    with torch.no_grad(), precision(str(draft.device)):
        logits = draft(tokens[:, :-1], use_cache=False).logits[0, len(prompt) - 1 :].float()
    said = tokens[0, len(prompt) :]
    rank = (logits > logits.gather(-1, said[:, None])).sum(-1)
    length = _until_end(said.tolist(), end_of_text(target))
    own = said.tolist()[:length]
    return PromptAgreement(own, rank.tolist()[:length], repeated_share(own))


def summarise(results: Sequence[PromptAgreement], *, depth: int = 4) -> Agreement:
    """Sum up over prompts; tokens, not prompts, weigh the same."""
    kept = [result for result in results if not result.is_loop]
    ranks = np.concatenate([np.array(result.rank) for result in kept]) if kept else np.zeros(0)
    fresh = [rank for result in results for rank in result.fresh]
    openings = [result.opening for result in results]
    opening_tokens = sum(len(opening) for opening in openings)
    share = [float((ranks < k).mean()) if len(ranks) else None for k in (1, 2, 4)]
    return Agreement(
        prompts=len(results),
        loops=len(results) - len(kept),
        top1=share[0],
        top2=share[1],
        top4=share[2],
        tokens_per_step=_tokens_per_step([result.rank for result in kept], depth=depth),
        repeated=float(np.mean([result.repeated for result in results])),
        fresh_tokens=len(fresh),
        fresh_top1=fresh.count(0) / len(fresh) if fresh else None,
        opening_tokens=opening_tokens,
        opening_tokens_per_step=_tokens_per_step(openings, depth=depth),
    )


def chain_steps(rank: Sequence[int], *, depth: int) -> int:
    """Return the steps greedy chain drafting of `depth` tokens takes to emit these tokens."""
    place = steps = 0
    while place < len(rank):
        accepted = 0
        while accepted < depth and place + accepted < len(rank) and rank[place + accepted] == 0:
            accepted += 1
        place += accepted + 1
        steps += 1
    return steps


def repeated_mask(tokens: Sequence[int], *, n: int = NGRAM) -> list[bool]:
    """Return for each token whether it completes an n-gram that occurred earlier in the text."""
    seen: set[tuple[int, ...]] = set()
    mask = [False] * min(n - 1, len(tokens))
    for end in range(n, len(tokens) + 1):
        gram = tuple(tokens[end - n : end])
        mask.append(gram in seen)
        seen.add(gram)
    return mask


def repeated_share(tokens: Sequence[int], *, n: int = NGRAM) -> float:
    """Return the share of n-grams that occurred earlier in the same text."""
    return sum(repeated_mask(tokens, n=n)) / max(1, len(tokens) - n + 1)


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel, tokens: TokenArray, *, window: int = 512, max_tokens: int = 65536
) -> float:
    """Return the mean cross-entropy in nats per token over consecutive windows."""
    total = seen = 0.0
    for piece in held_out_windows(tokens, window=window, max_tokens=max_tokens):
        piece = piece.to(model.device)
        with precision(str(model.device)):
            logits = model(piece[:, :-1], use_cache=False).logits
        total += float(functional.cross_entropy(logits[0].float(), piece[0, 1:], reduction="sum"))
        seen += piece.size(1) - 1
    return total / seen


def held_out_windows(
    tokens: TokenArray, *, window: int = 512, max_tokens: int = 65536
) -> Iterator[Tensor]:
    """Yield windows (1, `window` + 1), spread evenly over the stream, of `max_tokens` in all."""
    count = max(1, min(max_tokens, len(tokens) - 1) // window)
    starts = np.linspace(0, max(0, len(tokens) - window - 1), count).astype(int)
    for start in starts:
        yield torch.from_numpy(tokens[start : start + window + 1].astype(np.int64))[None]


def _tokens_per_step(texts: Sequence[Sequence[int]], *, depth: int) -> float | None:
    steps = sum(chain_steps(ranks, depth=depth) for ranks in texts)
    return sum(len(ranks) for ranks in texts) / steps if steps else None


def _until_end(tokens: Sequence[int], end: int) -> int:
    """Return how many tokens there are up to and with the first end-of-text."""
    return tokens.index(end) + 1 if end in tokens else len(tokens)
