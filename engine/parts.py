"""Parts of a model: some of its layers, and the hidden states between them.

Self-speculation drafts with a part of the target and trained heads read what it thinks. Both need
the same few things of any architecture: where the layers lie, a way to leave some out, and a way to
keep or resume hidden states. A part is made of the model's own modules, without copying a weight.

Points count layers: point i is the input of layer i, so 0 are the embeddings and L is what the last
layer gives before the final norm. NORMED lies behind that norm: it is what the LM head reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import nn

from engine.errors import UserError

NORMED = -1

#: queries, keys and values (B, heads, N, dim) to outputs (B, N, heads, dim)
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Sublayer(NamedTuple):
    """Attention or MLP of one layer."""

    kind: Literal["attention", "mlp"]
    layer: int


class Graft(Protocol):
    """A trained module that runs behind the last layer of a part, in place of the final norm."""

    #: heads, key and value size of each layer of keys and values that it keeps
    kv_shapes: tuple[tuple[int, int, int], ...]
    #: the folder that it was loaded from
    path: str

    @property
    def content_hash(self) -> str:
        """Identifies its weights."""

    def __call__(
        self, hidden_BND: torch.Tensor, positions_BN: torch.Tensor, attend: Attend
    ) -> torch.Tensor:
        """What the LM head reads, (B, N, D)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a pass runs of a model. The default is all of it."""

    #: layers before this one do not run: the states kept at this point are read instead
    first: int = 0
    #: nor do layers from this one on; None: all do
    last: int | None = None
    #: only the residual stream passes these
    skipped: frozenset[Sublayer] = frozenset()
    #: points whose hidden states the pass keeps
    taps: tuple[int, ...] = ()
    graft: Graft | None = None

    @property
    def whole(self) -> bool:
        """Whether this is the model as it is."""
        return self == Part()

    @property
    def points(self) -> tuple[int, ...]:
        """Points whose states must be kept for the pass to run, in a fixed order."""
        return tuple(sorted({*self.taps, *([self.first] if self.first else [])}))

    @property
    def key(self) -> str:
        """Names the part, the graft's weights included."""
        skipped = ",".join(f"{kind[0]}{layer}" for kind, layer in sorted(self.skipped))
        taps = ",".join(map(str, self.taps))
        graft = self.graft.content_hash if self.graft is not None else ""
        return f"{self.first}:{self.last}|{skipped}|{taps}|{graft}"


@dataclass(frozen=True, slots=True)
class Uses:
    """What a method takes from the target's inside.

    Where there is a `draft` part, it drafts over the target's own keys and values; where the
    `target` part begins behind the first layer, verification goes on from the draft's states.
    """

    target: Part = Part()
    draft: Part | None = None

    @property
    def points(self) -> tuple[int, ...]:
        """All points whose states are kept."""
        draft = self.draft.points if self.draft is not None else ()
        return tuple(sorted({*self.target.points, *draft}))

    @property
    def kv_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Keys and values beyond those of the model: the graft's."""
        graft = self.draft.graft if self.draft is not None else None
        return graft.kv_shapes if graft is not None else ()


