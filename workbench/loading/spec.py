"""What a load run is asked to do: a run's settings, and how requests come and are served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from workbench.loading.mixes import WORKLOAD, parse_mix
from workbench.spec import RunSpec

Arrivals = Literal["poisson", "bursty", "on-off", "closed", "trace"]
Slo = Literal["ttft", "tpot", "e2el"]

#: prompts where none are named
USUAL_WORKLOAD = "code"
#: requests where neither a number nor a duration is given
USUAL_REQUESTS = 40
#: those that have one pair of models call it so
ONLY_PAIR = ""
MOST_SLOTS = 64


class PairSpec(BaseModel):
    """One of several model pairs under a scheduler."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$", description="to tell it by")
    target: str = Field(description="embedded name, local folder or hub id")
    draft: str | None = Field(default=None, description="as target; None: no draft")
    weight: float = Field(default=1.0, gt=0, description="its share of the requests")


class LoadSpec(RunSpec):
    """A run whose requests come as they would to a server. All times in seconds, SLOs in ms."""

    arrivals: Arrivals = Field(
        default="poisson",
        description="open loop: poisson, bursty (gamma), on-off; closed loop; or a trace file",
    )
    rate: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="requests per second, on average"
    )
    burstiness: float = Field(
        default=0.25, gt=0, le=100, description="of bursty: shape of the gamma law; 1 is Poisson"
    )
    on_s: float = Field(default=5.0, gt=0, description="of on-off: seconds with requests")
    off_s: float = Field(default=5.0, gt=0, description="of on-off: seconds without")
    clients: int = Field(
        default=1, ge=1, le=1024, description="who ask; in a closed loop each waits for its answer"
    )
    weights: list[float] = Field(
        default_factory=list, description="each client's share of the requests; empty: all alike"
    )
    think_s: str = Field(
        default="0.001", description="of a closed loop: wait between answer and next request (mix)"
    )
    trace: str | None = Field(default=None, description="file of arrivals, JSONL or CSV")
    trace_speed: float = Field(default=1.0, gt=0, description="plays the trace so much faster")
    requests: int | None = Field(default=None, ge=1, description="so many requests come")
    duration_s: float | None = Field(
        default=None, gt=0, description="they come for so long; the last ones are served"
    )
    prompt_tokens: str = Field(
        default=WORKLOAD, description="lengths of prompts: a mix, or as the workload has them"
    )
    answer_tokens: str = Field(
        default=WORKLOAD, description="limits of answers: a mix up to max_new_tokens, or all that"
    )
    cancel_fraction: float = Field(
        default=0.0, ge=0, le=1, description="share of the requests that their clients give up"
    )
    cancel_after_s: str = Field(default="lognormal:1:0.7", description="and after how long (mix)")
    deadline_s: str | None = Field(
        default=None, description="when the answer is wanted, from arrival (mix)"
    )
    timeout_s: float | None = Field(
        default=None, gt=0, description="a request ends after so long, wherever it is"
    )
    slots: int = Field(default=8, ge=1, le=MOST_SLOTS, description="requests decoded together")
    policy: str = Field(
        default="first-come", description="first-come, shortest-first, deadline or fair"
    )
    budgets: str = Field(
        default="auction",
        description="nodes by request: auction, fixed:N, proportional:N or round-robin:N",
    )
    max_waiting: int = Field(
        default=256, ge=1, description="requests that may wait; more are refused"
    )
    replicas: int = Field(
        default=1, ge=1, le=1024, description="engines that share the requests, each with its slots"
    )
    router: str = Field(
        default="predicted",
        description="whose replica gets a request: predicted, shortest-queue or round-robin",
    )
    cluster: Literal["local", "ray"] = Field(
        default="local", description="replicas as processes of this machine, or as Ray actors"
    )
    ray_address: str | None = Field(
        default=None, description="HOST:PORT of a Ray that runs; None: one is started here"
    )
    restarts: int = Field(
        default=0, ge=0, description="replicas that may be started in place of lost ones"
    )
    pairs: list[PairSpec] = Field(
        default_factory=list, description="several model pairs; empty: target and draft alone"
    )
    slo: dict[Slo, float] = Field(
        default_factory=dict, description="milliseconds that a good request keeps to"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_load(cls, values: Any) -> Any:
        """A run's own fields follow from those of the load."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("prompt") is None and values.get("workload") is None:
            values["workload"] = USUAL_WORKLOAD
        if values.get("trace") is not None:
            values.setdefault("arrivals", "trace")
        elif values.get("requests") is None and values.get("duration_s") is None:
            values["requests"] = USUAL_REQUESTS
        slots = values.get("slots", cls.model_fields["slots"].default)
        if isinstance(slots, int) and 1 <= slots <= MOST_SLOTS:  # else its own check speaks
            values.setdefault("batch", slots)
        pairs = values.get("pairs") or []
        if pairs:
            first = pairs[0] if isinstance(pairs[0], dict) else pairs[0].model_dump()
            values["target"], values["draft"] = first.get("target"), first.get("draft")
        return values

    @field_validator("think_s", "cancel_after_s", "deadline_s")
    @classmethod
    def _time_mix(cls, value: str | None) -> str | None:
        if value is not None:
            parse_mix(value)
        return value

    @field_validator("prompt_tokens", "answer_tokens")
    @classmethod
    def _length_mix(cls, value: str) -> str:
        if value != WORKLOAD:
            try:
                parse_mix(value)
            except ValueError as error:
                raise ValueError(f"{WORKLOAD}, {error}") from None
        return value

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        from engine.serving.policies import POLICIES

        if value not in POLICIES:
            raise ValueError(", ".join(POLICIES))
        return value

    @field_validator("router")
    @classmethod
    def _known_router(cls, value: str) -> str:
        from engine.cluster.choosing import CHOOSERS

        if value not in CHOOSERS:
            raise ValueError(", ".join(CHOOSERS))
        return value

    @field_validator("budgets")
    @classmethod
    def _known_budgets(cls, value: str) -> str:
        from engine.errors import UserError
        from engine.serving.budgets import budgets_named

        try:
            budgets_named(value)
        except UserError:
            raise ValueError("auction, fixed:N, proportional:N or round-robin:N") from None
        return value

    @field_validator("slo")
    @classmethod
    def _positive(cls, value: dict[Slo, float]) -> dict[Slo, float]:
        if not all(0 < limit < float("inf") for limit in value.values()):
            raise ValueError("milliseconds above 0")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> LoadSpec:
        if self.arrivals == "trace" and self.trace is None:
            raise ValueError("arrivals from a trace need its file; name one with --trace")
        if self.trace is not None and self.arrivals != "trace":
            raise ValueError(f"a trace says when requests come, {self.arrivals} arrivals do too")
        if self.batch != self.slots:
            raise ValueError(f"batch is {self.batch} and slots is {self.slots}; give slots alone")
        if self.weights and len(self.weights) != self.clients:
            raise ValueError(f"{len(self.weights)} weights do not fit {self.clients} clients")
        if self.weights and (min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf")):
            raise ValueError("weights are shares: none below 0, and one above it")
        if self.weights and self.arrivals == "closed":
            raise ValueError("in a closed loop clients ask when they are answered, not by weights")
        if len({pair.name for pair in self.pairs}) < len(self.pairs):
            raise ValueError("two pairs have the same name")
        if self.ray_address is not None and self.cluster != "ray":
            raise ValueError("an address of Ray is for replicas on Ray; set cluster to ray")
        if self.replicated and self.ranks > 1:
            raise ValueError(
                f"a replica is one process; {self.ranks} ranks are for one engine without replicas"
            )
        if self.repeats != 1:
            raise ValueError("a load run has no repeats; more requests come with requests")
        if not self.cache:
            raise ValueError("a load run needs the cache")
        return self

    @property
    def pair_specs(self) -> list[PairSpec]:
        """All pairs; where there is one alone its name is empty."""
        if self.pairs:
            return list(self.pairs)
        return [PairSpec.model_construct(name=ONLY_PAIR, target=self.target, draft=self.draft)]

    @property
    def all_slots(self) -> int:
        """Of all pairs and replicas."""
        return self.slots * len(self.pair_specs) * self.replicas

    @property
    def replicated(self) -> bool:
        """Whether requests are served by processes of their own."""
        return self.replicas > 1 or self.cluster == "ray"

    def run_of(self, pair: PairSpec) -> RunSpec:
        """The settings of a pair's engine."""
        values = {name: getattr(self, name) for name in RunSpec.model_fields}
        return RunSpec(**values | {"target": pair.target, "draft": pair.draft})


def stored_spec(stored: str | Mapping[str, Any]) -> RunSpec:
    """The spec that a run was stored with: a `LoadSpec` where requests came as they would."""
    values = json.loads(stored) if isinstance(stored, str) else dict(stored)
    return (LoadSpec if "arrivals" in values else RunSpec).model_validate(values)
