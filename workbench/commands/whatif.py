"""`draftree whatif`: what other static trees would have accepted on a stored run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.groups import Flags, grouped

if TYPE_CHECKING:
    from workbench.whatif.compare import Comparison
    from workbench.whatif.predict import Prediction

_NAME = 46


@dataclass(frozen=True)
class TreeFlags(Flags):
    """Which trees are asked about."""

    paths: Annotated[
        list[str] | None,
        typer.Option(help="A tree as rank paths, such as '0.0;1'; repeatable. 0: first choice."),
    ] = None
    expansion: Annotated[
        list[str] | None,
        typer.Option(help="A tree as children per level, such as 2,2,1; repeatable."),
    ] = None
    optimal: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="The best tree of N nodes for this run's ranks; repeatable.",
            min=1,
            max=255,
        ),
    ] = None
    children: Annotated[
        str | None,
        typer.Option(help="fixed or coupled. [default: the run's own way]"),
    ] = None


@grouped
def whatif(
    *,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or last.")],
    trees: TreeFlags,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="First run the draft model over the text once: exact answers."
        ),
    ] = False,
    draft: Annotated[
        str | None,
        typer.Option(help="Draft model to ask about, where the run had none or another."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Ask what other static trees would have accepted on a stored run, without decoding again.

    Under greedy decoding and under matched sampling the text is the same whatever is drafted. So
    the draft's rank of each token decides which nodes of a tree would have been accepted: a tree
    with a first-choice child (rank 0) under a second choice (rank 1), written 1.0, accepts two
    tokens wherever the true ranks are 1, 0.

    A run knows the ranks of what it drafted. Where a rank is unknown the table shows bounds such as
    2.41-2.87; --complete measures all ranks, once, with the draft model, and the answers are exact.

    Tokens per second come from pass times of this and other stored runs of the same set-up; the
    column "times" says whether both were measured for a tree of that size, interpolated between
    measured sizes, or extrapolated. Speedups are estimates: only draftree compare measures one.

    Examples:

        draftree whatif last --complete

        draftree whatif last --paths '0.0.0;1;2' --expansion 3,2,1

        draftree whatif last --optimal 12 --optimal 24

        draftree run -m static-tree -o 'paths=0.0.0;1;2' -p "def main("
    """
    from engine.shapes import from_expansion, from_paths
    from workbench.terminal import print_json
    from workbench.whatif.compare import SIZES, compare_trees
    from workbench.whatif.trees import Named

    given = [Named(f"paths {text}", from_paths(text)) for text in trees.paths or []]
    given += [Named(f"expansion {text}", from_expansion(text)) for text in trees.expansion or []]
    if complete:
        _complete(run, draft)
    found = compare_trees(
        run,
        given=given,
        sizes=tuple(trees.optimal) if trees.optimal else SIZES,
        children=_children(trees.children),
        draft=draft,
    )
    if as_json:
        print_json(as_object(found))
    else:
        _print(found)


def _children(wanted: str | None) -> Any:
    from engine.tree import Children

    if wanted is None:
        return None
    if wanted not in (Children.FIXED, Children.COUPLED):
        raise UserError(
            f"--children is {wanted!r}; use fixed or coupled. Drawn (sampled) children differ from "
            "run to run, so no stored rank can decide for them."
        )
    return Children(wanted)


def _complete(run: str, draft: str | None) -> None:
    from workbench.terminal import err
    from workbench.whatif.complete import complete

    with err().status("Loading") as status:
        complete(
            run,
            draft=draft,
            on_progress=lambda message, share: status.update(f"{message}, {share:.0%}"),
        )


# --- as a table ---


