"""What the parts that a method drafts with cost to train, as the cards beside them tell."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError
from engine.heads import KINDS
from engine.heads.files import find_head, read_card, resolve_head
from engine.models import LoadedModel, resolve_path
from engine.registry import parse_options
from workbench.compare import CompareSpec
from workbench.comparing.arms import Arm


class Cost(NamedTuple):
    """One trained part. Figures that its card does not tell are None."""

    part: str
    minutes: float | None
    tokens: int | None  # read while training, those seen twice twice
    written: int | None  # tokens that the target wrote for it first


NOTHING = Cost("nothing", 0.0, 0, 0)


def drafts_with_head(label: str) -> bool:
    """Whether an arm drafts with a trained head."""
    return label.partition(":")[0] in KINDS


def why_not(arm: Arm, target: LoadedModel) -> str:
    """Why an arm cannot run for want of a trained head; empty: it can."""
    if not drafts_with_head(arm.method):
        return ""
    try:
        _head_folder(arm, target)
    except UserError as error:
        return str(error)
    return ""


def cost_of(arm: Arm, spec: CompareSpec, target: LoadedModel) -> Cost:
    """What an arm's parts cost besides the target itself."""
    if drafts_with_head(arm.method):
        folder = _head_folder(arm, target)
        card = read_card(folder)
        trained = card.get("training", {})
        seconds = trained.get("seconds")
        return Cost(
            folder.name,
            None if seconds is None else seconds / 60,
            trained.get("tokens"),
            card.get("written_tokens"),
        )
    if not arm.needs_draft:
        return NOTHING
    draft = spec.text_draft or spec.draft if arm.takes_any_vocabulary else spec.draft
    return _draft_model(str(draft))


def costs(arms: Iterable[Arm], spec: CompareSpec, target: LoadedModel) -> dict[str, Cost]:
    """By method, of arms that draft with something trained."""
    found: dict[str, Cost] = {}
    for arm in arms:
        cost = cost_of(arm, spec, target)
        if cost != NOTHING:
            found.setdefault(arm.method, cost)
    return found


def _head_folder(arm: Arm, target: LoadedModel) -> Path:
    """Raises UserError where there is none."""
    named = parse_options(arm.method, arm.options).head
    folder = resolve_head(named) if named else find_head(arm.method, target)
    if folder is None:
        raise UserError(f"no embedded {arm.method} head was made for {target.name}.")
    return folder


def _draft_model(name: str) -> Cost:
    """Distilling a draft model: scoring or writing by the target, then the draft's own training."""
    try:
        card = json.loads((Path(resolve_path(name)) / "training.json").read_text())
        trained: dict[str, Any] = card["draft_training"]
        before = card.get("teacher") or card.get("written") or {}
        seconds = trained["seconds"] + before.get("seconds", 0.0)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return Cost(name, None, None, None)
    written = card.get("written", {}).get("tokens", 0)
    return Cost(name, seconds / 60, trained.get("tokens"), written)
