"""Measuring one trial: its arm and plain decoding in turn on the same prompts, then compared.

Models are loaded, prompts tokenised and forwards compiled once for all trials.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from engine.errors import DecodeError, UserError
from engine.records import RequestRecord
from engine.requests import Request
from workbench.compare import settled, why_not_comparable
from workbench.comparing import decoders
from workbench.comparing.arms import PLAIN, Arm, parse_arm
from workbench.comparing.decoders import Decoder, Setting
from workbench.comparing.dtypes import why_unusable
from workbench.comparing.prepare import prepare
from workbench.comparing.telling import Telling
from workbench.job import use_threads
from workbench.losslessness import judge
from workbench.statistics import Interval, paired_speedup
from workbench.tuning.spec import ACCEPTANCE, SPEED, TuneSpec
from workbench.workloads import load_workload

_WARM_UP_TOKENS = 16
#: told the number of prompts done and the objective over them; raises to break the trial off
AfterPrompt = Callable[[int, "Measured"], None]


@dataclass(slots=True)
class Measured:
    """What is known of a trial after some of its prompts."""

    objective: str
    plain_ns: list[int] = field(default_factory=list)  # by prompt; empty where plain is not timed
    own_ns: list[int] = field(default_factory=list)
    kept: int = 0
    emitted: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    compared: int = 0
    matched: int = 0

    @property
    def value(self) -> float:
        """The objective: the paired speedup, tokens per step, or the acceptance rate."""
        if self.objective == SPEED:
            return sum(self.plain_ns) / sum(self.own_ns)
        if self.objective == ACCEPTANCE:
            return self.acceptance_rate or 0.0
        return self.emitted / self.steps

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted of drafted; None where nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    def as_attributes(self) -> dict[str, Any]:
        """The figures that are kept with a trial; plain JSON values."""
        known: dict[str, Any] = {
            "prompts": len(self.own_ns),
            "tokens_per_step": self.emitted / self.steps if self.steps else None,
            "tokens_per_second": self.kept / sum(self.own_ns) * 1e9 if self.own_ns else None,
            "acceptance_rate": self.acceptance_rate,
            "matched": self.matched,
            "compared": self.compared,
        }
        if self.plain_ns:
            known["speedup"] = as_json(paired_speedup(self.plain_ns, self.own_ns))
        return known


class Site(NamedTuple):
    """Where trials are measured; a scripted one stands in for it in tests."""

    num_prompts: int
    measure: Callable[[dict[str, Any], AfterPrompt], Measured]
    #: what trials of one study must have in common beside their settings, in words and hashes
    on: Mapping[str, str] = MappingProxyType({})


def open_site(spec: TuneSpec, defaults: dict[str, Any], telling: Telling) -> Site:
    """Load all that trials need. Raises UserError where not even the defaults can be measured."""
    from engine.models import resolve_device

    if why := why_unusable(spec.dtypes[0], resolve_device(spec.device)):
        raise UserError(why)
    use_threads(spec.threads)
    group = prepare(
        spec,
        [Arm(PLAIN, PLAIN), parse_arm(spec.arm(defaults))],
        {spec.workload: load_workload(spec.workload, limit=spec.limit)},
        setting=Setting(dtype=spec.dtypes[0], cache=spec.caches[0], execution=spec.executions[0]),
        telling=telling,
    )
    requests = group.requests[spec.workload]
    plain = group.decoders[0]
    reference: dict[int, RequestRecord] = {}

    def measure(options: dict[str, Any], after_prompt: AfterPrompt) -> Measured:
        arm = parse_arm(spec.arm(options))
        decoder = decoders.build(arm, group.site)
        count = min(_WARM_UP_TOKENS, requests[0].max_new_tokens)
        decoder.decode(replace(requests[0], max_new_tokens=count), telling.should_stop)
        found = Measured(spec.objective)
        comparable = not why_not_comparable(arm, greedy=group.site.sampling.greedy)
        with settled():
            for at, request in enumerate(requests):
                timed = spec.objective == SPEED or request.index not in reference
                pair = [plain, decoder] if timed else [decoder]
                records = _in_turn(pair if at % 2 == 0 else pair[::-1], request, telling)
                if timed:
                    reference.setdefault(request.index, records[plain.arm.label])
                if spec.objective == SPEED:
                    found.plain_ns.append(records[plain.arm.label].decode_ns)
                own = records[arm.label]
                _add(found, own)
                if comparable:
                    _check(found, reference[request.index], own, group.site)
                after_prompt(at + 1, found)
        return found

    return Site(len(requests), measure, _measured_on(group.site, requests, mode=plain.mode))


def _measured_on(site: decoders.Site, requests: Sequence[Request], *, mode: str) -> dict[str, str]:
    prompts = repr([request.prompt_ids for request in requests]).encode()
    found = {"prompts": hashlib.sha256(prompts).hexdigest()[:16], "execution": mode}
    for role, loaded in (("target", site.pair.target), ("draft", site.pair.draft)):
        if loaded is not None:
            found |= {role: loaded.content_hash, "device": loaded.device}
    return found


def _in_turn(pair: list[Decoder], request: Request, telling: Telling) -> dict[str, RequestRecord]:
    return {one.arm.label: one.decode(request, telling.should_stop).record for one in pair}


def _add(found: Measured, record: RequestRecord) -> None:
    found.own_ns.append(record.decode_ns)
    found.kept += record.num_kept
    found.emitted += record.num_emitted
    found.steps += record.num_steps
    found.drafted += record.num_drafted
    found.accepted += record.num_accepted


def _check(
    found: Measured, expected: RequestRecord, got: RequestRecord, site: decoders.Site
) -> None:
    """Tokens against plain decoding's. Raises DecodeError where they differ without excuse."""
    found.compared += 1
    difference = judge(expected, got, target=site.pair.target, sampling=site.sampling)
    if difference is None:
        found.matched += 1
    elif difference.verdict != "numerics":
        raise DecodeError(
            f"The output is not plain decoding's: question {difference.question_id}, token "
            f"{difference.position + 1}. Please report this with the options of this trial."
        )


def as_json(interval: Interval) -> list[float | None]:
    """Value, low and high; None for bounds that are not known."""
    return [None if math.isnan(value) else float(value) for value in interval]
