"""What a training of a head is asked for: which kind, for which target, on what text, how long."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.errors import UserError
from workbench.spec import EMBEDDED_TARGET
from workbench.sweeping.spec import NAME

HeadKindName = Literal["medusa", "kangaroo", "eagle"]
FILE = "spec.json"
#: below the work folder of a training: the head that it writes
OUT = "head"
#: as `draftree train` has them where nothing else is said
OPTIMISER = "muon"
LEARNING_RATES = {"muon": 0.02, "adamw": 3e-3}


class TrainSpec(BaseModel):
    """A training. Its work folder has its `name`; the same spec started again goes on there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: HeadKindName = Field(default="medusa", description="what is trained")
    name: str = Field(description="letters, digits, dots and dashes; also the name of its folder")
    target: str = Field(
        default=EMBEDDED_TARGET, description="embedded name, local folder or hub id"
    )
    texts: list[str] = Field(
        default_factory=list, description="files or folders; none: the Python standard library"
    )
    workload: str | None = Field(default=None, description="train on prompts, of this workload")
    written: int = Field(
        default=200_000, ge=0, description="tokens of text that the target writes for its head"
    )
    minutes: float | None = Field(default=None, gt=0, description="of training")
    tokens: int | None = Field(default=None, ge=1, description="of text to train on")
    options: dict[str, Any] = Field(
        default_factory=dict, description="of the kind: sizes, weights of its losses"
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="rows, length, lr and the like; else the recipe's own"
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="of the passes")
    device: str = Field(default="auto", description="cpu, cuda, cuda:N or auto")
    seed: int = Field(default=0, ge=0, description="of weights and of the order of text")
    threads: int | None = Field(default=None, ge=1, description="torch threads; None: its choice")

    @field_validator("name")
    @classmethod
    def _is_file_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("use up to 64 letters, digits, dots and dashes")
        return name

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.texts and self.workload is not None:
            raise ValueError("give either files or a workload to train on, not both")
        if (self.minutes is None) == (self.tokens is None):
            raise ValueError("give either minutes or tokens as the budget")
        return self


def write_spec(spec: TrainSpec, folder: Path) -> None:
    """Keep it beside the training, so that it can be gone on with. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror or error}.") from None


def forget_spec(folder: Path) -> None:
    """Undo `write_spec` where nothing else came of it."""
    (folder / FILE).unlink(missing_ok=True)
    with suppress(OSError):  # holds something else
        folder.rmdir()


def read_spec(folder: Path) -> TrainSpec | None:
    """The spec of a training that was started as a job; None for one of the command line."""
    try:
        return TrainSpec.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None
