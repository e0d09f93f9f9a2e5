"""Making a study: Optuna proposes, the engine measures, what is hopeless is broken off early."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import DecodeError, UserError
from workbench.comparing.decoders import StoppedError
from workbench.comparing.telling import Telling
from workbench.events import Event, MeasuringStarted, Progress
from workbench.measuring import MEASURE
from workbench.store.index import now_iso, prepare_folder
from workbench.tuning import study as keeping
from workbench.tuning.bench import Measured, Site, open_site
from workbench.tuning.confirm import Confirmation, confirm
from workbench.tuning.found_sets import keep_set
from workbench.tuning.space import (
    Dimension,
    defaults,
    derive,
    first_points,
    needs_layers,
    num_points,
    suggest,
)
from workbench.tuning.spec import TuneSpec, check_method
from workbench.tuning.study import Study

if TYPE_CHECKING:
    import optuna

Open = Callable[[TuneSpec, dict[str, Any], Telling], Site]
Confirm = Callable[..., Confirmation]

#: trials before the sampler learns and before the pruner judges
_STARTUP, _UNPRUNED, _SPARED_PROMPTS = 10, 5, 2
#: proposals of what was measured already, one after another, after which points are drawn at
#: random, and which end a search
_FEW_TWINS, _MOST_TWINS = 3, 200
#: the share of the progress bar that measuring again is given
_LAST = 0.15


class _TwinError(Exception):
    """The sampler proposed what has been measured, or what is no point of the space."""


def tune(
    spec: TuneSpec,
    emit: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    runs: Path | None = None,
    fresh: bool = False,
    open_site: Open = open_site,
    confirm: Confirm = confirm,
) -> Study:
    """Search until there are `spec.trials`, then measure the best again. Stopped, it can go on.

    `fresh` begins anew. `open_site` and `confirm` are what measures.

    Raises:
        UserError: wrong input, a study of this name that this one cannot go on with, or a disk
            that keeps nothing.
        DecodeError: plain decoding itself failed.
    """
    check_method(spec.method)
    num_layers = _num_layers(spec) if needs_layers(spec.method) else 0
    space = derive(
        spec.method, fix=spec.fix, space=spec.space, only=spec.only, num_layers=num_layers
    )
    first = defaults(spec.method, space, spec.fix)
    spec.arm(first)  # options that are wrong are found before anything is loaded
    where = prepare_folder(runs)
    stored = _begin(spec, space, where, fresh=fresh)
    file = keeping.study_file(spec.name, where)
    emit(MeasuringStarted(spec.name))
    telling = Telling(emit, should_stop)
    status, notes = "failed", telling.notes
    try:
        if _wanted(stored, spec):
            site = open_site(spec, first, telling)
            _check_on(stored, site)
            with keeping.storing(file), keeping.quiet():
                stored.set_user_attr("prompts", site.num_prompts)
                _Search(spec, space, stored, site, telling).run()
        best = keeping.as_study(stored).best
        before = stored.user_attrs.get("confirmed") or {}
        if best is not None and (before.get("key") != best.key or "baseline" not in before):
            found = confirm(
                spec,
                best.options,
                first,
                key=best.key,
                seen=int(stored.user_attrs["prompts"]),
                emit=_last_part(emit),
                should_stop=should_stop,
                runs=where,
            )
            with keeping.storing(file):
                stored.set_user_attr("confirmed", found.as_json())
        notes += keep_set(keeping.as_study(stored), stored.user_attrs["on"], space)
        status = "finished"
    except StoppedError:
        status = "cancelled"
    finally:
        with keeping.storing(file):
            keeping.stamp(stored, status=status, notes=notes)
            made = keeping.as_study(stored)
            if status != "finished" and not made.trials:  # nothing is worth a name
                file.unlink(missing_ok=True)
                if _aside(file).is_file():
                    _aside(file).replace(file)
            _aside(file).unlink(missing_ok=True)
    return made


def _begin(
    spec: TuneSpec,
    space: Sequence[Dimension],
    runs: Path,
    *,
    fresh: bool,
) -> optuna.Study:
    """The stored study of this name to go on with, or a new one; marked as under way."""
    file = keeping.study_file(spec.name, runs)
    if (pid := _worked_on_by(spec.name, runs, fresh=fresh)) is not None:
        raise UserError(
            f"Study {spec.name} is under way in process {pid}; wait until it has ended, or stop it "
            "there."
        )
    if fresh and file.is_file():
        with keeping.storing(file):
            file.replace(_aside(file))
    stored = keeping.open_journal(
        spec.name, runs, create=True, sampler=_sampler(spec, space), pruner=_pruner()
    )
    with keeping.storing(file):
        if "spec" in stored.user_attrs:
            _check_same(keeping.load_study(spec.name, runs).spec, spec)
            _again(stored)
        stored.set_user_attr("spec", spec.model_dump(mode="json"))
        if "started" not in stored.user_attrs:
            for point in first_points(spec.method, space, spec.fix):
                stored.enqueue_trial(point)
            stored.set_user_attr("started", now_iso())
        stored.sampler = _sampler(spec, space, made=len(stored.get_trials(deepcopy=False)))
        stored.set_user_attr("process", keeping.this_process())
        stored.set_user_attr("status", keeping.RUNNING)
    return stored


def _num_layers(spec: TuneSpec) -> int:
    from engine.models import num_layers

    return num_layers(spec.target)


def _worked_on_by(name: str, runs: Path, *, fresh: bool) -> int | None:
    """The other process, None where there is none; a damaged file is none's where it may go."""
    try:
        return keeping.under_way(name, runs)
    except UserError:
        if fresh:
            return None
        raise


