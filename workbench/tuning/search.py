"""The trials of a study in one sitting: Optuna proposes, a site measures, twins do not count."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import DecodeError, UserError
from workbench.comparing.telling import Telling
from workbench.measuring import MEASURE
from workbench.tuning import study as keeping
from workbench.tuning.bench import Measured, Site
from workbench.tuning.space import Dimension, num_points, suggest
from workbench.tuning.spec import TuneSpec

if TYPE_CHECKING:
    import optuna

#: proposals of what was measured already, one after another, after which points are drawn at
#: random, and which end a search
_FEW_TWINS, _MOST_TWINS = 3, 200
#: the share of the progress bar that measuring the best again is given
LAST = 0.15


class _TwinError(Exception):
    """The sampler proposed what has been measured, or what is no point of the space."""


def wanted(stored: optuna.Study, spec: TuneSpec) -> int:
    """Trials that are still to be made."""
    if stored.user_attrs.get("exhausted"):
        return 0
    return max(0, spec.trials - len(keeping.visible(stored)))


@dataclass
class Search:
    """The trials of one sitting."""

    spec: TuneSpec
    space: Sequence[Dimension]
    stored: optuna.Study
    site: Site
    telling: Telling
    made: int = 0  # trials that count, of all sittings
    twins: int = 0

    def run(self) -> None:
        """Trial after trial. Raises StoppedError when stopped."""
        from optuna.samplers import RandomSampler

        spec, most = self.spec, num_points(self.space)
        self._learning = self.stored.sampler
        self._drawing = RandomSampler(seed=spec.seed)
        began = time.monotonic()
        while True:
            self.made = len(keeping.visible(self.stored))
            if self.made >= min(spec.trials, most):
                break
            if spec.timeout is not None and time.monotonic() - began >= spec.timeout:
                self.telling.note(
                    f"The search ended after {spec.timeout:g} s, as was asked, with {self.made} of "
                    f"{spec.trials} trials."
                )
                return
            if self.twins >= _MOST_TWINS:
                self.stored.set_user_attr("exhausted", True)
                self.telling.note(
                    f"The search ended after {self.made} trials: it kept proposing what it had "
                    "measured."
                )
                return
            self.stored.sampler = self._drawing if self.twins >= _FEW_TWINS else self._learning
            self.stored.optimize(self._trial, n_trials=1, catch=(DecodeError, _TwinError))
        if most < spec.trials:
            self.stored.set_user_attr("exhausted", True)
            self.telling.note(f"There are only {most} combinations; all of them were tried.")

    def _trial(self, trial: optuna.Trial) -> float:
        """The objective at one point; raises what Optuna takes as pruned or failed."""
        import optuna

        options = suggest(trial, self.spec.method, self.space, self.spec.fix)
        known = keeping.visible(self.stored)
        if options is None or any(one.options == options for one in known):
            self.twins += 1
            raise _TwinError
        self.twins = 0
        trial.set_user_attr("options", options)
        label = keeping.told(options)
        self._progress(label, 0)

        def after_prompt(done: int, found: Measured) -> None:
            self._progress(label, done)
            trial.report(found.value, done)
            if done < self.site.num_prompts and trial.should_prune():
                _keep(trial, found)
                raise optuna.TrialPruned

        try:
            found = self.site.measure(options, after_prompt)
        except UserError as error:  # a combination that the method refuses
            trial.set_user_attr("why", str(error))
            raise optuna.TrialPruned from None
        except DecodeError as error:
            trial.set_user_attr("why", str(error))
            raise
        _keep(trial, found)
        return found.value

    def _progress(self, label: str, done: int) -> None:
        share = (self.made + done / self.site.num_prompts) / self.spec.trials
        where = f"Trial {self.made + 1} of {self.spec.trials}: {label}"
        if done:
            where += f", prompt {done} of {self.site.num_prompts}"
        self.telling.progress(MEASURE, where, min(share, 1.0) * (1 - LAST))


def _keep(trial: optuna.Trial, found: Measured) -> None:
    for name, value in found.as_attributes().items():
        trial.set_user_attr(name, value)
