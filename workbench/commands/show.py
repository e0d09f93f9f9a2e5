"""`draftree show`: a stored run, or one of its steps with the tree as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError

if TYPE_CHECKING:
    from engine.records import StepRecord
    from workbench.store.reader import RunReader


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, its beginning, or last.")],
    step: Annotated[
        int | None, typer.Option("--step", "-s", help="Show this step's tree; -1 is the last.")
    ] = None,
    request: Annotated[
        int | None, typer.Option("--request", "-r", help="Of this request. [default: the first]")
    ] = None,
    repeat: Annotated[int, typer.Option(help="Of this repeat of the workload.", min=0)] = 0,
    full: Annotated[bool, typer.Option("--full", help="Fold nothing, however large.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Look into a stored run: its figures and text, or with --step one tree.

    Examples:

        draftree show last

        draftree show last --step 3

        draftree show 20261121 --request 4 --step -1 --json
    """
    from workbench.store.reader import open_run

    with open_run(run) as reader:
        if step is None:
            _overview(reader, request, as_json=as_json)
        else:
            _step(reader, request, step, repeat, full=full, as_json=as_json)


# --- one step ---


def _step(
    reader: RunReader, request: int | None, step: int, repeat: int, *, full: bool, as_json: bool
) -> None:
    from workbench.terminal import print_json

    if request is None:
        request = _first_request(reader)
    if step < 0:
        step += len(reader.steps(request=request, repeat=repeat))
    record = reader.step_record(request, step, repeat)
    pieces = reader.pieces()
    if as_json:
        print_json(step_object(record, pieces))
    else:
        _print_step(record, pieces, reader.run_id, full=full)


def _first_request(reader: RunReader) -> int:
    frame = reader.query("SELECT min(request) AS first FROM step")
    first = frame["first"].iloc[0]
    if math.isnan(first):
        raise UserError(f"Run {reader.run_id} holds no steps.")
    return int(first)


def _print_step(record: StepRecord, pieces: dict[int, str], run_id: str, *, full: bool) -> None:
    from rich.text import Text

    from workbench.terminal import out
    from workbench.treetext import symbols_legend, tree_lines

    tree = record.tree
    emitted = f"{len(record.emitted)} token{'s' if len(record.emitted) != 1 else ''} emitted"
    cut = len(record.emitted) - record.num_kept
    facts = [
        f"{tree.num_drafted} nodes drafted",
        f"{record.verdict.num_accepted} accepted",
        emitted + (f" ({cut} cut off)" if cut else ""),
        f"children {tree.children}",
    ]
    pruned = len(tree.tokens_M) - tree.num_nodes
    if pruned:
        facts.append(f"{pruned} pruned while growing")
    out().print(Text(f"run {run_id}, request {record.request}, step {record.step}", style="bold"))
    out().print(Text("   ".join(facts), style="dim"))
    for line in tree_lines(record, pieces, full=full):
        out().print(line)
    out().print(symbols_legend(record))
    stages = "   ".join(
        f"{stage} {value / 1e6:.2f}" for stage, value in record.times._asdict().items() if value
    )
    wall = record.times.wall / 1e6
    out().print(Text(f"{stages}   = {wall:.2f} ms", style="dim"))


