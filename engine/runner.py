"""A model with its cache slots: runs tree nodes, keeps the accepted rows, forgets the rest.

Target and draft model both sit on this. A slot holds one request: `length` committed rows (the
prefix), then the rows of the current tree in the order in which its nodes were run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from cuda_ext.mask import fill_tree_inputs
from engine.errors import DecodeError
from engine.forward import EagerForward, Forward, Logits, ShapeProbe
from engine.models import DTYPES, LoadedModel

PREFILL_CHUNK = 512
#: masks are cut to multiples of this, so that compiled kernels run over whole vectors
COLUMN_STEP = 16


class Nodes(NamedTuple):
    """New nodes of one slot. A parent is a tree row of that slot, -1 hangs on the prefix."""

    tokens_N: np.ndarray | list[int]
    parents_N: np.ndarray | list[int]


class TreeRunner:
    """Slots of preallocated keys and values under one model.

    `max_tree` bounds the tree rows of a slot, `capacity` the committed ones.
    With `use_cache=False` every pass runs the whole prefix again: it shows what caching buys.
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
    ) -> None:
        self.loaded = loaded
        self.capacity = min(capacity, loaded.context_length)
        self.max_tree = max_tree
        self.use_cache = use_cache
        self.eager = EagerForward(loaded.model, windowed_dict=loaded.windowed_dict)
        self.run: Forward = forward or self.eager
        self.rows_per_slot = -(-(self.capacity + max_tree + 1) // 64) * 64
        self.num_slots = num_slots
        self._dtype = DTYPES[loaded.dtype]
        self._device = torch.device(loaded.device)
        #: the inputs' own memory serves as it is
        self._plain_cpu = self._dtype is torch.float32 and self._device.type == "cpu"
        #: all layers as one tensor (2 x layers, slots, rows, features), where they are alike
        self._all_layers: torch.Tensor | None = None
        self.keys, self.values = self._allocate()
        self.length_B = np.zeros(num_slots, np.int32)
        self.count_B = np.zeros(num_slots, np.int32)
        self.active_B = np.zeros(num_slots, bool)
        self._history: list[list[int]] = [[] for _ in range(num_slots)]  # committed tokens
        self._tree_tokens: list[list[int]] = [[] for _ in range(num_slots)]
        self._tree_parents: list[list[int]] = [[] for _ in range(num_slots)]
        rows = max_tree + 1
        self._depth_BT = np.zeros((num_slots, rows), np.int32)
        self._ancestors_BTT = np.zeros((num_slots, rows, rows), np.uint8)
        self._buffers: dict[tuple[int, int], _Buffers] = {}

    def _allocate(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Zeros: NaN in a masked row would leak through 0 * NaN. One block, a view per layer."""
        shapes = kv_shapes(self.loaded)
        total = sum(heads * (k + v) for heads, k, v in shapes)
        rows = self.num_slots * self.rows_per_slot
        block = torch.zeros(rows * total, dtype=self._dtype, device=self._device)
        if len(set(shapes)) == 1 and shapes[0][1] == shapes[0][2]:
            heads, dim, _ = shapes[0]
            self._all_layers = block.view(2 * len(shapes), self.num_slots, -1, heads * dim)
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        at = 0
        for heads, key_dim, value_dim in shapes:
            for store, dim in ((keys, key_dim), (values, value_dim)):
                size = rows * heads * dim
                store.append(
                    block[at : at + size].view(self.num_slots, self.rows_per_slot, heads, dim)
                )
                at += size
        return keys, values

    # -- slots ---------------------------------------------------------------------------------

    def admit(self, slot: int, tokens_P: list[int]) -> None:
        """Fill a free slot with a prefix (P may be 0)."""
        assert not self.active_B[slot], f"slot {slot} is taken"
        self.active_B[slot] = True
        self.length_B[slot] = self.count_B[slot] = 0
        self._history[slot] = []
        self._clear_tree(slot)
        if self.use_cache:
            for at in range(0, len(tokens_P), PREFILL_CHUNK):
                self._prefill(slot, tokens_P[at : at + PREFILL_CHUNK])
        self._history[slot] = list(tokens_P)
        self.length_B[slot] = len(tokens_P)

    def extend(self, slot: int, tokens: list[int]) -> None:
        """Commit tokens behind the prefix without a tree."""
        assert not self.count_B[slot], "a tree is under way"
        if self.use_cache:
            for at in range(0, len(tokens), PREFILL_CHUNK):
                self._prefill(slot, tokens[at : at + PREFILL_CHUNK])
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

    def _prefill(self, slot: int, tokens: list[int]) -> None:
        """Eager, one slot, a causal chain behind what the slot holds."""
        start, num = int(self.length_B[slot]), len(tokens)
        cols = start + num
        positions = torch.arange(start, cols, device=self._device)
        at = torch.arange(cols, device=self._device)
        distance = positions[:, None] - at[None, :]
        masks = [distance >= 0]
        if self.loaded.window:
            masks.append((distance >= 0) & (distance < self.loaded.window))
        self.eager(
            torch.tensor([tokens], device=self._device),
            positions[None],
            positions[None],  # rows of this slot's own view
            [_additive(mask, self._dtype)[None, None] for mask in masks],
            [kv[slot : slot + 1] for kv in self.keys],
            [kv[slot : slot + 1] for kv in self.values],
            logits_to_keep=1,
        )
        self.length_B[slot] += num

    # -- one pass ------------------------------------------------------------------------------

    def forward(self, nodes: dict[int, Nodes]) -> Logits:
        """Run new tree nodes of several slots in one pass.

        Row b of the outcome is slot b; its first nodes are those given, the rest is padding.
        Raises DecodeError where a slot would overflow.
        """
        for slot, new in nodes.items():
            self._tree_tokens[slot].extend(int(t) for t in new.tokens_N)
            self._tree_parents[slot].extend(int(p) for p in new.parents_N)
        return self._pass(nodes) if self.use_cache else self._recompute(nodes)

    def _pass(self, nodes: dict[int, Nodes]) -> Logits:
        slots = max(max(nodes) + 1, self.run.min_slots)
        widest = max(len(new.tokens_N) for new in nodes.values())
        num_nodes = self.run.envelope(widest, slots)
        buffers = self._buffers_for(slots, num_nodes)
        buffers.num_new_B[:] = 0
        last = 1
        for slot, new in nodes.items():
            count = len(new.tokens_N)
            buffers.num_new_B[slot] = count
            buffers.tokens_BN[slot, :count] = new.tokens_N
            buffers.parents_BN[slot, :count] = new.parents_N
            used = int(self.count_B[slot]) + count
            if used > self.max_tree or self.length_B[slot] + used >= self.rows_per_slot:
                raise DecodeError(
                    f"slot {slot} is full: {self.length_B[slot]} committed rows, {used} tree rows"
                )
            last = max(last, int(self.length_B[slot]) + used)
        cols = min(-(-last // COLUMN_STEP) * COLUMN_STEP, self.rows_per_slot - 1)
        masks_np, masks = buffers.masks(cols, 2 if self.loaded.window else 1)
        fill_tree_inputs(
            buffers.ids_np, buffers.positions_np, buffers.rows_np,
            masks_np[0], masks_np[1] if self.loaded.window else masks_np[0][:0],
            buffers.tokens_BN, buffers.parents_BN, buffers.num_new_B,
            self.length_B, self.count_B, self._depth_BT, self._ancestors_BTT,
            self.rows_per_slot, self.loaded.window,
        )  # fmt: skip
        for slot, new in nodes.items():
            self.count_B[slot] += len(new.tokens_N)
        ids, positions, rows = buffers.ids, buffers.positions, buffers.rows
        if not self._plain_cpu:
            ids, positions, rows = (
                t.to(self._device, non_blocking=True) for t in (ids, positions, rows)
            )
            masks = [mask.to(self._device, self._dtype, non_blocking=True) for mask in masks]
        return self.run(ids, positions, rows, masks, self.keys, self.values)

    def _recompute(self, nodes: dict[int, Nodes]) -> Logits:
        """The same pass with prefix and tree run from nothing, a slot at a time, eagerly."""
        parts: dict[int, Logits] = {}
        for slot, new in nodes.items():
            tokens = self._history[slot] + self._tree_tokens[slot]
            prefix, total = len(self._history[slot]), len(tokens)
            allowed = np.tril(np.ones((total, total), bool))
            depth = np.arange(total)
            for row, parent in enumerate(self._tree_parents[slot]):
                node, above = prefix + row, prefix + parent if parent >= 0 else prefix - 1
                allowed[node] = allowed[above] if above >= 0 else False
                allowed[node, node] = True
                depth[node] = depth[above] + 1 if above >= 0 else 0
            masks = [torch.from_numpy(allowed)]
            if self.loaded.window:
                near = depth[:, None] - depth[None, :] < self.loaded.window
                masks.append(torch.from_numpy(allowed & near))
            logits, log_norm = self.eager(
                torch.tensor([tokens], device=self._device),
                torch.from_numpy(depth)[None].to(self._device),
                torch.arange(total, device=self._device)[None],
                [_additive(m.to(self._device), self._dtype)[None, None] for m in masks],
                [kv[slot : slot + 1] for kv in self.keys],
                [kv[slot : slot + 1] for kv in self.values],
            )
            count = len(new.tokens_N)
            parts[slot] = Logits(logits[0, -count:], log_norm[0, -count:])
            self.count_B[slot] += count
        widest = max(len(part.log_norm_BN) for part in parts.values())
        some = next(iter(parts.values())).logits_BNV
        whole = Logits(
            some.new_zeros(max(nodes) + 1, widest, some.shape[-1]),
            torch.zeros(max(nodes) + 1, widest, device=self._device),
        )
        for slot, part in parts.items():
            for into, values in zip(whole, part, strict=True):
                into[slot, : len(values)] = values
        return whole

    def keep(self, slot: int, rows_A: list[int]) -> None:
        """Commit these tree rows, a path from the prefix down; forget the rest of the tree."""
        start, num = int(self.length_B[slot]), len(rows_A)
        tokens = self._tree_tokens[slot]
        if self.use_cache and rows_A != list(range(num)):
            moved = next(i for i, row in enumerate(rows_A) if row != i)
            source = torch.tensor([start + row for row in rows_A[moved:]], device=self._device)
            into = slice(start + moved, start + num)
            if self._all_layers is not None:
                self._all_layers[:, slot, into] = self._all_layers[:, slot].index_select(1, source)
            else:
                for kv in (*self.keys, *self.values):
                    kv[slot, into] = kv[slot].index_select(0, source)
        self._history[slot].extend(tokens[row] for row in rows_A)
        self.length_B[slot] = start + num
        self._clear_tree(slot)

    def _buffers_for(self, num_slots: int, num_nodes: int) -> _Buffers:
        key = (num_slots, num_nodes)
        if key not in self._buffers:
            self._buffers[key] = _Buffers(num_slots, num_nodes, self.rows_per_slot)
        return self._buffers[key]


class _Buffers:
    """Persistent inputs of one envelope: NumPy views fill what torch reads, nothing is copied."""

    def __init__(self, num_slots: int, num_nodes: int, max_cols: int) -> None:
        shape = (num_slots, num_nodes)
        self.ids = torch.zeros(shape, dtype=torch.int64)
        self.positions = torch.zeros(shape, dtype=torch.int64)
        self.rows = torch.zeros(shape, dtype=torch.int64)
        self.ids_np, self.positions_np = self.ids.numpy(), self.positions.numpy()
        self.rows_np = self.rows.numpy()
        self.tokens_BN = np.zeros(shape, np.int64)
        self.parents_BN = np.zeros(shape, np.int32)
        self.num_new_B = np.zeros(num_slots, np.int32)
        self._shape = shape
        self._flat = torch.zeros(2, num_slots * num_nodes * max_cols)
        self._views: dict[tuple[int, int], tuple[list[np.ndarray], list[torch.Tensor]]] = {}

    def masks(self, cols: int, kinds: int) -> tuple[list[np.ndarray], list[torch.Tensor]]:
        """Contiguous (B, N, cols) arrays and the (B, 1, N, cols) tensors over the same memory."""
        key = (cols, kinds)
        if key not in self._views:
            size = self._shape[0] * self._shape[1] * cols
            tensors = [
                self._flat[kind, :size].view(self._shape[0], 1, self._shape[1], cols)
                for kind in range(kinds)
            ]
            self._views[key] = ([t[:, 0].numpy() for t in tensors], tensors)
        return self._views[key]


def _additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, -torch.inf
    )


def kv_shapes(loaded: LoadedModel) -> list[tuple[int, int, int]]:
    """(heads, key dim, value dim) of every layer, read off one eager pass over one token.

    Configurations name these in a dozen ways; what the model writes is beyond doubt.
    """
    probe = ShapeProbe()
    device = torch.device(loaded.device)
    one = torch.zeros(1, 1, dtype=torch.long, device=device)
    mask = torch.zeros(1, 1, 1, 1, dtype=DTYPES[loaded.dtype], device=device)
    masks: object = mask
    if loaded.windowed_dict:
        masks = {"full_attention": mask, "sliding_attention": mask}
    with torch.inference_mode():
        loaded.model(
            input_ids=one,
            position_ids=one,
            attention_mask=masks,
            past_key_values=probe,
            use_cache=True,
        )
    return [probe.shapes[layer] for layer in range(len(probe.shapes))]


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
