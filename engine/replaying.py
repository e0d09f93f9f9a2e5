"""Forwards over a short list of sizes: what is made once for a size serves every later pass of it.

CUDA graphs (graphs.py) and code compiled for fixed shapes (inductor.py) share this: sizes are
rounded up to an `Envelope`, inputs copied into its buffers, and what was made for it is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

import torch

from engine.envelopes import Buffers, Envelope, Inputs, envelope_of, round_up
from engine.forward import EagerForward, Logits
from engine.models import LoadedModel
from engine.packing import Packing

logger = logging.getLogger(__name__)

#: envelopes that something is made for, at most; each holds its outputs and its kernels' arguments
MOST_ENVELOPES = 48
#: the model over given inputs: HFStep
Step = Callable[..., tuple[torch.Tensor, torch.Tensor]]
#: runs what was made, over the very inputs it was made for
Replay = Callable[[], Logits]


class Maker(Protocol):
    """Makes something for the shapes of some inputs that runs the step over them faster."""

    mode: str
    #: whether a replay gives the same tensors again, overwritten, instead of new ones
    reuses_outputs: bool

    def __call__(self, step: Step, inputs: Inputs) -> Replay:
        """Raises RuntimeError where it cannot be made."""


@dataclass(slots=True)
class Counts:
    """What became of the passes of a forward."""

    made: int = 0  # envelopes that something was made for
    replayed: int = 0  # passes in their own envelope
    replayed_wider: int = 0  # passes in a wider one, since there were enough envelopes
    eager: int = 0  # passes without: nothing wide enough was there, or making it failed


class _Made(NamedTuple):
    """What serves one envelope."""

    buffers: Buffers
    replay: Replay


class EnvelopeForward:
    """A `Forward` whose passes are padded to envelopes and run by what `maker` made for them.

    After `most` envelopes no more are made: a pass then runs in the smallest one that holds it, or
    eagerly where none does. `counts` says how often. Logits are new tensors in each pass.
    """

    def __init__(
        self,
        eager: EagerForward,
        maker: Maker,
        *,
        num_slots: int,
        most: int = MOST_ENVELOPES,
        name: str = "",
    ) -> None:
        self.mode = maker.mode
        # with several slots never one slot's own view of the cache: each would be an address more
        self.min_slots = min(num_slots, 2)
        self.packs = eager.packs
        self.counts = Counts()
        self.trouble = ""  # why the last thing that could not be made was not
        self._eager = eager
        self._maker = maker
        self._most = most
        self._name = name
        self._made: dict[Envelope, _Made] = {}
        self._failed: set[Envelope] = set()

    def envelope(self, num_nodes: int, num_slots: int) -> int:
        return round_up(num_nodes)

    def __call__(
        self,
        ids_BN: torch.Tensor,
        positions_BN: torch.Tensor,
        rows_BN: torch.Tensor,
        masks: list[torch.Tensor],
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        packing: Packing | None = None,
        *,
        states: list[torch.Tensor] | None = None,
    ) -> Logits:
        assert not states, "envelopes keep no hidden states"
        given = Inputs(ids_BN, positions_BN, rows_BN, masks, keys, values, packing)
        made = self._made_for(envelope_of(given), given)
        if made is None:
            self.counts.eager += 1
            return self._eager(*given)
        made.buffers.fill(given)
        return self._cut(made.replay(), ids_BN)

    def forget(self) -> None:
        """Drop all that was made, and the caches it is bound to."""
        self._made.clear()
        self._failed.clear()
        self.counts = Counts()

    def said(self) -> str:
        """What became of the passes, for people."""
        counts = asdict(self.counts)
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())

    def _cut(self, logits: Logits, ids_BN: torch.Tensor) -> Logits:
        """The part that was asked for, safe from the next replay."""
        batch, nodes = ids_BN.shape
        parts = (values[:batch, :nodes] for values in logits)
        return Logits(*(part.clone() if self._maker.reuses_outputs else part for part in parts))

    def _made_for(self, wanted: Envelope, given: Inputs) -> _Made | None:
        """What serves this envelope, made now if need be; None: nothing does."""
        if wanted in self._made:
            self.counts.replayed += 1
            return self._made[wanted]
        if len(self._made) < self._most and wanted not in self._failed:
            made = self._make(wanted, given)
            if made is not None:
                self.counts.replayed += 1
                return made
        wider = [envelope for envelope in self._made if envelope.holds(wanted)]
        if not wider:
            return None
        self.counts.replayed_wider += 1
        return self._made[min(wider, key=lambda e: (e.rows, e.slots * e.width * e.columns))]

    def _make(self, wanted: Envelope, given: Inputs) -> _Made | None:
        """Make it over the real inputs: running them more than once writes the same rows again."""
        buffers = Buffers(wanted, given)
        buffers.fill(given)
        try:
            with torch.inference_mode():
                replay = self._maker(self._eager.step, buffers.inputs)
        except RuntimeError as error:  # out of memory, or an operation that cannot be captured
            self._failed.add(wanted)
            self.trouble = str(error).partition("\n")[0]
            logger.warning("%s: no %s for %s (%s)", self._name, self.mode, wanted, self.trouble)
            return None
        made = self._made[wanted] = _Made(buffers, replay)
        self.counts.made += 1
        if len(self._made) == self._most:
            logger.info("%s: the last of %d envelopes is made", self._name, self._most)
        return made


def tried(loaded: LoadedModel, maker: Maker, *, num_slots: int) -> EnvelopeForward:
    """A forward after one pass over a node through a small cache; `trouble` says why it failed."""
    from engine.runner import Nodes, TreeRunner

    # this runner also finds out whether nodes of several slots can be packed
    runner = TreeRunner(loaded, num_slots=min(num_slots, 2), capacity=8, max_tree=2)
    forward = EnvelopeForward(runner.eager, maker, num_slots=num_slots, name=loaded.name)
    runner.run = forward
    runner.forward({0: Nodes([0], [-1])})
    forward.forget()
    return forward
