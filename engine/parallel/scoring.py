"""Runners where ranks are several: they note their passes, and tell ranks that share the target."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from engine.models import LoadedModel
from engine.parallel.lanes import Lanes
from engine.parts import Part
from engine.runner import NodeLogits, Nodes, TreeRunner
from engine.sharing import SharedRunner

#: (name of a method, its arguments) -> the other ranks of this target do the same
Tell = Callable[[str, tuple[Any, ...]], None]


class NotedDraft(TreeRunner):
    """A draft model that one rank has for itself, its passes noted."""

    def __init__(self, loaded: LoadedModel, *, lanes: Lanes, **how: Any) -> None:
        self._lanes = lanes
        super().__init__(loaded, **how)

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        with self._lanes.note("draft", "prefill"):
            super().admit_all(prefixes)

    def forward(self, nodes: dict[int, Nodes]) -> NodeLogits:
        with self._lanes.note("draft", "expand"):
            return super().forward(nodes)


class SharedTarget(TreeRunner):
    """A `TreeRunner` of one rank; rank 0's has the others follow, command by command."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        lanes: Lanes,
        whole: LoadedModel | None = None,
        tell: Tell | None = None,
        guarded: Callable[[], AbstractContextManager[None]] = nullcontext,
        **how: Any,
    ) -> None:
        """`whole`: the model that `loaded` is a share of, where this process has it.

        Heads that draft on rank 0 alone take embeddings and LM head from it: those of a share
        would wait for the other ranks.
        """
        self._tell: Tell | None = None  # all ranks try their models out by themselves
        self._lanes, self._guarded = lanes, guarded
        self.num_passes = 0
        with guarded():
            super().__init__(loaded, **how)
        self._tell = tell
        self.num_passes = 0
        self.share = loaded
        self.loaded = whole or loaded

    def _both(self, name: str, *arguments: Any) -> None:
        if self._tell is not None:
            self._tell(name, arguments)

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        self._both("admit_all", prefixes)
        self._lanes.step = self.num_passes
        with self._guarded(), self._lanes.note("target", "prefill"):
            super().admit_all(prefixes)

    def extend(self, slot: int, tokens: list[int]) -> None:
        self._both("extend", slot, tokens)
        with self._guarded():
            super().extend(slot, tokens)

    def truncate(self, slot: int, length: int) -> None:
        self._both("truncate", slot, length)
        super().truncate(slot, length)

    def release(self, slot: int) -> None:
        self._both("release", slot)
        super().release(slot)

    def forward(self, nodes: dict[int, Nodes]) -> NodeLogits:
        self._both("forward", nodes)
        self._lanes.step = self.num_passes
        with self._guarded(), self._lanes.note("target", "score"):
            found = super().forward(nodes)
        self.num_passes += 1
        self._lanes.step = self.num_passes
        return found

    def keep(self, slot: int, rows_A: list[int]) -> None:
        self._both("keep", slot, rows_A)
        super().keep(slot, rows_A)

    def restart(self) -> None:
        """Count passes from 0 again: what ran so far was a trial."""
        self._both("restart")
        self.num_passes = 0


class SharedPart(SharedRunner):
    """A part of a shared target that drafts: all ranks of the target run it."""

    def __init__(
        self,
        owner: SharedTarget,
        part: Part,
        *,
        lanes: Lanes,
        tell: Tell | None = None,
        guarded: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._tell: Tell | None = None
        self._lanes, self._guarded = lanes, guarded
        with guarded():
            super().__init__(owner, part, loaded=owner.share)
        self._tell = tell

    def _both(self, name: str, *arguments: Any) -> None:
        if self._tell is not None:
            self._tell(name, arguments)

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        self._both("admit_all", prefixes)
        with self._guarded():
            super().admit_all(prefixes)

    def _prefill(self, new: dict[int, list[int]]) -> None:
        with self._lanes.note("draft", "prefill"):
            super()._prefill(new)

    def forward(self, nodes: dict[int, Nodes]) -> NodeLogits:
        self._both("forward", nodes)
        with self._guarded(), self._lanes.note("draft", "expand"):
            return super().forward(nodes)

    def arrange(self, slot: int, rows_N: list[int]) -> None:
        self._both("arrange", slot, rows_N)
        super().arrange(slot, rows_N)

    def keep(self, slot: int, rows_A: list[int]) -> None:
        self._both("keep", slot, rows_A)
        super().keep(slot, rows_A)

    def release(self, slot: int) -> None:
        self._both("release", slot)
        super().release(slot)
