"""What a study is asked to find: whose options, on what, by which objective, and how long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from engine.errors import UserError
from workbench.comparing.arms import PLAIN
from workbench.comparing.expand import arm_text, expand, read_arm
from workbench.comparing.result import Baseline, CompareSpec
from workbench.spec import ChildrenChoice, RunSpec, Verify
from workbench.sweeping.spec import NAME

Objective = Literal["tokens/s", "tokens-per-step", "acceptance-rate"]
SPEED: Objective = "tokens/s"
TAU: Objective = "tokens-per-step"
ACCEPTANCE: Objective = "acceptance-rate"
_SUFFIXES: dict[str, str] = {TAU: "-tau", ACCEPTANCE: "-accepted"}
#: each set of sublayers would be compiled anew, for minutes: unless told otherwise, none is
_COMPILED_ANEW = "layer-skip"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class TuneSpec(CompareSpec):
    """A search over one method's options: every trial is measured as an arm of a comparison.

    `methods` holds the method alone, `workloads`, `dtypes`, `caches` and `executions` one each.
    """

    name: str = Field(description="letters, digits, dots and dashes; also the name of its file")
    baselines: list[Baseline] = Field(default=[], description="of the last measurement")
    repeats: int = Field(
        default=3, ge=1, description="times the best is measured again beside the defaults"
    )
    objective: Objective = Field(
        default=SPEED,
        description="tokens/s, judged by the speedup over plain decoding paired by prompt, "
        "tokens-per-step, or acceptance-rate",
    )
    trials: int = Field(default=30, ge=1, le=10_000, description="so many in all, resumed or not")
    timeout: float | None = Field(default=None, gt=0, description="seconds of searching at most")
    fix: dict[str, Any] = Field(default_factory=dict, description="options that stay as they are")
    space: dict[str, str] = Field(
        default_factory=dict, description="what to try of an option: 4..32 or [a,b]"
    )
    only: list[str] = Field(default_factory=list, description="options to vary; none: all")
    verify: Verify = Field(default="match", description="verification rule when sampling")
    children: ChildrenChoice = Field(default="auto", description="how children are chosen")

    @model_validator(mode="before")
    @classmethod
    def _compile_no_set(cls, given: Any) -> Any:
        if not isinstance(given, dict) or list(given.get("methods", [])) != [_COMPILED_ANEW]:
            return given
        eager = list(given.get("executions", ["auto"])) == ["auto"]
        return given | {"executions": ["eager"]} if eager else given

    @field_validator("name")
    @classmethod
    def _is_file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use up to 64 letters, digits, dots and dashes")
        return name

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for field in ("methods", "workloads", "dtypes", "caches", "executions"):
            if len(getattr(self, field)) != 1:
                raise ValueError(f"a study is of one each; {field} has {len(getattr(self, field))}")
        return self

    @property
    def method(self) -> str:
        """Registry name of the method."""
        return read_arm(self.methods[0])[0]

    @property
    def workload(self) -> str:
        """The one workload."""
        return self.workloads[0]

    def changed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a point that are not the method's defaults. Raises UserError."""
        from engine.registry import describe, parse_options

        chosen = {**self.fix, **options}
        parsed = parse_options(self.method, chosen)
        found = {info.name: getattr(parsed, info.name) for info in describe(self.method)}
        usual = {info.name: info.default for info in describe(self.method)}
        named = {name.replace("-", "_") for name in chosen}
        return {name: found[name] for name in found if name in named and found[name] != usual[name]}

    def arm(self, options: dict[str, Any]) -> str:
        """The arm that a point of the space stands for, as it is typed. Raises UserError."""
        settings = {"verify": self.verify, "children": self.children}
        usual = {"verify": "match", "children": "auto"}
        chosen = {name: value for name, value in settings.items() if value != usual[name]}
        return expand([arm_text(self.method, {**self.changed(options), **chosen})])[0]

    def comparison(self, arms: list[str], *, limit: int | None) -> CompareSpec:
        """The comparison of some arms under the study's settings."""
        own = set(TuneSpec.model_fields) - set(CompareSpec.model_fields)
        return CompareSpec(**self.model_dump(exclude=own) | {"methods": arms, "limit": limit})

    def run(self, options: dict[str, Any]) -> RunSpec:
        """A point of the space as a run of the workload."""
        from engine.registry import METHODS

        shared = set(RunSpec.model_fields) & set(type(self).model_fields) - {"repeats"}
        values = {name: getattr(self, name) for name in shared}
        if not METHODS[self.method].needs_draft:
            values |= {name: None if name == "draft" else [] for name in shared if "draft" in name}
        elif not METHODS[self.method].same_vocabulary and self.text_draft is not None:
            values["draft"] = self.text_draft
        return RunSpec(
            **values,
            method=self.method,
            options=self.changed(options),
            workload=self.workload,
            dtype=self.dtypes[0],
            cache=self.caches[0],
            execution=self.executions[0],
        )

    def measured_as(self) -> dict[str, Any]:
        """What all trials of a study share: only those stand in one table."""
        free = {"name", "trials", "timeout", "repeats", "baselines"}
        return self.model_dump(mode="json", exclude=free)


def check_method(method: str) -> None:
    """Raises UserError for a method that is unknown or drafts nothing."""
    from engine.registry import METHODS

    METHODS[method]
    if method == PLAIN:
        raise UserError(f"{PLAIN} drafts nothing and has nothing to tune; choose another method.")


def study_name(method: str, workload: str, objective: str = SPEED) -> str:
    """The name of a study that was given none."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(workload).stem) or "prompts"
    return f"{method}-{stem}{_SUFFIXES.get(objective, '')}"[:64]


def read_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m` or `1.5h`. Raises UserError."""
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UserError(f"--timeout is {text!r}; write a length of time such as 90s, 10m or 1.5h.")
    return seconds
