"""`draftree profile`: what passes of a pair cost here, and how often its drafts are right."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    PairFlags,
    ThreadsFlag,
    models,
)
from workbench.commands.groups import grouped
from workbench.spec import Execution

if TYPE_CHECKING:
    from engine.calibration import Calibration
    from engine.costs import PassCost
    from workbench.models import Pair
    from workbench.profiling.files import StoredProfile
    from workbench.profiling.measuring import Extent

_EXECUTIONS = get_args(Execution)
#: counts below which a share says little
_FEW = 20


@grouped
def profile(
    *,
    names: PairFlags,
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA) or inductor; auto takes CUDA graphs on "
            "a GPU, compiled forwards at hand on a CPU.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto",
    threads: ThreadsFlag = None,
    nodes: Annotated[int, typer.Option(help="Most nodes of a target pass.", min=2, max=256)] = 32,
    batch: Annotated[
        int,
        typer.Option(help="For runs with this --batch, or load with as many slots.", min=1, max=64),
    ] = 1,
    rounds: Annotated[
        int, typer.Option(help="Times each size is timed; more on a busy machine.", min=2)
    ] = 16,
    show: Annotated[
        bool, typer.Option("--show", help="Print the stored profile, measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure what passes of a pair cost on this machine, and count how often drafts were right.

    All sizes take turns, round after round, and the lower quartile of each counts: what disturbs a
    pass only makes it slower. Acceptance comes from the stored runs of the pair, by sibling rank
    and by the probability the draft gave. Policy auto of dynamic-tree uses the profile made for its
    very setting: models, number format, device, processor, threads, eager or compiled. It measures
    for itself where there is none.

    Examples:

        draftree profile

        draftree profile --show

        draftree profile --target ./big --draft ./small --threads 4 --execution compiled

        draftree run -m dynamic-tree -o policy=auto -p "def main("
    """
    from workbench.commands.runner import CANCELLED_CODE
    from workbench.profiling.measuring import Extent

    if execution not in _EXECUTIONS:
        raise UserError(f"--execution is {execution!r}; use {', '.join(_EXECUTIONS)}.")
    pair = _load(names, threads)
    if show:
        stored = _stored(pair, execution, batch)
    else:
        extent = Extent(nodes=nodes, batch=batch, rounds=rounds)
        made = _make(pair, execution=execution, extent=extent)
        if made is None:
            raise typer.Exit(CANCELLED_CODE)
        stored = made
    if as_json:
        from workbench.terminal import print_json

        print_json(stored.as_json())
    else:
        _print(stored)


def _load(names: PairFlags, threads: int | None) -> Pair:
    from engine.models import resolve_device
    from workbench.job import use_threads
    from workbench.models import Pair, load

    found = models(names.target, names.draft)
    if found["draft"] is None:
        raise UserError("A profile is of a target and its draft model; name one with --draft.")
    use_threads(threads)
    where = resolve_device(names.device)
    big, small = (
        load(found[role], dtype=names.dtype, device=where) for role in ("target", "draft")
    )
    return Pair(big, small)


# --- making one ---


