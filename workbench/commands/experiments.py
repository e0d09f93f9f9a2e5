"""`draftree experiments`: comparisons that are stored as files, listed, shown and started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.commands.flags import MODELS, JsonFlag, ReportFlag, listed
from workbench.commands.groups import Flags, grouped

if TYPE_CHECKING:
    from workbench.experiments.stored import Experiment

experiments_app = typer.Typer(
    invoke_without_command=True,
    help="Comparisons on published pairs, stored for anyone to start.",
)
_Name = Annotated[str, typer.Argument(help="One of `draftree experiments`, or a JSON file.")]


@experiments_app.callback(invoke_without_command=True)
def listing(ctx: typer.Context) -> None:
    """List the stored experiments, and whether their models are on this machine.

    Examples:

        draftree experiments

        draftree experiments show gpt2-xl

        draftree experiments run embedded-pair --limit 2
    """
    if ctx.invoked_subcommand is None:
        list_all(as_json=False)


@experiments_app.command("list")
def list_all(as_json: JsonFlag = False) -> None:
    """List the stored experiments, and whether their models are on this machine."""
    from workbench import discovery
    from workbench.experiments.stored import experiment_names, load_experiment
    from workbench.terminal import out, print_json

    known = discovery.models()
    found = [as_object(load_experiment(name), known) for name in experiment_names()]
    if as_json:
        print_json({"experiments": found})
        return
    out().print(_table(found))
    out().print(
        "Start one: draftree experiments run NAME; what it needs: draftree experiments show"
    )


@experiments_app.command("show")
def show(name: _Name, as_json: JsonFlag = False) -> None:
    """Show what an experiment measures, on what, and which of its models are missing."""
    from workbench import discovery
    from workbench.experiments.stored import load_experiment
    from workbench.report.again import compare_command
    from workbench.terminal import out, print_json
    from workbench.view.visible import safe_text

    experiment = load_experiment(name)
    told = as_object(experiment, discovery.models())
    if as_json:
        print_json(told | {"compare": experiment.compare.model_dump(mode="json")})
        return
    lines = [experiment.title, experiment.about, ""]
    for one in told["models"]:
        where = one["problem"] or f"here: {one['place']}"
        lines += [f"{one['role']:<7} {one['name']}", f"        {where}"]
        lines += [f"        {one['fetch']}"] if one["fetch"] else []
    lines += ["", "The same by hand:", f"  {compare_command(experiment.compare)}"]
    for line in lines:
        out().print(safe_text(line))


@dataclass(frozen=True)
class ChangedFlags(Flags):
    """What a run of an experiment may change of it."""

    target: Annotated[
        str | None,
        typer.Option(
            help="Another target: embedded name, folder or hub id.", rich_help_panel=MODELS
        ),
    ] = None
    draft: Annotated[
        str | None,
        typer.Option(help="Another draft, with that target's vocabulary.", rich_help_panel=MODELS),
    ] = None
    dtypes: Annotated[
        str | None, typer.Option(help="Only these of float32, bfloat16, float16; commas between.")
    ] = None
    cache: Annotated[
        str | None, typer.Option(help="on, off or on,off: with and without key-value cache.")
    ] = None
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Only without: every pass recomputes the prefix.")
    ] = False
    workload: Annotated[
        list[str] | None,
        typer.Option("--workload", "-w", help="Other prompts: embedded or a file; repeatable."),
    ] = None
    limit: Annotated[
        int | None, typer.Option(help="First questions of each workload only.", min=1)
    ] = None
    repeats: Annotated[
        int | None, typer.Option("--repeats", "-r", help="Times each prompt is decoded.", min=1)
    ] = None
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", "-n", help="Tokens per answer, exactly.", min=1),
    ] = None
    execution: Annotated[
        str | None, typer.Option(help="auto, eager, compiled (CPU), graph (CUDA) or inductor.")
    ] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N or auto.")] = None


@experiments_app.command("run")
@grouped
def run(
    *,
    name: _Name,
    changes: ChangedFlags,
    report: ReportFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure an experiment. What is missing is said before anything is loaded.

    Flags change what the file says; without them it is measured as it is stored.

    Examples:

        draftree experiments run gpt2-xl --dtypes bfloat16 --report gpt2-xl.html

        draftree experiments run smollm2-1.7b --target ./models/SmolLM2-1.7B \
--draft ./models/SmolLM2-135M

        draftree experiments run gpt2-xl --target pycode-target --draft pycode-draft --limit 2
    """
    from workbench.commands.compare import compare_and_print, on_or_off
    from workbench.experiments.at_hand import on_this_machine
    from workbench.experiments.stored import changed, load_experiment, on_models

    experiment = load_experiment(name)
    caches = [False] if changes.no_cache else [on_or_off(w) for w in listed(changes.cache or "")]
    spec = changed(
        on_models(experiment.compare, target=changes.target, draft=changes.draft),
        dtypes=listed(changes.dtypes) if changes.dtypes else None,
        caches=caches or None,
        workloads=changes.workload or None,
        limit=changes.limit,
        repeats=changes.repeats,
        max_new_tokens=changes.max_new_tokens,
        executions=listed(changes.execution) if changes.execution else None,
        device=changes.device,
    )
    spec = on_this_machine(experiment, spec)
    raise typer.Exit(compare_and_print(spec, report=report, per_prompt=False, as_json=as_json))


def as_object(experiment: Experiment, known: list[Any]) -> dict[str, Any]:
    """An experiment as plain values, with where its models are."""
    from workbench.experiments.at_hand import at_hand
    from workbench.view.compare_experiments import settings_told

    found = at_hand(experiment.compare, experiment.models, known)
    return {
        "name": experiment.name,
        "title": experiment.title,
        "about": experiment.about,
        "ready": not any(one.problem for one in found),
        "settings": settings_told(experiment.compare),
        "models": [
            {
                "role": one.role,
                "name": one.name,
                "problem": one.problem,
                "fetch": one.fetch,
                "place": one.place,
            }
            for one in found
        ],
    }


def _table(found: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("experiment", "what", "settings", "models"):
        table.add_column(heading, overflow="fold")
    for one in found:
        missing = [model["name"] for model in one["models"] if model["problem"]]
        table.add_row(
            Text(one["name"], style="bold"),
            one["title"],
            Text(one["settings"], style="dim"),
            Text(f"missing: {', '.join(missing)}", style="yellow")
            if missing
            else Text("here", style="green"),
        )
    return table
