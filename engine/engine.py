"""Puts an engine together: method, runners, forwards, verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.costs import Known, no_profile
from engine.decode import Engine
from engine.device_judging import DeviceJudge
from engine.device_sampling import DeviceNoise
from engine.drafters.base import Drafter, DrafterContext
from engine.drafters.common import KeepGenerating
from engine.drafters.merged import Merged
from engine.drafters.model_drafter import PENDING_ROWS
from engine.errors import UserError
from engine.execution import forward_in, forwards_for
from engine.forward import Forward
from engine.models import LoadedModel
from engine.pairing import check_drafts, choose_children
from engine.parts import Part, Uses
from engine.registry import METHODS
from engine.rules import Verifier
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.selfcheck import check_tree_attention
from engine.sharing import SharedRunner
from engine.target import Target
from engine.tree import Children
from engine.two_part import TwoPartTarget
from engine.verify_paths import TYPICAL, Typical

if TYPE_CHECKING:
    from engine.parallel.asked import RanksConfig
    from engine.parallel.build import Parallel

OnProgress = Callable[[str, str, float | None], None]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How to decode. `capacity` is the largest prompt + max_new_tokens that will come."""

    method: str
    options: Any
    sampling: Sampling
    verify: str = "match"
    typical: Typical = TYPICAL
    #: compiled code for acceptance and expansion: auto where it is quicker, or off; same outcomes
    kernels: str = "auto"
    #: whether draft rows stay on the device; None: where that is a GPU. For tests and comparisons
    on_device: bool | None = None
    children: str = "auto"
    cache: bool = True
    batch: int = 1
    execution: str = "auto"
    ignore_eos: bool = False
    capacity: int = 2048
    on_progress: OnProgress = lambda phase, message, fraction: None
    #: several ranks: who holds what; None: this process alone
    ranks: RanksConfig | None = None
    #: mode of execution -> what is known of the pair on this machine
    profile_for: Callable[[str], Known] = no_profile


def build_engine(
    config: EngineConfig,
    *,
    target: LoadedModel,
    draft: LoadedModel | None = None,
    other_drafts: Sequence[LoadedModel] = (),
) -> Engine:
    """An engine ready for requests. Trees of `draft` and `other_drafts` are merged into one.

    Raises UserError for a method without its draft model, or with more than it takes; vocabularies
    that differ, a way of choosing children that the method or rule does not allow, an architecture
    that cannot run trees.
    """
    method = METHODS[config.method]
    drafts = [draft, *other_drafts] if method.needs_draft and draft is not None else []
    check_drafts(config, method, target, drafts)
    children = choose_children(config, method)
    if config.verify == "block" and not method.chain(config.options):
        raise UserError(
            f"Rule block is for chains, and {method.name} with these options drafts trees; use"
            " --verify traversal."
        )
    models = [target, *drafts]
    for loaded in models:
        check_tree_attention(loaded)
    max_nodes = 1 + max(1, len(drafts)) * (method.max_nodes(config.options) - 1)
    uses = method.uses(config.options, target)
    parallel = _on_ranks(config, target, drafts, children, max_nodes, uses)
    if parallel is not None and parallel.shares_target:
        config = replace(config, execution="eager")
    wanted = [(target, uses.target), *((one, Part()) for one in drafts)]
    if uses.draft is not None:
        wanted.append((target, uses.draft))
    forwards, mode = forwards_for(wanted, config)
    runners = _runners(config, target, drafts, uses, max_nodes, forwards, mode, parallel)
    noise = DeviceNoise()
    # a profile is of models that one rank runs whole
    profile_for = no_profile if parallel and parallel.shares_target else config.profile_for
    context = DrafterContext(
        sampling=config.sampling,
        children=children,
        with_replacement=config.verify == "multi-step",
        draft=runners.drafts[0] if runners.drafts else None,
        target=runners.target,
        vocab_size=target.vocab_size,
        profile=lambda: profile_for(mode),
        kernels=config.kernels != "off",
        on_device=config.on_device,
        noise=noise,
        forward_for=lambda loaded, part: forward_in(mode, loaded, part, config),
    )
    merge = Merged if parallel is None else parallel.merged
    return Engine(
        target=_target(runners.target, context.draft),
        drafter=_drafter(config, context, runners, merge),
        verifier=Verifier(
            config.verify, config.sampling, config.typical, config.kernels, DeviceJudge(noise)
        ),
        sampling=config.sampling,
        num_slots=config.batch,
        budget=max_nodes - 1,
        ignore_eos=config.ignore_eos,
        mode=mode,
        parallel=parallel,
    )