def step_object(record: StepRecord, pieces: dict[int, str]) -> dict[str, Any]:
    """One step as plain values: nodes as rows, probabilities as log-probabilities."""
    from engine.records import Fate
    from engine.tree import Source, drafts_text

    tree, verdict = record.tree, record.verdict

    def drafts_of(node: int) -> str | None:
        """Of several draft models, those whose tree has it."""
        return None if tree.drafts_M is None else drafts_text(int(tree.drafts_M[node])) or None

    nodes = []
    for node in range(len(tree.tokens_M)):
        scored = node < tree.num_nodes
        fate = Fate(int(verdict.fate_N[node])) if scored else Fate.PRUNED
        token = int(tree.tokens_M[node])
        nodes.append(
            {
                "node": node,
                "parent": int(tree.parents_M[node]),
                "depth": int(tree.depth_M[node]),
                "rank": int(tree.rank_M[node]),
                "token": token,
                "text": pieces.get(token),
                "fate": fate.name.lower(),
                "source": Source(int(tree.source_M[node])).name.lower(),
                "drafts": drafts_of(node),
                "round_added": int(tree.round_added_M[node]),
                "round_pruned": int(tree.round_pruned_M[node]),
                "draft_logprob": float(tree.draft_logprob_M[node]),
                "target_logprob": float(record.target_logprob_M[node]),
                "accept_prob": float(verdict.accept_prob_N[node]) if scored else None,
            }
        )
    return {
        "request": record.request,
        "step": record.step,
        "position": record.position,
        "children": str(tree.children),
        "drafted": tree.num_drafted,
        "accepted": verdict.num_accepted,
        "path": verdict.path_A,
        "emitted": record.emitted,
        "kept": record.num_kept,
        "origin": verdict.origin.name.lower(),
        "stages": record.times._asdict(),
        "nodes": nodes,
    }


# --- the whole run ---


def _overview(reader: RunReader, request: int | None, *, as_json: bool) -> None:
    from workbench.terminal import print_json

    requests = reader.requests()
    if request is not None:
        requests = requests[requests["request"] == request]
        if requests.empty:
            raise UserError(f"Run {reader.run_id} has no request {request}.")
    if as_json:
        info = reader.info._asdict() | {"spec": reader.info.spec.model_dump(mode="json")}
        print_json(info | {"requests": _rows(requests)})
        return
    _print_overview(reader, _rows(requests))


def _rows(frame: Any) -> list[dict[str, Any]]:
    """Rows with Python's own values, None where unknown."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _print_overview(reader: RunReader, requests: list[dict[str, Any]]) -> None:
    from rich.text import Text

    from workbench.figures_text import figures
    from workbench.metrics import summary_from_json
    from workbench.terminal import one_line, out, write_token

    info, spec = reader.info, reader.info.spec
    pair = " + ".join([spec.target, *spec.drafts])
    out().print(Text(f"run {info.run_id}", style="bold") + Text(f"  {info.status}"))
    out().print(Text(one_line(f"{spec.method}  {pair}  {spec.dtype}", 120), style="dim"))
    if spec.options:
        options = "  ".join(f"{name}={value}" for name, value in spec.options.items())
        out().print(Text(one_line(options, 120), style="dim"))
    if setting := info.environment.get("setting"):
        out().print(Text(one_line(str(setting), 140), style="dim"))
    if note := info.environment.get("parallel", {}).get("note"):
        out().print(Text(one_line(str(note), 400), style="dim"))
    if info.message:
        out().print(Text(one_line(info.message, 400), style="red"))
    for row in requests:
        reason = row["finish_reason"] or "not finished"
        heading = f"\n── request {row['request']}"
        heading += f", {one_line(row['question_id'], 60)}" if row["question_id"] else ""
        heading += f", repeat {row['repeat']}" if spec.repeats > 1 else ""
        out().print(Text(f"{heading} ({reason}) ──", style="bold"))
        out().print(Text(one_line(row["prompt"], 120), style="dim"))
        _print_text(reader, row, write_token)
        out().print()
    summary = summary_from_json(info.summary)
    out().print()
    if summary.steps:
        out().print(figures(summary, plain_step_ns=info.plain_step_ns, mode=info.mode))
    hint = f"its trees: draftree show {info.run_id} --step 0"
    out().print(Text(hint if summary.steps else "No step was recorded.", style="dim"))


def _print_text(reader: RunReader, row: dict[str, Any], write: Any) -> None:
    """The output: with its origins in a terminal, or where the request never finished."""
    from engine.records import Origin
    from workbench.terminal import out

    if row["text"] is not None and not out().is_terminal:
        write(row["text"])
        return
    tokens = reader.tokens(request=row["request"], repeat=row["repeat"])
    kept = tokens[tokens["kept"]]
    for text, origin in zip(kept["text"], kept["origin"], strict=True):
        write(str(text), Origin[str(origin).upper()])
