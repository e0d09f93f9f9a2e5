"""What a sweep is asked to measure, from a form or a file."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from engine.errors import UserError
from workbench.comparing.expand import arm_text, expand
from workbench.comparing.result import Baseline, CompareSpec
from workbench.jsonfiles import reason_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

EXAMPLE = """\
# A sweep: every combination of the listed options is a cell, measured in alternation with plain
# decoding on the same prompts. Start it, stop it with Ctrl-C, start it again: cells that are
# done are not measured again.
#
#     draftree sweep tree-size.toml

name = "tree-size"

# Lists in brackets. Where values hold commas themselves, part them with bars:
# "static-tree:expansion=[2,2,1|3,2,1]". A table does as well:
# methods = [{ method = "dynamic-tree", nodes = [4, 6, 8], depth = [3, 4, 5] }]
methods = [
    "dynamic-tree:nodes=[4,6,8],depth=[3,4,5]",
    "speculative:length=[2,3,4]",
]

workloads = ["code"]    # code, docstring, edit, or files of prompts
limit = 4               # first questions of each workload; without it, all
max_new_tokens = 64     # exactly, for every cell
repeats = 3             # times each prompt is decoded

# All of these may be left out:
baselines = ["hf-generate"]         # measured once; also hf-assisted and draft-alone
together = 4                        # cells in one alternation; a stop loses at most these
target = "pycode-target"            # embedded name, folder or hub id
draft = "pycode-draft"              # or several, whose trees are merged: ["one", "other"]
dtypes = ["float32"]
executions = ["auto"]               # auto, eager, compiled, graph, inductor
temperature = 0.0
seed = 0
"""


class SweepSpec(CompareSpec):
    """A comparison of very many arms, done in parts. `methods` may hold lists of options."""

    name: str = Field(description="letters, digits, dots and dashes; also the name of its file")
    baselines: list[Baseline] = Field(
        default=["hf-generate"], description="measured once, as cells of their own"
    )
    together: int = Field(
        default=4, ge=1, le=32, description="cells measured in one alternation with plain decoding"
    )

    @field_validator("name")
    @classmethod
    def _is_file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use up to 64 letters, digits, dots and dashes")
        return name

    @field_validator("methods", mode="before")
    @classmethod
    def _as_text(cls, methods: Any) -> Any:
        if not isinstance(methods, list):
            return methods
        return [
            arm_text(str(one["method"]), {k: v for k, v in one.items() if k != "method"})
            if isinstance(one, dict) and "method" in one
            else one
            for one in methods
        ]

    @model_validator(mode="before")
    @classmethod
    def _several_drafts(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("draft"), list):
            return values
        first, *others = values["draft"] or [None]
        return values | {"draft": first, "other_drafts": others}

    def cells(self) -> list[str]:
        """Labels of all arms, baselines first. Raises UserError for lists that are malformed."""
        return list(dict.fromkeys([*self.baselines, *expand(self.methods)]))

    def part(self, cells: list[str]) -> CompareSpec:
        """The comparison that measures these cells."""
        values = self.model_dump(exclude={"name", "together"})
        return CompareSpec(**values | {"methods": cells, "baselines": []})

    def measured_as(self) -> dict[str, Any]:
        """What all cells of a sweep share: only cells measured alike stand in one heat map."""
        return self.model_dump(mode="json", exclude={"name", "together", "methods", "baselines"})


def read_sweep(file: Path) -> SweepSpec:
    """The sweep that a TOML or JSON file describes, told by its content. Raises UserError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; a sweep is a TOML or JSON file.") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{file} cannot be read: {reason}. `draftree sweep --example` prints one to begin with."
        ) from None
    try:
        values = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except ValueError as error:  # of either form
        raise UserError(f"{file} is neither TOML nor JSON that can be read: {error}.") from None
    return build_sweep(values, where=f"{file}: ")


def build_sweep(values: dict[str, Any], *, where: str = "") -> SweepSpec:
    """A checked spec. Raises UserError with a sentence that begins with `where`."""
    try:
        return SweepSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "the sweep"
        if first["type"] == "missing":
            reason = f"{field} is missing"
        elif first["type"] == "extra_forbidden":
            reason = f"{field!r} is no setting; there are {', '.join(SweepSpec.model_fields)}"
        else:
            reason = f"{field} is {first['input']!r}; {reason_of(first)}"
        raise UserError(f"{where}{reason}.") from None
