"""`draftree load`: requests as they would come to a server, served and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from workbench.commands.flags import (
    ExecutionFlags,
    RankFlags,
    VerifyFlags,
    given_flags,
    models,
    parse_assignments,
    wrong_value,
)
from workbench.commands.groups import grouped
from workbench.commands.load_flags import (
    ArrivalFlags,
    LoadExecutionFlags,
    LoadFileFlags,
    LoadModelFlags,
    ServingFlags,
    WantedFlags,
    parse_pairs,
    parse_slo,
    parse_weights,
)
from workbench.loading.again import FLAGS

if TYPE_CHECKING:
    from workbench.loading.spec import LoadSpec


@grouped
def load(
    ctx: typer.Context,
    *,
    coming: ArrivalFlags,
    wanted: WantedFlags,
    serving: ServingFlags,
    files: LoadFileFlags,
    names: LoadModelFlags,
    sampling: VerifyFlags,
    execution: LoadExecutionFlags,
    running: ExecutionFlags,
    shared: RankFlags,
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

        draftree load --ranks 2 --placement own --requests 20

    A trace is JSONL or CSV: arrival (seconds), then as wanted prompt, question or prompt_tokens,
    max_new_tokens, client, pair, deadline, timeout, cancel.
    """
    from workbench.commands.loading import load_and_print
    from workbench.loading.files import merged, read_load_spec, write_load_spec

    stored = read_load_spec(files.spec_file) if files.spec_file else {}
    given = given_flags(ctx)
    method = serving.method if "method" in given else stored.get("method", serving.method)
    by_trace = coming.trace is not None and "arrivals" not in given
    values = {
        **vars(coming), **vars(wanted), **vars(serving), **vars(names), **vars(sampling),
        **vars(execution), **vars(running), **vars(shared),
        "arrivals": "trace" if by_trace else coming.arrivals,
        "weights": parse_weights(coming.weights),
        "stop": wanted.stop or [],
        "method": method,
        "options": parse_assignments(serving.options or []),
        "slo": parse_slo(serving.slo),
        **models(names.target, names.draft, method=method),
        "pairs": parse_pairs(names.pairs or []),
    }  # fmt: skip
    if files.spec_file:
        values = merged(stored, values, given)
    spec = spec_from(values)
    if files.save_spec:
        write_load_spec(spec, files.save_spec)
    raise typer.Exit(load_and_print(spec, as_json=files.as_json, save=files.save))


def spec_from(values: dict[str, Any]) -> LoadSpec:
    """A LoadSpec, or a UserError that names the flag, the value and what is allowed."""
    from pydantic import ValidationError

    from workbench.loading.spec import LoadSpec

    try:
        return LoadSpec.model_validate(values)
    except ValidationError as error:
        raise wrong_value(error.errors()[0], **FLAGS) from None
