"""What `draftree tune` shows of studies: trials as a table, the verdict, all studies as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import UserError

if TYPE_CHECKING:
    from workbench.tuning.study import Study


def show_study(study: Study, *, as_json: bool) -> None:
    """Trials, and what is to be made of them."""
    from workbench.terminal import out, print_json
    from workbench.tuning import wording
    from workbench.view.visible import safe_text

    if as_json:
        print_json(wording.as_object(study))
        return
    if study.trials:
        out().print(_table(study))
    spec = study.spec
    where = f"{spec.method} on {spec.workload}, {spec.objective}"
    lines = [f"{spec.name}: {where}; {wording.state_told(study)}; {study.status}."]
    lines.append(wording.verdict(study))
    lines.append(f"Losslessness: {wording.lossless_told(study)}.")
    if shares := wording.importance(study):
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
        lines.append(f"What mattered: {told}.")
    again = wording.confirmation(study)
    if again is not None:
        lines.append(f"draftree report {again.comparison}")
    for line in [*lines, *study.notes]:
        out().print(safe_text(line))


def _table(study: Study) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from workbench.comparing.wording import DASH, bounds
    from workbench.tuning.spec import SPEED
    from workbench.view.visible import safe_text

    best = study.best
    speed = study.spec.objective == SPEED
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.options))
    shown.add_column("trial", justify="right")
    for name in names:
        shown.add_column(safe_text(name), justify="right", overflow="fold")
    columns = ["speedup", "95%"] if speed else []
    columns += ["tokens/s", "tokens/step", "accepted"]
    for title in columns:
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("state", overflow="fold")
    for trial in study.trials:
        style = "bold" if trial is best else "" if trial.state == "measured" else "dim"
        value = DASH if trial.value is None else f"{trial.value:.2f}×"
        figures = [value, bounds(trial.speedup) if trial.speedup else DASH] if speed else []
        figures += [
            DASH if known is None else f"{known:{form}}"
            for known, form in (
                (trial.tokens_per_second, ".0f"),
                (trial.tokens_per_step, ".2f"),
                (trial.acceptance_rate, ".0%"),
            )
        ]
        why = f": {trial.why}" if trial.why else ""
        state = f"{'best' if trial is best else trial.state}{why}"
        cells = [str(trial.number), *(_cell(trial.options.get(name)) for name in names)]
        cells += [*figures, state]
        shown.add_row(*(Text(safe_text(cell), style=style) for cell in cells))
    return shown


def _cell(value: Any) -> str:
    from workbench.comparing.wording import DASH

    words = {None: DASH, True: "on", False: "off"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def list_studies(*, as_json: bool) -> None:
    """A line for each study."""
    from workbench.terminal import out, print_json, say
    from workbench.tuning import wording
    from workbench.tuning.study import load_study, study_names
    from workbench.view.visible import safe_text

    names = study_names()
    if as_json:
        print_json({"studies": names})
        return
    if not names:
        say("There are no studies; make one with `draftree tune METHOD -w code`.")
    for name in names:
        try:
            study = load_study(name)
            said = f"{name}  {study.spec.method} on {study.spec.workload}, {study.spec.objective}; "
            said += f"{wording.state_told(study)}; {study.status}"
        except UserError as error:
            said = f"{name}  {error}"
        out().print(safe_text(said))
