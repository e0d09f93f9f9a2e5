"""`draftree load`: requests as they would come to a server, served and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import UserError
from workbench.commands.flags import (
    EXECUTION,
    MODELS,
    ChatTemplateFlag,
    ChildrenFlag,
    DeviceFlag,
    DraftsFlag,
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
from workbench.loading.again import FLAGS

if TYPE_CHECKING:
    from workbench.loading.spec import LoadSpec

COMING = "How requests come"
WANTING = "What they want"
SERVING = "How they are served"
#: fields by the names of their parameters here, where those differ
_FIELDS = {flag.replace("-", "_"): field for field, flag in FLAGS.items()}


def load(
    ctx: typer.Context,
    arrivals: Annotated[
        str,
        typer.Option(help="poisson, bursty, on-off, closed, or trace.", rich_help_panel=COMING),
    ] = "poisson",
    rate: Annotated[
        float, typer.Option(help="Requests per second on average.", rich_help_panel=COMING)
    ] = 1.0,
    requests: Annotated[
        int | None,
        typer.Option(
            help="So many come. [default: 40, where no --duration]", min=1, rich_help_panel=COMING
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(help="They come for so many seconds.", rich_help_panel=COMING),
    ] = None,
    clients: Annotated[
        int,
        typer.Option(
            help="Who ask; with closed arrivals each waits for its answer.",
            rich_help_panel=COMING,
        ),
    ] = 1,
    weights: Annotated[
        str,
        typer.Option(help="Shares of the clients, as 3,1,1.", rich_help_panel=COMING),
    ] = "",
    think: Annotated[
        str,
        typer.Option(
            help="Of closed: seconds from an answer to the next request (mix).",
            rich_help_panel=COMING,
        ),
    ] = "0.001",
    burstiness: Annotated[
        float,
        typer.Option(help="Of bursty: 1 is Poisson, less bunches.", rich_help_panel=COMING),
    ] = 0.25,
    on: Annotated[
        float, typer.Option(help="Of on-off: seconds with requests,", rich_help_panel=COMING)
    ] = 5.0,
    off: Annotated[float, typer.Option(help="and seconds without.", rich_help_panel=COMING)] = 5.0,
    trace: Annotated[
        str | None,
        typer.Option(help="JSONL or CSV file of arrivals.", rich_help_panel=COMING),
    ] = None,
    trace_speed: Annotated[
        float, typer.Option(help="Play it so much faster.", rich_help_panel=COMING)
    ] = 1.0,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            "-w",
            help="Embedded workload or a file of prompts. [default: code]",
            rich_help_panel=WANTING,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="First questions of the workload only.", min=1, rich_help_panel=WANTING),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens",
            "-n",
            help="Tokens per answer at most.",
            min=1,
            rich_help_panel=WANTING,
        ),
    ] = 128,
    prompt_tokens: Annotated[
        str,
        typer.Option(
            help="Lengths of prompts: workload, or a mix such as uniform:16-200.",
            rich_help_panel=WANTING,
        ),
    ] = "workload",
    answer_tokens: Annotated[
        str,
        typer.Option(
            help="Limits of answers: workload (all that), or a mix such as lognormal:64:0.5.",
            rich_help_panel=WANTING,
        ),
    ] = "workload",
    cancel_fraction: Annotated[
        float,
        typer.Option(help="Share of requests that are given up,", rich_help_panel=WANTING),
    ] = 0.0,
    cancel_after: Annotated[
        str, typer.Option(help="after so many seconds (mix).", rich_help_panel=WANTING)
    ] = "lognormal:1:0.7",
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Seconds from arrival in which the answer is wanted (mix).",
            rich_help_panel=WANTING,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds after which a request is ended.", rich_help_panel=WANTING),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="End answers where this text occurs; repeatable.", rich_help_panel=WANTING
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            help="How to draft; see `draftree methods`.",
            rich_help_panel=SERVING,
        ),
    ] = "dynamic-tree",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="An option of the method; repeatable.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option(help="Requests decoded together.", rich_help_panel=SERVING)
    ] = 8,
    policy: Annotated[
        str,
        typer.Option(
            help="Who is next: first-come, shortest-first, deadline or fair.",
            rich_help_panel=SERVING,
        ),
    ] = "first-come",
    budgets: Annotated[
        str,
        typer.Option(
            help="Nodes by request: auction, fixed:4, proportional:32 or round-robin:32.",
            rich_help_panel=SERVING,
        ),
    ] = "auction",
    max_waiting: Annotated[
        int,
        typer.Option(help="So many may wait; more are refused.", rich_help_panel=SERVING),
    ] = 256,
    replicas: Annotated[
        int,
        typer.Option(
            help="Engines that share the requests, each with its slots.",
            min=1,
            rich_help_panel=SERVING,
        ),
    ] = 1,
    router: Annotated[
        str,
        typer.Option(
            help="Who gets a request: predicted, shortest-queue or round-robin.",
            rich_help_panel=SERVING,
        ),
    ] = "predicted",
    cluster: Annotated[
        str,
        typer.Option(help="Replicas here (local) or as Ray actors (ray).", rich_help_panel=SERVING),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of a Ray that runs. [default: one is started here]",
            rich_help_panel=SERVING,
        ),
    ] = None,
    restarts: Annotated[
        int,
        typer.Option(
            help="Replicas that may be started in place of lost ones.",
            min=0,
            rich_help_panel=SERVING,
        ),
    ] = 0,
    slo: Annotated[
        str,
        typer.Option(
            help="Milliseconds of a good request, as ttft=500,tpot=50,e2el=9000.",
            rich_help_panel=SERVING,
        ),
    ] = "",
    as_json: JsonFlag = False,
    save: Annotated[
        Path | None, typer.Option(help="Write settings and figures there as JSON.")
    ] = None,
    spec_file: Annotated[
        Path | None,
        typer.Option("--spec", help="A load spec as JSON; flags that are given override it."),
    ] = None,
    save_spec: Annotated[
        Path | None, typer.Option("--save-spec", help="Write what was asked for as a load spec.")
    ] = None,
    target: TargetFlag = None,
    draft: DraftsFlag = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TARGET,DRAFT",
            help="One of several pairs under one scheduler; repeatable.",
            rich_help_panel=MODELS,
        ),
    ] = None,
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
            help="auto, eager or compiled; auto compiles nothing.", rich_help_panel=EXECUTION
        ),
    ] = "auto",
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Go on after EOS.", rich_help_panel=EXECUTION)
    ] = False,
    chat_template: ChatTemplateFlag = True,
    threads: ThreadsFlag = None,
) -> None:
    """Let requests come as they would to a server; see how long they wait, and who had what.

    Open loop: requests come at their times whether or not earlier ones are answered (poisson,
    bursty, on-off, or a trace). Closed loop: each client asks again once it has its answer. A mix
    is a number, uniform:LOW-HIGH or lognormal:MEDIAN:SIGMA. Every step is kept, as with `draftree
    run`; Ctrl-C cancels what is under way and keeps the rest.

    Examples:

        draftree load --rate 2 --requests 40 -n 64

        draftree load --arrivals closed --clients 8 --duration 30 --budgets fixed:4

        draftree load --arrivals bursty --rate 3 --slots 4 --slo ttft=500,tpot=50

        draftree load --rate 2 --deadline uniform:1-6 --policy deadline --cancel-fraction 0.1

        draftree load --trace arrivals.csv --trace-speed 2 --save figures.json

        draftree load --pair big=pycode-target,pycode-draft --pair small=pycode-draft --rate 2

        draftree load --replicas 4 --cluster ray --rate 4

    A trace is JSONL or CSV: arrival (seconds), then as wanted prompt, question or prompt_tokens,
    max_new_tokens, client, pair, deadline, timeout, cancel.
    """
    from workbench.commands.loading import load_and_print
    from workbench.commands.run import parse_assignments
    from workbench.loading.files import merged, read_load_spec, write_load_spec

    stored = read_load_spec(spec_file) if spec_file else {}
    given = given_flags(ctx)
    if "method" in stored and "method" not in given:
        method = stored["method"]
    if trace is not None and "arrivals" not in given:
        arrivals = "trace"
    values = {
        "arrivals": arrivals, "rate": rate, "requests": requests, "duration_s": duration,
        "clients": clients, "weights": _numbers(weights, "weights"), "think_s": think,
        "burstiness": burstiness, "on_s": on, "off_s": off, "trace": trace,
        "trace_speed": trace_speed, "workload": workload, "limit": limit,
        "max_new_tokens": max_new_tokens, "prompt_tokens": prompt_tokens,
        "answer_tokens": answer_tokens, "cancel_fraction": cancel_fraction,
        "cancel_after_s": cancel_after, "deadline_s": deadline, "timeout_s": timeout,
        "stop": stop or [], "method": method, "options": parse_assignments(option or []),
        "slots": slots, "policy": policy, "budgets": budgets, "max_waiting": max_waiting,
        "replicas": replicas, "router": router, "cluster": cluster, "ray_address": ray_address,
        "restarts": restarts, "slo": _slo(slo), **models(target, draft, method=method),
        "pairs": _pairs(pair or []),
        "dtype": dtype, "device": device, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "seed": seed, "verify": verify, "children": children,
        "execution": execution, "ignore_eos": ignore_eos, "chat_template": chat_template,
        "threads": threads,
    }  # fmt: skip
    if spec_file:
        values = merged(stored, values, {_FIELDS.get(name, name) for name in given})
    spec = spec_from(values)
    if save_spec:
        write_load_spec(spec, save_spec)
    raise typer.Exit(load_and_print(spec, as_json=as_json, save=save))


def spec_from(values: dict[str, Any]) -> LoadSpec:
    """A LoadSpec, or a UserError that names the flag, the value and what is allowed."""
    from pydantic import ValidationError

    from workbench.loading.spec import LoadSpec

    try:
        return LoadSpec.model_validate(values)
    except ValidationError as error:
        raise wrong_value(error.errors()[0], **FLAGS) from None


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(word) for word in listed(text)]
    except ValueError:
        raise UserError(f"--{flag} is {text!r}; give numbers with commas between.") from None


def _slo(text: str) -> dict[str, float]:
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


def _pairs(texts: list[str]) -> list[dict[str, Any]]:
    """`NAME=TARGET,DRAFT` as fields of PairSpec; without a draft where it is left out."""
    found = []
    for text in texts:
        name, equals, rest = text.partition("=")
        names = listed(rest)
        if not equals or not 1 <= len(names) <= 2:
            raise UserError(f"--pair is {text!r}; write it as NAME=TARGET,DRAFT.")
        draft = names[1] if len(names) == 2 else None
        found.append({"name": name.strip(), "target": names[0], "draft": draft})
    return found
