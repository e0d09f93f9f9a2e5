"""Load runs on several replicas: what each is built from, and the fleet that is started.

The process that runs the job loads the models as well, on the CPU: for their tokenizer, their
limits and what identifies them. `build` is called in the process of each replica.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.cluster.fleet import Fleet, FleetOptions
from engine.cluster.mail import ReplicaSpec
from engine.cluster.router import Limits
from workbench.loading.spec import LoadSpec

if TYPE_CHECKING:
    from engine.cluster.replica import Served, Telling
    from workbench.loading.plan import Plan

#: the fleet's queue is what is bounded
_NO_BOUND = 1 << 30


class EngineFacts(NamedTuple):
    """What a run keeps of an engine that works elsewhere."""

    mode: str
    setting: str
    parallel: None = None  # a replica is one process


class Replicated(NamedTuple):
    """A fleet that is ready, and what its first replica found out while loading."""

    fleet: Fleet
    engines: dict[str, EngineFacts]
    plain_step_ns: int


@contextmanager
def started(
    plan: Plan,
    *,
    on_progress: Callable[[str, str, float | None], None],
    should_stop: Callable[[], bool],
) -> Iterator[Replicated | None]:
    """A fleet for the plan, closed in the end; None where `should_stop` said so while it loaded.

    Raises UserError for what a replica or Ray refuses, DecodeError where none could be started.
    """
    spec = plan.spec
    replica = ReplicaSpec(
        "workbench.loading.replicas:build",
        {
            "spec": spec.model_dump_json(),
            "capacity": {one.name: one.capacity for one in plan.pairs},
            "first": plan.first,
        },
        threads=spec.threads or max(1, (os.cpu_count() or 1) // spec.replicas),
    )
    options = FleetOptions(
        replicas=spec.replicas,
        router=spec.router,
        limits=Limits(queue=spec.max_waiting),
        restarts=spec.restarts,
    )
    if spec.cluster == "local":
        with Fleet(replica, options) as fleet:
            yield _ready(fleet, on_progress, should_stop)
        return
    from engine.cluster.ray_actors import LOCAL, RayCluster

    on_progress("load", "Starting Ray", None)
    gpus = 1.0 if spec.device.startswith("cuda") else 0.0
    with (
        RayCluster(spec.ray_address or LOCAL, replicas=spec.replicas, gpus=gpus) as ray,
        Fleet(replica, options, start=ray.start) as fleet,
    ):
        yield _ready(fleet, on_progress, should_stop)


def _ready(
    fleet: Fleet,
    on_progress: Callable[[str, str, float | None], None],
    should_stop: Callable[[], bool],
) -> Replicated | None:
    if not fleet.wait_ready(
        lambda message, share: on_progress("load", message, share), should_stop
    ):
        return None
    facts = fleet.members[0].report.facts
    engines = {name: EngineFacts(*values) for name, values in facts["engines"].items()}
    return Replicated(fleet, engines, facts["plain_step_ns"])


def build(arguments: dict[str, Any], on_progress: Telling) -> Served:
    """The engines of a load run, under a scheduler, in a replica's process.

    Raises UserError for models or options that cannot be used there.
    """
    from engine.cluster.replica import Served
    from engine.serving.scheduler import Scheduler
    from workbench import models
    from workbench.job import engine_for

    spec = LoadSpec.model_validate_json(arguments["spec"])
    engines = {}
    for pair in spec.pair_specs:
        run = spec.run_of(pair)
        engines[pair.name] = engine_for(
            run,
            models.load_pair(run, on_progress=on_progress),
            options=models.check_spec(run),
            capacity=arguments["capacity"][pair.name],
            on_progress=lambda phase, message, share: on_progress(message, share),
        )
    first = next(iter(engines.values()))
    on_progress("Timing a plain step", None)
    plain_step_ns = first.plain_step_ns(arguments["first"])
    scheduler = Scheduler(engines, policy=spec.policy, budgets=spec.budgets, max_waiting=_NO_BOUND)
    facts = {
        "plain_step_ns": plain_step_ns,
        "engines": {name: (one.mode, one.setting) for name, one in engines.items()},
    }
    return Served(scheduler, slots=spec.slots * len(engines), facts=facts)
