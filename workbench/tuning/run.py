"""Making a study: Optuna proposes, the engine measures, what is hopeless is broken off early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.comparing.decoders import StoppedError
from workbench.comparing.telling import Telling
from workbench.events import Event, MeasuringStarted, Progress
from workbench.measuring import MEASURE
from workbench.store.index import prepare_folder
from workbench.tuning import study as keeping
from workbench.tuning.bench import Site, open_site
from workbench.tuning.confirm import Confirmation, confirm
from workbench.tuning.found_sets import keep_set
from workbench.tuning.search import LAST, Search, wanted
from workbench.tuning.sitting import begin, check_on, end
from workbench.tuning.space import Dimension, defaults, derive, needs_layers
from workbench.tuning.spec import TuneSpec, check_method
from workbench.tuning.study import Study

if TYPE_CHECKING:
    import optuna

Open = Callable[[TuneSpec, dict[str, Any], Telling], Site]
Confirm = Callable[..., Confirmation]


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
    space = _space(spec)
    first = defaults(spec.method, space, spec.fix)
    spec.arm(first)  # options that are wrong are found before anything is loaded
    where = prepare_folder(runs)
    stored = begin(spec, space, where, fresh=fresh)
    file = keeping.study_file(spec.name, where)
    emit(MeasuringStarted(spec.name))
    telling = Telling(emit, should_stop)
    status, notes = "failed", telling.notes
    try:
        if wanted(stored, spec):
            site = open_site(spec, first, telling)
            check_on(stored, site)
            with keeping.storing(file), keeping.quiet():
                stored.set_user_attr("prompts", site.num_prompts)
                Search(spec, space, stored, site, telling).run()
        best = keeping.as_study(stored).best
        if best is not None and not _is_confirmed(stored, best.key):
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
        made = end(stored, file, status=status, notes=notes)
    return made


def _space(spec: TuneSpec) -> Sequence[Dimension]:
    from engine.models import num_layers

    layers = num_layers(spec.target) if needs_layers(spec.method) else 0
    return derive(spec.method, fix=spec.fix, space=spec.space, only=spec.only, num_layers=layers)


def _is_confirmed(stored: optuna.Study, key: int) -> bool:
    """Whether this trial was measured again."""
    before = stored.user_attrs.get("confirmed") or {}
    return before.get("key") == key and "baseline" in before


def _last_part(emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """Tells of the last measurement as of the end of the whole."""

    def take(event: Event) -> None:
        if isinstance(event, Progress):
            fraction = event.fraction
            if event.phase == MEASURE and fraction is not None:
                fraction = 1 - LAST + LAST * fraction
            event = Progress(
                event.phase, f"The best beside the defaults: {event.message}", fraction
            )
        emit(event)

    return take
