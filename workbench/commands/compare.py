"""`draftree compare`: methods against plain decoding on the same prompts."""

from __future__ import annotations

import threading
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
    ExactTokensFlag,
    ExecutionFlags,
    JsonFlag,
    RankFlags,
    ReportFlag,
    SamplingFlags,
    TargetFlag,
    given_flags,
    listed,
    models,
    wrong_value,
)
from workbench.commands.groups import Flags, grouped

if TYPE_CHECKING:
    from workbench.comparing.result import CompareSpec, Comparison


@dataclass(frozen=True)
class MeasuredFlags(Flags):
    """What is measured how often, and in what form it comes and goes."""

    methods: Annotated[
        str,
        typer.Option(
            "--methods", "-m", help="Methods with options: a,b:nodes=8, or b:nodes=[8,16]."
        ),
    ] = "speculative,static-tree,dynamic-tree"
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            help="Embedded workload or a file of prompts; repeatable. [default: code]",
        ),
    ] = None
    baselines: Annotated[
        str,
        typer.Option(
            help="Of hf-generate, hf-assisted, hf-prompt-lookup, draft-alone; commas, or none."
        ),
    ] = "hf-generate,hf-assisted,draft-alone"
    limit: Annotated[
        int | None, typer.Option(help="First questions of each workload only.", min=1)
    ] = None
    repeats: Annotated[
        int, typer.Option("--repeats", "-r", help="Times each prompt is decoded.", min=1)
    ] = 3
    max_new_tokens: ExactTokensFlag = 128
    report: ReportFlag = None
    per_prompt: Annotated[
        bool, typer.Option("--per-prompt", help="Show every prompt in the table as well.")
    ] = False
    as_json: JsonFlag = False
    spec_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--spec",
            help="A run spec whose method and options are an arm; without --methods beside the "
            "method's defaults. Repeatable.",
        ),
    ] = None


@dataclass(frozen=True)
class CompareModelFlags(Flags, panel=MODELS):
    """A target, its drafts, and in which number formats they are measured."""

    target: TargetFlag = None
    draft: DraftsFlag = None
    dtypes: Annotated[str, typer.Option(help="Of float32, bfloat16, float16; commas between.")] = (
        "float32"
    )
    device: DeviceFlag = "auto"


@dataclass(frozen=True)
class CompareExecutionFlags(Flags, panel=EXECUTION):
    """In which ways the engine runs."""

    cache: Annotated[
        str, typer.Option(help="on, off or on,off: without, every pass recomputes the prefix.")
    ] = "on"
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA), inductor, or several; auto compiles "
            "where that can be done."
        ),
    ] = "auto"


@grouped
def compare(
    ctx: typer.Context,
    *,
    measured: MeasuredFlags,
    names: CompareModelFlags,
    sampling: SamplingFlags,
    execution: CompareExecutionFlags,
    running: ExecutionFlags,
    shared: RankFlags,
) -> None:
    """Measure methods against plain decoding: same prompts, same token counts, taken in turn.

    Plain decoding is always measured, Hugging Face generate (plain and assisted) and the draft
    model alone unless --baselines says otherwise. Every arm is kept as a run; Ctrl-C keeps what is
    complete. An option may be a list; for very many, see `draftree sweep`.

    Examples:

        draftree compare --methods speculative,dynamic-tree --workload code --limit 4

        draftree compare -m dynamic-tree:nodes=8,speculative -w code -w edit --report out.html

        draftree compare --spec dynamic-tree-code.spec.json -w code

        draftree compare -m speculative -w code --dtypes float32,bfloat16 --cache on,off --json

        draftree compare -m "dynamic-tree:ranks=[1,2,4],dynamic-tree:ranks=2,placement=own"

        draftree compare -m "static-tree:drafts=[1,2]" --draft pycode-draft --draft ./my-draft
    """
    from workbench.comparing.arms import split_methods

    arms = split_methods(measured.methods)
    if measured.spec_files:
        arms = _with_specs(arms if "methods" in given_flags(ctx) else None, measured.spec_files)
    spec = _spec(
        {
            "methods": arms,
            "baselines": [] if measured.baselines == "none" else listed(measured.baselines),
            "workloads": measured.workload or ["code"],
            "limit": measured.limit,
            "repeats": measured.repeats,
            "max_new_tokens": measured.max_new_tokens,
            **models(names.target, names.draft),
            "dtypes": listed(names.dtypes),
            "device": names.device,
            "caches": [on_or_off(word) for word in listed(execution.cache)],
            "executions": listed(execution.execution),
            **vars(sampling),
            **vars(running),
            **vars(shared),
        }
    )
    code = compare_and_print(
        spec, report=measured.report, per_prompt=measured.per_prompt, as_json=measured.as_json
    )
    raise typer.Exit(code)


