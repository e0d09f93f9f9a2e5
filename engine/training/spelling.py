"""Does a draft of bytes spell what the target says? Teacher-forced, on held-out prompts.

A token of the target counts as the draft's first choice where the draft, given the text before
it, would have written all of its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from engine.models import LoadedModel
from engine.text import REPLACEMENT, decode
from engine.training.agreement import (
    PromptAgreement,
    held_out_loss,
    repeated_share,
    summarise,
)
from engine.training.batches import TokenArray
from engine.training.corpus import Split
from engine.training.evaluate import evaluation_prompts
from engine.training.models import precision
from engine.training.prepare import Prepared
from engine.training.progress import OnProgress, PairProgress
from engine.training.teacher import write_rollouts

_MEASURED_BYTES = 262_144
_KEPT_FIGURES = (
    "prompts", "loops", "top1", "tokens_per_step", "repeated", "fresh_tokens", "fresh_top1",
    "opening_tokens", "opening_tokens_per_step",
)  # fmt: skip


def evaluate_text_draft(
    target: LoadedModel,
    draft: LlamaForCausalLM,
    theirs: Prepared,
    prepared: Prepared,
    parts: Split,
    *,
    new_tokens: int = 128,
    count: int = 16,
    on_progress: OnProgress = lambda _: None,
) -> dict[str, Any]:
    """Return held-out losses (nats per byte), the draft's by position, and its agreement.

    `theirs` is the corpus in the target's tokens.
    """
    workloads = evaluation_prompts(theirs, parts, count=count)
    total, done = sum(len(prompts) for prompts in workloads.values()), 0
    agreement: dict[str, dict[str, Any]] = {}
    for name, prompts in workloads.items():
        results = []
        for prompt in prompts:
            on_progress(PairProgress(phase="evaluate", fraction=done / total, message=name))
            results.append(
                measure_spelling(target, draft, prepared.tokenizer, prompt, new_tokens=new_tokens)
            )
            done += 1
        summed = summarise(results)._asdict()
        agreement[name] = {figure: summed[figure] for figure in _KEPT_FIGURES}
    bytes_per_token = len(prepared.held_out) / len(theirs.held_out)
    context = int(draft.config.max_position_embeddings)
    window = min(1024, context, len(prepared.held_out) - 1)
    return {
        "held_out_loss": {
            "unit": "nats per byte",
            "target": held_out_loss(target.model, theirs.held_out) / bytes_per_token,
            "draft": held_out_loss(
                draft, prepared.held_out, window=window, max_tokens=_MEASURED_BYTES
            ),
        },
        "bytes_per_target_token": bytes_per_token,
        "loss_by_position": loss_by_position(draft, prepared.held_out, length=2 * context),
        "agreement": agreement,
    }


def measure_spelling(
    target: LoadedModel,
    draft: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompt: Sequence[int],
    *,
    new_tokens: int,
) -> PromptAgreement:
    """Let the target continue `prompt` greedily; rank 0 is a token that the draft spells."""
    written = write_rollouts(
        target.model,
        torch.tensor([list(prompt)], device=target.device),
        new_tokens=new_tokens + 1,
        temperature=0.0,
        top=1,
        generator=torch.Generator(device=target.device),
    )
    tokens = written.tokens_RT[0].tolist()
    said = tokens[len(prompt) :]
    ends = [at for at, token in enumerate(said) if token in target.eos_ids]
    said = said[: ends[0]] if ends else said
    tokens = tokens[: len(prompt) + len(said)]
    # Where in the draft's text each token of the target begins; half a character does not yet.
    text = [decode(target.tokenizer, tokens[:at]) for at in range(len(prompt), len(tokens) + 1)]
    places = [len(tokenizer.encode(part.rstrip(REPLACEMENT), verbose=False)) for part in text]
    right = _right(draft, tokenizer.encode(text[-1].rstrip(REPLACEMENT), verbose=False))
    rank = [0 if right[a:b].all() else 1 for a, b in pairwise(places)]
    return PromptAgreement(said, rank, repeated_share(said))


@torch.no_grad()
def _right(draft: LlamaForCausalLM, ids: list[int]) -> np.ndarray[Any, Any]:
    """For each token whether the draft would have written it, given the true text before it."""
    seen = ids[-int(draft.config.max_position_embeddings) :]
    batch = torch.tensor([seen], device=draft.device)
    with precision(str(draft.device)):
        best = draft(batch[:, :-1], use_cache=False).logits[0].argmax(-1)
    right = np.zeros(len(ids), bool)
    right[len(ids) - len(seen) + 1 :] = (best == batch[0, 1:]).cpu().numpy()
    return right


@torch.no_grad()
def loss_by_position(
    model: LlamaForCausalLM, tokens: TokenArray, *, length: int, windows: int = 24
) -> dict[str, float]:
    """Mean loss in nats at positions from 0, 128, 256, 512, ... of windows of `length` tokens.

    Beyond the length it was trained on, this tells whether a model may be used there.
    """
    length = min(length, len(tokens) - 1)
    total_T = np.zeros(length)
    starts = np.linspace(0, len(tokens) - length - 1, windows).astype(int)
    for start in starts:
        piece = torch.from_numpy(tokens[start : start + length + 1].astype(np.int64))[None]
        piece = piece.to(model.device)
        with precision(str(model.device)):
            logits = model(piece[:, :-1], use_cache=False).logits
        loss = functional.cross_entropy(logits[0].float(), piece[0, 1:], reduction="none")
        total_T += loss.cpu().numpy()
    edges = [0, *(128 << n for n in range(20) if 128 << n < length), length]
    mean_T = total_T / len(starts)
    return {f"{a}-{b}": round(float(mean_T[a:b].mean()), 4) for a, b in pairwise(edges)}
