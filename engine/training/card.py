"""Model cards: what the pair was trained on, by which command, and how good it is."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import LlamaForCausalLM

from engine.training.models import num_parameters

PYTHON_LICENCE = (
    "The training text is the Python standard library: Copyright Python Software Foundation, "
    "PSF License Agreement (https://docs.python.org/3/license.html)."
)

_CARD = """---
license: psf-2.0
library_name: transformers
tags: [speculative-decoding, {role}]
---
# {title}

{who}: a Llama-architecture model of {millions:.1f}M parameters
({layers} layers, {hidden} hidden, {heads} heads, {intermediate} intermediate, tied embeddings,
context {context}, vocabulary {vocabulary}), small enough for a laptop's processor. {what}
It shows what speculative decoding does; it is no coding assistant.

**Text.** {corpus}

**Licence.** {licence}

**Made by**

    {command}

{date}, {versions}.

**Held-out loss**, nats per token on library files kept away from training:
{losses}.
{figures}
`training.json` has all figures and the list of held-out files.
"""

_AGREEMENT = """
**Agreement** of the draft with the target's greedy text, prompts cut from held-out files, {new}
tokens each. Continuations that loop (half or more of their 8-grams repeated) are left out of the
first four figures; what is left repeats itself too, and on repetition any draft agrees. So the
last two columns look at all prompts, but only at tokens that complete no 8-gram written before
(fresh), and only at the text before its first repeat (opening).

| workload | prompts | loops | top 1 | top 2 | top 4 | tokens/step, chain 4 | repeated 8-grams \
| fresh top 1 | opening tokens/step |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""

_EXITS = """
**Exits.** It was trained with layer dropout {dropout:g} and an early-exit loss of weight {weight:g}
(LayerSkip, arXiv 2404.16710), so that its first layers can draft for all of them. What the layers
up to an exit say through the final norm and the LM head, on the same held-out text:

| exit after layer | held-out loss | agrees with all layers{before_head}
|---|---|---|{before_rule}
{rows}
"""

_ALONE = "A target of Draftree's without a draft model"

_WHAT = {
    "target": "It was grown from {first} layers while it trained.",
    "onward": "It goes on from `{start}`.",
    "draft": "It was distilled from the target's own continuations and scores.",
}


def write_cards(
    folders: dict[str, Path],
    *,
    figures: dict[str, Any],
    models: dict[str, LlamaForCausalLM],
    training: dict[str, Any],
    command: str,
    new_tokens: int = 128,
) -> dict[str, Any]:
    """Write `README.md` and `training.json` beside both models and return the latter."""
    record = {
        "command": command,
        **stamp(),
        "parameters": {role: num_parameters(model) for role, model in models.items()},
        **training,
        **figures,
    }
    for role, folder in folders.items():
        (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
        card = _card(role, folder.name, models[role], record, new_tokens=new_tokens)
        (folder / "README.md").write_text(card)
    return record


def _card(
    role: str, title: str, model: LlamaForCausalLM, record: dict[str, Any], *, new_tokens: int
) -> str:
    config = model.config
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return _CARD.format(
        role=role,
        who=f"The {role} of Draftree's embedded pair"
        if "draft" in record["parameters"]
        else _ALONE,
        title=title,
        millions=num_parameters(model) / 1e6,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=config.intermediate_size,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        what=_what(role, record),
        corpus=record["corpus"]["description"],
        licence=record["corpus"]["licence"],
        command=record["command"],
        date=record["date"],
        versions=versions,
        losses=", ".join(f"{who} {loss:.3f}" for who, loss in record["held_out_loss"].items()),
        figures=_agreement(record, new_tokens) + _exits(record),
    )


def _what(role: str, record: dict[str, Any]) -> str:
    start = record["recipe"].get("start")
    kind = "onward" if role == "target" and start else role
    return _WHAT[kind].format(first=record["first_layers"], start=start)


def _agreement(record: dict[str, Any], new_tokens: int) -> str:
    if "agreement" not in record:
        return ""
    rows = [
        f"| {name} | {a['prompts']} | {a['loops']} | {share(a['top1'])} | {share(a['top2'])} "
        f"| {share(a['top4'])} | {a['tokens_per_step'] or 0:.2f} | {share(a['repeated'])} "
        f"| {share(a['fresh_top1'])} | {a['opening_tokens_per_step'] or 0:.2f} |"
        for name, a in record["agreement"].items()
    ]
    return _AGREEMENT.format(new=new_tokens, rows="\n".join(rows))


def _exits(record: dict[str, Any]) -> str:
    if "exits" not in record:
        return ""
    tables = [record["exits"][when] for when in ("trained", "before") if when in record["exits"]]
    rows = [
        f"| {line[0]['layer']} |"
        + "".join(f" {one['loss']:.3f} | {share(one['agreement'])} |" for one in line)
        for line in zip(*tables, strict=True)
    ]
    before = len(tables) > 1
    recipe = record["recipe"]["exits"]
    return _EXITS.format(
        dropout=recipe["layer_dropout"],
        weight=recipe["exit_loss"],
        before_head=" | loss before | agreed before |" if before else " |",
        before_rule="---|---|" if before else "",
        rows="\n".join(rows),
    )


def stamp() -> dict[str, Any]:
    """When and with what a model was made."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


def share(value: float | None) -> str:
    """A share as a percentage for a table."""
    return "-" if value is None else f"{value:.1%}"
