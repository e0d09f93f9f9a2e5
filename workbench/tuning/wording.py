"""A study in words: verdict, trials, what mattered; for the terminal and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.comparing import wording
from workbench.comparing.wording import count, ratio, ratio_with_bounds
from workbench.spec import RunSpec
from workbench.statistics import Finding, finding
from workbench.tuning.confirm import Confirmation
from workbench.tuning.spec import ACCEPTANCE, SPEED
from workbench.tuning.study import MEASURED, Study, Trial, counts, open_journal, quiet, told

_LEAST_TRIALS = 12
DEFAULTS = "the defaults"


def options_told(study: Study, options: dict[str, Any]) -> str:
    """Options that are not the method's defaults, in a line."""
    return told(study.spec.changed(options)) or DEFAULTS


def confirmation(study: Study) -> Confirmation | None:
    """How the best did when it was measured again; None before that."""
    best = study.best
    if study.confirmed is None or best is None or study.confirmed.get("key") != best.key:
        return None
    try:
        return Confirmation.from_json(study.confirmed)
    except (KeyError, TypeError):  # of another version: it will be measured again
        return None


def baseline_told(study: Study, again: Confirmation) -> str:
    """What the best was measured beside."""
    if study.spec.changed(again.baseline) == study.spec.changed({}):
        return DEFAULTS
    return f"the space's nearest to the defaults ({options_told(study, again.baseline)})"


def verdict(study: Study) -> str:
    """One sentence: the best, its ratio to the defaults with the interval, whether it holds."""
    best, again = study.best, confirmation(study)
    if best is None:
        return "No trial was measured to its end yet."
    name = options_told(study, best.options)
    if again is None:
        so_far = "Best so far" if study.status == "running" else "Best"
        return (
            f"{so_far}: {name} with {value_told(study, best)}, not measured again yet. The best of "
            "many trials looks better than it is."
        )
    new = " that no trial saw" if again.new else ""
    where = f"measured again on {count(again.prompts, 'prompt')}{new}"
    plain = f"{ratio_with_bounds(again.speedup)} as fast as plain decoding"
    usual = baseline_told(study, again)
    if again.same:
        best_of = f"the best of {count(len(study.trials), 'trial')}: {plain}, {where}."
        return f"The defaults are {best_of}" if usual == DEFAULTS else f"{name} is {best_of}"
    times = f"{ratio_with_bounds(again.ratio)} as fast as {usual}"
    slower = finding(again.speedup) is Finding.COSTS
    if study.spec.objective != SPEED:
        ours, theirs = _objectives(study, again)
        if study.spec.objective == ACCEPTANCE:
            figures = f"has {100 * ours:.0f} % accepted against {100 * theirs:.0f} % of {usual}"
        else:
            figures = f"makes {ours:.2f} tokens per step against {theirs:.2f} of {usual}"
        ahead = f"{usual[0].upper()}{usual[1:]} did better: " if _lost(study, again) else ""
        return f"{ahead}{name} {figures} and decodes {times}, {plain}, {where}."
    match finding(again.ratio):
        case Finding.PAYS if slower:
            return f"It does not pay: {name} decodes {times}, but only {plain}, {where}."
        case Finding.PAYS:
            return f"It pays: {name} decodes {times} and {plain}, {where}."
        case Finding.COSTS:
            better = "The defaults are better" if usual == DEFAULTS else "It does not hold"
            return f"{better}: {name} decodes only {times}, {where}."
        case Finding.EVEN:
            return (
                f"No measurable gain over {usual}: {name} decodes {times}, and the interval "
                f"contains 1; {plain}, {where}."
            )
        case _:
            return f"{name} decodes {times} and {plain}, {where}, which gives no interval."


def tone(study: Study) -> str:
    """pays, costs, even or open: how the verdict is marked."""
    again = confirmation(study)
    if again is None:
        return "open"
    if _lost(study, again) or finding(again.speedup) is Finding.COSTS:
        return "costs"
    if again.same:
        return "even"
    if study.spec.objective != SPEED:
        return "pays"
    names = {Finding.PAYS: "pays", Finding.EVEN: "even"}
    return names.get(finding(again.ratio), "open")


