"""A study as frames for table and figures, and its files."""

from __future__ import annotations

import pandas as pd

from workbench.specfile import spec_text
from workbench.tuning.spec import ACCEPTANCE, SPEED, TAU
from workbench.tuning.study import MEASURED, Study, study_file
from workbench.tuning.wording import best_spec, options_told
from workbench.view.visible import safe_text

OPTION = "option."
_OBJECTIVES = {SPEED: "speedup", TAU: "tokens per step", ACCEPTANCE: "acceptance rate"}


def changed_at(name: str) -> tuple[int, int]:
    """What changes whenever a study does: time and size of its file."""
    try:
        known = study_file(name).stat()
    except OSError:
        return (0, 0)
    return (known.st_mtime_ns, known.st_size)


def trial_frame(study: Study) -> pd.DataFrame:
    """A line for each trial: options in `option.NAME`, the objective, and the best so far."""
    lines = []
    best_so_far = float("nan")
    for trial in study.trials:
        if trial.state == MEASURED and trial.value is not None:
            best_so_far = (
                trial.value if best_so_far != best_so_far else max(best_so_far, trial.value)
            )
        lines.append(
            {
                "trial": trial.number,
                "state": trial.state,
                "value": trial.value,
                "low": trial.speedup.low if trial.speedup else None,
                "high": trial.speedup.high if trial.speedup else None,
                "best_so_far": best_so_far,
                "best": trial is study.best,
                "tokens_per_step": trial.tokens_per_step,
                "tokens_per_second": trial.tokens_per_second,
                "acceptance_rate": trial.acceptance_rate,
                "prompts": trial.prompts,
                "lossless": f"{trial.matched} of {trial.compared}" if trial.compared else "–",
                "told": safe_text(options_told(study, trial.options)),
                "why": safe_text(trial.why),
                **{OPTION + name: value for name, value in trial.options.items()},
            }
        )
    frame = pd.DataFrame(lines)
    options = [name for name in frame if str(name).startswith(OPTION)]
    return frame.astype({name: frame[name].convert_dtypes().dtype for name in options})


def searched(study: Study) -> list[str]:
    """The options that vary, in order."""
    names = dict.fromkeys(name for trial in study.trials for name in trial.options)
    return [
        name for name in names if len({str(trial.options.get(name)) for trial in study.trials}) > 1
    ]


def is_speed(study: Study) -> bool:
    """Whether the objective is the paired speedup."""
    return study.spec.objective == SPEED


def objective(study: Study) -> str:
    """What is drawn and tabled, in words."""
    return _OBJECTIVES[study.spec.objective]


def spec_file(study: Study) -> str:
    """The best as the text of a spec file; empty where there is none."""
    spec = best_spec(study)
    return spec_text(spec) if spec is not None else ""
