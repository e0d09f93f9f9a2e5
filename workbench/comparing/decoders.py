"""The arms of a comparison as objects that decode one request: our engine, or Hugging Face."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine.errors import UserError
from engine.records import RequestRecord, StageTimes, StepRecord
from engine.requests import Request
from engine.sampling import Sampling
from workbench.comparing.arms import (
    BASELINES,
    DRAFT_ALONE,
    HF_ASSISTED,
    HF_GENERATE,
    HF_LOOKUP,
    PLAIN,
    Arm,
    check_options,
)
from workbench.comparing.result import CompareSpec
from workbench.events import RunSummary
from workbench.models import Pair
from workbench.profiling import profile_finder
from workbench.ranks import ranks_config, threads_per_rank, why_not

if TYPE_CHECKING:
    from engine.decode import Engine
    from engine.models import LoadedModel
    from engine.serving.trace import LaneRow

OnProgress = Callable[[str, str, float | None], None]
ShouldStop = Callable[[], bool]


class StoppedError(Exception):
    """Stop was asked for in the middle of a request; what it had is dropped."""


class Decoded(NamedTuple):
    """One request decoded. `steps` is empty where the decoder does not show its steps."""

    record: RequestRecord
    steps: list[StepRecord]
    times: StageTimes  # totals, where there are no steps
    draft_passes: int = 0
    lanes: Sequence[LaneRow] = ()  # of an arm on several ranks


class Decoder(Protocol):
    """Decodes one request at a time, all tokens, and can be asked to stop at any step."""

    arm: Arm
    mode: str

    @property
    def setting(self) -> str:
        """What the arm chose by itself, for people; empty where nothing was chosen."""

    def decode(self, request: Request, should_stop: ShouldStop) -> Decoded:
        """Raises StoppedError when stopped, DecodeError when it cannot go on."""

    def plain_step_ns(self, request: Request) -> int | None:
        """Nanoseconds of a plain pass behind this prompt, where it can be asked."""


class Setting(NamedTuple):
    """What all arms of a group have in common."""

    dtype: str
    cache: bool
    execution: str


class Site(NamedTuple):
    """Where the arms of one group work."""

    spec: CompareSpec
    pair: Pair
    setting: Setting
    capacity: int  # tokens of the longest prompt with its output
    on_progress: OnProgress
    text_draft: LoadedModel | None = None  # of arms that take any vocabulary; None: as the others
    most_ranks: int = 1  # of all arms

    def executing(self, execution: str) -> Site:
        """The same site with another way of execution."""
        return self._replace(setting=self.setting._replace(execution=execution))

    def pair_of(self, arm: Arm) -> Pair:
        """The models an arm decodes with. Raises UserError where it needs a draft and none is."""
        if not arm.needs_draft:
            return Pair(self.pair.target, None)
        if arm.takes_any_vocabulary and self.text_draft is not None:
            return Pair(self.pair.target, self.text_draft)
        if self.pair.draft is None:
            raise UserError(f"{arm.label} needs a draft model; give one with --draft.")
        if arm.method == DRAFT_ALONE:
            return Pair(self.pair.draft, None)
        reason, there = self.why_one_draft(arm), len(self.pair.drafts)
        wanted = (1 if reason else there) if arm.drafts == "all" else int(arm.drafts)
        if wanted > there:
            raise UserError(
                f"{arm.label} asks for {wanted} draft models and there are {there}; give --draft "
                "once for each."
            )
        if reason and wanted > 1:
            raise UserError(f"{arm.label} asks for {wanted} draft models. {reason}")
        return self.pair._replace(others=self.pair.others[: wanted - 1])

    def why_one_draft(self, arm: Arm) -> str:
        """Why an arm cannot merge trees of several draft models; empty where it can."""
        from engine.drafters.merged import why_one_draft
        from engine.registry import METHODS

        if arm.method == DRAFT_ALONE or not arm.needs_draft:
            return ""
        if arm.is_hugging_face:
            return "Hugging Face generate takes one assistant."
        return why_one_draft(
            METHODS[arm.method],
            check_options(arm.method, arm.options),
            sampling=self.sampling,
            verify=arm.verify,
            children=arm.children,
        )

    def ranks_of(self, arm: Arm) -> int:
        """The ranks an arm works on: its own number, or that of the comparison's methods."""
        if arm.method in BASELINES or arm.label == PLAIN or self.why_one_rank(arm):
            return 1
        return int(arm.ranks or self.spec.ranks)

    def why_one_rank(self, arm: Arm) -> str:
        """Why the ranks of the comparison are of no use to an arm that says nothing of its own."""
        if arm.ranks or arm.parallel or arm.placement or self.spec.ranks == 1:
            return ""
        if arm.method in BASELINES or (self.spec.parallel, self.spec.placement) == ("both", "own"):
            return ""
        return why_not(
            self.spec.ranks,
            method=arm.method,
            options=check_options(arm.method, arm.options),
            num_drafts=len(self.pair_of(arm).drafts),
            parallel=self.spec.parallel,
            placement=self.spec.placement,
        )

    @property
    def sampling(self) -> Sampling:
        """The spec's sampling, checked."""
        return Sampling(self.spec.temperature, self.spec.top_k, self.spec.top_p, self.spec.seed)