def _lost(study: Study, again: Confirmation) -> bool:
    """Whether the best turned out worse than what it was measured beside."""
    if again.same:
        return False
    if study.spec.objective == SPEED:
        return finding(again.ratio) is Finding.COSTS
    ours, theirs = _objectives(study, again)
    return ours <= theirs


def _objectives(study: Study, again: Confirmation) -> tuple[float, float]:
    """The objective of the best and of what it was measured beside; not of speed."""
    if study.spec.objective == ACCEPTANCE:
        return again.acceptance_rate or 0.0, again.defaults_acceptance_rate or 0.0
    return again.tokens_per_step, again.defaults_tokens_per_step


def value_told(study: Study, trial: Trial) -> str:
    """The objective of a trial with its unit."""
    if trial.value is None:
        return wording.DASH
    if study.spec.objective == SPEED:
        return f"{ratio(trial.value)} plain decoding"
    if study.spec.objective == ACCEPTANCE:
        return f"{100 * trial.value:.0f} % accepted"
    return f"{trial.value:.2f} tokens per step"


def state_told(study: Study) -> str:
    """How far a study is: `24 of 30 trials: 12 measured, 11 pruned, 1 infeasible`."""
    said = f"{len(study.trials)} of {count(study.spec.trials, 'trial')}"
    parts = [f"{number} {state}" for state, number in counts(study.trials).items()]
    return f"{said}: {', '.join(parts)}" if parts else said


def lossless_told(study: Study) -> str:
    """Whether the outputs were plain decoding's."""
    if study.spec.temperature > 0 and study.spec.verify == "typical":
        return "typical acceptance is lossy: it changes the output's law"
    compared = sum(trial.compared for trial in study.trials)
    matched = sum(trial.matched for trial in study.trials)
    if not compared:
        return "tokens were not compared"
    if matched == compared:
        return f"all {compared} outputs equal plain decoding's, token for token"
    return f"{matched} of {compared} outputs equal plain decoding's"


def best_spec(study: Study) -> RunSpec | None:
    """What to run: the best, or what it was measured beside where that turned out better."""
    best, again = study.best, confirmation(study)
    if best is None:
        return None
    if again is not None and _lost(study, again):
        return study.spec.run(again.baseline)
    return study.spec.run(best.options)


def importance(study: Study, runs: Path | None = None) -> dict[str, float]:
    """How much each option mattered, as shares of 1 by PED-ANOVA; empty with too few trials."""
    if sum(one.state == MEASURED for one in study.trials) < _LEAST_TRIALS:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        with quiet():
            found = get_param_importances(
                open_journal(study.spec.name, runs), evaluator=PedAnovaImportanceEvaluator()
            )
    except (ValueError, RuntimeError):  # one value of an option, or all trials alike
        return {}
    return {name: share for name, share in found.items() if share == share}


def as_object(study: Study, runs: Path | None = None) -> dict[str, Any]:
    """What `draftree tune --json` prints."""
    best, spec = study.best, best_spec(study)
    return {
        "study": study.spec.name,
        "status": study.status,
        "objective": study.spec.objective,
        "verdict": verdict(study),
        "best": best.number if best else None,
        "spec": spec.model_dump(mode="json", exclude_none=True) if spec else None,
        "confirmed": study.confirmed if confirmation(study) else None,
        "lossless": lossless_told(study),
        "importance": importance(study, runs),
        "trials": [
            {
                "number": one.number,
                "state": one.state,
                "value": one.value,
                "options": one.options,
                "speedup": list(one.speedup) if one.speedup else None,
                "tokens_per_step": one.tokens_per_step,
                "tokens_per_second": one.tokens_per_second,
                "acceptance_rate": one.acceptance_rate,
                "prompts": one.prompts,
                "matched": one.matched,
                "compared": one.compared,
                "why": one.why,
            }
            for one in study.trials
        ],
        "notes": study.notes,
    }