def _with_specs(arms: list[str] | None, files: list[Path]) -> list[str]:
    """The arms of spec files after those named, or after their methods' defaults."""
    from workbench.specfile import as_arm, read_spec

    ours = [as_arm(read_spec(file), str(file)) for file in files]
    return list(dict.fromkeys([*(arms or [arm.partition(":")[0] for arm in ours]), *ours]))


def compare_and_print(
    spec: CompareSpec, *, report: Path | None, per_prompt: bool, as_json: bool
) -> int:
    """Measure, show the table or the object, write the report; the exit code."""
    from workbench.commands.progress import progress
    from workbench.commands.runner import CANCELLED_CODE, on_interrupt
    from workbench.compare import compare as measure
    from workbench.report.again import compare_command
    from workbench.terminal import say

    if report is not None:
        from workbench.report.files import check_writable

        check_writable(report)
    stop = threading.Event()
    with on_interrupt(stop), progress() as take:
        found = measure(spec, take, stop.is_set, command=compare_command(spec))
    _show(found, per_prompt=per_prompt, as_json=as_json)
    measured = any(arm.samples for arm in found.arms)
    if report is not None and measured:
        from workbench.report.files import write_comparison_report

        say(f"Report: {write_comparison_report(found, report)}")
    if found.status == "cancelled":
        say("Stopped; the figures are of what was complete." if measured else "Stopped.")
        return CANCELLED_CODE
    return 1 if any(arm.error for arm in found.arms) else 0


def _show(found: Comparison, *, per_prompt: bool, as_json: bool) -> None:
    from workbench.comparing.rows import rows
    from workbench.comparing.table import closing, tables
    from workbench.terminal import out, print_json

    table = rows(found)
    if as_json:
        print_json(as_object(found))
        return
    for rendered in tables(table, per_prompt=per_prompt):
        out().print(rendered)
    if table:
        for line in closing(found, table):
            out().print(line)
        out().print(f"comparison {found.comparison_id}   draftree report {found.comparison_id}")


def as_object(found: Comparison) -> dict[str, Any]:
    """What `draftree compare --json` prints. `stages` are nanoseconds over all steps."""
    from dataclasses import asdict

    from workbench.comparing import wording
    from workbench.comparing.rows import rows

    table = rows(found)
    return {
        "comparison": found.comparison_id,
        "status": found.status,
        "verdict": wording.verdict(table) if table else "",
        "rows": [row.as_json() for row in table],
        "differences": [
            {"method": arm.label, "workload": arm.workload, **asdict(difference)}
            for arm in found.arms
            for difference in arm.differences
        ],
        "failed": {arm.label: arm.error for arm in found.arms if arm.error},
        "notes": found.notes,
        "command": found.command,
        "environment": found.environment,
    }


def _spec(values: dict[str, Any]) -> CompareSpec:
    from pydantic import ValidationError

    from workbench.comparing.result import CompareSpec

    try:
        return CompareSpec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        names = {"workloads": "workload", "caches": "cache", "executions": "execution"}
        raise wrong_value(first, **names) from None


def on_or_off(word: str) -> bool:
    """A word of `--cache`. Raises UserError."""
    if word not in ("on", "off"):
        raise UserError(f"--cache has {word!r}; use on, off or on,off.")
    return word == "on"
