"""From the worker's snapshot to what the decoding view draws: plain JSON, in increments.

The view in the browser keeps what it was told, so an update carries only new steps. It overlaps
the two updates before it, because one may be lost on the way; a view that still misses a step asks
for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.records import Origin
from workbench import metrics
from workbench.events import Progress, RunSummary, StepDone
from workbench.spec import RunSpec
from workbench.view.headline import figures, headline
from workbench.view.layout import layout
from workbench.view.visible import safe_text

#: steps a browser can walk back through, and most boxes of their trees together
WINDOW_STEPS = 200
WINDOW_BOXES = 12_000
#: trees laid out in one update of a run under way; the rest follow when they are asked for
TREES_PER_UPDATE = 16


class Live(Protocol):
    """What the view needs of a run, under way or over. `steps` are the recent ones."""

    @property
    def run_id(self) -> str | None: ...
    @property
    def spec(self) -> RunSpec | None: ...
    @property
    def status(self) -> str: ...
    @property
    def active(self) -> bool: ...
    @property
    def progress(self) -> Progress | None: ...
    @property
    def prompt(self) -> str: ...
    @property
    def steps(self) -> Sequence[StepDone]: ...
    @property
    def tokens(self) -> Sequence[tuple[str, int]]: ...
    @property
    def summary(self) -> RunSummary: ...
    @property
    def mode(self) -> str | None: ...
    @property
    def plain_step_ns(self) -> int | None: ...
    @property
    def error(self) -> str: ...


@dataclass(slots=True)
class Cursor:
    """How much one browser view has been told of which run."""

    run: str | None = None
    told: list[int] = field(default_factory=lambda: [0, 0])  # steps after each of two updates
    unfolded: set[int] = field(default_factory=set)  # steps whose trees are shown whole
    everything: bool = True  # the next update starts anew

    def forget(self) -> None:
        """The view asked for everything, or was mounted anew."""
        self.everything = True


class Presenter:
    """Builds payloads; trees laid out once are shared by all views of this process."""

    def __init__(self) -> None:
        self._trees: dict[tuple[str | None, int, bool], dict[str, Any]] = {}
        self._lock = threading.Lock()

    def payload(self, live: Live, cursor: Cursor) -> dict[str, Any]:
        """What to tell the view of `cursor` now; moves the cursor on."""
        steps = list(live.steps)
        summary = live.summary
        total = max(summary.steps, len(steps))
        first = total - len(steps)
        full = cursor.everything or cursor.run != live.run_id
        if cursor.run != live.run_id:
            cursor.unfolded.clear()
        start = first if full else max(first, min(cursor.told[0], total))
        cursor.run, cursor.everything = live.run_id, False
        cursor.told = [start if full else cursor.told[1], total]
        with_tree = self._with_tree(
            steps, first=first, start=start, all_of_them=full or not live.active
        )
        told = [
            self._step(live, step, number, tree=number in with_tree, cursor=cursor)
            for number, step in enumerate(steps[start - first :], start)
        ]
        return {
            "run": live.run_id or "",
            "live": live.active,
            "full": full,
            "first": first,
            "total": total,
            "steps": told,
            "earlier": self._earlier(live, steps) if full else [],
            "prompt": safe_text(live.prompt) if full else "",
            "figures": figures(summary, live.plain_step_ns),
            "depth": _by_depth(summary),
        } | headline(live)

    def _with_tree(
        self, steps: list[StepDone], *, first: int, start: int, all_of_them: bool
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

    def _step(
        self, live: Live, step: StepDone, number: int, *, tree: bool, cursor: Cursor
    ) -> dict[str, Any]:
        record = step.record
        kept = zip(step.emitted_text, _origins(step), strict=False)
        return {
            "i": number,
            "tokens": [(safe_text(text), origin) for text, origin in kept][: record.num_kept],
            "accepted": record.verdict.num_accepted,
            "origin": int(record.verdict.origin),
            "words": step_words(step),
            "stages": stages(step),
            "tree": self._tree(live, step, number, number in cursor.unfolded) if tree else None,
        }

    def _tree(self, live: Live, step: StepDone, number: int, unfolded: bool) -> dict[str, Any]:
        key = (live.run_id, number, unfolded)
        with self._lock:
            known = self._trees.get(key)
        if known is None:
            known = step_layout(step, unfolded=unfolded)
            with self._lock:
                while len(self._trees) >= 2 * WINDOW_STEPS:
                    self._trees.pop(next(iter(self._trees)))
                self._trees[key] = known
        return known


def step_layout(step: StepDone, *, unfolded: bool = False) -> dict[str, Any]:
    """The laid-out tree of one step."""
    emitted = _emitted_piece(step)
    if unfolded:
        return layout(
            step.record, step.pieces_M, emitted=emitted, fold_above=10**9, fold_pruned_above=10**9
        )
    return layout(step.record, step.pieces_M, emitted=emitted)


def step_words(step: StepDone) -> str:
    """`6 drafted, 3 accepted, then a bonus`."""
    verdict, drafted = step.record.verdict, step.record.tree.num_drafted
    if not drafted:
        return "nothing drafted"
    then = "a bonus" if verdict.origin is Origin.BONUS else "a correction"
    return f"{drafted} drafted, {verdict.num_accepted} accepted, then {then}"


def stages(step: StepDone) -> list[dict[str, Any]]:
    """The stages of a step with milliseconds as text and shares of its wall time."""
    times = step.record.times
    return [
        {
            "name": name,
            "ms": f"{nanoseconds / 1e6:.2f}",
            "share": round(metrics.ratio(nanoseconds, times.wall), 4),
        }
        for name, nanoseconds in zip(metrics.STAGES, times, strict=True)
    ]


def _origins(step: StepDone) -> list[int]:
    verdict = step.record.verdict
    return [int(Origin.DRAFT)] * verdict.num_accepted + [int(verdict.origin)]


def _emitted_piece(step: StepDone) -> str:
    """The bonus or correction as text: like a node's piece if one is known for its token."""
    token = step.record.verdict.next_token
    for node, piece in enumerate(step.pieces_M):
        if int(step.record.tree.tokens_M[node]) == token:
            return piece
    return step.emitted_text[-1] or "…"


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
