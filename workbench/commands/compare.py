"""`draftree compare`: methods against plain decoding on the same prompts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    MODELS,
    ChatTemplateFlag,
    DeviceFlag,
    DraftsFlag,
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
    given_flags,
    listed,
    models,
    wrong_value,
)

if TYPE_CHECKING:
    from workbench.comparing.result import CompareSpec, Comparison


def compare(
    ctx: typer.Context,
    methods: Annotated[
        str,
        typer.Option(
            "--methods", "-m", help="Methods with options: a,b:nodes=8, or b:nodes=[8,16]."
        ),
    ] = "speculative,static-tree,dynamic-tree",
    workload: Annotated[
        list[str] | None,
        typer.Option(
            "--workload",
            "-w",
            help="Embedded workload or a file of prompts; repeatable. [default: code]",
        ),
    ] = None,
    baselines: Annotated[
        str,
        typer.Option(
            help="Of hf-generate, hf-assisted, hf-prompt-lookup, draft-alone; commas, or none."
        ),
    ] = "hf-generate,hf-assisted,draft-alone",
    limit: Annotated[
        int | None, typer.Option(help="First questions of each workload only.", min=1)
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", "-r", help="Times each prompt is decoded.", min=1)
    ] = 3,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens per answer, exactly.", min=1)
    ] = 128,
    report: Annotated[
        Path | None, typer.Option(help="Write a report there: .html, or .md for Markdown.")
    ] = None,
    per_prompt: Annotated[
        bool, typer.Option("--per-prompt", help="Show every prompt in the table as well.")
    ] = False,
    as_json: JsonFlag = False,
    spec_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--spec",
            help="A run spec whose method and options are an arm; without --methods beside the "
            "method's defaults. Repeatable.",
        ),
    ] = None,
    target: TargetFlag = None,
    draft: DraftsFlag = None,
    dtypes: Annotated[
        str,
        typer.Option(help="Of float32, bfloat16, float16; commas between.", rich_help_panel=MODELS),
    ] = "float32",
    device: DeviceFlag = "auto",
    temperature: TemperatureFlag = 0.0,
    top_k: TopKFlag = 0,
    top_p: TopPFlag = 1.0,
    seed: SeedFlag = 0,
    cache: Annotated[
        str,
        typer.Option(
            help="on, off or on,off: without, every pass recomputes the prefix.",
            rich_help_panel=EXECUTION,
        ),
    ] = "on",
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA), inductor, or several; auto compiles "
            "where that can be done.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto",
    chat_template: ChatTemplateFlag = True,
    threads: ThreadsFlag = None,
    ranks: RanksFlag = 1,
    parallel: ParallelFlag = "draft",
    placement: PlacementFlag = "beside",
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

    arms = split_methods(methods)
    if spec_files:
        arms = _with_specs(arms if "methods" in given_flags(ctx) else None, spec_files)
    values = {
        "methods": arms,
        "baselines": [] if baselines == "none" else listed(baselines),
        "workloads": workload or ["code"],
        "limit": limit,
        **models(target, draft),
        "dtypes": listed(dtypes),
        "caches": [on_or_off(word) for word in listed(cache)],
        "repeats": repeats,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "chat_template": chat_template,
        "device": device,
        "executions": listed(execution),
        "threads": threads,
        "ranks": ranks,
        "parallel": parallel,
        "placement": placement,
    }
    code = compare_and_print(_spec(values), report=report, per_prompt=per_prompt, as_json=as_json)
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