class _Runners(NamedTuple):
    target: TreeRunner
    drafts: Sequence[TreeRunner | None]  # None: other ranks have it
    elsewhere: Sequence[Drafter | None]  # drafters of draft models that other ranks have a part in


def _runners(
    config: EngineConfig,
    target: LoadedModel,
    drafts: list[LoadedModel],
    uses: Uses,
    max_nodes: int,
    forwards: Sequence[Forward | None],
    mode: str,
    parallel: Parallel | None,
) -> _Runners:
    """Target and drafts in their rooms. `forwards`: of the target, the drafts, the draft part."""
    method = METHODS[config.method]
    slots: dict[str, Any] = {"num_slots": config.batch, "use_cache": config.cache}
    target_room = slots | {"capacity": config.capacity, "max_tree": max_nodes}
    if uses.draft is not None:  # drafting and verification write to the same rows
        target_room["max_tree"] += method.max_draft_rows(config.options) + 1
    draft_room = slots | {
        "capacity": method.draft_capacity(config.options, config.capacity),
        "max_tree": method.max_draft_rows(config.options) + PENDING_ROWS,
    }
    of_drafts = forwards[1 : 1 + len(drafts)]
    if parallel is None:
        runner = TreeRunner(target, **target_room, forward=forwards[0], uses=uses)
        if uses.draft is not None:
            return _Runners(runner, [SharedRunner(runner, uses.draft, forward=forwards[-1])], [])
        return _Runners(
            runner,
            [
                TreeRunner(one, **draft_room, forward=forward)
                for one, forward in zip(drafts, of_drafts, strict=True)
            ],
            [],
        )
    draft_room["max_tree"] += parallel.extra_rows
    draft_runners = [
        parallel.draft_runner(at, one, **draft_room, forward=forward)
        for at, (one, forward) in enumerate(zip(drafts, of_drafts, strict=True))
    ]
    runner, inside, elsewhere = parallel.set_up(
        draft_runners,
        target_room=target_room,
        draft_room=draft_room,
        target_forward=forwards[0],
        mode=mode,
    )
    return _Runners(runner, draft_runners if inside is None else [inside], elsewhere)


def _drafter(
    config: EngineConfig,
    context: DrafterContext,
    runners: _Runners,
    merge: Callable[[Sequence[Drafter]], Drafter],
) -> Drafter:
    """One drafter for each draft model, merged where they are several."""
    drafters = [
        there or METHODS[config.method].build(config.options, context._replace(draft=runner))
        for runner, there in zip_longest(runners.drafts or [None], runners.elsewhere)
    ]
    drafter = drafters[0] if len(drafters) == 1 else merge(drafters)
    threshold = getattr(config.options, "keep_generating", 0.0)
    return KeepGenerating(drafter, threshold) if threshold else drafter


def _target(runner: TreeRunner, draft: TreeRunner | None) -> Target:
    """The target, in two parts where verification goes on from what the draft has run."""
    if runner.part.first:
        assert isinstance(draft, SharedRunner)
        return TwoPartTarget(runner, draft)
    return Target(runner)


def _on_ranks(
    config: EngineConfig,
    target: LoadedModel,
    drafts: list[LoadedModel],
    children: Children,
    max_nodes: int,
    uses: Uses,
) -> Parallel | None:
    """The ranks that were asked for, None where it is this one alone. Raises UserError."""
    if config.ranks is None or config.ranks.num_ranks == 1:
        return None
    from engine.parallel.asked import Parts
    from engine.parallel.starting import start

    return start(
        config.ranks,
        Parts(
            method=config.method,
            options=config.options,
            target=target,
            drafts=drafts,
            max_nodes=max_nodes,
            max_draft_rows=METHODS[config.method].max_draft_rows(config.options),
            sampling=config.sampling,
            children=children,
            with_replacement=config.verify == "multi-step",
            execution=config.execution,
            uses=uses,
        ),
    )
