"""From the worker's snapshot to what the decoding view draws: plain JSON, in increments.

The view in the browser keeps what it was told, so an update carries only new steps. It overlaps
the two updates before it, because one may be lost on the way; a view that still misses a step asks
for all of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from workbench import metrics
from workbench.events import RunSummary, StepDone
from workbench.view.headline import figures, headline
from workbench.view.live import EXAMPLE, Live
from workbench.view.steps import step_facts, step_layout
from workbench.view.visible import safe_text

#: steps a browser can walk back through, and most boxes of their trees together
WINDOW_STEPS = 200
WINDOW_BOXES = 12_000
#: trees laid out in one update of a run under way; the rest follow when they are asked for
TREES_PER_UPDATE = 16


@dataclass(slots=True)
class Cursor:
    """How much one browser view has been told of which run."""

    run: str = ""
    told: list[int] = field(default_factory=lambda: [0, 0])  # steps after each of two updates
    unfolded: set[int] = field(default_factory=set)  # steps whose trees are shown whole
    pruned: bool = False  # whether trees show the nodes that were dropped as they grew
    fresh: int = 2  # so many updates carry everything

    def ask(self, question: dict[str, Any]) -> None:
        """The view wants everything again, perhaps with one step unfolded or pruned nodes shown."""
        self.fresh = 1
        if "unfold" in question:
            self.unfolded.add(int(question["unfold"]))
        self.pruned = bool(question.get("pruned", self.pruned))


class Presenter:
    """Builds payloads; trees laid out once are shared by all views of this process."""

    def __init__(self) -> None:
        self._trees: dict[tuple[str, int, bool, bool], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def payload(self, live: Live, cursor: Cursor) -> dict[str, Any]:
        """What to tell the view of `cursor` now; moves the cursor on."""
        steps = list(live.steps)
        summary = live.summary
        total = live.num_steps
        first = total - len(steps)
        run = live.run_id or live.status
        if cursor.run != run:
            cursor.run, cursor.fresh = run, 2
            cursor.unfolded.clear()
        full = cursor.fresh > 0
        cursor.fresh = max(0, cursor.fresh - 1)
        start = first if full else max(first, min(cursor.told[0], total))
        cursor.told = [start if full else cursor.told[1], total]
        with_tree = self._with_tree(steps, first, start, all_of_them=full or not live.active)
        told = []
        for number, step in enumerate(steps[start - first :], start):
            facts = step_facts(step, number) | {"tree": None, "gone": full}
            if number in with_tree:
                facts |= {"tree": self._tree(live, step, number, cursor), "gone": False}
            told.append(facts)
        return {
            "run": run,
            "live": live.active,
            "full": full,
            "first": first,
            "total": total,
            "show": first + _telling(live) if steps and not live.active else total - 1,
            "steps": told,
            "earlier": self._earlier(live, steps) if full else [],
            "prompt": safe_text(live.prompt) if full else "",
            "figures": figures(summary, live.plain_step_ns),
            "depth": _by_depth(summary),
        } | headline(live)

    def _with_tree(
        self, steps: list[StepDone], first: int, start: int, *, all_of_them: bool
    ) -> set[int]:
        """Numbers of the steps whose trees go along: the newest, as far as the limits allow."""
        most = WINDOW_STEPS if all_of_them else TREES_PER_UPDATE
        chosen: set[int] = set()
        num_boxes = 0
        for number in range(first + len(steps) - 1, start - 1, -1):
            num_boxes += min(len(steps[number - first].pieces_M), 200)
            if len(chosen) >= most or (chosen and num_boxes > WINDOW_BOXES):
                break
            chosen.add(number)
        return chosen

    def _earlier(self, live: Live, steps: list[StepDone]) -> list[tuple[str, int]]:
        """Tokens written before the first step at hand."""
        at_hand = sum(step.record.num_kept for step in steps)
        tokens = live.tokens[: max(0, len(live.tokens) - at_hand)]
        return [(safe_text(text), int(origin)) for text, origin in tokens]

    def _tree(self, live: Live, step: StepDone, number: int, cursor: Cursor) -> dict[str, Any]:
        unfolded, pruned = number in cursor.unfolded, cursor.pruned
        key = (live.run_id, number, unfolded, pruned)
        with self._lock:
            known = self._trees.get(key)
        if known is None:
            known = step_layout(step, unfolded=unfolded, pruned=pruned)
            with self._lock:
                while len(self._trees) >= 2 * WINDOW_STEPS:
                    self._trees.pop(next(iter(self._trees)))
                self._trees[key] = known
        return known


def _telling(live: Live) -> int:
    """Which of the steps at hand to open a finished run on: the last with a draft; of the example
    the one with the most to see."""
    steps = live.steps
    drafted = [at for at, step in enumerate(steps) if step.record.tree.num_drafted]
    if not drafted:
        return len(steps) - 1
    if live.status != EXAMPLE:
        return drafted[-1]
    return max(drafted, key=lambda at: (_variety(steps[at]), -at))


def _variety(step: StepDone) -> tuple[int, int]:
    fates = {int(fate) for fate in step.record.verdict.fate_N}
    return len(fates), step.record.verdict.num_accepted


def _by_depth(summary: RunSummary) -> list[dict[str, Any]]:
    shares = metrics.acceptance_by_depth(summary)
    accepted = [*summary.accepted_at_depth, *[0] * len(summary.tested_at_depth)]
    return [
        {
            "depth": depth,
            "accepted": accepted[depth],
            "tested": summary.tested_at_depth[depth],
            "share": round(share, 4),
        }
        for depth, share in enumerate(shares, 1)
    ]
