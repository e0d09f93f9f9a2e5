"""Models on this machine, and whether two of them fit together: from small files, never weights.

Looked at: the embedded models, the folders of `DRAFTREE_MODELS` and `./models`, and the local
Hugging Face cache. Only config.json, the heads of safetensors files and tokenizer.json are read,
and nothing is fetched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.paths import data_folder

#: an index or head longer than this is no model's
_MOST_HEAD = 64 << 20
_MOST_MODELS = 300
_DEPTH = 2  # folders below a folder of models


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is there. `name` is what a spec takes."""

    name: str
    path: Path
    kind: str  # as its config has it: llama, qwen3, ...
    parameters: int  # 0: not known
    num_bytes: int  # of its weight files
    vocab_size: int
    context: int
    problem: str = ""  # why it cannot decode here, a sentence


def models(*, folders: list[Path] | None = None, cache: Path | None = None) -> list[Model]:
    """All models found, the embedded ones first; `folders` and `cache` are for tests."""
    places = model_folders() if folders is None else folders
    found: dict[str, Model] = {}
    for path, name in _candidates(places, hub_cache() if cache is None else cache):
        if name not in found and len(found) < _MOST_MODELS:
            model = _read(path, name)
            if model is not None:
                found[name] = model
    return list(found.values())


def find(name: str, known: list[Model]) -> Model | None:
    """The model a spec means by `name`, None where it is not on this machine."""
    for model in known:
        if name in (model.name, str(model.path)):
            return model
    folder = Path(name).expanduser()
    return _read(folder, name) if folder.is_dir() else None


def model_folders() -> list[Path]:
    """Where models are looked for, beside the Hugging Face cache."""
    named = [Path(part).expanduser() for part in _split(os.environ.get("DRAFTREE_MODELS", ""))]
    return [data_folder() / "models", *named, Path("models")]


def hub_cache() -> Path:
    """The local Hugging Face cache, by the variables that move it."""
    if chosen := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface") / "hub"


# --- do two of them fit together? ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fit:
    """`works` is None where files alone do not tell. `sentence` is for people."""

    works: bool | None
    sentence: str


def fit(target: Model, draft: Model, *, any_vocabulary: bool = False) -> Fit:
    """Whether `draft` can draft for `target`: one vocabulary, and what their sizes promise.

    `any_vocabulary` is for methods that draft by way of text.
    """
    for model in (target, draft):
        if model.problem:
            return Fit(False, model.problem)
    if target.path.resolve() == draft.path.resolve():
        return Fit(
            True,
            "Target and draft are the same model: every greedy draft is accepted, and drafting "
            "costs as much as it saves.",
        )
    ours, theirs = vocabulary(target.path), vocabulary(draft.path)
    if ours is None or theirs is None:
        which = target if ours is None else draft
        return Fit(
            None,
            f"Whether they share a vocabulary is not told by files: {which.name} has no "
            "tokenizer.json. The run checks it when it begins.",
        )
    if ours != theirs:
        if any_vocabulary:
            return Fit(True, "Their vocabularies differ; this method drafts by way of text.")
        differing = sum(ours.get(token) != at for token, at in theirs.items())
        return Fit(
            False,
            f"They do not fit: the vocabularies differ ({len(ours):,} and {len(theirs):,} tokens, "
            f"{differing:,} of the draft's mean something else to the target). Choose a draft of "
            "the target's family, the method universal, or one without a draft model.",
        )
    said = [f"They fit: the same vocabulary of {len(ours):,} tokens.", _sizes(target, draft)]
    if 0 < draft.context < target.context:
        said.append(
            f"The draft's context of {draft.context:,} tokens is shorter than the target's "
            f"{target.context:,}: keep prompt and answer within it."
        )
    return Fit(True, " ".join(filter(None, said)))


def _sizes(target: Model, draft: Model) -> str:
    if not (target.parameters and draft.parameters):
        return ""
    ratio = target.parameters / draft.parameters
    sizes = f"{amount(target.parameters)} and {amount(draft.parameters)} parameters"
    if ratio < 1:
        return f"The draft is the larger one ({sizes}): it will not pay."
    if ratio < 3:
        return f"The draft is nearly as large ({sizes}): it will hardly pay."
    return f"The target is {ratio:.0f} times as large ({sizes})."


