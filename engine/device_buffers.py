"""Persistent memory of a step's small arrays: one copy to the device, one copy back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cuda_ext import memory
from engine.drafters.base import Sequence

_TORCH = {
    "int64": torch.int64, "float64": torch.float64, "int32": torch.int32,
    "float32": torch.float32, "uint8": torch.uint8,
}  # fmt: skip
_ALIGN = 8

#: name -> (shape, dtype)
Layout = Mapping[str, tuple[tuple[int, ...], str]]


class Packed:
    """Named arrays side by side in one buffer, on the host (pinned) and on the device.

    Without a CUDA device both are the same memory.
    """

    def __init__(self, layout: Layout, device: torch.device) -> None:
        places, size = {}, 0
        for name, (shape, dtype) in layout.items():
            num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            places[name] = slice(size, size + num_bytes)
            size += -(-num_bytes // _ALIGN) * _ALIGN
        self._on_cuda = device.type == "cuda"
        self._host = torch.zeros(size, dtype=torch.uint8, pin_memory=self._on_cuda)
        self._there = self._host.to(device)
        self.host: dict[str, np.ndarray] = {}
        self.there: dict[str, torch.Tensor] = {}
        for name, (shape, dtype) in layout.items():
            views = (flat[places[name]].view(_TORCH[dtype]).view(shape)
                     for flat in (self._host, self._there))  # fmt: skip
            host, self.there[name] = views
            self.host[name] = host.numpy()
        #: as kernels take them, wrapped once
        self.kernel: dict[str, Any] = {
            name: memory.on_device(array) for name, array in self.there.items()
        }

    def upload(self) -> None:
        """Host to device, queued behind what the device is doing."""
        if self._on_cuda:
            self._there.copy_(self._host, non_blocking=True)

    def download(self) -> None:
        """Device to host; waits for it. The one synchronisation of a step's verification."""
        if self._on_cuda:
            self._host.copy_(self._there, non_blocking=True)
            torch.cuda.current_stream(self._there.device).synchronize()


class NoiseTable:
    """Gumbel noise of the positions that trees reach, on the device; each is copied there once."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.table_RV = torch.zeros(0, vocab_size, dtype=torch.float64, device=device)
        self._row: dict[tuple[int, int], int] = {}  # (request, position) -> row

    def rows(self, sequences: list[Sequence], depths: list[int]) -> list[list[int]]:
        """For each request the rows of its positions, from the root's child down to its depth."""
        wanted = [
            [(s.noise.request, s.position + d) for d in range(depth + 1)]
            for s, depth in zip(sequences, depths, strict=True)
        ]
        needed = {key for keys in wanted for key in keys}
        self._row = {key: row for key, row in self._row.items() if key in needed}
        missing = [key for key in needed if key not in self._row]
        used = set(self._row.values())
        lacking = len(needed) - len(self.table_RV)
        if lacking > 0:
            more = self.table_RV.new_zeros(lacking, self.table_RV.shape[1])
            self.table_RV = torch.cat([self.table_RV, more])
        free = (row for row in range(len(self.table_RV)) if row not in used)
        by_request = {s.noise.request: s.noise for s in sequences}
        for (request, position), row in zip(missing, free, strict=False):
            noise = torch.from_numpy(by_request[request].at(position))
            if self.table_RV.is_cuda:
                noise = noise.pin_memory()
            self.table_RV[row].copy_(noise, non_blocking=True)
            self._row[request, position] = row
        return [[self._row[key] for key in keys] for keys in wanted]
