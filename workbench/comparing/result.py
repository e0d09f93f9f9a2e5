"""What a comparison found, as it is kept: one JSON file that names the stored runs of its arms.

It lies beside the runs, in `comparisons/`. Rows and reports are computed from it, never stored.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.errors import UserError
from engine.paths import runs_folder
from engine.records import RequestRecord
from engine.tree import MOST_DRAFTS
from workbench.events import RunSummary
from workbench.jsonfiles import write_whole
from workbench.losslessness import Difference
from workbench.spec import (
    EMBEDDED_DRAFT,
    EMBEDDED_TARGET,
    EMBEDDED_TEXT_DRAFT,
    Dtype,
    Execution,
    Parallel,
    Placement,
)

Baseline = Literal["hf-generate", "hf-assisted", "hf-prompt-lookup", "draft-alone"]

COMPARISON_ID = re.compile(r"compare-\d{8}-\d{6}-[0-9a-f]{4}")
FORMAT = 1


class CompareSpec(BaseModel):
    """What to compare, on what, and how often. Every arm decodes the same prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: list[str] = Field(
        description="arms: a method, or `method:option=value,...`; a list as value is several arms"
    )
    baselines: list[Baseline] = Field(
        default=["hf-generate", "hf-assisted", "draft-alone"],
        description="measured beside plain decoding, which always is",
    )
    workloads: list[str] = Field(min_length=1, description="embedded names or files")
    limit: int | None = Field(default=None, ge=1, description="first questions of each only")
    target: str = Field(default=EMBEDDED_TARGET, description="embedded name, folder or hub id")
    draft: str | None = Field(default=EMBEDDED_DRAFT, description="as target; None: no draft")
    text_draft: str | None = Field(
        default=None,
        description="of another tokenizer, for methods that draft by way of text; None: `draft`",
    )
    other_drafts: list[str] = Field(
        default_factory=list,
        max_length=MOST_DRAFTS - 1,
        description="more draft models, for methods that merge trees; an arm may say `drafts=1`",
    )
    dtypes: list[Dtype] = Field(default=["float32"], min_length=1, description="number formats")
    caches: list[bool] = Field(default=[True], min_length=1, description="with and without cache")
    repeats: int = Field(default=3, ge=1, description="times each prompt is decoded by each arm")
    max_new_tokens: int = Field(default=128, ge=1, description="tokens per request, exactly")
    temperature: float = Field(default=0.0, description="0 is greedy")
    top_k: int = Field(default=0, description="0 is off")
    top_p: float = Field(default=1.0, description="1 is off")
    seed: int = Field(default=0, description="keys all randomness")
    chat_template: bool = Field(default=True, description="apply it where the tokenizer has one")
    device: str = Field(default="auto", description="cpu, cuda, cuda:N or auto")
    executions: list[Execution] = Field(
        default=["auto"],
        min_length=1,
        description="auto takes CUDA graphs on a GPU; waits for compiled forwards on a CPU",
    )
    threads: int | None = Field(default=None, ge=1, description="torch threads; None: its choice")
    ranks: int = Field(
        default=1, ge=1, le=64, description="ranks of the methods named; an arm may say `ranks=2`"
    )
    parallel: Parallel = Field(default="draft", description="what ranks divide")
    placement: Placement = Field(default="beside", description="where the draft model is")

    @model_validator(mode="before")
    @classmethod
    def _embedded_text_draft(cls, values: Any) -> Any:
        """With the embedded pair goes the embedded draft of another tokenizer."""
        if not isinstance(values, dict) or "text_draft" in values:
            return values
        pair = values.get("target", EMBEDDED_TARGET), values.get("draft", EMBEDDED_DRAFT)
        if pair != (EMBEDDED_TARGET, EMBEDDED_DRAFT):
            return values
        return values | {"text_draft": EMBEDDED_TEXT_DRAFT}


@dataclass(slots=True)
class Sample:
    """One request decoded once by one arm."""

    request: int
    repeat: int
    question_id: str
    category: str
    turn: int
    num_prompt: int
    kept: int
    steps: int
    emitted: int
    drafted: int
    accepted: int
    prefill_ns: int
    decode_ns: int
    repetition: float

    @classmethod
    def of(cls, record: RequestRecord) -> Sample:
        """The figures of a finished request."""
        return cls(
            request=record.request,
            repeat=record.repeat,
            question_id=record.question_id,
            category=record.category,
            turn=record.turn,
            num_prompt=len(record.prompt_ids),
            kept=record.num_kept,
            steps=record.num_steps,
            emitted=record.num_emitted,
            drafted=record.num_drafted,
            accepted=record.num_accepted,
            prefill_ns=record.prefill_ns,
            decode_ns=record.decode_ns,
            repetition=record.repetition,
        )


