"""All of a load run that can be checked and loaded before a run is worth keeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.requests import Request
from workbench import models
from workbench.conversation import questions_of
from workbench.loading.generate import Source, Wanted
from workbench.loading.mixes import WORKLOAD, parse_mix
from workbench.loading.prompts import Prompts, most_prompt
from workbench.loading.spec import LoadSpec
from workbench.loading.trace_file import Line, read_trace
from workbench.spec import RunSpec

OnProgress = Callable[[str, str, float | None], None]


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A model pair and the settings of its engine. `capacity` is prompt and answer together."""

    name: str
    spec: RunSpec
    models: models.Pair
    options: Any
    capacity: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load run needs. `first` is a prompt that a plain step is timed behind."""

    spec: LoadSpec
    pairs: list[LoadedPair]
    prompts: Prompts
    source: Source
    first: Request


def prepare(spec: LoadSpec, *, on_progress: OnProgress, runs: Path | None = None) -> Plan:
    """Check a spec and load its models.

    Raises:
        UserError: a trace with wrong lines, an unknown method, option, workload or model, pairs of
            different vocabularies.
    """
    resolved = models.resolve_references(spec, runs)
    assert isinstance(resolved, LoadSpec)
    spec = resolved
    trace = read_trace(Path(spec.trace)) if spec.trace is not None else []
    trace = trace[: spec.requests]
    Source(spec, trace=trace)  # refuses names of pairs that are not there
    questions = questions_of(spec)
    settings = [(pair.name, spec.run_of(pair)) for pair in spec.pair_specs]
    options = [models.check_spec(one) for _, one in settings]
    loaded = []
    for name, one in settings:
        label = f"Loading models of {name}" if name else "Loading models"
        on_progress("load", label, None)
        # replicas have the device; this process wants their tokenizer and their limits
        here = one.model_copy(update={"device": "cpu"}) if spec.replicated else one
        loaded.append(models.load_pair(here, on_progress=lambda m, f: on_progress("load", m, f)))
    _check_vocabularies(settings, loaded)
    context = min(pair.target.context_length for pair in loaded)
    prompts = Prompts(spec, questions, loaded[0].target.tokenizer)
    capacity = prompts.longest(trace, context)
    _check_trace(prompts, trace)
    source = Source(spec, trace=trace, most_prompt=most_prompt(spec, context))
    return Plan(
        spec=spec,
        pairs=[
            LoadedPair(name, one, pair, parsed, capacity)
            for (name, one), pair, parsed in zip(settings, loaded, options, strict=True)
        ],
        prompts=prompts,
        source=source,
        first=_first(spec, prompts, context),
    )


def _first(spec: LoadSpec, prompts: Prompts, context: int) -> Request:
    """A prompt of usual length. Raises UserError where the workload's first one does not fit."""
    length = None
    if spec.prompt_tokens != WORKLOAD:
        length = min(
            max(1, round(parse_mix(spec.prompt_tokens).typical)), most_prompt(spec, context)
        )
    request = prompts.request(Wanted(0, 0, "", "", max_new_tokens=1, num_prompt=length))
    if len(request.prompt_ids) >= context:
        raise UserError(
            f"The prompt of question {request.question_id} has {len(request.prompt_ids)} tokens; "
            f"the model takes {context}, the answer included. Shorten it, or set a length for "
            "prompts."
        )
    return request


def _check_trace(prompts: Prompts, trace: list[Line]) -> None:
    for number, line in enumerate(trace, 1):
        if line.question is not None and line.question not in prompts:
            raise UserError(
                f"Request {number} of the trace asks question {line.question[:40]!r}, which the "
                f"workload does not have; name its workload with --workload. It has "
                f"{prompts.shown_ids}."
            )


def _check_vocabularies(settings: list[tuple[str, RunSpec]], loaded: list[models.Pair]) -> None:
    """A run keeps one text for each token, so all its pairs read the same ones."""
    ours = loaded[0].target.tokenizer.get_vocab()
    for (name, one), pair in zip(settings[1:], loaded[1:], strict=True):
        if pair.target.tokenizer.get_vocab() != ours:
            raise UserError(
                f"Pair {name} ({one.target}) has another vocabulary than pair {settings[0][0]} "
                f"({settings[0][1].target}); pairs of one load run share theirs."
            )
