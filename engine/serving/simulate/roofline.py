"""Pass times of a device that was not measured: what must be moved and multiplied, at its peaks.

Derived, not measured, and marked so: a pass takes the longer of reading weights and cache at a
share of the memory's bandwidth and of multiplying at a share of the peak rate, plus the all-reduces
of tensor parallelism and what launching takes (Williams, Waterman and Patterson, 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BYTES = 2  # bfloat16
DERIVED = "derived, not measured"


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only transformer with grouped heads and a gated MLP, in bfloat16."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    kv_width: int  # key heads times their size
    vocabulary: int

    @property
    def weights(self) -> int:
        """Numbers that a pass multiplies by: layers and output head, embeddings not."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width
        mlp = 3 * self.hidden * self.intermediate
        return self.layers * (attention + mlp) + self.vocabulary * self.hidden

    @property
    def cache_bytes(self) -> int:
        """Of a token's keys and values."""
        return 2 * self.layers * self.kv_width * _BYTES


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks as the maker states them, and the shares of them that are taken to be reached."""

    name: str
    flops: float  # per second, dense bfloat16
    bandwidth: float  # bytes per second of its memory
    link: float  # bytes per second to its neighbours, each way
    flops_share: float = 0.6
    bandwidth_share: float = 0.75
    link_share: float = 0.7
    launch_ms: float = 0.05  # a pass, replayed as one graph
    all_reduce_ms: float = 0.01  # before its bytes
    host_ms: float = 0.5  # verifying, committing and scheduling a step
    request_ms: float = 0.005  # of it for each request


H100 = Device("H100 SXM", flops=989e12, bandwidth=3.35e12, link=450e9)
LLAMA_1B = ModelShape("Llama 3.2 1B", 16, 2048, 8192, 512, 128_256)
LLAMA_8B = ModelShape("Llama 3.1 8B", 32, 4096, 14_336, 1024, 128_256)
LLAMA_70B = ModelShape("Llama 3.1 70B", 80, 8192, 28_672, 1024, 128_256)


class Roofline:
    """Implements `Costs`: the target over `gpus` in tensor parallel, the draft on one of them."""

    def __init__(
        self, target: ModelShape, draft: ModelShape, *, device: Device = H100, gpus: int = 1
    ) -> None:
        self._device, self.gpus = device, gpus
        self._target, self._draft = _Pass(target, device, gpus), _Pass(draft, device, 1)
        over = f" over {gpus}" if gpus > 1 else ""
        self.said = f"{DERIVED}: {target.name} with {draft.name} on {device.name}{over}, roofline"

    def score_ms(
        self, rows_N: np.ndarray, batch: int, context: float, *, span: int = 0
    ) -> np.ndarray:
        return self._target.ms(np.asarray(rows_N, float), batch, context)

    def draft_ms(self, rows: Sequence[int], batch: int, context: float) -> float:
        if not rows:
            return 0.0
        return float(self._draft.ms(np.asarray(rows, float), batch, context).sum())

    def rest_ms(self, batch: int, nodes: float) -> float:
        return self._device.host_ms + self._device.request_ms * batch

    def prefill_ms(self, tokens: int) -> float:
        rows = np.array([max(tokens, 1)], float)
        both = self._target.ms(rows, 1, tokens) + self._draft.ms(rows, 1, tokens)
        return float(both[0])


class _Pass:
    """One model's passes over `gpus`, reduced to a few sums."""

    def __init__(self, model: ModelShape, device: Device, gpus: int) -> None:
        bandwidth = device.bandwidth * device.bandwidth_share * gpus * 1e-3  # bytes per ms
        flops = device.flops * device.flops_share * gpus * 1e-3
        self._weights_ms = model.weights * _BYTES / bandwidth
        self._cached_ms = model.cache_bytes / bandwidth  # a token of a request's context
        self._row_ms = 2 * model.weights / flops
        self._attended_ms = 4 * model.layers * model.hidden / flops  # a row and token of context
        self._once_ms, self._sent_ms = device.launch_ms, 0.0
        if gpus > 1:  # two all-reduces a layer, in a ring
            sent = 2 * (gpus - 1) / gpus * model.hidden * _BYTES
            self._once_ms += 2 * model.layers * device.all_reduce_ms
            self._sent_ms = 2 * model.layers * sent / (device.link * device.link_share * 1e-3)

    def ms(self, rows_N: np.ndarray, batch: int, context: float) -> np.ndarray:
        memory = self._weights_ms + self._cached_ms * batch * context
        compute_N = rows_N * (self._row_ms + self._attended_ms * context)
        return np.maximum(memory, compute_N) + rows_N * self._sent_ms + self._once_ms
