"""Experiments as files: a comparison with a title, what it asks, and where its models come from.

Those that ship lie in data/experiments/NAME.json; any other file of the form is taken by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import UserError
from engine.paths import data_folder
from workbench.comparing.result import CompareSpec
from workbench.jsonfiles import read_object, reason_of
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET


class Source(BaseModel):
    """What fetching a model comes to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gigabytes: float | None = Field(default=None, gt=0, description="to fetch, about")
    note: str = Field(default="", description="what has to be done before, in a sentence")


class Experiment(BaseModel):
    """A stored comparison. `name` is what it is started by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="of its file")
    title: str = Field(min_length=1, description="a line")
    about: str = Field(default="", description="what it asks, in a few sentences")
    models: dict[str, Source] = Field(
        default_factory=dict, description="of models on the hub: what fetching them comes to"
    )
    compare: CompareSpec = Field(description="what is measured, as `draftree compare` takes it")


def experiments_folder() -> Path:
    """Where those that ship are."""
    return data_folder() / "experiments"


def experiment_names() -> list[str]:
    """Those that ship; the one whose models ship too comes first."""
    return sorted(
        (file.stem for file in experiments_folder().glob("*.json")),
        key=lambda name: (not name.startswith("embedded"), name),
    )


def load_experiment(wanted: str) -> Experiment:
    """By the name of one that ships or the path of a file. Raises UserError."""
    if wanted in experiment_names():
        return read_experiment(experiments_folder() / f"{wanted}.json")
    file = Path(wanted).expanduser()
    if file.suffix != ".json" and not file.is_file():
        raise UserError(
            f"There is no experiment {wanted[:80]!r}; there are {', '.join(experiment_names())}, "
            "or give the path of a JSON file."
        )
    return read_experiment(file)


def read_experiment(file: Path) -> Experiment:
    """An experiment from its file. Raises UserError naming the file and the field."""
    values = read_object(file, "an experiment")
    try:
        return Experiment.model_validate(values | {"name": file.stem})
    except ValidationError as error:
        raise UserError(f"{file}: {_reason(error)}") from None


def changed(spec: CompareSpec, **changes: Any) -> CompareSpec:
    """The same comparison with other values, on other models for one. None: as it was.

    Raises UserError for values that do not fit.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return CompareSpec.model_validate(spec.model_dump(exclude_unset=True) | given)
    except ValidationError as error:
        raise UserError(_reason(error)) from None


def on_models(spec: CompareSpec, *, target: str | None, draft: str | None) -> CompareSpec:
    """The same comparison on other models; None leaves one as it is.

    Raises UserError where a target is named and nothing is said of the draft that the arms need.
    """
    if target is not None and draft is None and spec.draft is not None:
        if target != EMBEDDED_TARGET:
            raise UserError(
                f"The experiment drafts with {spec.draft}; with the target {target} name its own "
                "draft too, with --draft."
            )
        draft = EMBEDDED_DRAFT
    others: list[str] | None = [] if target or draft else None
    return changed(spec, target=target, draft=draft, other_drafts=others)


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "the experiment"
    if first["type"] == "missing":
        return f"{field} is missing."
    if first["type"] == "extra_forbidden":
        return f"{field} is no setting of an experiment."
    return f"{field} is {str(first['input'])[:80]!r}; use {reason_of(first)}."
