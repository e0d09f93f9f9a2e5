"""A model with its cache slots: runs tree nodes, keeps the accepted rows, forgets the rest.

Target and draft model both sit on this. A slot holds one request: `length` committed rows (the
prefix), then the rows of the current tree in the order in which its nodes were run.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from cuda_ext.gather import gather_rows
from cuda_ext.mask import fill_tree_inputs
from engine.errors import DecodeError
from engine.forward import EagerForward, Forward
from engine.models import DTYPES, LoadedModel
from engine.packing import Packing, can_pack, pack
from engine.parts import Part, Uses
from engine.pass_inputs import Buffers, additive, chain_inputs, reads, whole_inputs
from engine.room import Room

#: masks are cut to multiples of this, so that compiled kernels run over whole vectors
COLUMN_STEP = 16
_NOTHING = Uses()


#: whether models can be packed, as found out
_packs: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


class Nodes(NamedTuple):
    """New nodes of one slot. A parent is a tree row of that slot, -1 hangs on the prefix."""

    tokens_N: np.ndarray | list[int]
    parents_N: np.ndarray | list[int]


class NodeLogits(NamedTuple):
    """Outcome of one pass over nodes of several slots, a row per node."""

    logits_RV: torch.Tensor
    log_norm_R: torch.Tensor  # float32, logsumexp of each row
    first: dict[int, int]  # node i of a slot is row first[slot] + i

    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 logits and norms; views where they are that already."""
        return to_numpy(self.logits_RV), to_numpy(self.log_norm_R)