def build(arm: Arm, site: Site) -> Decoder:
    """A decoder ready to work; compiles where needed. Raises UserError."""
    if arm.is_hugging_face:
        return HFDecoder(arm, site)
    return EngineDecoder(arm, _engine(arm, site))


@dataclass(slots=True)
class EngineDecoder:
    """One of our methods."""

    arm: Arm
    engine: Engine
    mode: str = field(init=False)
    setting: str = field(init=False)

    def __post_init__(self) -> None:
        self.mode = self.engine.mode
        self.setting = self.engine.setting

    def decode(self, request: Request, should_stop: ShouldStop) -> Decoded:
        """Decode with the request alone in the batch; time between steps is `unaccounted`."""
        steps: list[StepRecord] = []
        ranks = self.engine.parallel
        if ranks is not None:
            ranks.begin_lanes()
        self.engine.add(request)
        ended = time.perf_counter_ns()
        while True:
            if should_stop():
                self.engine.cancel()
                raise StoppedError
            output = self.engine.step()
            now = time.perf_counter_ns()
            for record in output.steps:
                times = record.times
                outside = max(0, now - ended - times.wall)
                record.times = times._replace(unaccounted=times.unaccounted + outside)
            steps += output.steps
            ended = now
            if output.finished:
                lanes = ranks.take_lanes() if ranks is not None else ()
                return Decoded(output.finished[0], steps, StageTimes(), lanes=lanes)

    def plain_step_ns(self, request: Request) -> int | None:
        """Nanoseconds of a plain pass behind this prompt."""
        return self.engine.plain_step_ns(request)


class HFDecoder:
    """Hugging Face `generate`: plain, assisted, or with prompt lookup."""

    mode = "eager"

    def __init__(self, arm: Arm, site: Site) -> None:
        from engine.hf_baseline import LOOKUP_SETTINGS, SETTINGS, Assistance, HFBaseline, Lookup

        self.arm = arm
        self._drafts = arm.method != HF_GENERATE
        self._baseline = HFBaseline(
            target=site.pair.target,
            draft=site.pair_of(arm).draft,
            sampling=site.sampling,
            cache=site.setting.cache,
            ignore_eos=True,
            assistance=check_options(arm.method, arm.options) if self._drafts else None,
        )
        known: dict[str, tuple[Assistance | Lookup, ...]] = {
            HF_ASSISTED: SETTINGS,
            HF_LOOKUP: LOOKUP_SETTINGS,
        }
        #: what to choose from where nothing was asked for
        self.choices = () if arm.options else known.get(arm.method, ())

    @property
    def setting(self) -> str:
        """How it drafts; empty for plain."""
        return str(self._baseline.assistance) if self._drafts else ""

    def decode(self, request: Request, should_stop: ShouldStop) -> Decoded:
        """Decode one request with `generate`."""
        decoded = self._baseline.decode(request, should_stop=should_stop)
        if decoded.record.finish_reason == "cancelled":
            raise StoppedError
        return Decoded(decoded.record, [], decoded.times, decoded.draft_passes)

    def plain_step_ns(self, request: Request) -> int | None:
        """Not asked of Hugging Face."""
        return None

    def choose_setting(self, requests: list[Request], should_stop: ShouldStop) -> None:
        """Take the setting that decodes these requests fastest: its best one is compared."""
        spent: dict[int, int] = {}
        for request in requests:
            for at, choice in enumerate(self.choices):
                self._baseline.assistance = choice
                took = self.decode(request, should_stop).record.decode_ns
                spent[at] = spent.get(at, 0) + took
        if spent:
            self._baseline.assistance = self.choices[min(spent, key=lambda at: spent[at])]


def add_totals(summary: RunSummary, decoded: Decoded) -> None:
    """Fold a request whose steps are not shown into `summary`, as far as steps would tell."""
    record = decoded.record
    summary.steps += record.num_steps
    summary.passes += record.num_steps
    summary.drafted += record.num_drafted
    summary.accepted += record.num_accepted
    summary.emitted += record.num_emitted
    summary.kept += record.num_kept
    summary.decode_ns += record.decode_ns
    summary.draft_passes += decoded.draft_passes
    for stage, spent in decoded.times._asdict().items():
        summary.stages_ns[stage] = summary.stages_ns.get(stage, 0) + spent


def _engine(arm: Arm, site: Site) -> Engine:
    from engine.engine import EngineConfig, build_engine
    from engine.registry import parse_options

    method = PLAIN if arm.method == DRAFT_ALONE else arm.method
    used = site.pair_of(arm)
    config = EngineConfig(
        method=method,
        options=parse_options(method, arm.options),
        sampling=site.sampling,
        verify=arm.verify,
        typical=arm.typical,
        children=arm.children,
        cache=site.setting.cache,
        batch=1,
        execution=site.setting.execution,
        kernels=arm.kernels,
        ignore_eos=True,
        capacity=site.capacity,
        on_progress=site.on_progress,
        profile_for=profile_finder(used, cache=site.setting.cache, batch=1),
        ranks=ranks_config(
            site.ranks_of(arm),
            parallel=arm.parallel or site.spec.parallel,
            placement=arm.placement or site.spec.placement,
            threads=site.spec.threads or threads_per_rank(None, site.most_ranks),
        ),
    )
    return build_engine(config, **used.as_models())
