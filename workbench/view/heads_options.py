"""What a kind of head and its training can be told, with the usual values.

Imports the kind, and torch with it: only where the settings are looked at.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from workbench.training.spec import LEARNING_RATE

#: settings of the recipe that a person may want to change
_RECIPE = ("rows", "length", "accumulate", "lr", "patience")


def describe_kind(kind: str) -> dict[str, Any]:
    """The keyword arguments of the kind's objective, by name."""
    from engine.heads import head_kind

    told = inspect.signature(head_kind(kind).objective_class()).parameters.values()
    return {
        one.name: one.default
        for one in told
        if one.kind is one.KEYWORD_ONLY and isinstance(one.default, bool | int | float | str)
    }


def describe_recipe() -> dict[str, Any]:
    """Settings of the training, by name."""
    from engine.training.heads import HeadRecipe

    usual = {field.name: field.default for field in dataclasses.fields(HeadRecipe)}
    return {name: usual[name] for name in _RECIPE} | {"lr": LEARNING_RATE}
