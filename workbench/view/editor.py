"""What the tree editor gets once: ranks, times and trees to start from. It reckons by itself.

The reckoning in the browser (editor_component/walk.js) is that of workbench.whatif; a browser test
holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.shapes import Shape
from engine.tree import Children
from workbench import metrics
from workbench.metrics import summary_from_json
from workbench.store.index import RunEntry
from workbench.store.reader import RunInfo, RunReader, open_run
from workbench.view.visible import safe_text
from workbench.whatif import trees
from workbench.whatif.complete import default_draft, ranks_of
from workbench.whatif.measure import measure
from workbench.whatif.predict import Prediction, predict
from workbench.whatif.ranks import NEVER, RequestRanks, kinds_of
from workbench.whatif.times import PassTimes

#: nodes, root included, up to which score times are sent
_MOST_NODES = 257
#: a rank that no tree has, for what the draft can never propose
_NEVER_SENT = 9999
#: kept tokens that a browser walks over in a few milliseconds
MOST_TOKENS = 60_000


def askable(entry: RunEntry) -> bool:
    """Whether a stored run can be asked what other trees would have accepted."""
    spec, summary = entry.spec, entry.summary
    matched = not spec.get("temperature") or spec.get("verify", "match") == "match"
    return bool(summary.get("kept")) and matched and not entry.method.startswith("hf-")


def editor_payload(
    run: str, *, children: Children | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Plain JSON. `identity` differs whenever the ranks do. Raises UserError."""
    ranks = ranks_of(run, children=children, folder=folder)
    if ranks.num_tokens > MOST_TOKENS:
        raise UserError(
            f"This run has {ranks.num_tokens} tokens, more than a page can walk over at once. Ask "
            f"on the command line: draftree whatif {ranks.run_id}"
        )
    with open_run(run, folder) as reader:
        info = reader.info
        own = trees.own_shape(reader)
        steps = _steps_by_request(reader)
    times = measure(info.run_id, draft=default_draft(info.spec), folder=folder)
    vector = trees.acceptance_vector(ranks)
    known: dict[str, str] = {each.name: trees.paths_text(each.shape) for each in trees.presets()}
    fastest = trees.fastest(vector, times)
    optimal = (
        [
            trees.paths_text(trees.optimal_for(vector, size, times))
            for size in range(1, trees.MOST_NODES + 1)
        ]
        if vector
        else []
    )
    return {
        "identity": f"{info.run_id}/{ranks.children}/{ranks.num_known}/{ranks.draft}",
        "run": info.run_id,
        "known": ranks.num_known,
        "tokens": ranks.num_tokens,
        "requests": [_request(each, steps.get(each.request, [])) for each in ranks.requests],
        "times": _times(times),
        "own": _own(info, times) | {"paths": trees.paths_text(own) if own else None},
        "presets": known,
        "optimal": optimal,
        "fastest": trees.paths_text(fastest) if fastest else None,
        "start": trees.paths_text(_start(own, fastest)),
    }


def kinds(run: str, folder: Path | None = None) -> tuple[RunInfo, tuple[Children, ...]]:
    """The run, and for which children it can be asked, its own first. Raises UserError."""
    with open_run(run, folder) as reader:
        return reader.info, kinds_of(reader.info.spec)


def prediction(
    run: str, shape: Shape, *, children: Children | None, folder: Path | None = None
) -> Prediction:
    """One tree's figures, as the command line would print them. Raises UserError."""
    ranks = ranks_of(run, children=children, folder=folder)
    with open_run(run, folder) as reader:
        draft = default_draft(reader.info.spec)
        run_id = reader.run_id
    return predict(shape, ranks, measure(run_id, draft=draft, folder=folder))


def _start(own: Shape | None, fastest: Shape | None) -> Shape:
    return own or fastest or trees.presets()[1].shape


def _steps_by_request(reader: RunReader) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row in reader.steps(repeat=0).to_dict("records"):
        found.setdefault(int(row["request"]), []).append(int(row["step"]))
    return found


def _request(request: RequestRanks, steps: list[int]) -> dict[str, Any]:
    return {
        "request": request.request,
        "name": safe_text(request.question_id),
        "limit": request.limit,
        "ranks": [min(int(rank), _NEVER_SENT) if rank < NEVER else _NEVER_SENT
                  for rank in request.rank_L.tolist()],
        "excluded": {str(at): sorted(no) for at, no in request.excluded.items()},
        "texts": [safe_text(text) for text in request.texts_L],
        "starts": request.starts_S,
        "accepted": request.accepted_S,
        "steps": steps[: len(request.starts_S)],
    }  # fmt: skip


def _times(times: PassTimes) -> dict[str, Any] | None:
    if not times.known:
        return None
    score = [times.score_ms(nodes) for nodes in range(1, _MOST_NODES + 1)]
    passes = [count for count, _ in times.draft]
    return {
        "score": [round(each.ms, 4) for each in score],
        "score_how": [each.how[0] for each in score],  # m, i or e
        "draft": {f"{count},{rows}": round(ms, 4) for (count, rows), ms in times.draft.items()},
        "passes": [min(passes), max(passes)] if passes else [0, 0],
        "per_pass": times.per_pass,
        "per_row": times.per_row,
        "rest": times.rest,
        "plain": times.plain,
        "plain_from": times.plain_from,
        "runs": times.num_runs,
    }


def _own(info: RunInfo, times: PassTimes) -> dict[str, Any]:
    summary = summary_from_json(info.summary)
    speed = summary.tokens_per_second
    return {
        "method": safe_text(info.spec.arm or info.spec.method),
        "tokens_per_step": summary.tokens_per_step,
        "tokens_per_second": speed,
        "step_ms": metrics.step_ns(summary) / 1e6,
        "speedup": speed * times.plain / 1e3 if times.plain else None,
        "nodes": metrics.ratio(summary.drafted, summary.steps),
        "passes": metrics.ratio(summary.draft_passes, summary.steps),
        "histogram": summary.histogram,
    }
