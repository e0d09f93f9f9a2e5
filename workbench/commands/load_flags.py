"""The options of `draftree load`, by what they say of requests. Fields are those of `LoadSpec`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    MODELS,
    DeviceFlag,
    DraftsFlag,
    DtypeFlag,
    IgnoreEosFlag,
    JsonFlag,
    LimitFlag,
    MethodFlag,
    OptionsFlag,
    TargetFlag,
    TokensFlag,
    listed,
)
from workbench.commands.groups import Flags


@dataclass(frozen=True)
class ArrivalFlags(Flags, panel="How requests come"):
    """When, and from whom."""

    arrivals: Annotated[str, typer.Option(help="poisson, bursty, on-off, closed, or trace.")] = (
        "poisson"
    )
    rate: Annotated[float, typer.Option(help="Requests per second on average.")] = 1.0
    requests: Annotated[
        int | None, typer.Option(help="So many come. [default: 40, where no --duration]", min=1)
    ] = None
    duration_s: Annotated[
        float | None, typer.Option("--duration", help="They come for so many seconds.")
    ] = None
    clients: Annotated[
        int, typer.Option(help="Who ask; with closed arrivals each waits for its answer.")
    ] = 1
    weights: Annotated[str, typer.Option(help="Shares of the clients, as 3,1,1.")] = ""
    think_s: Annotated[
        str,
        typer.Option(
            "--think", help="Of closed: seconds from an answer to the next request (mix)."
        ),
    ] = "0.001"
    burstiness: Annotated[float, typer.Option(help="Of bursty: 1 is Poisson, less bunches.")] = 0.25
    on_s: Annotated[float, typer.Option("--on", help="Of on-off: seconds with requests,")] = 5.0
    off_s: Annotated[float, typer.Option("--off", help="and seconds without.")] = 5.0
    trace: Annotated[str | None, typer.Option(help="JSONL or CSV file of arrivals.")] = None
    trace_speed: Annotated[float, typer.Option(help="Play it so much faster.")] = 1.0


@dataclass(frozen=True)
class WantedFlags(Flags, panel="What they want"):
    """What requests ask, and how long they wait for it."""

    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", "-w", help="Embedded workload or a file of prompts. [default: code]"
        ),
    ] = None
    limit: LimitFlag = None
    max_new_tokens: TokensFlag = 128
    prompt_tokens: Annotated[
        str, typer.Option(help="Lengths of prompts: workload, or a mix such as uniform:16-200.")
    ] = "workload"
    answer_tokens: Annotated[
        str,
        typer.Option(
            help="Limits of answers: workload (all that), or a mix such as lognormal:64:0.5."
        ),
    ] = "workload"
    cancel_fraction: Annotated[float, typer.Option(help="Share of requests that are given up,")] = (
        0.0
    )
    cancel_after_s: Annotated[
        str, typer.Option("--cancel-after", help="after so many seconds (mix).")
    ] = "lognormal:1:0.7"
    deadline_s: Annotated[
        str | None,
        typer.Option(
            "--deadline", help="Seconds from arrival in which the answer is wanted (mix)."
        ),
    ] = None
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds after which a request is ended."),
    ] = None
    stop: Annotated[
        list[str] | None, typer.Option(help="End answers where this text occurs; repeatable.")
    ] = None


@dataclass(frozen=True)
class ServingFlags(Flags, panel="How they are served"):
    """By which method, with how many together, on how many engines."""

    method: MethodFlag = "dynamic-tree"
    options: OptionsFlag = None
    slots: Annotated[int, typer.Option(help="Requests decoded together.")] = 8
    policy: Annotated[
        str, typer.Option(help="Who is next: first-come, shortest-first, deadline or fair.")
    ] = "first-come"
    budgets: Annotated[
        str,
        typer.Option(help="Nodes by request: auction, fixed:4, proportional:32 or round-robin:32."),
    ] = "auction"
    max_waiting: Annotated[int, typer.Option(help="So many may wait; more are refused.")] = 256
    replicas: Annotated[
        int, typer.Option(help="Engines that share the requests, each with its slots.", min=1)
    ] = 1
    router: Annotated[
        str, typer.Option(help="Who gets a request: predicted, shortest-queue or round-robin.")
    ] = "predicted"
    cluster: Annotated[str, typer.Option(help="Replicas here (local) or as Ray actors (ray).")] = (
        "local"
    )
    ray_address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of a Ray that runs. [default: one is started here]"),
    ] = None
    restarts: Annotated[
        int, typer.Option(help="Replicas that may be started in place of lost ones.", min=0)
    ] = 0
    slo: Annotated[
        str, typer.Option(help="Milliseconds of a good request, as ttft=500,tpot=50,e2el=9000.")
    ] = ""


@dataclass(frozen=True)
class LoadFileFlags(Flags):
    """What is read and written besides."""

    as_json: JsonFlag = False
    save: Annotated[Path | None, typer.Option(help="Write settings and figures there as JSON.")] = (
        None
    )
    spec_file: Annotated[
        Path | None,
        typer.Option("--spec", help="A load spec as JSON; flags that are given override it."),
    ] = None
    save_spec: Annotated[
        Path | None, typer.Option("--save-spec", help="Write what was asked for as a load spec.")
    ] = None


@dataclass(frozen=True)
class LoadModelFlags(Flags, panel=MODELS):
    """One pair, or several."""

    target: TargetFlag = None
    draft: DraftsFlag = None
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="NAME=TARGET,DRAFT",
            help="One of several pairs under one scheduler; repeatable.",
        ),
    ] = None
    dtype: DtypeFlag = "float32"
    device: DeviceFlag = "auto"


@dataclass(frozen=True)
class LoadExecutionFlags(Flags, panel=EXECUTION):
    """How engines run."""

    execution: Annotated[
        str, typer.Option(help="auto, eager or compiled; auto compiles nothing.")
    ] = "auto"
    ignore_eos: IgnoreEosFlag = False


def parse_weights(text: str) -> list[float]:
    """`3,1,1` as numbers. Raises UserError."""
    try:
        return [float(word) for word in listed(text)]
    except ValueError:
        raise UserError(f"--weights is {text!r}; give numbers with commas between.") from None


def parse_slo(text: str) -> dict[str, float]:
    """`ttft=500,tpot=50` as milliseconds by figure. Raises UserError."""
    found = {}
    for bound in listed(text):
        name, _, value = bound.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise UserError(f"--slo has {bound!r}; write NAME=MILLISECONDS, as ttft=500.") from None
        if name.strip() not in ("ttft", "tpot", "e2el"):
            raise UserError(f"--slo has {name.strip()!r}; there are ttft, tpot and e2el.")
    return found


def parse_pairs(texts: list[str]) -> list[dict[str, Any]]:
    """`NAME=TARGET,DRAFT` as fields of PairSpec; a draft may be left out. Raises UserError."""
    found = []
    for text in texts:
        name, equals, rest = text.partition("=")
        names = listed(rest)
        if not equals or not 1 <= len(names) <= 2:
            raise UserError(f"--pair is {text!r}; write it as NAME=TARGET,DRAFT.")
        draft = names[1] if len(names) == 2 else None
        found.append({"name": name.strip(), "target": names[0], "draft": draft})
    return found
