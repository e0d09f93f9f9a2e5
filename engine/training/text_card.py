"""The model card of a draft with another tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM

from engine.training.card import share, stamp
from engine.training.models import num_parameters

_CARD = """---
license: psf-2.0
library_name: transformers
tags: [speculative-decoding, draft]
---
# {title}

A draft of bytes for Draftree's method `universal`, which lets a target be drafted for by a model
of another tokenizer: a Llama-architecture model of {millions:.2f}M parameters ({layers} layers,
{hidden} hidden, {heads} heads, {intermediate} intermediate, tied embeddings, context {context}
bytes). Token b is the byte b, token 256 ends a text; the tokenizer is byte-level BPE without a
merge. It shows what drafting by way of text does; it is no coding assistant.

**Text.** {corpus} Then {written_bytes:,} bytes written by {target} after prompts from
the training files, while the learning rate fell. The loss is plain next-token cross-entropy: a
target of other tokens has no scores to learn from.

**Licence.** {licence}

**Made by**

    {command}

{date}, {versions}. {trained_bytes:,} bytes seen in {minutes:.0f} minutes.

**Held-out loss** on library files kept away from training, nats per byte: target {target_loss:.3f},
draft {draft_loss:.3f}. A token of the target is {per_token:.2f} bytes there, so in nats per token
of the target: {target_token:.3f} and {draft_token:.3f}.

**Loss by position**, nats per byte in windows of twice the context:

| bytes before | {positions} |
|---|{rule}|
| loss | {losses} |

**Agreement** with the target's greedy text, {new} tokens after each of the prompts on which the
pair's card measures its draft, with the same words: a token counts where the draft would have
written all of its bytes, and a chain of 4 tokens is assumed.

| workload | prompts | loops | first choice | tokens/step, chain 4 | repeated 8-grams \
| fresh first choice | opening tokens/step |
|---|---|---|---|---|---|---|---|
{rows}

`training.json` has all figures and the list of held-out files.
"""


def write_text_card(
    folder: Path,
    *,
    model: LlamaForCausalLM,
    figures: dict[str, Any],
    account: dict[str, Any],
    command: str,
    new_tokens: int,
) -> dict[str, Any]:
    """Write `README.md` and `training.json` beside the model and return the latter."""
    record = {
        "command": command,
        **stamp(),
        "parameters": {"draft": num_parameters(model)},
        **account,
        **figures,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(_card(folder.name, model, record, new_tokens=new_tokens))
    return record


def _card(title: str, model: LlamaForCausalLM, record: dict[str, Any], *, new_tokens: int) -> str:
    config, loss = model.config, record["held_out_loss"]
    per_token, positions = record["bytes_per_target_token"], record["loss_by_position"]
    rows = [
        f"| {name} | {a['prompts']} | {a['loops']} | {share(a['top1'])} "
        f"| {a['tokens_per_step'] or 0:.2f} | {share(a['repeated'])} "
        f"| {share(a['fresh_top1'])} | {a['opening_tokens_per_step'] or 0:.2f} |"
        for name, a in record["agreement"].items()
    ]
    return _CARD.format(
        title=title,
        millions=num_parameters(model) / 1e6,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        context=config.max_position_embeddings,
        corpus=record["corpus"]["description"],
        licence=record["corpus"]["licence"],
        written_bytes=record["written"]["bytes"],
        target=record["written"]["by"],
        command=record["command"],
        date=record["date"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        trained_bytes=record["draft_training"]["bytes"],
        minutes=record["draft_training"]["seconds"] / 60,
        target_loss=loss["target"],
        draft_loss=loss["draft"],
        per_token=per_token,
        target_token=loss["target"] * per_token,
        draft_token=loss["draft"] * per_token,
        positions=" | ".join(positions),
        rule="|".join("---" for _ in positions),
        losses=" | ".join(f"{value:.3f}" for value in positions.values()),
        new=new_tokens,
        rows="\n".join(rows),
    )
