"""Puts an engine together: method, runners, forwards, verifier."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from engine.costs import Known, no_profile
from engine.decode import Engine
from engine.device_judging import DeviceJudge
from engine.device_sampling import DeviceNoise
from engine.drafters.base import Drafter, DrafterContext, Method
from engine.drafters.common import KeepGenerating
from engine.drafters.merged import Merged, why_one_draft
from engine.drafters.model_drafter import PENDING_ROWS
from engine.errors import UserError
from engine.forward import Forward
from engine.models import LoadedModel
from engine.parts import Part, Uses
from engine.registry import METHODS
from engine.rules import DRAWN_RULES, LOSSY_RULES, Verifier
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

logger = logging.getLogger(__name__)

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
    if method.needs_draft:
        if not drafts:
            raise UserError(f"{method.name} needs a draft model; give one with --draft.")
        if len(drafts) > 1:
            _check_merging(config, method)
        if method.same_vocabulary:
            for one in drafts:
                check_same_vocabulary(target, one)
                _check_context(one, min(config.capacity, target.context_length))
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
    slots: dict[str, Any] = {"num_slots": config.batch, "use_cache": config.cache}
    target_room = slots | {"capacity": config.capacity, "max_tree": max_nodes}
    if uses.draft is not None:  # drafting and verification write to the same rows
        target_room["max_tree"] += method.max_draft_rows(config.options) + 1
    draft_room = slots | {
        "capacity": method.draft_capacity(config.options, config.capacity),
        "max_tree": method.max_draft_rows(config.options) + PENDING_ROWS,
    }
    if parallel is not None:
        draft_room["max_tree"] += parallel.extra_rows
    draft_runners: list[TreeRunner | None] = []  # None: others have it
    for at, (one, forward) in enumerate(zip(drafts, forwards[1 : 1 + len(drafts)], strict=True)):
        how: dict[str, Any] = draft_room | {"forward": forward}
        here = TreeRunner(one, **how) if parallel is None else parallel.draft_runner(at, one, **how)
        draft_runners.append(here)
    elsewhere: Sequence[Drafter | None] = []
    if parallel is None:
        target_runner = TreeRunner(target, **target_room, forward=forwards[0], uses=uses)
        if uses.draft is not None:
            draft_runners = [SharedRunner(target_runner, uses.draft, forward=forwards[-1])]
    else:
        target_runner, inside, elsewhere = parallel.set_up(
            draft_runners,
            target_room=target_room,
            draft_room=draft_room,
            target_forward=forwards[0],
            mode=mode,
        )
        if inside is not None:
            draft_runners = [inside]
    noise = DeviceNoise()
    # a profile is of models that one rank runs whole
    profile_for = no_profile if parallel and parallel.shares_target else config.profile_for
    context = DrafterContext(
        sampling=config.sampling,
        children=children,
        with_replacement=config.verify == "multi-step",
        draft=draft_runners[0] if draft_runners else None,
        target=target_runner,
        vocab_size=target.vocab_size,
        profile=lambda: profile_for(mode),
        kernels=config.kernels != "off",
        on_device=config.on_device,
        noise=noise,
        forward_for=lambda loaded, part: _forward_in(mode, loaded, part, config),
    )
    merge = Merged if parallel is None else parallel.merged
    return Engine(
        target=_target(target_runner, context.draft),
        drafter=_drafter(config, context, draft_runners, elsewhere, merge),
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


def _drafter(
    config: EngineConfig,
    context: DrafterContext,
    runners: Sequence[TreeRunner | None],
    elsewhere: Sequence[Drafter | None],
    merge: Callable[[Sequence[Drafter]], Drafter],
) -> Drafter:
    """One drafter for each draft model, merged where they are several.

    `elsewhere` holds those of draft models that other ranks have a part in.
    """
    drafters = [
        there or METHODS[config.method].build(config.options, context._replace(draft=runner))
        for runner, there in zip_longest(runners or [None], elsewhere)
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


def _check_merging(config: EngineConfig, method: Method) -> None:
    reason = why_one_draft(
        method,
        config.options,
        sampling=config.sampling,
        verify=config.verify,
        children=config.children,
    )
    if reason:
        raise UserError(reason)


def choose_children(config: EngineConfig, method: Method) -> Children:
    """FIXED when greedy; else what was asked for, or the method's default under the rule.

    Raises UserError for combinations that would not be lossless.
    """
    sampled_rule = config.verify in DRAWN_RULES
    if config.sampling.greedy or method.max_nodes(config.options) == 1:
        return Children.FIXED
    allowed = method.allowed_children(config.options)
    if config.children == "auto":
        wanted = Children.SAMPLED if sampled_rule else allowed[0]
        if config.verify in LOSSY_RULES:
            wanted = Children.FIXED
    else:
        wanted = Children(config.children)
    if allowed == (Children.FIXED,):
        if config.children not in ("auto", "fixed") or sampled_rule:
            raise UserError(
                f"{method.name} looks its tokens up and draws none: its children are fixed, and"
                " only --verify match is lossless with those."
            )
        return Children.FIXED
    if wanted not in allowed:
        names = ", ".join(kind.value for kind in allowed)
        raise UserError(
            f"{method.name} with these options cannot use {wanted.value} children: pruning drawn"
            f" tokens would change the output's law. It can use: {names}."
        )
    if sampled_rule and wanted is not Children.SAMPLED:
        raise UserError(
            f"Rule {config.verify} is lossless for sampled children only; with {wanted.value} ones"
            " use --verify match."
        )
    return wanted


def _check_context(draft: LoadedModel, needed: int) -> None:
    if draft.context_length < needed:
        raise UserError(
            f"{draft.name} reads {draft.context_length} tokens, and prompt and output may have "
            f"{needed}: shorten the prompt, lower --max-new-tokens, or choose another draft model."
        )


def check_same_vocabulary(target: LoadedModel, draft: LoadedModel) -> None:
    """Raises UserError unless a token id means the same text to both models."""
    if target.tokenizer is draft.tokenizer:
        return
    ours, theirs = target.tokenizer.get_vocab(), draft.tokenizer.get_vocab()
    if ours != theirs:
        differing = sum(ours.get(token) != at for token, at in theirs.items())
        raise UserError(
            f"The vocabularies differ: {target.name} has {len(ours)} tokens, {draft.name}"
            f" {len(theirs)}, and {differing} of the latter mean something else to the target."
            " Choose a draft model of the target's family, or the method universal, which drafts"
            " by way of text."
        )


def forwards_for(
    wanted: Sequence[tuple[LoadedModel, Part]], config: EngineConfig
) -> tuple[list[Forward | None], str]:
    """The forwards of the mode asked for, and that mode; None stands for eager.

    'auto' takes CUDA graphs where all models are on CUDA devices, and compiled forwards on a CPU
    where they are at hand. Raises UserError for a mode that is not to be had here.
    """
    eager: tuple[list[Forward | None], str] = [None] * len(wanted), "eager"
    models = [loaded for loaded, _ in wanted]
    if config.execution == "eager" or not config.cache:
        return eager
    on_cuda = all(m.device.startswith("cuda") for m in models)
    graphs = config.execution == "graph" or (config.execution == "auto" and on_cuda)
    if graphs or config.execution == "inductor":
        if not all(part.whole for _, part in wanted):
            if config.execution == "auto":
                return eager
            raise UserError(
                f"{config.method} runs parts of the target and keeps hidden states, which"
                f" --execution {config.execution} does not do yet; use eager or compiled."
            )
        if graphs:
            return _graphs_for(models, config)
        from engine.inductor import inductor_forward

        config.on_progress("compiling", "compiling in this process, a size at a time", None)
        return [inductor_forward(m, num_slots=config.batch) for m in models], "inductor"
    from engine.compiled import forward_for
    from engine.packages import at_hand, why_not

    if config.execution == "auto" and not all(at_hand(m, config.batch, p) for m, p in wanted):
        return eager
    found = [forward_for(m, config.batch, config.on_progress, part=p) for m, p in wanted]
    if any(forward is None for forward in found):
        if config.execution == "compiled":
            raise UserError(
                next(filter(None, (why_not(m, config.batch) for m in models)), "")
                or "Compiling failed; the reason is in the .log files of the cache folder that"
                " `draftree doctor` names. Use --execution eager."
            )
        return eager
    return list(found), "compiled"


def _forward_in(mode: str, loaded: LoadedModel, part: Part, config: EngineConfig) -> Forward | None:
    """One more forward in an engine's mode of execution; None: eager."""
    if mode != "compiled":
        return None
    from engine.compiled import forward_for
    from engine.packages import at_hand

    if config.execution == "auto" and not at_hand(loaded, config.batch, part):
        return None
    return forward_for(loaded, config.batch, config.on_progress, part=part)


def _graphs_for(
    models: list[LoadedModel], config: EngineConfig
) -> tuple[list[Forward | None], str]:
    from engine.graphs import graph_forward

    try:
        return [graph_forward(m, num_slots=config.batch) for m in models], "graph"
    except UserError as error:
        if config.execution == "graph":
            raise
        logger.warning("running eager: %s", error)
        return [None] * len(models), "eager"


def best_mode(models: Sequence[LoadedModel]) -> str:
    """The fastest way of execution that these models may have, compiling included."""
    return "graph" if all(m.device.startswith("cuda") for m in models) else "compiled"
