"""`draftree tune`: a search over a method's options, kept as a study that can be gone on with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    ChatTemplateFlag,
    ChildrenFlag,
    DeviceFlag,
    DraftFlag,
    DtypeFlag,
    JsonFlag,
    SeedFlag,
    TargetFlag,
    TemperatureFlag,
    ThreadsFlag,
    TopKFlag,
    TopPFlag,
    VerifyFlag,
    given_flags,
    listed,
    models,
    wrong_value,
)

if TYPE_CHECKING:
    from workbench.tuning.spec import TuneSpec
    from workbench.tuning.study import Study

SEARCH = "Search space"
STUDIES = "Studies"
#: what may change when a study is gone on with
_FREE = {"trials", "timeout", "repeats"}
_NOT_SETTINGS = {"method", "name", "resume", "fresh", "out", "show_list", "show", "as_json"}


def tune(
    ctx: typer.Context,
    method: Annotated[
        str | None, typer.Argument(help="Whose options; see `draftree methods`.")
    ] = None,
    workload: Annotated[
        str, typer.Option("--workload", "-w", help="Embedded workload or a file of prompts.")
    ] = "code",
    objective: Annotated[
        str,
        typer.Option(
            help="tokens/s (judged by the speedup over plain decoding, paired by prompt), "
            "tokens-per-step or acceptance-rate."
        ),
    ] = "tokens/s",
    trials: Annotated[int, typer.Option(help="Trials in all, those made before too.", min=1)] = 30,
    timeout: Annotated[
        str | None, typer.Option(help="Search no longer than this: 90s, 10m, 1.5h.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            help="First questions that trials decode; the best is measured again on as many more.",
            min=1,
        ),
    ] = 8,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens per answer, exactly.", min=1)
    ] = 64,
    repeats: Annotated[
        int, typer.Option("--repeats", "-r", help="Of the last measurement.", min=1)
    ] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Where the best is written. [default: NAME.spec.json]")
    ] = None,
    as_json: JsonFlag = False,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Pin an option; repeatable.", rich_help_panel=SEARCH
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE",
            help="What to try of an option: 4..32 or [a,b]; repeatable.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Search this option alone; repeatable, or commas.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Of the study. [default: METHOD-WORKLOAD]", rich_help_panel=STUDIES),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Go on with a study.", rich_help_panel=STUDIES),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Forget the trials of a study of this name.", rich_help_panel=STUDIES
        ),
    ] = False,
    show_list: Annotated[
        bool, typer.Option("--list", help="List the studies.", rich_help_panel=STUDIES)
    ] = False,
    show: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Show the trials of a study.", rich_help_panel=STUDIES),
    ] = None,
    target: TargetFlag = None,
    draft: DraftFlag = None,
    dtype: DtypeFlag = "float32",
    device: DeviceFlag = "auto",
    temperature: TemperatureFlag = 0.0,
    top_k: TopKFlag = 0,
    top_p: TopPFlag = 1.0,
    seed: SeedFlag = 0,
    verify: VerifyFlag = "match",
    children: ChildrenFlag = "auto",
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA) or inductor; auto compiles where "
            "that can be done.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto",
    chat_template: ChatTemplateFlag = True,
    threads: ThreadsFlag = None,
) -> None:
    """Search the options of a method for a pair and a workload, and write the best as a spec.

    Every trial is measured in turn with plain decoding on the same prompts: their ratio is far less
    noisy than tokens per second alone. Trials that are behind after a few prompts are broken off.
    The defaults are the first trial. At the end the best is measured again beside the defaults,
    with repeats and on new prompts where there are some: the best of many looks better than it is.
    Ctrl-C keeps the trials that are done; the same command goes on.

    Examples:

        draftree tune dynamic-tree -w code

        draftree tune dynamic-tree -w edit --fix policy=best-first --space nodes=4..24 --trials 40

        draftree tune speculative --only length --objective tokens-per-step

        draftree tune layer-skip -w code --timeout 5m

        draftree tune --show dynamic-tree-code

        draftree run --spec dynamic-tree-code.spec.json
    """
    if show_list:
        raise typer.Exit(_list(as_json=as_json))
    if show is not None:
        from workbench.tuning.study import load_study

        _show(load_study(show), as_json=as_json)
        raise typer.Exit(0)
    from workbench.tuning.spec import read_duration

    values: dict[str, Any] = {
        "trials": trials,
        "timeout": read_duration(timeout) if timeout else None,
        "repeats": repeats,
    }
    given = given_flags(ctx)
    if resume is not None:
        spec = _resumed(resume, method, values, given)
    else:
        spec = _new(
            method,
            name,
            values
            | {
                "workloads": [workload],
                "objective": objective,
                "limit": limit,
                "max_new_tokens": max_new_tokens,
                "fix": _assigned(fix, "--fix"),
                "space": _assigned(space, "--space"),
                "only": [one for text in only or [] for one in listed(text)],
                **models(target, draft),
                "dtypes": [dtype],
                "device": device,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "seed": seed,
                "verify": verify,
                "children": children,
                "executions": [execution],
                "chat_template": chat_template,
                "threads": threads,
            },
        )
    raise typer.Exit(_tune_and_print(spec, out=out, fresh=fresh, as_json=as_json))


def _tune_and_print(spec: TuneSpec, *, out: Path | None, fresh: bool, as_json: bool) -> int:
    from workbench.commands.progress import progress
    from workbench.commands.runner import CANCELLED_CODE, on_interrupt
    from workbench.specfile import write_spec
    from workbench.terminal import say
    from workbench.tuning.run import tune as search
    from workbench.tuning.study import load_study, study_names
    from workbench.tuning.wording import best_spec

    if not fresh and spec.name in study_names():
        made = len(load_study(spec.name).trials)
        say(f"Study {spec.name} goes on: {made} of {spec.trials} trials are there.")
    stop = threading.Event()
    with on_interrupt(stop), progress() as take:
        found = search(spec, take, stop.is_set, fresh=fresh)
    _show(found, as_json=as_json)
    best = best_spec(found)
    if best is not None:
        file = write_spec(best, out or Path(f"{spec.name}.spec.json"))
        say(f"The best is in {file}; run it with: draftree run --spec {file}")
    if found.status == "cancelled":
        if found.trials:
            say("Stopped; finished trials are kept. The same command, or "
                f"`draftree tune --resume {spec.name}`, goes on.")  # fmt: skip
        else:
            say("Stopped before a trial was finished; nothing is kept.")
        return CANCELLED_CODE
    return 0 if best is not None else 1


def _show(study: Study, *, as_json: bool) -> None:
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


def _list(*, as_json: bool) -> int:
    from workbench.terminal import out, print_json, say
    from workbench.tuning import wording
    from workbench.tuning.study import load_study, study_names
    from workbench.view.visible import safe_text

    names = study_names()
    if as_json:
        print_json({"studies": names})
        return 0
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
    return 0


def _resumed(name: str, method: str | None, values: dict[str, Any], given: set[str]) -> TuneSpec:
    from workbench.tuning.study import load_study

    before = load_study(name).spec
    fixed = sorted(given - _FREE - _NOT_SETTINGS)
    if fixed or method not in (None, before.method):
        flag = f"--{fixed[0].replace('_', '-')}" if fixed else "another method"
        raise UserError(
            f"--resume goes on with the settings of {name}, and {flag} cannot change them; only "
            "--trials, --timeout and --repeats can. Begin a study of another name (--name)."
        )
    return _checked(before.model_dump() | {k: v for k, v in values.items() if k in given})


def _new(method: str | None, name: str | None, values: dict[str, Any]) -> TuneSpec:
    from workbench.tuning.spec import check_method, study_name

    if method is None:
        raise UserError(
            "Name the method whose options are searched: draftree tune dynamic-tree. `draftree "
            "methods` lists them; `draftree tune --list` lists the studies."
        )
    check_method(method)
    named = name or study_name(method, values["workloads"][0], values["objective"])
    return _checked(values | {"methods": [method], "name": named})


def _checked(values: dict[str, Any]) -> TuneSpec:
    from pydantic import ValidationError

    from workbench.tuning.spec import TuneSpec

    try:
        return TuneSpec.model_validate(values)
    except ValidationError as error:
        names = {"workloads": "workload", "dtypes": "dtype", "executions": "execution"}
        raise wrong_value(error.errors()[0], **names) from None


def _assigned(texts: list[str] | None, flag: str) -> dict[str, str]:
    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UserError(f"{flag} is {text!r}; write it as NAME=VALUE, such as nodes=4..32.")
        found[name.strip().replace("-", "_")] = value.strip()
    return found
