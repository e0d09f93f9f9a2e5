"""Heads that are trained, as their cards tell them, and whether their targets are still here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from engine.errors import UserError
from engine.heads.files import CARD, WEIGHTS, read_card
from engine.paths import data_folder
from engine.training.heads_log import HeadRun
from workbench.discovery import Model
from workbench.spec import RunSpec
from workbench.specfile import spec_text
from workbench.training.spec import OUT
from workbench.view.compare_form import duration
from workbench.view.heads_runs import heads_folder
from workbench.view.visible import safe_text


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head. `problem` is empty where it can draft for its target here."""

    folder: Path
    name: str  # as the option `head` takes it: an embedded name or the folder
    kind: str
    target: str  # as a spec takes it here; the card's name where it is not here
    card: dict[str, Any]
    embedded: bool
    problem: str = ""

    @property
    def title(self) -> str:
        """What it is called on its card."""
        return self.folder.parent.name if self.folder.name == OUT else self.folder.name


def heads(trained: list[HeadRun], known: list[Model]) -> list[Head]:
    """The embedded heads, then those that trainings wrote, here or in ./heads; each once."""
    shipped = data_folder() / "heads"
    folders = sorted(path.parent for path in shipped.glob(f"*/{CARD}"))
    given = {
        Path(str(run.start["out"])).resolve(): str(run.start.get("target_given", ""))
        for run in trained
        if run.start.get("out")
    }
    folders += list(given)
    for place, where in ((Path("heads"), f"*/{CARD}"), (heads_folder(), f"*/{OUT}/{CARD}")):
        folders += sorted(path.parent for path in place.glob(where))
    found: dict[Path, Head] = {}
    for folder in folders:
        if folder.resolve() not in found and (folder / CARD).is_file():
            at = folder.resolve()
            found[at] = head_in(folder, known, given.get(at, ""))
    return list(found.values())


def head_of(run: HeadRun, known: list[Model]) -> Head | None:
    """The head that a training wrote, None where it has written none yet."""
    folder = Path(str(run.start.get("out") or "-"))
    given = str(run.start.get("target_given", ""))
    return head_in(folder, known, given) if (folder / CARD).is_file() else None


def accuracies(card: dict[str, Any]) -> pd.DataFrame:
    """`offset`, `top1`, `top5` as shares of text held out, and the `ngram`'s first guess."""
    ngram = card.get("ngram") or {}
    lines = [
        {
            "offset": int(offset),
            "top1": float(one["top1"]),
            "top5": float(one["top5"]),
            "ngram": (ngram.get(offset) or {}).get("top1"),
        }
        for offset, one in sorted(
            (card.get("held_out") or {}).items(), key=lambda item: int(item[0])
        )
        if isinstance(one, dict) and "top1" in one and "top5" in one
    ]
    return pd.DataFrame(lines, columns=["offset", "top1", "top5", "ngram"])


def facts(head: Head) -> list[tuple[str, str]]:
    """What else its card says: a name and a text each."""
    card = head.card
    if not card:
        return []
    training, made_for = card.get("training") or {}, card.get("target") or {}
    told = [("Target", str(made_for.get("name", "not known")))]
    if described := (card.get("corpus") or {}).get("description"):
        told.append(("Trained on", str(described)))
    if written := card.get("written_tokens"):
        told.append(("And on", f"{written:,} tokens that the target wrote"))
    if training.get("tokens"):
        took = duration(float(training.get("seconds") or 0.0))
        told.append(("Cost", f"{training['tokens']:,} tokens, {took}"))
    own = (card.get("written") or {}).get(str(nearest(card)))
    if isinstance(own, dict) and "top1" in own:
        told.append(("On the target's own text", f"first guess right {own['top1']:.1%}"))
    return [*told, ("Size", _size_told(head))]


def nearest(card: dict[str, Any]) -> int:
    """The nearest offset that it guesses."""
    return min((int(offset) for offset in card.get("held_out") or {}), default=2)


def _size_told(head: Head) -> str:
    try:
        return f"{(head.folder / WEIGHTS).stat().st_size / 1e6:.1f} MB"
    except OSError:
        return "no weights"


def trial_spec(head: Head) -> str:
    """A run that drafts with it, as the text of a spec file for the Run page."""
    return spec_text(
        RunSpec(
            method=head.kind, options={"head": head.name}, target=head.target, draft=None,
            workload="code",
        )
    )  # fmt: skip


def head_in(folder: Path, known: list[Model], given: str = "") -> Head:
    """The head in a folder, with what is wrong with it; `given` is what its training was told."""
    embedded = folder.parent == data_folder() / "heads"
    name = folder.name if embedded else str(folder.resolve())
    try:
        card = read_card(folder)
    except UserError as error:
        return Head(folder, name, "", "", {}, embedded, problem=safe_text(str(error)))
    made_for = card.get("target") or {}
    target, problem = target_here(
        str(made_for.get("name", "")), str(made_for.get("content_hash", "")), known, given
    )
    if not problem and not (folder / WEIGHTS).is_file():
        problem = f"Its weights are missing: {folder / WEIGHTS}."
    return Head(folder, name, str(card["kind"]), target, card, embedded, problem)


def target_here(
    name: str, content_hash: str, known: list[Model], given: str = ""
) -> tuple[str, str]:
    """What a spec calls the target that a head was made for, and why it cannot be used."""
    if "/" in given and (Path(given) / "config.json").is_file():
        changed = max(file.stat().st_mtime_ns for file in Path(given).iterdir())
        if _content_hash(given, changed) == content_hash:
            return given, ""
    called = [model for model in known if name in (model.name, model.path.name)]
    for model in called:
        if _hash_of(model) == content_hash:
            return model.name, ""
    if called:
        return called[0].name, (
            f"Its target {name} has changed since: the head was made for other weights "
            f"({content_hash}, not {_hash_of(called[0])}), and would only guess. Train it anew."
        )
    return name, (
        f"Its target {name or 'model'} is not on this machine; put it where models are found "
        "(DRAFTREE_MODELS), or train a head for another one."
    )


def _hash_of(model: Model) -> str:
    if model.path.parent.name == "snapshots":  # of the hub's cache: named by its commit
        return model.path.name
    try:
        changed = max(file.stat().st_mtime_ns for file in model.path.iterdir())
    except (OSError, ValueError):
        return ""
    return _content_hash(str(model.path), changed)


@lru_cache(maxsize=64)
def _content_hash(folder: str, changed: int) -> str:
    from engine.models import content_hash

    return content_hash(folder)
