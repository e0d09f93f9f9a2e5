"""What goes together: a method with its models, their vocabularies, its children and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.drafters.base import Method
from engine.drafters.merged import why_one_draft
from engine.errors import UserError
from engine.models import LoadedModel
from engine.rules import DRAWN_RULES, LOSSY_RULES
from engine.tree import Children

if TYPE_CHECKING:
    from engine.engine import EngineConfig


def check_drafts(
    config: EngineConfig, method: Method, target: LoadedModel, drafts: list[LoadedModel]
) -> None:
    """Raises UserError unless the method takes these draft models beside this target."""
    if not method.needs_draft:
        return
    if not drafts:
        raise UserError(f"{method.name} needs a draft model; give one with --draft.")
    if len(drafts) > 1:
        _check_merging(config, method)
    if method.same_vocabulary:
        for one in drafts:
            check_same_vocabulary(target, one)
            _check_context(one, min(config.capacity, target.context_length))


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
