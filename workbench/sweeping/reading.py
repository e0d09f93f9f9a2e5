"""A sweep in words: which setting pays best, or that none does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from engine.errors import UserError
from workbench.comparing import wording
from workbench.comparing.expand import read_arm
from workbench.comparing.rows import Row
from workbench.statistics import Finding

#: values that a heat map can show, by their columns in `cell_frame`
VALUES = {
    "speedup": "Speedup",
    "tokens_per_step": "Tokens per step",
    "acceptance_rate": "Acceptance rate",
}


def verdict(table: Sequence[Row]) -> str:
    """The sentence a sweep's report begins with: its best setting, its interval, whether it pays.

    A sweep of one cell reads as a comparison does.
    """
    ours = [row for row in table if wording.is_method(row)]
    best = wording.best(ours)
    if best is None or len(ours) == 1:
        return wording.verdict(table)
    name = best.method.partition(":")[0] + _with(best, ours)
    speed = f"{wording.ratio_with_bounds(best.speedup)} as fast as plain decoding"
    if len({row.workload for row in ours}) > 1:
        speed += f" on {best.workload}"
    match best.finding:
        case Finding.PAYS:
            return f"It pays: {name} is the best of {len(ours)} cells, {speed}."
        case Finding.COSTS:
            return f"It does not pay at any setting: the best of {len(ours)}, {name}, is {speed}."
        case Finding.EVEN:
            return (
                f"No measurable gain at any setting: the best of {len(ours)}, {name}, is {speed}, "
                "and the interval contains 1."
            )
        case _:
            return (
                f"The best of {len(ours)} cells, {name}, is {speed}; one prompt gives no interval."
            )


def best_cell(cells: pd.DataFrame, value: str) -> str:
    """Where one of `VALUES` is highest among these cells."""
    known = cells.dropna(subset=[value])
    if known.empty:
        return "No cell is measured yet."
    line = known.nlargest(1, value).iloc[0]
    return f"{VALUES[value]} is highest with {line['arm']}: {shown(line[value], value)}."


def shown(number: float, value: str) -> str:
    """One of `VALUES` as people read it."""
    if value == "acceptance_rate":
        return wording.percent(number)
    return wording.ratio(number) if value == "speedup" else f"{number:.2f}"


def explained(method: str, options: Sequence[str]) -> str:
    """What options are: `length: draft tokens of a chain; ...`; empty for an unknown method."""
    from engine.registry import describe

    try:
        known = {info.name: info.help for info in describe(method)}
    except UserError:
        return ""
    return "; ".join(f"{n}: {known[n].partition(';')[0]}" for n in options if n in known)


def _with(best: Row, table: Sequence[Row]) -> str:
    """` with layers 3 and length 4`: the best cell's options that differ among its method's."""
    method, options = read_arm(best.method)
    alike = [
        given for name, given in map(read_arm, {row.method for row in table}) if name == method
    ]
    varied = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in options.items()
        if len({given.get(name) for given in alike}) > 1
    ]
    if not varied:
        return ""
    return " with " + " and ".join(filter(None, [", ".join(varied[:-1]), varied[-1]]))
