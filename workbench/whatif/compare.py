"""The trees worth comparing on a run, each with its prediction. For the command line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from engine.errors import UserError
from engine.shapes import Shape
from engine.tree import Children
from workbench.metrics import summary_from_json
from workbench.store.reader import RunInfo, open_run
from workbench.whatif import trees
from workbench.whatif.complete import default_draft, ranks_of
from workbench.whatif.measure import measure
from workbench.whatif.oracle import Oracle, oracle
from workbench.whatif.predict import Prediction, predict
from workbench.whatif.ranks import RunRanks
from workbench.whatif.times import PassTimes

#: sizes of the optimal trees that are shown unasked
SIZES = (4, 8, 16)


class Comparison(NamedTuple):
    """All that was asked of one run."""

    info: RunInfo
    ranks: RunRanks
    times: PassTimes
    predictions: list[Prediction]
    oracle: Oracle | None
    vector: tuple[float, ...]


def compare_trees(
    run: str,
    *,
    given: list[trees.Named],
    sizes: tuple[int, ...] = SIZES,
    children: Children | None = None,
    draft: str | None = None,
    folder: Path | None = None,
) -> Comparison:
    """Predict the given trees, presets, optimal ones of `sizes` and the run's own.

    Raises UserError for a run that cannot be asked.
    """
    ranks = ranks_of(run, children=children, draft=draft, folder=folder)
    with open_run(run, folder) as reader:
        info = reader.info
        own = trees.own_shape(reader)
        best = oracle(reader, ranks) if _own_kind(ranks, info) else None
    times = measure(info.run_id, draft=draft or default_draft(info.spec), folder=folder)
    vector = trees.acceptance_vector(ranks)
    wanted = [*given]
    if own is not None:
        wanted.append(trees.Named("the run's own", own))
    wanted += trees.presets()
    if vector:
        wanted += [
            trees.Named(f"optimal, {size} nodes", trees.optimal_for(vector, size, times))
            for size in sizes
        ]
        quickest = trees.fastest(vector, times)
        if quickest is not None:
            wanted.append(trees.Named("optimal for speed", quickest))
    return Comparison(
        info=info,
        ranks=ranks,
        times=times,
        predictions=[predict(shape, ranks, times, name=name) for name, shape in _once(wanted)],
        oracle=best,
        vector=vector,
    )


def _own_kind(ranks: RunRanks, info: RunInfo) -> bool:
    """Whether the run itself drafted with the children whose ranks these are."""
    return bool(summary_from_json(info.summary).drafted) and ranks.children in (
        info.spec.children,
        Children.FIXED if info.spec.temperature == 0 else Children.COUPLED,
    )


def _once(wanted: list[trees.Named]) -> list[trees.Named]:
    """Each shape under its first name, with the others that it goes by."""
    names: dict[Shape, list[str]] = {}
    for name, shape in wanted:
        names.setdefault(trees.ordered(shape), []).append(name)
    if not names:
        raise UserError("There is no tree to compare.")
    return [trees.Named(" = ".join(known), shape) for shape, known in names.items()]