def _aside(file: Path) -> Path:
    """Where a study lies that a fresh one of its name is to replace, once that has begun."""
    return file.with_suffix(".replaced")


def _again(stored: optuna.Study) -> None:
    """Trials that a stop or a crash cut short are made anew, once each."""
    from optuna.trial import TrialState

    retried = list(stored.user_attrs.get("retried", []))
    for one in stored.get_trials(deepcopy=False):
        if one.state == TrialState.RUNNING:
            stored.tell(one.number, state=TrialState.FAIL)
        elif one.state != TrialState.FAIL or one.user_attrs.get("why"):
            continue
        if one.number in retried or "options" not in one.user_attrs:
            continue
        stored.enqueue_trial(one.params, skip_if_exists=False)
        retried.append(one.number)
    stored.set_user_attr("retried", retried)


def _sampler(
    spec: TuneSpec, space: Sequence[Dimension], made: int = 0
) -> optuna.samplers.BaseSampler:
    """All points where there are no more than trials; else TPE, its draws going on after `made`."""
    from optuna.samplers import BruteForceSampler, TPESampler

    startup = max(4, min(_STARTUP, spec.trials // 3))
    with keeping.quiet():
        if num_points(space) <= spec.trials:
            return BruteForceSampler(seed=spec.seed)
        return TPESampler(
            seed=spec.seed + made, multivariate=True, group=True, n_startup_trials=startup
        )


def _pruner() -> optuna.pruners.BasePruner:
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=_SPARED_PROMPTS)


def _wanted(stored: optuna.Study, spec: TuneSpec) -> int:
    """Trials that are still to be made."""
    if stored.user_attrs.get("exhausted"):
        return 0
    return max(0, spec.trials - len(keeping.visible(stored)))


@dataclass
class _Search:
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
        self.telling.progress(MEASURE, where, min(share, 1.0) * (1 - _LAST))


def _keep(trial: optuna.Trial, found: Measured) -> None:
    for name, value in found.as_attributes().items():
        trial.set_user_attr(name, value)


def _last_part(emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """Tells of the last measurement as of the end of the whole."""

    def take(event: Event) -> None:
        if isinstance(event, Progress):
            fraction = event.fraction
            if event.phase == MEASURE and fraction is not None:
                fraction = 1 - _LAST + _LAST * fraction
            event = Progress(
                event.phase, f"The best beside the defaults: {event.message}", fraction
            )
        emit(event)

    return take


def _check_same(before: TuneSpec, now: TuneSpec) -> None:
    """Trials measured in another way may not stand beside the old ones."""
    old, new = before.measured_as(), now.measured_as()
    changed = [name for name in new if old.get(name) != new[name]]
    if changed:
        name = changed[0]
        raise UserError(
            f"Study {now.name} was made with {name} {_shown(old.get(name))}, and now it is "
            f"{_shown(new[name])}. Give it another name (--name), or begin anew (--fresh)."
        )


def _check_on(stored: optuna.Study, site: Site) -> None:
    """The same models and prompts as the trials before had, whatever they are called."""
    before = stored.user_attrs.get("on", {})
    changed = [what for what, known in site.on.items() if before.get(what, known) != known]
    if changed:
        raise UserError(
            f"Study {stored.study_name} was made with other contents ({' and '.join(changed)}) "
            "under the same names. Give it another name (--name), or begin anew (--fresh)."
        )
    stored.set_user_attr("on", dict(site.on))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items()) or "none"
    return str(value)
