"""`draftree tune`: a search over a method's options, kept as a study that can be gone on with."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    ExactTokensFlag,
    ExecutionFlags,
    JsonFlag,
    PairFlags,
    VerifyFlags,
    given_flags,
    listed,
    models,
    wrong_value,
)
from workbench.commands.groups import Flags, grouped

if TYPE_CHECKING:
    from workbench.tuning.spec import TuneSpec

#: what may change when a study is gone on with
_FREE = {"trials", "timeout", "repeats"}
_NOT_SETTINGS = {"method", "name", "resume", "fresh", "out", "show_list", "show", "as_json"}


@dataclass(frozen=True)
class TrialFlags(Flags):
    """What is measured, how often, by which figure."""

    workload: Annotated[
        str, typer.Option("--workload", "-w", help="Embedded workload or a file of prompts.")
    ] = "code"
    objective: Annotated[
        str,
        typer.Option(
            help="tokens/s (judged by the speedup over plain decoding, paired by prompt), "
            "tokens-per-step or acceptance-rate."
        ),
    ] = "tokens/s"
    trials: Annotated[int, typer.Option(help="Trials in all, those made before too.", min=1)] = 30
    timeout: Annotated[
        str | None, typer.Option(help="Search no longer than this: 90s, 10m, 1.5h.")
    ] = None
    limit: Annotated[
        int,
        typer.Option(
            help="First questions that trials decode; the best is measured again on as many more.",
            min=1,
        ),
    ] = 8
    max_new_tokens: ExactTokensFlag = 64
    repeats: Annotated[
        int, typer.Option("--repeats", "-r", help="Of the last measurement.", min=1)
    ] = 3
    out: Annotated[
        Path | None, typer.Option(help="Where the best is written. [default: NAME.spec.json]")
    ] = None
    as_json: JsonFlag = False


@dataclass(frozen=True)
class SpaceFlags(Flags, panel="Search space"):
    """What is tried."""

    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Pin an option; repeatable.")
    ] = None
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE", help="What to try of an option: 4..32 or [a,b]; repeatable."
        ),
    ] = None
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Search this option alone; repeatable, or commas."),
    ] = None


@dataclass(frozen=True)
class StudyFlags(Flags, panel="Studies"):
    """Which study it is."""

    name: Annotated[str | None, typer.Option(help="Of the study. [default: METHOD-WORKLOAD]")] = (
        None
    )
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Go on with a study.")] = None
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the trials of a study of this name.")
    ] = False
    show_list: Annotated[bool, typer.Option("--list", help="List the studies.")] = False
    show: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show the trials of a study.")
    ] = None


@grouped
def tune(
    ctx: typer.Context,
    *,
    method: Annotated[
        str | None, typer.Argument(help="Whose options; see `draftree methods`.")
    ] = None,
    trial: TrialFlags,
    searched: SpaceFlags,
    study: StudyFlags,
    names: PairFlags,
    sampling: VerifyFlags,
    execution: Annotated[
        str,
        typer.Option(
            help="auto, eager, compiled (CPU), graph (CUDA) or inductor; auto compiles where "
            "that can be done.",
            rich_help_panel=EXECUTION,
        ),
    ] = "auto",
    running: ExecutionFlags,
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
    from workbench.commands.tune_shown import list_studies, show_study
    from workbench.tuning.spec import read_duration
    from workbench.tuning.study import load_study

    if study.show_list:
        list_studies(as_json=trial.as_json)
        raise typer.Exit(0)
    if study.show is not None:
        show_study(load_study(study.show), as_json=trial.as_json)
        raise typer.Exit(0)
    values: dict[str, Any] = {
        "trials": trial.trials,
        "timeout": read_duration(trial.timeout) if trial.timeout else None,
        "repeats": trial.repeats,
    }
    if study.resume is not None:
        spec = _resumed(study.resume, method, values, given_flags(ctx))
    else:
        values |= _settings(trial, searched, names) | {"executions": [execution]}
        spec = _new(method, study.name, values | vars(sampling) | vars(running))
    code = _tune_and_print(spec, out=trial.out, fresh=study.fresh, as_json=trial.as_json)
    raise typer.Exit(code)


def _settings(trial: TrialFlags, searched: SpaceFlags, names: PairFlags) -> dict[str, Any]:
    """What a new study is made with, by the names of its spec."""
    return {
        "workloads": [trial.workload],
        "objective": trial.objective,
        "limit": trial.limit,
        "max_new_tokens": trial.max_new_tokens,
        "fix": _assigned(searched.fix, "--fix"),
        "space": _assigned(searched.space, "--space"),
        "only": [one for text in searched.only or [] for one in listed(text)],
        **models(names.target, names.draft),
        "dtypes": [names.dtype],
        "device": names.device,
    }


def _tune_and_print(spec: TuneSpec, *, out: Path | None, fresh: bool, as_json: bool) -> int:
    from workbench.commands.progress import progress
    from workbench.commands.runner import CANCELLED_CODE, on_interrupt
    from workbench.commands.tune_shown import show_study
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
    show_study(found, as_json=as_json)
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
