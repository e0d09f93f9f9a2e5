"""From the form of the Compare page to a comparison or a sweep, and what it will cost.

No method is imported here: the worker checks options, so the page opens without an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from engine.errors import UserError
from engine.registry import method_names
from workbench.comparing.arms import BASELINES, PLAIN
from workbench.comparing.expand import arm_text, expand, has_lists, read_arm
from workbench.comparing.result import CompareSpec
from workbench.sweeping.spec import NAME, SweepSpec, build_sweep

PRESETS = {
    "Common": ["speculative", "static-tree", "dynamic-tree"],
    "Trees by size": ["dynamic-tree:nodes=[2,4,6,8,12,16]"],
    "No draft model": ["prompt-lookup", "suffix", "token-recycling"],
    "The target itself": ["layer-skip", "early-exit", "kangaroo", "medusa", "eagle"],
}
SWEEP_PRESETS = {
    "Nodes and depth": ["dynamic-tree:nodes=[4,6,8],depth=[3,4,5]"],
    "Chain length": ["speculative:length=[1,2,3,4,6,8]"],
    "Exit and length": ["early-exit:layers=[1,2,3,4],length=[2,3,4,6]"],
    "Policies": ["dynamic-tree:policy=[eagle2,best-first,opt-tree],nodes=[4,8]"],
}
BASELINE_LABELS = {
    "hf-generate": "Hugging Face generate",
    "hf-assisted": "Hugging Face, assisted",
    "hf-prompt-lookup": "Hugging Face, prompt lookup",
    "draft-alone": "Draft model alone",
}


class Cost(NamedTuple):
    """What a measurement comes to."""

    arms: int  # plain decoding and the baselines included
    prompts: int
    decodes: int
    tokens: int
    seconds: float | None  # at the pace of plain decoding, where it is known

    def sentence(self, spec: CompareSpec) -> str:
        """In words, with the product that it comes from."""
        settings = _settings(spec)
        parts = [_count(self.arms, "arm"), _count(self.prompts, "prompt")]
        parts += [_count(spec.repeats, "repeat")] if spec.repeats > 1 else []
        parts += [_count(settings, "setting")] if settings > 1 else []
        said = f"{' × '.join(parts)} = {self.decodes:,} decodes of {spec.max_new_tokens} tokens"
        if self.seconds is None:
            return f"{said}."
        return f"{said}; {duration(self.seconds)} at the pace of plain decoding here."


def build_compare(fields: Mapping[str, Any]) -> CompareSpec:
    """A checked comparison. Raises UserError with a sentence for people."""
    _check_arms(fields["methods"])
    _check_rest(fields)
    try:
        return CompareSpec(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", " ").capitalize() if first["loc"] else "Comparison"
        raise UserError(f"{name} is {first['input']!r}: {first['msg']}.") from error


def build_named_sweep(fields: Mapping[str, Any], name: str) -> SweepSpec:
    """A checked sweep. Raises UserError with a sentence for people."""
    if not name:
        raise UserError("The sweep has no name; type one, so that it can be gone on with later.")
    if not NAME.fullmatch(name):
        raise UserError(
            f"The name is {name[:80]!r}; use up to 64 letters, digits, dots and dashes."
        )
    _check_arms(fields["methods"])
    _check_rest(fields)
    if len(expand(fields["methods"])) < 2:
        raise UserError(
            "One cell is no sweep; give an option several values, such as nodes=[4,6,8]."
        )
    return build_sweep(dict(fields) | {"name": name})


def sweep_name(methods: Sequence[str]) -> str:
    """A name that says what is swept: method and the options that are lists."""
    for text in methods:
        try:
            method, options = read_arm(text)
        except UserError:
            continue
        listed = [name for name, value in options.items() if value.startswith("[")]
        if listed:
            return "-".join([method, *(name.replace("_", "-") for name in listed)])[:64]
    return "sweep"


def cost(spec: CompareSpec, *, prompts: int, pace: float | None = None) -> Cost:
    """What it comes to on so many prompts. `pace`: plain decoding's tokens per second.

    A sweep measures plain decoding anew in each of its parts.
    """
    if isinstance(spec, SweepSpec):
        cells = len(spec.cells())
        arms = cells + -(-cells // spec.together)
    else:
        named = {read_arm(text)[0] for text in spec.methods}
        baselines = sum(name not in named for name in spec.baselines)
        arms = len({PLAIN, *expand(spec.methods)}) + baselines
    decodes = arms * prompts * spec.repeats * _settings(spec)
    tokens = decodes * spec.max_new_tokens
    return Cost(arms, prompts, decodes, tokens, tokens / pace if pace else None)


def arm_of(method: str, typed: Mapping[str, str], text_options: Iterable[str] = ()) -> str:
    """An arm from what was typed for each option; nothing typed leaves the default.

    Commas part several values of numbers and words, bars those of `text_options`, whose values
    hold commas themselves.
    """
    texts = set(text_options)
    options: dict[str, Any] = {}
    for name, value in typed.items():
        parts = [part.strip() for part in value.split("|" if name in texts else ",")]
        parts = [part for part in parts if part]
        if parts:
            options[name] = parts if len(parts) > 1 else parts[0]
    return arm_text(method, options)


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 50:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {_count(max(1, minutes), 'minute')}"
    hours = seconds / 3600
    return f"about {hours:.1f} hours" if hours < 10 else f"about {hours:.0f} hours"


def _check_arms(methods: Sequence[str]) -> None:
    known = [*method_names(), *BASELINES]
    if not methods:
        raise UserError("No method is chosen; choose one, or take a preset.")
    for text in methods:
        name, _ = read_arm(text)
        if name not in known:
            raise UserError(f"Method {name[:60]!r} is unknown; there are: {', '.join(known)}.")
        if has_lists(text):
            expand([text])


def _check_rest(fields: Mapping[str, Any]) -> None:
    if not fields["workloads"]:
        raise UserError("No workload is chosen; choose one, or type the path of a file of prompts.")
    if not fields["dtypes"]:
        raise UserError("No dtype is chosen; float32 works everywhere.")
    if not fields.get("caches", [True]):
        raise UserError("Neither with nor without key-value cache is chosen; choose on.")
    if not fields["target"]:
        raise UserError("The target model is empty; give a local folder or a hub id.")


def _settings(spec: CompareSpec) -> int:
    return len(spec.dtypes) * len(spec.caches) * len(spec.executions)


def _count(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else one + 's'}"
