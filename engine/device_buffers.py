"""Persistent memory of a step's small arrays: one copy to the device, one copy back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from cuda_ext import memory

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


#: waits until a copy is there
Wait = Callable[[], object]


def to_pinned(values: torch.Tensor) -> tuple[torch.Tensor, Wait]:
    """A copy under way into pinned memory, and what waits for it."""
    if values.device.type == "cpu":
        return values, lambda: None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(values.device))
    return host, there.synchronize
