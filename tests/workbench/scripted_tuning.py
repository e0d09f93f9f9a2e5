"""Studies without a model: a rule says what a point gains, in trials and when measured again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import UserError
from workbench.statistics import Interval
from workbench.tuning.bench import Measured, Site
from workbench.tuning.confirm import Confirmation
from workbench.tuning.spec import SPEED, TuneSpec

PROMPTS = 4
PLAIN_NS = 10_000_000


def gain(options: dict[str, Any]) -> float:
    """The speedup at a point: best at nodes 9, depth 4; nodes 7 is refused."""
    if options.get("nodes") == 7:
        raise UserError("seven nodes are refused here.")
    return max(1.6 - 0.01 * (options["nodes"] - 9) ** 2 - 0.05 * abs(options["depth"] - 4), 0.2)


class ScriptedSite:
    """Stands in for `open_site`: counts what was measured, may stop or fail at a trial."""

    def __init__(self) -> None:
        self.measured: list[dict[str, Any]] = []
        self.opened = 0
        self.on = {"target": "a1", "prompts": "b2"}
        self.before: Callable[[int], None] = lambda number: None

    def __call__(self, spec: TuneSpec, defaults: dict[str, Any], telling: Any) -> Site:
        self.opened += 1

        def measure(options: dict[str, Any], after_prompt: Any) -> Measured:
            speed = gain(options)
            self.measured.append(options)
            found = Measured(spec.objective)
            for at in range(PROMPTS):
                self.before(len(self.measured))
                if spec.objective == SPEED:
                    found.plain_ns.append(PLAIN_NS + at)
                found.own_ns.append(int((PLAIN_NS + at) / speed))
                found.kept += 64
                found.emitted += 64
                found.steps += int(64 / speed)
                found.compared += 1
                found.matched += 1
                after_prompt(at + 1, found)
            return found

        return Site(PROMPTS, measure, self.on)


def scripted_confirm(
    spec: TuneSpec, best: dict[str, Any], defaults: dict[str, Any], **known: Any
) -> Confirmation:
    """The very gains of the rule, with narrow intervals."""
    ours, usual = gain(best), gain(defaults)

    def around(value: float) -> Interval:
        return Interval(value, value - 0.02, value + 0.02)

    return Confirmation(
        options=best, key=known["key"], comparison="compare-20260101-000000-0000",
        ratio=around(ours / usual), speedup=around(ours), defaults_speedup=around(usual),
        tokens_per_step=2.4, defaults_tokens_per_step=2.1, prompts=known["seen"], new=True,
        repeats=spec.repeats, same=best == defaults, baseline=defaults,
    )  # fmt: skip


def tune_spec(**changes: Any) -> TuneSpec:
    """A study of `nodes` and `depth`."""
    values = {"name": "trees", "methods": ["dynamic-tree"], "workloads": ["code"],
              "only": ["nodes", "depth"], "trials": 12, "limit": PROMPTS}  # fmt: skip
    return TuneSpec(**values | changes)