def _make(pair: Pair, *, execution: str, extent: Extent) -> StoredProfile | None:
    """Measure, count and store; None where that was stopped."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from engine.costs import StoppedError
    from workbench.commands.runner import on_interrupt
    from workbench.profiling import acceptance, files
    from workbench.profiling.measuring import measure_pair
    from workbench.store.index import now_iso
    from workbench.terminal import err, say

    assert pair.draft is not None
    stop = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
    with on_interrupt(stop), Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("Measuring passes", total=1.0)

        def tell(phase: str, message: str, share: float | None) -> None:
            if stop.is_set():
                raise StoppedError
            bar.update(task, description=message, completed=share or 0.0)

        try:
            measured = measure_pair(
                pair,
                execution=execution,
                extent=extent,
                on_progress=tell,
                should_stop=stop.is_set,
            )
            bar.update(task, description="Counting stored runs", total=None)
            hashes = pair.target.content_hash, pair.draft.content_hash
            learned = acceptance.learn(*hashes, should_stop=stop.is_set)
        except StoppedError:
            say("Stopped; nothing was written.")
            return None
    stored = files.StoredProfile(
        setting=files.Setting.here(
            pair.target, pair.draft, mode=measured.mode, cache=True, batch=extent.batch
        ),
        target=pair.target.name,
        draft=pair.draft.name,
        made=now_iso(),
        costs=measured.costs,
        calibrations=learned.calibrations,
        runs=learned.runs,
        environment=_surroundings(),
    )
    say(f"Wrote {files.write(stored)}")
    return stored


def _surroundings() -> dict[str, Any]:
    import os

    from workbench import environment

    return {
        "cpu": environment.cpu_name(),
        "cores": os.cpu_count(),
        "packages": environment.package_versions(),
        "git": environment.git_state(),
        "load": os.getloadavg()[0],
    }


def _stored(pair: Pair, execution: str, batch: int) -> StoredProfile:
    """The profile a run would use. Raises UserError where there is none."""
    from engine.execution import best_mode
    from engine.packages import at_hand
    from workbench.profiling.files import Setting, find

    assert pair.draft is not None
    mode = execution
    if execution == "auto":
        mode = best_mode([pair.target, pair.draft])
        if mode == "compiled" and not (at_hand(pair.target, batch) and at_hand(pair.draft, batch)):
            mode = "eager"
    setting = Setting.here(pair.target, pair.draft, mode=mode, cache=True, batch=batch)
    stored, why = find(setting)
    if stored is None:
        raise UserError(
            f"For {pair.target.name} with {pair.draft.name} in {setting.dtype}, {mode}, on"
            f" {setting.threads} threads there is no profile: {why}."
        )
    return stored


# --- showing it ---


def _print(stored: StoredProfile) -> None:
    from rich.text import Text

    from workbench.terminal import one_line, out

    setting = stored.setting
    title = f"{stored.target} with {stored.draft}"
    threads = f"{setting.threads} thread{'s' if setting.threads != 1 else ''}"
    out().print(Text(one_line(title, 100), style="bold"))
    facts = f"{setting.dtype}, {setting.mode}, {threads}, {setting.processor}, {stored.made[:16]}"
    out().print(Text(one_line(facts, 140), style="dim"))
    out().print(_cost_table("target pass, ms by nodes and context", stored.costs.target))
    out().print(_cost_table("draft pass, ms by nodes and context", stored.costs.draft))
    for kind, counted in stored.calibrations.items():
        out().print(_acceptance_table(kind, stored.runs.get(kind, 0), counted))
    if not stored.calibrations:
        hint = "No stored run of this pair tells how often its drafts are right: make some with"
        out().print(Text(f"{hint} `draftree run -m static-tree -w code`, then profile again."))


def _cost_table(title: str, cost: PassCost) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    table.title_justify = "left"
    table.add_column("nodes", justify="right")
    for context in cost.contexts_C:
        table.add_column(str(context), justify="right")
    for at, count in enumerate(cost.nodes_S):
        table.add_row(str(count), *(f"{row[at]:.2f}" for row in cost.ms_CS))
    return table


_WORDS = {
    "greedy": "greedy runs",
    "fixed": "sampled runs, fixed children",
    "coupled": "sampled runs, coupled children",
}


def _acceptance_table(kind: str, runs: int, counted: Calibration) -> Any:
    """Share accepted and how many were tested, by draft probability and sibling rank."""
    from math import exp

    from rich import box
    from rich.table import Table

    from engine.calibration import EDGES, RANKS

    number = f"{runs} run{'s' if runs != 1 else ''}"
    title = f"accepted by draft probability and rank: {_WORDS.get(kind, kind)} ({number})"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title)
    table.title_justify = "left"
    table.add_column("draft probability", justify="right")
    for rank in range(RANKS):
        table.add_column(f"rank {rank}{' on' if rank == RANKS - 1 else ''}", justify="right")
    edges = [0.0, *(exp(edge) for edge in EDGES), 1.0]
    for at in range(len(edges) - 1):
        cells = []
        for rank in range(RANKS):
            tested, hits = counted.tested_RB[rank][at], counted.accepted_RB[rank][at]
            share = f"{hits / tested:.0%}" if tested else ""
            cells.append(f"{share}{'?' if 0 < tested < _FEW else ''} {f'({tested:.0f})':>7}")
        table.add_row(f"{edges[at]:.3g} - {edges[at + 1]:.3g}", *cells)
    table.caption = f"in brackets: children tested; ?: fewer than {_FEW}"
    table.caption_justify = "left"
    return table
