"""`draftree run`: decode a prompt or a workload."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    SAMPLING,
    ChatTemplateFlag,
    ChildrenFlag,
    DeviceFlag,
    DraftsFlag,
    DtypeFlag,
    JsonFlag,
    ParallelFlag,
    PlacementFlag,
    RanksFlag,
    SeedFlag,
    TargetFlag,
    TemperatureFlag,
    ThreadsFlag,
    TopKFlag,
    TopPFlag,
    VerifyFlag,
    given_flags,
    models,
    wrong_value,
)

if TYPE_CHECKING:
    from workbench.spec import RunSpec


def run(
    ctx: typer.Context,
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
    as_json: JsonFlag = False,
    spec_file: Annotated[
        Path | None,
        typer.Option("--spec", help="A run spec as JSON; flags that are given override it."),
    ] = None,
    save_spec: Annotated[
        Path | None, typer.Option("--save-spec", help="Write what was asked for as a run spec.")
    ] = None,
    target: TargetFlag = None,
    draft: DraftsFlag = None,
    dtype: DtypeFlag = "float32",
    device: DeviceFlag = "auto",
    temperature: TemperatureFlag = 0.0,
    top_k: TopKFlag = 0,
    top_p: TopPFlag = 1.0,
    seed: SeedFlag = 0,
    verify: VerifyFlag = "match",
    children: ChildrenFlag = "auto",
    typical_epsilon: Annotated[
        float,
        typer.Option(
            help="Typical takes a token that is likelier than this,", rich_help_panel=SAMPLING
        ),
    ] = 0.09,
    typical_alpha: Annotated[
        float,
        typer.Option(help="or than this times exp(-entropy).", rich_help_panel=SAMPLING),
    ] = 0.3,
    batch: Annotated[
        int, typer.Option(help="Requests decoded together.", min=1, rich_help_panel=EXECUTION)
    ] = 1,
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA) or inductor; auto compiles nothing.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto",
    kernels: Annotated[
        str,
        typer.Option(
            help="auto or off: compiled code for acceptance and expansion; the same tokens.",
            rich_help_panel=EXECUTION,
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
    ranks: RanksFlag = 1,
    parallel: ParallelFlag = "draft",
    placement: PlacementFlag = "beside",
) -> None:
    """Decode a prompt or a workload: the text streams, the figures follow, every step is kept.

    Examples:

        draftree run --prompt "def quicksort(items):"

        draftree run -m static-tree -o expansion=4,2,1 -p "import os" -n 64

        draftree run -m speculative -t 0.8 --seed 1 --prompt-file draft.py

        draftree run -w code --limit 5 --batch 4 --json > result.json

        draftree run -m static-tree --draft pycode-draft --draft ./my-draft -p "import os"

        draftree run --ranks 2 --placement own -o nodes=12 -p "import os"

        draftree run --spec dynamic-tree-code.spec.json --limit 2 -o nodes=12

        git diff | draftree run -p - --target ./my-model --draft ./my-small-model

    In a terminal, accepted tokens are green, bonus tokens underlined, corrections in italics.
    """
    from workbench.commands.runner import run_and_print
    from workbench.specfile import merged, read_spec, write_spec

    stored = read_spec(spec_file) if spec_file else {}
    given = given_flags(ctx)
    if "method" in stored and "method" not in given:
        method = stored["method"]
    has_text = any(source is not None for source in (prompt, prompt_file, workload))
    if has_text or not (stored.get("prompt") or stored.get("workload")):
        text = _prompt(prompt, prompt_file, workload)
    else:
        text = None
    values = {
        "method": method,
        "options": parse_assignments(option or []),
        **models(target, draft, method=method),
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
        "typical_epsilon": typical_epsilon,
        "typical_alpha": typical_alpha,
        "stop": stop or [],
        "ignore_eos": ignore_eos,
        "chat_template": chat_template,
        "dtype": dtype,
        "device": device,
        "cache": cache,
        "batch": batch,
        "execution": execution,
        "kernels": kernels,
        "threads": threads,
        "ranks": ranks,
        "parallel": parallel,
        "placement": placement,
        "repeats": repeats,
    }
    if spec_file:
        names = {"prompt_file": "prompt", "option": "options"}
        values = merged(stored, values, {names.get(name, name) for name in given})
    spec = spec_from(values)
    if save_spec:
        write_spec(spec, save_spec)
    raise typer.Exit(run_and_print(spec, as_json=as_json))


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