class TreeRunner:
    """Slots of preallocated keys and values under one model.

    `max_tree` bounds the tree rows of a slot, `capacity` the committed ones.
    With `use_cache=False` every pass runs the whole prefix again: it shows what caching buys.

    `uses` says what a method takes from the model's inside: hidden states at its points are kept
    in `states`, a row per token as keys and values are; passes run its `target` part, and prefills
    all layers whatever the part. With a `forward`, it runs that part.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        num_slots: int,
        capacity: int,
        max_tree: int,
        use_cache: bool = True,
        forward: Forward | None = None,
        uses: Uses = _NOTHING,
    ) -> None:
        self.loaded = loaded
        self.uses = uses
        self.capacity = min(capacity, loaded.context_length)
        self.max_tree = max_tree
        self.use_cache = use_cache
        self.part = uses.target if use_cache else replace(uses.target, first=0, taps=uses.points)
        self.eager = self._eager(self.part)
        self.run: Forward = forward or self.eager
        #: prefills run all layers
        self._prefilling = self._eager(Part(taps=uses.points)) if self.part.first else self.eager
        self.rows_per_slot = -(-(self.capacity + max_tree + 1) // 64) * 64
        self.num_slots = num_slots
        self._dtype = DTYPES[loaded.dtype]
        self._device = torch.device(loaded.device)
        #: the inputs' own memory serves as it is
        self._plain_cpu = self._dtype is torch.float32 and self._device.type == "cpu"
        self.room = self._make_room()
        self.keys, self.values, self.states = self.room.whole
        #: keys and values that the part runs over: a graft's, the last ones, are the draft's alone
        self._own = slice(len(self.keys) - len(uses.kv_shapes))
        self.length_B = np.zeros(num_slots, np.int32)
        self.count_B = np.zeros(num_slots, np.int32)
        self.active_B = np.zeros(num_slots, bool)
        self._history: list[list[int]] = [[] for _ in range(num_slots)]  # committed tokens
        self._tree_tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self._tree_parents: list[list[int]] = [[] for _ in range(num_slots)]
        rows = max_tree + 1
        self._depth_BT = np.zeros((num_slots, rows), np.int32)
        self._ancestors_BTT = np.zeros((num_slots, rows, rows), np.uint8)
        self._buffers: dict[tuple[int, int], Buffers] = {}
        #: slots whose accepted rows the verifier's kernel has moved in the cache
        self.rows_moved: set[int] = set()
        if num_slots > 1 and use_cache and can_pack(loaded.attention):
            self.eager.packs = self._packs()

    def _eager(self, part: Part) -> EagerForward:
        model = self.loaded.model
        return EagerForward(model, windowed_dict=self.loaded.windowed_dict, part=part)

    def _packs(self) -> bool:
        """Whether this model's attention lets itself be packed: tried once per model."""
        model = self.loaded.model
        if model not in _packs:
            run, self.run = self.run, self.eager
            found = []
            more = min(2, self.max_tree)
            for self.eager.packs in (False, True):
                rows = self.forward({0: Nodes([0], [-1]), 1: Nodes([1] * more, [-1] * more)})
                found.append([rows.logits_RV[rows.first[s]].float() for s in (0, 1)])
                for slot in (0, 1):
                    self.keep(slot, [])
            self.run = run
            _packs[model] = all(
                torch.allclose(one, other, atol=2e-3 if self._plain_cpu else 0.5, equal_nan=True)
                for one, other in zip(*found, strict=True)
            )
        return _packs[model]

    def _make_room(self) -> Room:
        return Room(
            self.loaded,
            num_slots=self.num_slots,
            rows_per_slot=self.rows_per_slot,
            points=self.uses.points,
            more=self.uses.kv_shapes,
        )

    # -- slots ---------------------------------------------------------------------------------

    def admit(self, slot: int, tokens_P: list[int]) -> None:
        """Fill a free slot with a prefix (P may be 0)."""
        self.admit_all({slot: tokens_P})

    def admit_all(self, prefixes: dict[int, list[int]]) -> None:
        """Fill free slots with prefixes, which run together where the model can be packed."""
        for slot in prefixes:
            assert not self.active_B[slot], f"slot {slot} is taken"
            self.active_B[slot] = True
            self.length_B[slot] = 0
            self._history[slot] = []
            self._clear_tree(slot)
        if self.use_cache or self.states:
            self._read(prefixes)
        for slot, tokens in prefixes.items():
            self._history[slot] = list(tokens)
            self.length_B[slot] = len(tokens)

    def extend(self, slot: int, tokens: list[int]) -> None:
        """Commit tokens behind the prefix without a tree."""
        assert not self.count_B[slot], "a tree is under way"
        if self.use_cache:
            self._read({slot: tokens})
        else:
            self.length_B[slot] += len(tokens)
        self._history[slot].extend(tokens)

    def truncate(self, slot: int, length: int) -> None:
        """Forget committed rows from `length` on, where there are more."""
        assert not self.count_B[slot], "a tree is under way"
        if length < int(self.length_B[slot]):
            self.length_B[slot] = length
            del self._history[slot][length:]

    def release(self, slot: int) -> None:
        """Free a slot."""
        self.active_B[slot] = False
        self.length_B[slot] = self.count_B[slot] = 0
        self._clear_tree(slot)

    def _clear_tree(self, slot: int) -> None:
        self.count_B[slot] = 0
        self._tree_tokens[slot] = []
        self._tree_parents[slot] = []

    def _read(self, prefixes: dict[int, list[int]]) -> None:
        """Run prefixes behind what their slots hold, a bounded number of tokens at a time."""
        for new in reads(prefixes):
            if self.eager.packs:
                self._prefill(new)
            else:
                for slot, tokens in new.items():
                    self._prefill({slot: tokens})

    def _prefill(self, new: dict[int, list[int]]) -> None:
        """Eager: a causal chain behind what each slot holds, side by side where they are several.

        Attention costs what it costs each slot alone, and matrix products run over all tokens.
        """
        given = chain_inputs(
            new,
            {slot: int(self.length_B[slot]) for slot in new},
            window=self.loaded.window,
            dtype=self._dtype,
            device=self._device,
        )
        alone = len(new) == 1
        kept = self.room.of_slot(next(iter(new))) if alone else self.room.whole
        self._prefilling(
            given.ids_1M,
            given.positions_1M,
            given.rows_1M if alone else given.chains.flat(given.rows_1M, self.rows_per_slot),
            given.masks,
            kept.keys,
            kept.values,
            None if alone else given.chains,
            logits_to_keep=1,
            states=kept.of(self._prefilling.step.points),
        )
        for slot, tokens in new.items():
            self.length_B[slot] += len(tokens)

    # -- one pass ------------------------------------------------------------------------------

    def forward(self, nodes: dict[int, Nodes]) -> NodeLogits:
        """Run new tree nodes of several slots in one pass.

        Raises DecodeError where a slot would overflow.
        """
        for slot, new in nodes.items():
            self._tree_tokens[slot].extend(int(t) for t in new.tokens_N)
            self._tree_parents[slot].extend(int(p) for p in new.parents_N)
        return self._pass(nodes) if self.use_cache else self._recompute(nodes)

    def _pass(self, nodes: dict[int, Nodes]) -> NodeLogits:
        # one slot runs as if there were no other; of several, all up to the last one
        alone = len(nodes) == 1 and self.run.min_slots == 1
        base = next(iter(nodes)) if alone else 0
        slots = 1 if alone else max(max(nodes) + 1, self.run.min_slots)
        width = self.run.envelope(max(len(new.tokens_N) for new in nodes.values()), slots)
        buffers = self._buffers_for(slots, width)
        buffers.take({slot - base: new for slot, new in nodes.items()})
        last = 1
        for slot, new in nodes.items():
            used = int(self.count_B[slot]) + len(new.tokens_N)
            if used > self.max_tree or self.length_B[slot] + used >= self.rows_per_slot:
                raise DecodeError(
                    f"slot {slot} is full: {self.length_B[slot]} committed rows, {used} tree rows"
                )
            last = max(last, int(self.length_B[slot]) + used)
        cols = min(-(-last // COLUMN_STEP) * COLUMN_STEP, self.rows_per_slot - 1)
        masks_np, masks = buffers.masks(cols, 2 if self.loaded.window else 1)
        span = slice(base, base + slots)
        fill_tree_inputs(
            buffers.ids_np, buffers.positions_np, buffers.rows_np,
            masks_np[0], masks_np[1] if self.loaded.window else masks_np[0][:0],
            buffers.tokens_BN, buffers.parents_BN, buffers.num_new_B,
            self.length_B[span], self.count_B[span],
            self._depth_BT[span], self._ancestors_BTT[span],
            self.rows_per_slot, self.loaded.window,
        )  # fmt: skip
        for slot, new in nodes.items():
            self.count_B[slot] += len(new.tokens_N)
        ids, positions, rows = buffers.ids, buffers.positions, buffers.rows
        first = {slot: (slot - base) * width for slot in nodes}
        packing = None
        if slots > 1 and self.run.packs:
            packing = pack(buffers.num_new_B, width)
            ids, positions, rows = (
                t.view(1, -1)[:, packing.cell_M] for t in (ids, positions, rows)
            )
            before = np.cumsum(buffers.num_new_B) - buffers.num_new_B
            first = {slot: int(before[slot]) for slot in nodes}
        if not self._plain_cpu:
            ids, positions, rows = (
                t.to(self._device, non_blocking=True) for t in (ids, positions, rows)
            )
            masks = [mask.to(self._device, self._dtype, non_blocking=True) for mask in masks]
            if packing is not None:
                packing = Packing(*(t.to(self._device, non_blocking=True) for t in packing))
        kept = self.room.of_slot(base) if alone else self.room.whole
        told = {"states": kept.of(self.part.points)} if self.part.points else {}
        keys, values = kept.keys[self._own], kept.values[self._own]
        found = self.run(ids, positions, rows, masks, keys, values, packing, **told)
        return NodeLogits(found.logits_BNV.flatten(0, 1), found.log_norm_BN.flatten(), first)

    def _recompute(self, nodes: dict[int, Nodes]) -> NodeLogits:
        """The same pass with prefix and tree run from nothing, a slot at a time, eagerly."""
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        first: dict[int, int] = {}
        rows = 0
        for slot, new in nodes.items():
            tokens = self._history[slot] + self._tree_tokens[slot]
            depth, masks = whole_inputs(tokens, self._tree_parents[slot], window=self.loaded.window)
            kept = self.room.of_slot(slot)
            logits, log_norm = self.eager(
                torch.tensor([tokens], device=self._device),
                depth[None].to(self._device),
                torch.arange(len(tokens), device=self._device)[None],
                [additive(m.to(self._device), self._dtype)[None, None] for m in masks],
                kept.keys,
                kept.values,
                states=kept.of(self.part.points),
            )
            count = len(new.tokens_N)
            parts.append((logits[0, -count:], log_norm[0, -count:]))
            first[slot], rows = rows, rows + count
            self.count_B[slot] += count
        logits_RV, log_norm_R = (torch.cat(each) for each in zip(*parts, strict=True))
        return NodeLogits(logits_RV, log_norm_R, first)

    def keep(self, slot: int, rows_A: list[int]) -> None:
        """Commit these tree rows, a path from the prefix down; forget the rest of the tree."""
        moved = slot in self.rows_moved
        self.rows_moved.discard(slot)
        start, num = int(self.length_B[slot]), len(rows_A)
        tokens = self._tree_tokens[slot]
        if (self.use_cache or self.states) and not moved and rows_A != list(range(num)):
            given = torch.tensor([slot, start, num, *rows_A], dtype=torch.int32)
            given = given.to(self._device, non_blocking=True)
            for words_LSRF in self.words:
                gather_rows(words_LSRF, given[:1], given[1:2], given[None, 3:], given[2:3])
        self._history[slot].extend(tokens[row] for row in rows_A)
        self.length_B[slot] = start + num
        self._clear_tree(slot)

    @property
    def words(self) -> list[torch.Tensor]:
        """Keys, values and states as whole numbers, as they are moved (`Room.words`)."""
        return self.room.words

    def _buffers_for(self, num_slots: int, num_nodes: int) -> Buffers:
        key = (num_slots, num_nodes)
        if key not in self._buffers:
            self._buffers[key] = Buffers(num_slots, num_nodes, self.rows_per_slot)
        return self._buffers[key]


def check_finite(log_norm_N: np.ndarray, loaded: LoadedModel) -> None:
    """Raises DecodeError where a row of logits, known by its norm, is not finite."""
    if not np.isfinite(log_norm_N).all():
        raise DecodeError(
            f"{loaded.name} gave NaN or infinite logits in {loaded.dtype}: its weights are damaged"
            " or the dtype overflows; try --dtype float32."
        )


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """float32 on the host; a view where it is that already."""
    return values.detach().to("cpu", torch.float32).numpy()