def vocabulary(folder: Path) -> dict[str, int] | None:
    """Token to id, as the fast tokenizer has it; None where tokenizer.json does not tell."""
    file = folder / "tokenizer.json"
    try:
        return _vocabulary(str(file), file.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)
def _vocabulary(file: str, changed: int) -> dict[str, int] | None:
    try:
        stored = json.loads(Path(file).read_text(encoding="utf-8"))
        known = stored["model"]["vocab"]
        if isinstance(known, list):  # Unigram: pairs of token and score, in order
            known = {token: at for at, (token, _) in enumerate(known)}
        added = {one["content"]: int(one["id"]) for one in stored.get("added_tokens") or []}
        return {str(token): int(at) for token, at in known.items()} | added
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


# --- reading what is there ----------------------------------------------------------------------


def _candidates(places: list[Path], cache: Path) -> Iterator[tuple[Path, str]]:
    """Folders that may hold a model, with the name a spec takes."""
    embedded = data_folder() / "models"
    for place in places:
        for path in _below(place, _DEPTH):
            at_home = place == embedded and path.parent == embedded
            yield path, path.name if at_home else str(path)
    for repository in _entries(cache):
        if not repository.name.startswith("models--"):
            continue
        snapshot = _snapshot(repository)
        if snapshot is not None:
            yield snapshot, repository.name.removeprefix("models--").replace("--", "/")


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "config.json").is_file():
        yield folder
    elif depth:
        for entry in _entries(folder):
            yield from _below(entry, depth - 1)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError:
        return []


def _snapshot(repository: Path) -> Path | None:
    """The revision that `main` names, or else the newest one that is there."""
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        revision = ""
    named = repository / "snapshots" / revision
    if revision and named.is_dir():
        return named
    there = _entries(repository / "snapshots")
    return max(there, key=lambda path: path.stat().st_mtime, default=None)


def _read(path: Path, name: str) -> Model | None:
    """A model's facts; None for a folder that holds no language model at all."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    weights = sorted(path.glob("*.safetensors"))
    return Model(
        name=name,
        path=path,
        kind=kind,
        parameters=sum(map(_parameters, weights)),
        num_bytes=sum(_size(file) for file in weights),
        vocab_size=_number(text, "vocab_size"),
        context=_number(text, "max_position_embeddings"),
        problem=_problem(config, kind, name, has_weights=bool(weights)),
    )


def _problem(config: dict[str, Any], kind: str, name: str, *, has_weights: bool) -> str:
    from types import SimpleNamespace

    from engine.models import refuse_unsuitable

    facts = {"is_encoder_decoder": False, "architectures": None} | config | {"model_type": kind}
    try:
        refuse_unsuitable(SimpleNamespace(**facts), name)
    except UserError as error:
        return str(error)
    except TypeError:
        return f"The config.json of {name} is malformed; fetch the model again."
    if not has_weights:
        return f"{name} has no safetensors files here; fetch its weights in that format."
    return ""


def _parameters(file: Path) -> int:
    """Elements of all tensors, from the head of a safetensors file; 0 if it is damaged."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length < _MOST_HEAD:
                return 0
            head = json.loads(stream.read(length))
        return sum(prod(one["shape"]) for name, one in head.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _number(config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    return value if isinstance(value, int) else 0


def _split(paths: str) -> list[str]:
    return [part for part in paths.split(os.pathsep) if part.strip()]


def amount(number: int) -> str:
    """A count of parameters as people say it: 1.5 B, 494 M, 12 k."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            value = number / size
            return f"{value:.1f} {letter}" if value < 10 else f"{value:.0f} {letter}"
    return str(number)


def label(model: Model) -> str:
    """A line to choose it by: name (of a long path its end), kind, size."""
    parts = ["/".join(Path(model.name).parts[-2:]), model.kind]
    parts += [amount(model.parameters)] if model.parameters else []
    parts += [f"{model.num_bytes / 1e9:.1f} GB" if model.num_bytes >= 1e9 else
              f"{model.num_bytes / 1e6:.0f} MB"] if model.num_bytes else []  # fmt: skip
    return " · ".join(parts)
