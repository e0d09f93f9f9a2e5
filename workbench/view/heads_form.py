"""From the form of the Heads page to a training, and what it comes to."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.spec import EMBEDDED_TARGET
from workbench.training.spec import TrainSpec, read_spec
from workbench.view.heads_runs import heads_folder

KIND_LABELS = {"medusa": "Medusa", "kangaroo": "Kangaroo", "eagle": "EAGLE"}
LIBRARY, FILES, WORKLOAD = "Standard library", "Files", "Workload"
MINUTES, TOKENS = "Minutes", "Tokens"
#: packages of the standard library that are put into tokens within seconds
_SMALL = ("asyncio", "collections", "email", "http", "importlib", "json", "logging", "urllib")
_FIELDS = {"texts": "Files", "minutes": "Minutes", "tokens": "Tokens", "target": "Target"}


def training_name(kind: str, target: str) -> str:
    """A name that says what it is: the target's, and the kind."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(target).name).strip("-.") or "head"
    return f"{base[: 63 - len(kind)]}-{kind}"


def free_name(name: str, folder: Path | None = None) -> str:
    """`name`, with a number where a training is kept under it already."""
    place = heads_folder() if folder is None else folder
    tried, number = name, 1
    while (place / tried).exists():
        number += 1
        tried = f"{name[:60]}-{number}"
    return tried


def build_training(fields: Mapping[str, Any]) -> TrainSpec:
    """A checked training. Raises UserError with a sentence for people."""
    if not fields["target"]:
        raise UserError("The target model is empty; give a local folder or a hub id.")
    if fields["source"] == FILES and not fields["texts"]:
        raise UserError("No text is named; give files or folders, or take the standard library.")
    for text in fields["texts"] if fields["source"] == FILES else ():
        if not Path(text).expanduser().exists():
            raise UserError(f"There is no file or folder {text[:200]}.")
    by_minutes = fields["budget"] == MINUTES
    values = {name: fields[name] for name in ("kind", "target", "options", "recipe", "dtype",
                                              "device", "seed", "threads", "written")}  # fmt: skip
    name = fields["name"] or free_name(training_name(fields["kind"], fields["target"]))
    try:
        return TrainSpec(
            name=name,
            texts=fields["texts"] if fields["source"] == FILES else [],
            workload=fields["workload"] if fields["source"] == WORKLOAD else None,
            minutes=fields["minutes"] if by_minutes else None,
            tokens=None if by_minutes else fields["tokens"],
            **values,
        )
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(f"{reason[0].upper()}{reason[1:]}.") from error
        field = str(first["loc"][0])
        where = _FIELDS.get(field, field.replace("_", " ").capitalize())
        raise UserError(f"{where} is {first['input']!r}; {reason}.") from error


def small_training() -> TrainSpec:
    """Medusa heads for the embedded target in a minute, for someone who wants to see it once."""
    library = Path(sysconfig.get_path("stdlib"))
    return TrainSpec(
        kind="medusa",
        name=free_name(f"{training_name('medusa', EMBEDDED_TARGET)}-small"),
        texts=[str(library / part) for part in _SMALL if (library / part).is_dir()],
        written=0,
        minutes=1.0,
    )


def going_on(folder: Path) -> TrainSpec | None:
    """What to start to go on with a training; None where it was started from a terminal."""
    return read_spec(folder)


def told(spec: TrainSpec) -> str:
    """What a training is, in a line."""
    names = [Path(one).name for one in spec.texts]
    if len(names) > 3:
        names = [*names[:2], f"{len(names) - 2} more"]
    text = spec.workload or ", ".join(names) or "standard library"
    if spec.tokens:
        length = f"{spec.tokens:,} tokens"
    else:
        length = "1 minute" if spec.minutes == 1 else f"{spec.minutes:g} minutes"
    return f"{KIND_LABELS[spec.kind]} for {Path(spec.target).name} on {text}, {length}"
