"""What a kind of head and its training can be told, with the usual values.

Imports the kind, and torch with it: only where the settings are looked at.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, NamedTuple

from workbench.training.spec import LEARNING_RATES, OPTIMISER


class Setting(NamedTuple):
    """One setting as a form shows it; `usual` is its value where nothing is chosen."""

    usual: Any
    label: str
    help: str = ""
    choices: tuple[str, ...] = ()


def describe_kind(kind: str) -> dict[str, Setting]:
    """The keyword arguments of the kind's objective, by name."""
    from engine.heads import head_kind

    told = inspect.signature(head_kind(kind).objective_class()).parameters.values()
    return {
        one.name: Setting(one.default, one.name.replace("_", " ").capitalize())
        for one in told
        if one.kind is one.KEYWORD_ONLY and isinstance(one.default, bool | int | float | str)
    }


def describe_recipe() -> dict[str, Setting]:
    """Settings of the training, by name."""
    from engine.training.heads import HeadRecipe

    usual = {field.name: field.default for field in dataclasses.fields(HeadRecipe)}
    return {
        "rows": Setting(usual["rows"], "Rows of a pass"),
        "length": Setting(usual["length"], "Tokens of a row"),
        "accumulate": Setting(usual["accumulate"], "Passes of a step"),
        "patience": Setting(
            usual["patience"], "Patience",
            "Looks at held-out text without a better one that end it. 0: none does.",
        ),
        "optimiser": Setting(OPTIMISER, "Optimiser", choices=tuple(LEARNING_RATES)),
        "lr": Setting(0.0, "Learning rate", "The largest. 0: as suits the optimiser."),
    }  # fmt: skip
