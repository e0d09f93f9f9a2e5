"""Drafting by the target with some of its sublayers left out (Draft & Verify, 2309.08168).

One cache serves both: the draft writes keys and values of the tree under way in the layers that it
runs, and verification rewrites all of them with the true ones, so nothing drifts. Which sublayers
to leave out is a matter of measuring: `draftree tune layer-skip` searches.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from engine.drafters import chain_or_tree
from engine.drafters.base import DrafterContext
from engine.drafters.model_drafter import ModelDrafter
from engine.drafters.policies import POLICIES
from engine.drafters.skip_sets import AUTO, Resolved, resolve
from engine.errors import UserError
from engine.inside import Inside
from engine.models import LoadedModel
from engine.options import SUBLAYERS, option
from engine.parts import Part, Sublayer, Uses
from engine.stand_ins import copy_of

#: where the adaptive exit begins (section 3.3), greedy and sampling
_GREEDY_EXIT, _SAMPLING_EXIT = 0.8, 0.5

#: whether a layer can be left out by halves, as found out
_by_halves: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Options(chain_or_tree.Options):
    """What is left out, and the form of the draft."""

    policy: str = option(
        chain_or_tree.CHAIN, "a chain, or how a tree grows; see docs/methods.md",
        choices=(chain_or_tree.CHAIN, *POLICIES), tune=False,
    )  # fmt: skip
    skip: str = option(
        AUTO,
        "sublayers left out while drafting, such as a3+m4-6 (a: attention, m: MLP, l: both), or the"
        " name of a saved set; auto: the one saved for this target, else every other middle layer",
        tune=SUBLAYERS,
    )
    length: int = option(
        8, "draft tokens of a chain at most", min=1, max=64, where=chain_or_tree.CHAINS
    )
    exit: float = option(
        -1.0,
        "stop drafting where the draft is less sure than this, adapted as it goes; 0: off, -1: from"
        " .8, or .5 when sampling",
        min=-1, max=1, common=True,
    )  # fmt: skip


class LayerSkip(ModelDrafter):
    """Grows trees by the part of the target that is left."""

    def __init__(self, options: Options, context: DrafterContext) -> None:
        if options.exit < 0:
            start = _GREEDY_EXIT if context.sampling.greedy else _SAMPLING_EXIT
            options = replace(options, exit=start)
        super().__init__(chain_or_tree.grow_by(options, context.children), options, context)
        self.setting = resolved(options, context.target.loaded).told


def resolved(options: Options, target: LoadedModel) -> Resolved:
    """The set to skip.

    Raises UserError for a set that is none, or that leaves out half a layer of a model whose
    residual stream does not pass by its sublayers untouched.
    """
    found = resolve(options.skip, target, Inside.of(target.model).num_layers)
    halves = sorted(one for one in found.skipped if _other(one) not in found.skipped)
    if halves and not can_skip_halves(target.model):
        kind, layer = halves[0]
        raise UserError(
            f"{target.name} does more with a sublayer's output than add it to its input (it"
            f" normalises the sum, say), so {kind} {layer} cannot be left out alone: skip whole"
            f" layers, such as l{layer}."
        )
    return found


def can_skip_halves(model: Any) -> bool:
    """Whether a layer whose sublayers give nothing leaves its input as it is; tried once."""
    if model not in _by_halves:
        _by_halves[model] = _leaves_input(model)
    return _by_halves[model]


def _leaves_input(model: Any) -> bool:
    inside = Inside.of(model)
    layer = inside.layers[0]
    silent = copy_of(layer)
    try:
        for kind in ("attention", "mlp"):
            half, _ = inside.part(Part(skipped=frozenset({Sublayer(kind, 0)})))  # type: ignore[arg-type]
            theirs = Inside.of(half).layers[0]._modules
            silent._modules |= {n: m for n, m in theirs.items() if m is not layer._modules[n]}
    except UserError:  # it has no such sublayer
        return False
    seen: dict[str, Any] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update(args=args, kwargs=kwargs)

    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.inference_mode():
            model(input_ids=torch.arange(4, device=model.device)[None], use_cache=False)
            given = seen["args"][0] if seen["args"] else seen["kwargs"]["hidden_states"]
            out = silent(*seen["args"], **seen["kwargs"])
    finally:
        hook.remove()
    return torch.equal(out[0] if isinstance(out, tuple) else out, given)


def _other(one: Sublayer) -> Sublayer:
    return Sublayer("mlp" if one.kind == "attention" else "attention", one.layer)


METHOD = chain_or_tree.method(
    name="layer-skip",
    summary="The target itself drafts, some of its attention and MLP sublayers left out.",
    options=Options,
    build=LayerSkip,
    uses=lambda options, target: Uses(draft=Part(skipped=resolved(options, target).skipped)),
)
