"""A run specification: enough to run again, stored with every run, round-trips through JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.tree import MOST_DRAFTS
from engine.verify_paths import TYPICAL, Typical

EMBEDDED_TARGET = "pycode-target"
EMBEDDED_DRAFT = "pycode-draft"
#: drafts for the embedded target by way of text: its tokens are bytes
EMBEDDED_TEXT_DRAFT = "pycode-bytes"

Dtype = Literal["float32", "bfloat16", "float16"]
Execution = Literal["auto", "eager", "compiled", "graph", "inductor"]
#: engine.rules.Kernels, which a spec does not import torch for
Kernels = Literal["auto", "off"]
Verify = Literal["match", "multi-step", "without-replacement", "block", "traversal", "typical"]
#: verification rules that change the output's law
LOSSY = ("typical",)
Parallel = Literal["draft", "target", "both"]
Placement = Literal["beside", "own", "split"]
ChildrenChoice = Literal["auto", "fixed", "coupled", "sampled"]


def embedded_draft(method: str) -> str:
    """The embedded draft model for a method: one of another tokenizer where it takes that."""
    from engine.registry import METHODS, method_names

    if method in method_names() and not METHODS[method].same_vocabulary:
        return EMBEDDED_TEXT_DRAFT
    return EMBEDDED_DRAFT


class RunSpec(BaseModel):
    """What to decode, with what, and how. Every field's meaning is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(default="dynamic-tree", description="registry name of the method")
    options: dict[str, Any] = Field(
        default_factory=dict, description="the method's own options; see `draftree methods`"
    )
    target: str = Field(
        default=EMBEDDED_TARGET, description="embedded name, local folder or hub id"
    )
    draft: str | None = Field(default=EMBEDDED_DRAFT, description="as target; None: no draft")
    other_drafts: list[str] = Field(
        default_factory=list,
        max_length=MOST_DRAFTS - 1,
        description="more draft models, whose trees are merged with those of `draft`",
    )
    prompt: str | None = Field(default=None, description="one prompt; or else a workload")
    workload: str | None = Field(default=None, description="embedded name or a file")
    limit: int | None = Field(default=None, ge=1, description="first questions only")
    max_new_tokens: int = Field(default=128, ge=1, description="exact length limit")
    temperature: float = Field(default=0.0, description="0 is greedy")
    top_k: int = Field(default=0, description="0 is off")
    top_p: float = Field(default=1.0, description="1 is off")
    seed: int = Field(default=0, description="keys all randomness")
    verify: Verify = Field(default="match", description="verification rule when sampling")
    typical_epsilon: float = Field(
        default=TYPICAL.epsilon, gt=0, le=1, description="typical takes what is likelier than this"
    )
    typical_alpha: float = Field(
        default=TYPICAL.alpha, gt=0, le=1, description="or than this times exp(-entropy)"
    )
    children: ChildrenChoice = Field(default="auto", description="how children are chosen")
    stop: list[str] = Field(default_factory=list, description="stop strings")
    ignore_eos: bool = Field(default=False, description="go on after EOS (timing runs)")
    chat_template: bool = Field(default=True, description="apply it where the tokenizer has one")
    dtype: Dtype = Field(default="float32", description="weights and activations")
    device: str = Field(default="auto", description="cpu, cuda, cuda:N or auto")
    cache: bool = Field(default=True, description="False recomputes the prefix in every pass")
    batch: int = Field(default=1, ge=1, le=64, description="requests decoded together")
    execution: Execution = Field(
        default="auto",
        description="auto takes CUDA graphs on a GPU, compiled forwards at hand on a CPU",
    )
    kernels: Kernels = Field(
        default="auto",
        description="compiled code for acceptance and expansion; off: the same in Python",
    )
    threads: int | None = Field(default=None, ge=1, description="torch threads; None: its choice")
    ranks: int = Field(
        default=1, ge=1, le=64, description="processes that decode together, with a GPU each"
    )
    parallel: Parallel = Field(
        default="draft",
        description="what ranks divide: trees drafted together, the target's layers, or both",
    )
    placement: Placement = Field(
        default="beside",
        description="draft beside the target, on ranks of its own, or split by measured times",
    )
    repeats: int = Field(default=1, ge=1, description="times the workload is decoded")
    comparison: str | None = Field(default=None, description="id shared by the arms of a compare")
    arm: str | None = Field(default=None, description="label of this arm in its comparison")

    @property
    def typical(self) -> Typical:
        """What passes under the rule typical."""
        return Typical(self.typical_epsilon, self.typical_alpha)

    @property
    def drafts(self) -> list[str]:
        """All draft models, in the order that records number them in."""
        return [name for name in (self.draft, *self.other_drafts) if name is not None]

    @property
    def lossy(self) -> bool:
        """Whether the output's law is another one than the target's."""
        return self.verify in LOSSY and self.temperature > 0.0

    @model_validator(mode="before")
    @classmethod
    def _draft_of_the_method(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "draft" in values:
            return values
        return values | {"draft": embedded_draft(values.get("method", ""))}

    @model_validator(mode="after")
    def _one_source_of_prompts(self) -> RunSpec:
        if (self.prompt is None) == (self.workload is None):
            raise ValueError("give either a prompt or a workload, not both and not neither")
        return self
