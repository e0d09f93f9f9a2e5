"""The figures of a finished pair, on held-out text."""

from __future__ import annotations

import logging
from typing import Any

from transformers import LlamaForCausalLM

from engine.training.agreement import held_out_loss, measure_prompt, summarise
from engine.training.corpus import Split
from engine.training.exits import measure_exits
from engine.training.prepare import Prepared
from engine.training.progress import OnProgress, PairProgress
from engine.training.prompts import WORKLOADS, choose_prompts

logger = logging.getLogger(__name__)


def evaluate_pair(
    target: LlamaForCausalLM,
    draft: LlamaForCausalLM,
    prepared: Prepared,
    parts: Split,
    *,
    new_tokens: int = 128,
    count: int = 16,
    on_progress: OnProgress = lambda _: None,
) -> dict[str, Any]:
    """Return held-out losses (nats per token) and, per workload, how the draft agrees."""
    workloads = evaluation_prompts(prepared, parts, count=count)
    total = sum(len(prompts) for prompts in workloads.values())
    done = 0
    agreement: dict[str, dict[str, Any]] = {}
    for name, prompts in workloads.items():
        results = []
        for prompt in prompts:
            on_progress(PairProgress(phase="evaluate", fraction=done / total, message=name))
            results.append(measure_prompt(target, draft, prompt, new_tokens=new_tokens))
            done += 1
        agreement[name] = summarise(results)._asdict()
    return {
        "held_out_loss": {
            "target": held_out_loss(target, prepared.held_out),
            "draft": held_out_loss(draft, prepared.held_out),
        },
        "agreement": agreement,
    }


def evaluate_exits(
    target: LlamaForCausalLM, start: LlamaForCausalLM | None, prepared: Prepared
) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of every exit, and those of the model that training began with."""
    models = {"trained": target} | ({"before": start.eval()} if start is not None else {})
    return {
        when: [figures._asdict() for figures in measure_exits(model, prepared.held_out)]
        for when, model in models.items()
    }


def evaluation_prompts(
    prepared: Prepared, parts: Split, *, count: int = 16
) -> dict[str, list[list[int]]]:
    """Return the prompts of each workload as tokens; plain windows where the text is not Python."""
    library = [file for file in parts.held_out if not file.is_test]
    workloads: dict[str, list[list[int]]] = {}
    for name in WORKLOADS:
        try:
            prompts = choose_prompts(name, library, count=count)
        except ValueError as error:
            logger.info("no %s prompts: %s", name, error)
            continue
        workloads[name] = [prepared.tokenizer.encode(prompt.text) for prompt in prompts]
    if not workloads:
        stream, length = prepared.held_out, min(256, max(1, len(prepared.held_out) // 2))
        step = max(1, (len(stream) - length) // count)
        starts = range(0, len(stream) - length, step)
        workloads["text"] = [stream[i : i + length].tolist() for i in starts][:count]
    return workloads