class Inside(NamedTuple):
    """Where the parts of a causal LM lie, whatever its architecture calls them."""

    model: nn.Module
    path: tuple[str, ...]  # of modules from the model to the one that holds the layers
    layers_name: str
    norm_name: str  # empty: there is none

    @classmethod
    def of(cls, model: nn.Module) -> Inside:
        """Raises UserError where the layers are not to be found."""
        config: Any = model.config
        wanted = int(config.get_text_config(decoder=True).num_hidden_layers)
        for name, module in model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == wanted:
                *path, layers_name = name.split(".")
                holder = model.get_submodule(".".join(path))
                norms = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
                norm = next((n for n in norms if getattr(holder, n, None) is not None), "")
                return cls(model, tuple(path), layers_name, norm)
        raise UserError(f"The {wanted} layers of this {config.model_type} model were not found.")

    @property
    def holder(self) -> nn.Module:
        """The module that runs the layers."""
        return self.model.get_submodule(".".join(self.path))

    @property
    def layers(self) -> nn.ModuleList:
        return cast(nn.ModuleList, getattr(self.holder, self.layers_name))

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def hidden_size(self) -> int:
        config: Any = self.model.config
        return int(config.get_text_config(decoder=True).hidden_size)

    @property
    def norm(self) -> nn.Module | None:
        """The norm behind the last layer."""
        return getattr(self.holder, self.norm_name) if self.norm_name else None

    @property
    def embed(self) -> nn.Module:
        """Tokens to input embeddings."""
        return cast(Any, self.model).get_input_embeddings()

    @property
    def lm_head(self) -> nn.Module:
        return cast(Any, self.model).get_output_embeddings()

    def head(self, normed: torch.Tensor) -> torch.Tensor:
        """Logits of states at the point NORMED."""
        logits = self.lm_head(normed)
        config: Any = self.model.config
        cap = getattr(config.get_text_config(decoder=True), "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def part(self, part: Part) -> tuple[nn.Module, _Now]:
        """The model as `part` has it, and what its passes must be told. Shares all weights.

        Raises UserError for layers that the model does not have.
        """
        self.check(part)
        now = _Now()
        layers = list(self.layers)
        last = self.num_layers if part.last is None else part.last
        for at, layer in enumerate(layers):
            runs = part.first <= at < last
            silent = {kind for kind, where in part.skipped if where == at}
            if not runs or len(silent) == 2:
                layers[at] = _Bypass(layer)
            elif silent:
                layers[at] = _without(layer, silent, self.hidden_size)
        if part.first:
            layers[0] = _Resume(layers[0], now, part.first)
        if part.graft is not None:
            layers[last] = _Grafted(layers[last], now, part.graft, self.num_layers)
        for at in range(self.num_layers):
            if at in part.taps:
                layers[at] = _Tapped(layers[at], now, at, None)
        clones = [copy_of(self.model)]
        for name in self.path:
            inner = copy_of(clones[-1].get_submodule(name))
            clones[-1]._modules[name] = inner
            clones.append(inner)
        clones[-1]._modules[self.layers_name] = nn.ModuleList(layers)
        norm = self.norm
        if norm is not None:
            if part.graft is not None:
                norm = nn.Identity()
            if self.num_layers in part.taps or NORMED in part.taps:
                norm = _Tapped(norm, now, self.num_layers, NORMED)
            clones[-1]._modules[self.norm_name] = norm
        return clones[0], now

    def check(self, part: Part) -> None:
        """Raises UserError for a part that this model does not have."""
        count = self.num_layers
        name = f"A model of {count} layers"
        last = count if part.last is None else part.last
        if not 0 <= part.first < last <= count:
            raise UserError(f"{name} has no layers {part.first} to {last - 1}.")
        if part.graft is not None and last == count:
            raise UserError(f"{name} leaves nothing for a head behind layer {last - 1} to save.")
        for kind, layer in part.skipped:
            if not 0 <= layer < count:
                raise UserError(f"{name} has no {kind} {layer}: they count from 0 to {count - 1}.")
        for point in part.taps:
            if not -1 <= point <= count:
                raise UserError(f"{name} has no point {point}: they count from 0 to {count}.")
            if point in (NORMED, count) and self.norm is None:
                raise UserError("This model has no final norm, and its last states are not kept.")


class _Now:
    """What the modules of a part need to know of the pass under way."""

    def __init__(self) -> None:
        #: what the pass is told: states by point as flat rows, and which rows are written
        self.states: dict[int, torch.Tensor] = {}
        self.rows_BN: torch.Tensor | None = None
        self.positions_BN: torch.Tensor | None = None
        #: attention over the pass's cache at a layer of keys and values
        self.attend: Callable[[int], Attend] | None = None
        #: where an eager pass without rows leaves its states
        self.captured: dict[int, torch.Tensor] | None = None

    def keep(self, point: int, hidden: torch.Tensor) -> None:
        """Keep hidden states (..., D) of the pass's rows."""
        if self.captured is not None:
            self.captured[point] = hidden
        elif point in self.states:
            assert self.rows_BN is not None
            store = self.states[point]
            flat = store.view(-1, store.shape[-1])
            flat.index_put_((self.rows_BN.reshape(-1),), hidden.reshape(-1, store.shape[-1]))

    def read(self, point: int, like: torch.Tensor) -> torch.Tensor:
        """The kept states of the pass's rows, shaped as `like`."""
        assert self.rows_BN is not None
        store = self.states[point]
        return store.view(-1, store.shape[-1])[self.rows_BN.reshape(-1)].view(like.shape)


def _hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return cast(torch.Tensor, args[0] if args else kwargs["hidden_states"])


class _InPlaceOf(nn.Module):
    """Stands where a layer stood: whoever loops over layers may ask it what kind it is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type


class _Bypass(_InPlaceOf):
    """A layer left out."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return _hidden_of(args, kwargs)


class _Resume(_InPlaceOf):
    """Forgets what comes in and goes on from kept states."""

    def __init__(self, layer: nn.Module, now: _Now, point: int) -> None:
        super().__init__(layer)
        self._now, self._point = now, point

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._now.read(self._point, _hidden_of(args, kwargs))


class _Grafted(_InPlaceOf):
    """Runs a graft in place of a layer."""

    def __init__(self, layer: nn.Module, now: _Now, graft: Graft, kv_layer: int) -> None:
        super().__init__(layer)
        self._now, self._kv_layer = now, kv_layer
        self.graft = graft

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        now = self._now
        assert now.attend is not None
        assert now.positions_BN is not None
        hidden = _hidden_of(args, kwargs)
        return self.graft(hidden, now.positions_BN, now.attend(self._kv_layer))


class _Tapped(_InPlaceOf):
    """A layer or norm whose input, and output where it has a point, are kept."""

    def __init__(self, inner: nn.Module, now: _Now, before: int, behind: int | None) -> None:
        super().__init__(inner)
        self.inner = inner
        self._now, self._before, self._behind = now, before, behind

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._now.keep(self._before, _hidden_of(args, kwargs))
        out = self.inner(*args, **kwargs)
        if self._behind is not None:
            self._now.keep(self._behind, out)
        return out


class _Silent(nn.Module):
    """A sublayer that adds nothing; attention gives its weights too, which nobody reads."""

    def __init__(self, size: int, *, gives: int) -> None:
        super().__init__()
        self._size, self._gives = size, gives

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = _hidden_of(args, kwargs)
        zeros = given.new_zeros(()).expand(*given.shape[:-1], self._size)
        return zeros if self._gives == 1 else (zeros, *[None] * (self._gives - 1))


def _without(layer: nn.Module, silent: AbstractSet[str], size: int) -> nn.Module:
    """A layer whose attention or MLP adds nothing."""
    clone = copy_of(layer)
    if "attention" in silent:
        name = _child(layer, ("self_attn", "attn", "attention"))
        clone._modules[name] = _Silent(size, gives=2)
    elif hasattr(layer, "fc1") and hasattr(layer, "fc2"):  # OPT has no module for its MLP
        clone._modules["fc1"] = nn.Identity()
        clone._modules["fc2"] = _Silent(size, gives=1)
    else:
        clone._modules[_child(layer, ("mlp", "feed_forward", "ffn"))] = _Silent(size, gives=1)
    return clone


def _child(layer: nn.Module, names: tuple[str, ...]) -> str:
    for name in names:
        if name in layer._modules:
            return name
    raise UserError(f"A {type(layer).__name__} has none of {', '.join(names)}: nothing to skip.")


def copy_of(module: nn.Module) -> nn.Module:
    """The module again, with children of its own choosing and the same weights."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone


def capture(
    model: nn.Module, points: tuple[int, ...], **call: Any
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Logits and the hidden states (B, N, D) at points, of a plain pass; for training."""
    clone, now = Inside.of(model).part(Part(taps=points))
    now.captured = {}
    logits = clone(**call).logits
    return logits, {point: now.captured[point] for point in points}


@contextmanager
def telling(now: _Now, **facts: Any) -> Iterator[None]:
    """The pass under way is told these facts; afterwards nothing of it is held on to."""
    for name, value in facts.items():
        setattr(now, name, value)
    try:
        yield
    finally:
        for name in facts:
            setattr(now, name, {} if name == "states" else None)
