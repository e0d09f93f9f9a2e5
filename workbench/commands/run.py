"""`draftree run`: decode a prompt or a workload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    MODELS,
    SAMPLING,
    ChatTemplateFlag,
    DeviceFlag,
    DraftFlag,
    SeedFlag,
    TargetFlag,
    TemperatureFlag,
    ThreadsFlag,
    TopKFlag,
    TopPFlag,
    models,
    wrong_value,
)

if TYPE_CHECKING:
    from workbench.spec import RunSpec


def run(
    method: Annotated[
        str, typer.Option("--method", "-m", help="How to draft; see `draftree methods`.")
    ] = "dynamic-tree",
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Text to continue; - reads it from stdin.")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="File whose whole text is the prompt.")
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", "-w", help="Embedded workload or a file of prompts, instead of a prompt."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="First questions of the workload only.", min=1)
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens per answer at most.", min=1)
    ] = 128,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable."
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End the answer where this text occurs; repeatable.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout; progress goes to stderr.")
    ] = False,
    target: TargetFlag = None,
    draft: DraftFlag = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16.", rich_help_panel=MODELS)
    ] = "float32",
    device: DeviceFlag = "auto",
    temperature: TemperatureFlag = 0.0,
    top_k: TopKFlag = 0,
    top_p: TopPFlag = 1.0,
    seed: SeedFlag = 0,
    verify: Annotated[
        str,
        typer.Option(
            help="match, multi-step, without-replacement, block, traversal; typical is lossy.",
            rich_help_panel=SAMPLING,
        ),
    ] = "match",
    children: Annotated[
        str,
        typer.Option(
            help="How children are chosen: auto, fixed, coupled or sampled.",
            rich_help_panel=SAMPLING,
        ),
    ] = "auto",
    batch: Annotated[
        int, typer.Option(help="Requests decoded together.", min=1, rich_help_panel=EXECUTION)
    ] = 1,
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager or compiled; auto compiles nothing.", rich_help_panel=EXECUTION
        ),
    ] = "auto",
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Without: recompute the prefix in every pass, to see what caching buys.",
            rich_help_panel=EXECUTION,
        ),
    ] = True,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on after EOS.", rich_help_panel=EXECUTION)
    ] = False,
    chat_template: ChatTemplateFlag = True,
    threads: ThreadsFlag = None,
    repeats: Annotated[
        int, typer.Option(help="Decode everything so often.", min=1, rich_help_panel=EXECUTION)
    ] = 1,
) -> None:
    """Decode a prompt or a workload: the text streams, the figures follow, every step is kept.

    Examples:

        draftree run --prompt "def quicksort(items):"

        draftree run -m static-tree -o expansion=4,2,1 -p "import os" -n 64

        draftree run -m speculative -t 0.8 --seed 1 --prompt-file draft.py

        draftree run -w code --limit 5 --batch 4 --json > result.json

        git diff | draftree run -p - --target ./my-model --draft ./my-small-model

    In a terminal, accepted tokens are green, bonus tokens underlined, corrections in italics.
    """
    from engine.registry import METHODS
    from workbench.commands.runner import run_and_print

    text = _prompt(prompt, prompt_file, workload)
    values = {
        "method": method,
        "options": parse_assignments(option or []),
        **models(target, draft, needs_draft=METHODS[method].needs_draft),
        "prompt": text,
        "workload": workload,
        "limit": limit,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "verify": verify,
        "children": children,
        "stop": stop or [],
        "ignore_eos": ignore_eos,
        "chat_template": chat_template,
        "dtype": dtype,
        "device": device,
        "cache": cache,
        "batch": batch,
        "execution": execution,
        "threads": threads,
        "repeats": repeats,
    }
    raise typer.Exit(run_and_print(spec_from(values), as_json=as_json))


def spec_from(values: dict[str, Any]) -> RunSpec:
    """A RunSpec, or a UserError that names the flag, the value and what is allowed."""
    from pydantic import ValidationError

    from workbench.spec import RunSpec

    try:
        return RunSpec.model_validate(values)
    except ValidationError as error:
        raise wrong_value(error.errors()[0]) from None


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`name=value` strings as a dictionary. Raises UserError for one without '='."""
    found = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--option is {assignment!r}; write it as NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


def _prompt(prompt: str | None, file: Path | None, workload: str | None) -> str | None:
    sources = {"--prompt": prompt, "--prompt-file": file, "--workload": workload}
    given = [flag for flag, value in sources.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them.")
    if not given:
        raise UserError('Nothing to decode: give --prompt "TEXT", --prompt-file or --workload.')
    if prompt == "-":
        return _decoded(sys.stdin.buffer.read(), "Standard input")
    if file is not None:
        try:
            return _decoded(file.read_bytes(), str(file))
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    return prompt


def _decoded(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8: byte 0x{raw[error.start]:02x} at {error.start}."
        ) from None
    if not text:
        raise UserError(f"{name} is empty; a prompt has at least one character.")
    return text
