"""What the target would say: scored rows of text, its own and the corpus's, kept on disk.

A draft is judged by how often it names the token the target takes next, on text that the target
itself writes. So it learns from that text (on-policy distillation: Agarwal et al. 2024, and
DistillSpec, Zhou et al. 2024), with corpus windows mixed in for long contexts and variety.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from engine.training.batches import BatchSampler
from engine.training.models import precision

NumpyArray = np.ndarray[Any, Any]


class ScoredRows(NamedTuple):
    """Rows of tokens with the target's most probable next tokens after each position."""

    tokens_RT: NumpyArray
    """int32, rows of equal length."""
    top_RTK: NumpyArray
    """int32, the K most probable next tokens, best first."""
    logprob_RTK: NumpyArray
    """float16, their log-probabilities under the target at temperature 1."""

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows."""
        return int(self.tokens_RT.size)


@dataclass(frozen=True, kw_only=True)
class TeacherRecipe:
    """What the target writes and scores for the draft."""

    rollout_share: float = 0.7
    """Share of shards that hold text of the target's own; the others hold corpus windows."""
    prompt_lengths: tuple[int, ...] = (64, 128, 256)
    """Corpus tokens before the target's own, by turns."""
    new_tokens: int = 112
    temperatures: tuple[float, ...] = (0.0, 0.4, 0.0, 0.7)
    """Of batches of rollouts, by turns; 0 is greedy."""
    rows: int = 64
    """Rollouts written side by side."""
    window: int = 1024
    """Length of corpus windows."""
    top: int = 32
    seed: int = 0


@torch.no_grad()
def score_windows(model: PreTrainedModel, tokens_RT: Tensor, *, top: int) -> ScoredRows:
    """Score given text: one forward pass per row."""
    parts = []
    for row in tokens_RT.split(1 if not tokens_RT.is_cuda else 16):
        with precision(str(row.device)):
            logits = model(row, use_cache=False).logits
        parts.append(_top(logits, top))
    top_RTK, logprob_RTK = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return ScoredRows(tokens_RT.cpu().numpy().astype(np.int32), top_RTK, logprob_RTK)


@torch.no_grad()
def write_rollouts(
    model: PreTrainedModel,
    prompts_RP: Tensor,
    *,
    new_tokens: int,
    temperature: float,
    top: int,
    generator: torch.Generator,
) -> ScoredRows:
    """Let the target continue prompts of equal length, and keep what it thought on the way.

    An end-of-text token does not stop a row: what follows is the beginning of another file, as
    in training.
    """
    length = prompts_RP.size(1)
    cache = StaticCache(config=model.config, max_cache_len=length + new_tokens)
    ids, tops, logprobs, texts = prompts_RP, [], [], [prompts_RP]
    for _ in range(new_tokens):
        with precision(str(ids.device)):
            logits = model(ids, past_key_values=cache, use_cache=True).logits
        best, logprob = _top(logits, top)
        tops.append(best)
        logprobs.append(logprob)
        ids = _choose(logits[:, -1], temperature=temperature, generator=generator)
        texts.append(ids)
    tokens = torch.cat(texts, dim=1)[:, :-1]
    arrays = (torch.cat(part, dim=1).cpu().numpy() for part in (tops, logprobs))
    return ScoredRows(tokens.cpu().numpy().astype(np.int32), *arrays)


def teach(
    model: PreTrainedModel,
    corpus: NumpyArray,
    recipe: TeacherRecipe,
    *,
    shard: int,
) -> ScoredRows:
    """Make shard number `shard`; it depends on the model, the recipe and the number only."""
    seed = recipe.seed * 1_000_003 + shard
    device = model.device
    # Rollouts where the running share of them falls behind.
    own = int((shard + 1) * recipe.rollout_share) > int(shard * recipe.rollout_share)
    if not own:
        rows = max(1, recipe.rows * recipe.new_tokens // recipe.window)
        batch = BatchSampler(corpus, seed=seed).draw(rows=rows, length=recipe.window)
        return score_windows(model, batch[:, :-1].to(device), top=recipe.top)
    turn = int(shard * recipe.rollout_share)
    length = recipe.prompt_lengths[turn % len(recipe.prompt_lengths)]
    batch = BatchSampler(corpus, seed=seed).draw(rows=recipe.rows, length=length)
    return write_rollouts(
        model,
        batch[:, :-1].to(device),
        new_tokens=recipe.new_tokens,
        temperature=recipe.temperatures[turn % len(recipe.temperatures)],
        top=recipe.top,
        generator=torch.Generator(device=device).manual_seed(seed),
    )


def _top(logits_RTV: Tensor, top: int) -> tuple[Tensor, Tensor]:
    logprobs = logits_RTV.float().log_softmax(-1)
    best = logprobs.topk(min(top, logprobs.size(-1)), dim=-1)
    return best.indices.int(), best.values.half()


def _choose(logits_RV: Tensor, *, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits_RV.argmax(-1, keepdim=True)
    probabilities = (logits_RV.float() / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)
