"""From the form of the Tune page to a study, and what it will cost.

No method is imported here: the worker checks options, so the page opens without an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from workbench.tuning.spec import ACCEPTANCE, SPEED, TAU, TuneSpec, study_name
from workbench.tuning.study import load_study, study_names
from workbench.view.compare_form import duration

OBJECTIVE_LABELS = {SPEED: "Speed", TAU: "Tokens per step", ACCEPTANCE: "Accepted"}


def build_study(fields: Mapping[str, Any], typed: Mapping[str, str]) -> TuneSpec:
    """A checked study. `typed` is what was typed for options: a value pins, a range is searched.

    Raises UserError with a sentence for people.
    """
    if not fields["target"]:
        raise UserError("The target model is empty; give a local folder or a hub id.")
    given = {name: text.strip() for name, text in typed.items() if text.strip()}
    space = {name: text for name, text in given.items() if ".." in text or text.startswith("[")}
    method, workload = fields["method"], fields["workload"]
    values = {name: fields[name] for name in fields if name not in ("method", "workload", "name")}
    named = fields.get("name") or study_name(method, workload, fields["objective"])
    fix = {name: text for name, text in given.items() if name not in space}
    try:
        return TuneSpec(
            name=named, methods=[method], workloads=[workload], fix=fix, space=space, **values
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]).replace("_", " ").capitalize() if first["loc"] else "Study"
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where} is {first['input']!r}; {reason}.") from error


def under_free_name(spec: TuneSpec, runs: Path | None = None) -> TuneSpec:
    """The study to go on with, or one of a name with a number where the name is taken.

    A study of the same settings with trials left goes on. Raises UserError for a damaged file.
    """
    taken = set(study_names(runs))
    name, number = spec.name, 1
    while name in taken:
        before = load_study(name, runs)
        if before.spec.measured_as() == spec.measured_as() and (
            (len(before.trials) < spec.trials and not before.exhausted) or before.confirmed is None
        ):
            break
        number += 1
        name = f"{spec.name[:60]}-{number}"
    return spec.model_copy(update={"name": name})


def cost(spec: TuneSpec, *, prompts: int, pace: float | None) -> str:
    """What it comes to at most, in words. `pace`: plain decoding's tokens per second."""
    each = 2 if spec.objective == SPEED else 1
    decodes = spec.trials * prompts * each + 3 * 2 * prompts * spec.repeats
    said = f"At most {decodes:,} decodes of {spec.max_new_tokens} tokens"
    if pace:
        said += f"; {duration(decodes * spec.max_new_tokens / pace)} at the pace of plain decoding"
    return f"{said}. Hopeless trials are broken off early."
