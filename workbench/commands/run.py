"""`draftree run`: decode a prompt or a workload."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    MODELS,
    DeviceFlag,
    DraftsFlag,
    DtypeFlag,
    ExecutionFlags,
    IgnoreEosFlag,
    JsonFlag,
    LimitFlag,
    MethodFlag,
    OptionsFlag,
    RankFlags,
    TargetFlag,
    TokensFlag,
    VerifyFlags,
    given_flags,
    models,
    parse_assignments,
    wrong_value,
)
from workbench.commands.groups import Flags, grouped

if TYPE_CHECKING:
    from workbench.spec import RunSpec


@dataclass(frozen=True)
class AskedFlags(Flags):
    """What is decoded by which method, and in what form it comes and goes."""

    method: MethodFlag = "dynamic-tree"
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Text to continue; - reads it from stdin.")
    ] = None
    prompt_file: Annotated[
        Path | None, typer.Option(help="File whose whole text is the prompt.")
    ] = None
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", "-w", help="Embedded workload or a file of prompts, instead of a prompt."
        ),
    ] = None
    limit: LimitFlag = None
    max_new_tokens: TokensFlag = 128
    options: OptionsFlag = None
    stop: Annotated[
        list[str] | None, typer.Option(help="End the answer where this text occurs; repeatable.")
    ] = None
    as_json: JsonFlag = False
    spec_file: Annotated[
        Path | None,
        typer.Option("--spec", help="A run spec as JSON; flags that are given override it."),
    ] = None
    save_spec: Annotated[
        Path | None, typer.Option("--save-spec", help="Write what was asked for as a run spec.")
    ] = None


@dataclass(frozen=True)
class RunModelFlags(Flags, panel=MODELS):
    """A target, its drafts, and where they compute in what."""

    target: TargetFlag = None
    draft: DraftsFlag = None
    dtype: DtypeFlag = "float32"
    device: DeviceFlag = "auto"


@dataclass(frozen=True)
class RunSamplingFlags(VerifyFlags):
    """And the bounds of verify typical."""

    typical_epsilon: Annotated[
        float, typer.Option(help="Typical takes a token that is likelier than this,")
    ] = 0.09
    typical_alpha: Annotated[float, typer.Option(help="or than this times exp(-entropy).")] = 0.3


@dataclass(frozen=True)
class RunExecutionFlags(Flags, panel=EXECUTION):
    """How the engine runs."""

    batch: Annotated[int, typer.Option(help="Requests decoded together.", min=1)] = 1
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA) or inductor; auto compiles nothing."
        ),
    ] = "auto"
    kernels: Annotated[
        str,
        typer.Option(
            help="auto or off: compiled code for acceptance and expansion; the same tokens."
        ),
    ] = "auto"
    cache: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache",
            help="Without: recompute the prefix in every pass, to see what caching buys.",
        ),
    ] = True
    ignore_eos: IgnoreEosFlag = False


@grouped
def run(
    ctx: typer.Context,
    *,
    asked: AskedFlags,
    names: RunModelFlags,
    sampling: RunSamplingFlags,
    execution: RunExecutionFlags,
    running: ExecutionFlags,
    repeats: Annotated[
        int, typer.Option(help="Decode everything so often.", min=1, rich_help_panel=EXECUTION)
    ] = 1,
    shared: RankFlags,
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

    stored = read_spec(asked.spec_file) if asked.spec_file else {}
    given = given_flags(ctx)
    method = asked.method if "method" in given else stored.get("method", asked.method)
    has_text = bool(given & {"prompt", "prompt_file", "workload"})
    has_stored = bool(stored.get("prompt") or stored.get("workload"))
    values = {
        "method": method,
        "options": parse_assignments(asked.options or []),
        **models(names.target, names.draft, method=method),
        "prompt": _prompt(asked) if has_text or not has_stored else None,
        "workload": asked.workload,
        "limit": asked.limit,
        "max_new_tokens": asked.max_new_tokens,
        "stop": asked.stop or [],
        "dtype": names.dtype,
        "device": names.device,
        "repeats": repeats,
        **vars(sampling), **vars(execution), **vars(running), **vars(shared),
    }  # fmt: skip
    if asked.spec_file:
        values = merged(stored, values, {"prompt" if n == "prompt_file" else n for n in given})
    spec = spec_from(values)
    if asked.save_spec:
        write_spec(spec, asked.save_spec)
    raise typer.Exit(run_and_print(spec, as_json=asked.as_json))


def spec_from(values: dict[str, Any]) -> RunSpec:
    """A RunSpec, or a UserError that names the flag, the value and what is allowed."""
    from pydantic import ValidationError

    from workbench.spec import RunSpec

    try:
        return RunSpec.model_validate(values)
    except ValidationError as error:
        raise wrong_value(error.errors()[0]) from None


def _prompt(asked: AskedFlags) -> str | None:
    prompt, file = asked.prompt, asked.prompt_file
    sources = {"--prompt": prompt, "--prompt-file": file, "--workload": asked.workload}
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
