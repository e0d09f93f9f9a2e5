"""What a search over sublayers leaves behind: a file that option `skip` takes by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.drafters import skip_sets
from engine.errors import UserError
from engine.models import resolve_path
from workbench.comparing.wording import count
from workbench.statistics import Finding, finding
from workbench.store.index import now_iso
from workbench.tuning.space import Dimension
from workbench.tuning.study import Study
from workbench.tuning.sublayers import Sublayers
from workbench.tuning.wording import best_spec, confirmation


def keep_set(study: Study, on: Mapping[str, str], space: Sequence[Dimension]) -> list[str]:
    """Save the set of a finished search; returns what to say of it. No search of sets: nothing.

    `on` has the target's content hash. A disk that takes no file is a note: the study has the set.
    """
    sets = [one for one in space if isinstance(one, Sublayers)]
    spec, again = best_spec(study), confirmation(study)
    if not sets or spec is None or again is None:
        return []
    path = resolve_path(study.spec.target)
    skip = str(spec.options[sets[0].name])
    found = skip_sets.SavedSet(
        skip=skip,
        target=Path(path).name if Path(path).is_dir() else study.spec.target,
        target_hash=on["target"],
        num_layers=sets[0].num_layers,
        made=now_iso(),
        how=_how(study, spec.options),
    )
    notes = [_compiled_told(study, skip)] if study.spec.executions == ["eager"] else []
    if finding(again.speedup) is not Finding.PAYS:
        notes.insert(
            0,
            f"None of {count(len(study.trials), 'set')} was measurably faster than skipping "
            "nothing, which is plain decoding: no trial shows that drafting with this target's own "
            "layers pays here.",
        )
    try:
        file = skip_sets.save(found, study.spec.name, path=path)
    except UserError as error:
        return [*notes, str(error)]
    return [
        *notes,
        f"The set is saved in {file}: -m layer-skip -o skip={study.spec.name} takes it.",
    ]


def _how(study: Study, options: Mapping[str, Any]) -> dict[str, Any]:
    again = confirmation(study)
    assert again is not None
    took_best = options == study.spec.changed(again.options)
    return {
        "study": study.spec.name,
        "workload": study.spec.workload,
        "objective": study.spec.objective,
        "trials": len(study.trials),
        "options": dict(options),
        "execution": study.spec.executions[0],
        "dtype": study.spec.dtypes[0],
        "temperature": study.spec.temperature,
        "prompts": again.prompts,
        "unseen_prompts": again.new,
        "speedup": again.as_json()["speedup" if took_best else "defaults_speedup"],
        "tokens_per_step": again.tokens_per_step if took_best else again.defaults_tokens_per_step,
        "acceptance_rate": again.acceptance_rate if took_best else again.defaults_acceptance_rate,
    }


def _compiled_told(study: Study, skip: str) -> str:
    return (
        "Every set was measured in eager execution beside eager plain decoding: compiling each "
        "would take minutes. To see the best compiled beside compiled plain decoding: draftree "
        f"compare -m layer-skip:skip={skip} -w {study.spec.workload} --target {study.spec.target} "
        "--execution compiled"
    )