@dataclass(slots=True)
class ArmRun:
    """One arm on one workload. `matched` is None where tokens cannot be compared; see `why`."""

    label: str
    method: str
    options: dict[str, Any]
    verify: str
    dtype: str
    cache: bool
    execution: str  # as asked for; `mode` is what it came to
    workload: str
    mode: str
    run_id: str = ""
    setting: str = ""  # of hf-assisted: the one that was fastest here
    samples: list[Sample] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)  # RunSummary.as_json()
    matched: int | None = None
    compared: int = 0  # requests whose tokens were compared
    differences: list[Difference] = field(default_factory=list)
    why: str = ""
    error: str = ""

    @property
    def group(self) -> tuple[str, bool, str, str]:
        """Arms of one group are compared with the plain decoding in it."""
        return self.dtype, self.cache, self.execution, self.workload

    @property
    def run_summary(self) -> RunSummary:
        """The summary as an object."""
        known = {f.name for f in dataclasses.fields(RunSummary)}
        return RunSummary(**{name: v for name, v in self.summary.items() if name in known})

    @property
    def stages_ns(self) -> dict[str, int]:
        """Nanoseconds by stage over all samples."""
        return self.summary.get("stages_ns", {})


@dataclass(slots=True)
class Comparison:
    """All arms, and what they ran on."""

    comparison_id: str
    status: str  # finished, cancelled, failed, or interrupted where its process was killed
    started: str
    finished: str
    spec: CompareSpec
    command: str
    environment: dict[str, Any]
    workloads: dict[str, dict[str, Any]]  # by name: questions, requests, prompt tokens, categories
    arms: list[ArmRun]
    notes: list[str] = field(default_factory=list)  # what was left out or chosen, in sentences
    sweep: str = ""  # the sweep whose cells these arms are

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` is the way back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["spec"] = self.spec.model_dump(mode="json")
        values["arms"] = [dataclasses.asdict(arm) for arm in self.arms]
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Comparison:
        """Raises KeyError, TypeError or ValueError for what is no comparison."""
        known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        known["spec"] = CompareSpec.model_validate(values["spec"])
        known["arms"] = [_arm(arm) for arm in values["arms"]]
        return cls(**known)


def _arm(values: dict[str, Any]) -> ArmRun:
    samples = [Sample(**sample) for sample in values["samples"]]
    differences = [Difference(**difference) for difference in values["differences"]]
    return ArmRun(**values | {"samples": samples, "differences": differences})


def new_comparison_id() -> str:
    """Sortable by time (UTC), told from a run's id by its first word."""
    return f"compare-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def save(comparison: Comparison, runs: Path | None = None) -> Path:
    """Write it, whole or not at all. Raises UserError where it cannot be written."""
    file = _folder(runs) / f"{comparison.comparison_id}.json"
    return write_whole(file, comparison.as_json(), "The comparison")


def comparison_ids(runs: Path | None = None) -> list[str]:
    """Ids of all stored comparisons, newest first."""
    found = [path.stem for path in _folder(runs).glob("compare-*.json")]
    return sorted(filter(COMPARISON_ID.fullmatch, found), reverse=True)


def is_comparison(wanted: str) -> bool:
    """Whether `wanted` is meant as a comparison's id and not a run's."""
    return wanted.startswith("compare-")


def load(wanted: str, runs: Path | None = None) -> Comparison:
    """A stored comparison by its id or the unique beginning of one.

    Raises:
        UserError: there is none, there are several, or the file is damaged.
    """
    found = [known for known in comparison_ids(runs) if known.startswith(wanted)]
    if not found:
        raise UserError(
            f"There is no comparison {wanted[:80]!r} in {_folder(runs)}; "
            "make one with `draftree compare`."
        )
    if len(found) > 1 and wanted not in found:
        raise UserError(f"{wanted!r} fits {len(found)} comparisons ({found[0]}, ...); add digits.")
    file = _folder(runs) / f"{wanted if wanted in found else found[0]}.json"
    try:
        return Comparison.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read as a comparison: {error}") from None


def _folder(runs: Path | None) -> Path:
    return (runs or runs_folder()) / "comparisons"
