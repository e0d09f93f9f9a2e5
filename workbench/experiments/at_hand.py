"""Are an experiment's models on this machine? From small files, before anything is loaded.

A hub id is looked for in the local Hugging Face cache, and by its name in the folders of models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from workbench import discovery
from workbench.comparing.result import CompareSpec
from workbench.discovery import Model
from workbench.experiments.stored import Experiment, Source, changed

#: what a model needs: repositories also hold the weights in other formats
_FILES = ('"*.safetensors"', '"*.json"', '"*.txt"')
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


@dataclass(frozen=True, slots=True)
class AtHand:
    """One model that an experiment needs. `problem` is empty where it can be loaded."""

    role: str  # target or draft
    name: str  # as the experiment has it
    place: str = ""  # what a spec takes to load it here
    problem: str = ""  # what is missing, a sentence
    fetch: str = ""  # how to fetch it, a sentence; empty where it cannot be fetched


def at_hand(
    spec: CompareSpec,
    sources: dict[str, Source] | None = None,
    known: list[Model] | None = None,
) -> list[AtHand]:
    """Every model of a comparison, once, and where it is. `known`: the models of this machine."""
    models = discovery.models() if known is None else known
    roles = {spec.target: "target"}
    for name in (spec.draft, *spec.other_drafts):
        if name is not None:
            roles.setdefault(name, "draft")
    return [_look(name, role, sources or {}, models) for name, role in roles.items()]


def on_this_machine(
    experiment: Experiment, spec: CompareSpec, known: list[Model] | None = None
) -> CompareSpec:
    """The comparison with every model named as it is found here.

    Raises:
        UserError: a model is missing: which, where it was looked for, how to fetch it.
    """
    found = at_hand(spec, experiment.models, known)
    if missing := [one for one in found if one.problem]:
        raise UserError(f"{missing_told(missing)} Other models: --target and --draft.")
    place = {one.name: one.place for one in found}
    return changed(
        spec,
        target=place[spec.target],
        draft=place.get(spec.draft or ""),
        other_drafts=[place[name] for name in spec.other_drafts] or None,
    )


def missing_told(missing: list[AtHand]) -> str:
    """Which models are missing, where they were looked for, how to fetch them, in sentences."""
    folders = ", ".join(str(folder) for folder in discovery.model_folders())
    said = [one.problem for one in missing]
    if any(one.fetch for one in missing):
        said.append(
            f"Looked for in the Hugging Face cache {discovery.hub_cache()} and in the folders "
            f"{folders} (DRAFTREE_MODELS names more)."
        )
    said += [one.fetch for one in missing if one.fetch]
    return " ".join(said)


def _look(name: str, role: str, sources: dict[str, Source], known: list[Model]) -> AtHand:
    fetch = _fetch(name, sources.get(name, Source())) if _is_hub_id(name) else ""
    model = discovery.find(name, known) or _by_its_name(name, known)
    if model is None:
        return AtHand(role, name, problem=_missing(name, role), fetch=fetch)
    problem = model.problem or _incomplete(model)
    return AtHand(role, name, place=model.name, problem=problem, fetch=fetch if problem else "")


def _by_its_name(name: str, known: list[Model]) -> Model | None:
    """A folder of models that is called as the hub calls it, `Owner/Name` or `Name`."""
    if not _is_hub_id(name):
        return None
    ends = (tuple(name.split("/")), (name.partition("/")[2],))
    for end in ends:
        for model in known:
            if model.path.parts[-len(end) :] == end:
                return model
    return None


def _incomplete(model: Model) -> str:
    """What a folder lacks that was not fetched to its end: shards of weights, the tokenizer."""
    lacking = sorted(
        name
        for index in model.path.glob("*.safetensors.index.json")
        for name in _shards(index)
        if not (model.path / name).is_file()
    )
    if lacking:
        return f"{model.name} is not here as a whole: {model.path} lacks {', '.join(lacking[:3])}."
    if not any((model.path / name).is_file() for name in _TOKENIZERS):
        return f"{model.name} has no tokenizer in {model.path}."
    return ""


def _shards(index: Path) -> set[str]:
    try:
        return set(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _missing(name: str, role: str) -> str:
    if _is_hub_id(name):
        return f"The {role} {name} is not on this machine."
    embedded = "" if "/" in name else ", nor an embedded model of that name"
    return f"The {role} {name} is not here: there is no such model folder{embedded}."


def _fetch(name: str, source: Source) -> str:
    size = f" ({source.gigabytes:g} GB)" if source.gigabytes else ""
    note = f" {source.note}" if source.note else ""
    return f"Fetch it{size}: `{fetch_command(name)}`.{note}"


def fetch_command(name: str) -> str:
    """What to type to have a model of the hub in the local cache, without other formats."""
    return " ".join(["hf download", name, *(f"--include {files}" for files in _FILES)])


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and name[0] not in "./~"
