"""Options that several commands share, and reading what was typed: one wording, one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.groups import Flags
from workbench.jsonfiles import reason_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MODELS = "Models"
SAMPLING = "Sampling"
EXECUTION = "Execution"
RANKS = "Several GPUs"

# --- single ones; those without a panel have that of their group ---

TargetFlag = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="Embedded name, folder or hub id. [default: pycode-target]",
        rich_help_panel=MODELS,
    ),
]
DraftFlag = Annotated[
    str | None,
    typer.Option(
        "--draft",
        help="As --target, with the same vocabulary. [default: pycode-draft]",
        rich_help_panel=MODELS,
    ),
]
DraftsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--draft",
        help="As --target, with the same vocabulary; again for a tree merged from several. "
        "[default: pycode-draft]",
        rich_help_panel=MODELS,
    ),
]
DeviceFlag = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:N or auto.", rich_help_panel=MODELS)
]
DtypeFlag = Annotated[
    str, typer.Option("--dtype", help="float32, bfloat16 or float16.", rich_help_panel=MODELS)
]
ThreadsFlag = Annotated[
    int | None,
    typer.Option(
        "--threads", help="Processor threads for torch.", min=1, rich_help_panel=EXECUTION
    ),
]
IgnoreEosFlag = Annotated[
    bool, typer.Option("--ignore-eos", help="Go on after EOS.", rich_help_panel=EXECUTION)
]
MethodFlag = Annotated[
    str, typer.Option("--method", "-m", help="How to draft; see `draftree methods`.")
]
OptionsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable."
    ),
]
LimitFlag = Annotated[
    int | None, typer.Option("--limit", help="First questions of the workload only.", min=1)
]
TokensFlag = Annotated[
    int, typer.Option("--max-new-tokens", "-n", help="Tokens per answer at most.", min=1)
]
ExactTokensFlag = Annotated[
    int, typer.Option("--max-new-tokens", "-n", help="Tokens per answer, exactly.", min=1)
]
ReportFlag = Annotated[
    Path | None, typer.Option("--report", help="Write a report there: .html, or .md for Markdown.")
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")
]

# --- groups, whose fields have the names that specs have for them ---


@dataclass(frozen=True)
class PairFlags(Flags, panel=MODELS):
    """A target with its draft, and where they compute in what."""

    target: TargetFlag = None
    draft: DraftFlag = None
    dtype: DtypeFlag = "float32"
    device: DeviceFlag = "auto"


@dataclass(frozen=True)
class SamplingFlags(Flags, panel=SAMPLING):
    """How tokens are drawn."""

    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 is greedy.")] = 0.0
    top_k: Annotated[int, typer.Option(help="0 is off.")] = 0
    top_p: Annotated[float, typer.Option(help="1 is off.")] = 1.0
    seed: Annotated[int, typer.Option(help="Keys all randomness.")] = 0


@dataclass(frozen=True)
class VerifyFlags(SamplingFlags):
    """And how drafts are judged."""

    verify: Annotated[
        str,
        typer.Option(
            help="match, multi-step, without-replacement, block, traversal; typical is lossy."
        ),
    ] = "match"
    children: Annotated[
        str, typer.Option(help="How children are chosen: auto, fixed, coupled or sampled.")
    ] = "auto"


@dataclass(frozen=True)
class ExecutionFlags(Flags, panel=EXECUTION):
    """What every way of running takes."""

    chat_template: Annotated[
        bool,
        typer.Option(
            "--chat-template/--no-chat-template", help="Apply it where the tokenizer has one."
        ),
    ] = True
    threads: ThreadsFlag = None


@dataclass(frozen=True)
class RankFlags(Flags, panel=RANKS):
    """Several processes that decode together."""

    ranks: Annotated[
        int,
        typer.Option(
            help="Processes that decode together, with a GPU each on CUDA.", min=1, max=64
        ),
    ] = 1
    parallel: Annotated[
        str,
        typer.Option(
            help="What ranks divide: draft (trees drafted together), target (its layers), or both."
        ),
    ] = "draft"
    placement: Annotated[
        str,
        typer.Option(
            help="Draft beside the target, on ranks of its own, or split by measured times."
        ),
    ] = "beside"


# --- what was typed ---


def models(
    target: str | None, draft: str | list[str] | None, *, method: str = ""
) -> dict[str, Any]:
    """The embedded pair unless told otherwise; no default draft for somebody else's target.

    A `method` that is named decides which embedded draft it is, or that there is none.
    """
    from engine.registry import METHODS
    from workbench.spec import EMBEDDED_TARGET, embedded_draft

    drafts = [draft] if isinstance(draft, str) else list(draft or [])
    if method and not METHODS[method].needs_draft:
        drafts = []
    elif not drafts and target in (None, EMBEDDED_TARGET):
        drafts = [embedded_draft(method)]
    found = {"target": target or EMBEDDED_TARGET, "draft": drafts[0] if drafts else None}
    return found | ({"other_drafts": drafts[1:]} if drafts[1:] else {})


def given_flags(ctx: typer.Context) -> set[str]:
    """The parameters of a command that were typed, and not left at their defaults."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, one in sources.items() if one is not None and one.name == "COMMANDLINE"}


def listed(text: str) -> list[str]:
    """Words with commas between."""
    return [word for word in (piece.strip() for piece in text.split(",")) if word]


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`name=value` strings as a dictionary. Raises UserError for one without '='."""
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--option is {assignment!r}; write it as NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


def wrong_value(error: ErrorDetails, **flags: str) -> UserError:
    """Of something that pydantic found wrong: the flag, its value, what to use.

    `flags` tells fields whose flag has another name.
    """
    reason = reason_of(error)
    if not error["loc"]:
        return UserError(f"{reason[0].upper()}{reason[1:]}.")
    field, *inside = map(str, error["loc"])
    flag = flags.get(field, field).replace("_", "-")
    return UserError(f"--{flag} {'has' if inside else 'is'} {error['input']!r}; use {reason}.")
