"""Options that several commands share: one wording, one place in `--help`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MODELS = "Models"
SAMPLING = "Sampling"
EXECUTION = "Execution"
RANKS = "Several GPUs"

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
VerifyFlag = Annotated[
    str,
    typer.Option(
        "--verify",
        help="match, multi-step, without-replacement, block, traversal; typical is lossy.",
        rich_help_panel=SAMPLING,
    ),
]
ChildrenFlag = Annotated[
    str,
    typer.Option(
        "--children",
        help="How children are chosen: auto, fixed, coupled or sampled.",
        rich_help_panel=SAMPLING,
    ),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")
]
TemperatureFlag = Annotated[
    float, typer.Option("--temperature", "-t", help="0 is greedy.", rich_help_panel=SAMPLING)
]
TopKFlag = Annotated[int, typer.Option("--top-k", help="0 is off.", rich_help_panel=SAMPLING)]
TopPFlag = Annotated[float, typer.Option("--top-p", help="1 is off.", rich_help_panel=SAMPLING)]
SeedFlag = Annotated[
    int, typer.Option("--seed", help="Keys all randomness.", rich_help_panel=SAMPLING)
]
ChatTemplateFlag = Annotated[
    bool,
    typer.Option(
        "--chat-template/--no-chat-template",
        help="Apply it where the tokenizer has one.",
        rich_help_panel=EXECUTION,
    ),
]
ThreadsFlag = Annotated[
    int | None,
    typer.Option(
        "--threads", help="Processor threads for torch.", min=1, rich_help_panel=EXECUTION
    ),
]
RanksFlag = Annotated[
    int,
    typer.Option(
        "--ranks",
        help="Processes that decode together, with a GPU each on CUDA.",
        min=1,
        max=64,
        rich_help_panel=RANKS,
    ),
]
ParallelFlag = Annotated[
    str,
    typer.Option(
        "--parallel",
        help="What ranks divide: draft (trees drafted together), target (its layers), or both.",
        rich_help_panel=RANKS,
    ),
]
PlacementFlag = Annotated[
    str,
    typer.Option(
        "--placement",
        help="Draft beside the target, on ranks of its own, or split by measured times.",
        rich_help_panel=RANKS,
    ),
]


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


def wrong_value(error: ErrorDetails, **flags: str) -> UserError:
    """Of something that pydantic found wrong: the flag, its value, what to use.

    `flags` tells fields whose flag has another name.
    """
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not error["loc"]:
        return UserError(f"{reason[0].upper()}{reason[1:]}.")
    field, *inside = map(str, error["loc"])
    flag = flags.get(field, field).replace("_", "-")
    return UserError(f"--{flag} {'has' if inside else 'is'} {error['input']!r}; use {reason}.")
