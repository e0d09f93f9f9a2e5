"""One sitting of a study: beginning it or going on with it, where that is allowed, and ending."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from workbench.store.index import now_iso
from workbench.tuning import study as keeping
from workbench.tuning.bench import Site
from workbench.tuning.space import Dimension, first_points, num_points
from workbench.tuning.spec import TuneSpec
from workbench.tuning.study import Study

if TYPE_CHECKING:
    import optuna

#: trials before the sampler learns and before the pruner judges
_STARTUP, _UNPRUNED, _SPARED_PROMPTS = 10, 5, 2


def begin(
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


def check_on(stored: optuna.Study, site: Site) -> None:
    """The same models and prompts as the trials before had, whatever they are called."""
    before = stored.user_attrs.get("on", {})
    changed = [what for what, known in site.on.items() if before.get(what, known) != known]
    if changed:
        raise UserError(
            f"Study {stored.study_name} was made with other contents ({' and '.join(changed)}) "
            "under the same names. Give it another name (--name), or begin anew (--fresh)."
        )
    stored.set_user_attr("on", dict(site.on))


def end(stored: optuna.Study, file: Path, *, status: str, notes: list[str]) -> Study:
    """Stamp the study. One that came to nothing leaves no file, or the one it was to replace."""
    with keeping.storing(file):
        keeping.stamp(stored, status=status, notes=notes)
        made = keeping.as_study(stored)
        if status != "finished" and not made.trials:  # nothing is worth a name
            file.unlink(missing_ok=True)
            if _aside(file).is_file():
                _aside(file).replace(file)
        _aside(file).unlink(missing_ok=True)
    return made


def _aside(file: Path) -> Path:
    """Where a study lies that a fresh one of its name is to replace, once that has begun."""
    return file.with_suffix(".replaced")


def _worked_on_by(name: str, runs: Path, *, fresh: bool) -> int | None:
    """The other process, None where there is none; a damaged file is none's where it may go."""
    try:
        return keeping.under_way(name, runs)
    except UserError:
        if fresh:
            return None
        raise


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


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={one}" for name, one in value.items()) or "none"
    return str(value)
