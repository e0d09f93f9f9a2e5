"""Modules that stand in a part where the model has a layer, and what they are told of a pass."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from engine.errors import UserError
from engine.parts import Attend, Graft


class Now:
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


class Bypass(_InPlaceOf):
    """A layer left out."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return _hidden_of(args, kwargs)


class Resume(_InPlaceOf):
    """Forgets what comes in and goes on from kept states."""

    def __init__(self, layer: nn.Module, now: Now, point: int) -> None:
        super().__init__(layer)
        self._now, self._point = now, point

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._now.read(self._point, _hidden_of(args, kwargs))


class Grafted(_InPlaceOf):
    """Runs a graft in place of a layer."""

    def __init__(self, layer: nn.Module, now: Now, graft: Graft, kv_layer: int) -> None:
        super().__init__(layer)
        self._now, self._kv_layer = now, kv_layer
        self.graft = graft

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        now = self._now
        assert now.attend is not None
        assert now.positions_BN is not None
        hidden = _hidden_of(args, kwargs)
        return self.graft(hidden, now.positions_BN, now.attend(self._kv_layer))


class Tapped(_InPlaceOf):
    """A layer or norm whose input, and output where it has a point, are kept."""

    def __init__(self, inner: nn.Module, now: Now, before: int, behind: int | None) -> None:
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


def without(layer: nn.Module, silent: AbstractSet[str], size: int) -> nn.Module:
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


@contextmanager
def telling(now: Now, **facts: Any) -> Iterator[None]:
    """The pass under way is told these facts; afterwards nothing of it is held on to."""
    for name, value in facts.items():
        setattr(now, name, value)
    try:
        yield
    finally:
        for name in facts:
            setattr(now, name, {} if name == "states" else None)