def _print(found: Comparison) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from workbench.terminal import one_line, out
    from workbench.whatif.trees import paths_text

    title = Text(f"run {found.info.run_id}", style="bold")
    out().print(title + Text(f"  {found.info.spec.method}"))
    out().print(Text(_certainty(found), style="dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tree", no_wrap=True)
    headings = ("nodes", "depth", "tok/step", "ms/step", "tok/s", "speedup")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("times", no_wrap=True)
    rows = sorted(found.predictions, key=_order, reverse=True)
    for each in rows:
        table.add_row(
            Text(one_line(each.name, _NAME)),
            str(each.nodes),
            str(max(each.shape.depths())),
            _range(each.low.tokens_per_step, each.high.tokens_per_step, "{:.2f}"),
            f"{each.step.ms:.2f}" if each.step else "-",
            _bounds(each, each.tokens_per_second, "{:.0f}"),
            _bounds(each, each.speedup, "{:.2f}x"),
            each.how_timed or "-",
        )
    out().print(table)
    for line in _notes(found):
        out().print(Text(line, style="dim"))
    first = paths_text(rows[0].shape)
    out().print(Text(f"Run the first for real: draftree run -m static-tree -o 'paths={first}' ..."))
    if not found.ranks.complete:
        command = f"draftree whatif {found.info.run_id} --complete"
        out().print(Text(f"For exact answers: {command}", style="bold"))


def _order(each: Prediction) -> tuple[float, float]:
    return (each.tokens_per_second(each.low) or 0.0, each.low.tokens_per_step)


def _certainty(found: Comparison) -> str:
    ranks = found.ranks
    whose = f"{ranks.children.value} children of {ranks.draft or 'no draft model'}"
    if ranks.complete:
        return f"{whose}; the ranks of all {ranks.num_tokens} tokens are known: exact"
    return f"{whose}; ranks of {ranks.num_known} of {ranks.num_tokens} tokens are known: bounds"


def _notes(found: Comparison) -> list[str]:
    notes = []
    summary = found.info.summary
    if summary.get("steps"):
        notes.append(
            f"The run itself: {summary['tokens_per_step']:.2f} tokens per step, "
            f"{summary['tokens_per_second']:.0f} tokens/s as measured."
        )
    best = found.oracle
    if best is not None:
        oracle = _range(*best.tokens_per_step, "{:.2f}")
        regret = _range(*best.regret, "{:.2f}")
        notes.append(
            f"Oracle of its steps: {oracle} tokens per step with the best tree in hindsight among "
            f"its top {best.top_k}; regret {regret} per step."
        )
    if found.vector:
        shares = ", ".join(f"{share:.3f}" for share in found.vector[:6])
        notes.append(f"Acceptance by rank (marginal): {shares}. The optimal trees are for it.")
    times = found.times
    if not times.known:
        notes.append(
            "Tokens per second are unknown: no stored run of this set-up drafted one request at a "
            "time. Make one: draftree run -m static-tree, same models."
        )
    else:
        whence = f"run {times.plain_from}" if times.plain_from else "passes before a run alone"
        notes.append(
            f"Pass times: medians of {times.num_runs} runs of this set-up at the pace of this run; "
            f"a plain step takes {times.plain:.2f} ms ({whence})."
        )
    return notes


def _bounds(each: Prediction, figure: Any, form: str) -> str:
    low, high = figure(each.low), figure(each.high)
    return "-" if low is None or high is None else _range(low, high, form)


def _range(low: float, high: float, form: str) -> str:
    one, other = form.format(low), form.format(high)
    return one if one == other else f"{one}-{other}"


# --- as JSON ---


def as_object(found: Comparison) -> dict[str, Any]:
    """Everything as plain values."""
    from workbench.whatif.trees import paths_text

    best = found.oracle
    return {
        "run": found.info.run_id,
        "children": found.ranks.children.value,
        "draft": found.ranks.draft,
        "tokens": found.ranks.num_tokens,
        "known": found.ranks.num_known,
        "acceptance_vector": list(found.vector),
        "oracle": best and {"tokens_per_step": best.tokens_per_step, "regret": best.regret},
        "plain_ms": found.times.plain or None,
        "trees": [
            {
                "name": each.name,
                "paths": paths_text(each.shape),
                "nodes": each.nodes,
                "depth": max(each.shape.depths()),
                "exact": each.exact,
                "tokens_per_step": [each.low.tokens_per_step, each.high.tokens_per_step],
                "histogram": each.low.histogram,
                "step_ms": each.step and each.step.ms,
                "tokens_per_second": [each.tokens_per_second(o) for o in (each.low, each.high)],
                "speedup": [each.speedup(o) for o in (each.low, each.high)],
                "times": each.how_timed or None,
            }
            for each in found.predictions
        ],
    }
