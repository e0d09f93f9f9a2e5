"""What `draftree train medusa`, `kangaroo` and `eagle` make of what was typed."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import ThreadsFlag
from workbench.commands.groups import Flags
from workbench.commands.train_display import ResumeFlag, SeedFlag, TextsFlag, prepare_process

if TYPE_CHECKING:
    from engine.training.heads import HeadRecipe

TRAINING = "Training"


@dataclass(frozen=True)
class TextFlags(Flags, panel="Text"):
    """What a head reads."""

    text: TextsFlag = None
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            "-w",
            help="Train on the prompts of this workload, and what the target makes of them.",
        ),
    ] = None
    written: Annotated[
        int, typer.Option(help="Tokens that the target writes for its head; 0: none.", min=0)
    ] = 200_000


@dataclass(frozen=True)
class PassFlags(Flags, panel=TRAINING):
    """How much it reads, and how much at once."""

    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training. [default: 20]", min=0.01)
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(help="Tokens to train on; unlike minutes, the same weights each time.", min=1),
    ] = None
    length: Annotated[int, typer.Option(help="Tokens of a row.", min=8)] = 256
    rows: Annotated[int, typer.Option(help="Rows of a pass.", min=1)] = 4
    accumulate: Annotated[int, typer.Option(help="Passes whose gradients make a step.", min=1)] = 1


@dataclass(frozen=True)
class RateFlags(Flags, panel=TRAINING):
    """How fast it learns, and when that is enough."""

    lr: Annotated[
        float | None,
        typer.Option(
            help="Largest learning rate. [default: 0.02 for muon, 0.003 for adamw]", min=0.0
        ),
    ] = None
    patience: Annotated[
        int,
        typer.Option(
            help="Looks at held-out text without a better one that end it; 0: none does.", min=0
        ),
    ] = 0


@dataclass(frozen=True)
class PlaceFlags(Flags):
    """On what it is trained, and where its work is kept."""

    dtype: Annotated[
        str,
        typer.Option(
            help="float32, or bfloat16: mixed precision, twice as fast where it is at home."
        ),
    ] = "float32"
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto"
    threads: ThreadsFlag = None
    seed: SeedFlag = 0
    resume: ResumeFlag = True
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoint, log and text. [default: runs/train-KIND]"),
    ] = None
    text_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the text alone, for several kinds to share. [default: --work-dir]"
        ),
    ] = None


def recipe_of(passes: PassFlags, rate: RateFlags, place: PlaceFlags, optimiser: str) -> HeadRecipe:
    """What was typed as a recipe. Raises ValueError."""
    from engine.training.heads import HeadRecipe
    from engine.training.progress import Budget
    from engine.training.recipe import choose_device

    device = choose_device(place.device, threads=place.threads)
    neither = passes.minutes is None and passes.tokens is None
    usual = 0.02 if optimiser == "muon" else 3e-3
    return HeadRecipe(
        budget=Budget(minutes=20.0 if neither else passes.minutes, tokens=passes.tokens),
        length=passes.length,
        rows=passes.rows,
        accumulate=passes.accumulate,
        patience=rate.patience,
        optimiser=optimiser,
        lr=usual if rate.lr is None else rate.lr,
        dtype=usable_dtype(place.dtype, device),
        device=device,
        seed=place.seed,
    )


def default_name(kind: str, target: str | None) -> str:
    """What a head is called: pycode-medusa for pycode-target."""
    name = Path(target or "pycode-target").expanduser().resolve().name
    return f"{name.removesuffix('-target')}-{kind}"


def kind_options(kind: str, given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` as the kind's objective takes them. Raises UserError."""
    from engine.heads import head_kind

    signature = inspect.signature(head_kind(kind).objective_class())
    known = {
        name: one.default
        for name, one in signature.parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    found: dict[str, Any] = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"--option is {assignment!r}; write it as NAME=VALUE.")
        if name not in known:
            raise UserError(
                f"A {kind} head has no option {name!r}; it has {', '.join(known) or 'none'}."
            )
        found[name] = _value(name, value, like=known[name])
    return found


def usable_dtype(dtype: str, device: str) -> str:
    """Raises UserError for a number format this machine does not compute in."""
    from workbench.comparing.dtypes import why_unusable

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype is {dtype!r}; training takes float32 or bfloat16.")
    reason = why_unusable(dtype, device)
    if reason is not None:
        raise UserError(sentence(reason))
    return dtype


def prepare_for(dtype: str, device: str) -> None:
    """Set what must be set before torch loads."""
    from workbench.environment import cpu_flags

    prepare_process()
    if dtype == "bfloat16" and not device.startswith("cuda") and "avx512_bf16" in cpu_flags():
        # virtual machines list wider instructions (AMX) that they then refuse to run
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def _value(name: str, value: str, *, like: Any) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(like)(value)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}
        wanted = kind.get(type(like), type(like).__name__)
        raise UserError(f"--option {name} is {value!r}; use {wanted}.") from None


def prompts_of(workload: str | None) -> tuple[str, ...]:
    """The texts of a workload; none where none is named. Raises UserError."""
    from workbench.workloads import load_workload

    if workload is None:
        return ()
    return tuple("\n".join(question.turns) for question in load_workload(workload))


def sentence(text: str) -> str:
    """A reason as a sentence."""
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
