"""Where arrays live. Host memory goes to a CPU twin, CUDA memory to a kernel; nothing is copied.

Kernels see torch memory through the CUDA array interface and run on torch's current stream, so that
no synchronisation is needed between torch's work and theirs. Under Numba's CUDA simulator host
memory stands in for the device's.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numba import config, cuda

#: auto: by where the arrays live; the others force one form, as tests and benchmarks do
How = Literal["auto", "kernel", "twin"]

SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", False))
#: threads of a block; a power of two, for reductions halve it
THREADS = 4 if SIMULATED else 256
if not SIMULATED:  # a block per request is what the work asks for, few as they may be
    setattr(config, "CUDA_LOW_OCCUPANCY_WARNINGS", 0)  # noqa: B010 - no attribute to mypy


def use_kernel(how: How, *arrays: Any) -> bool:
    """Whether a kernel is to run. Raises ValueError where host and device memory are mixed."""
    for array in arrays:
        if isinstance(array, torch.Tensor) and array.is_cuda:
            _select(array)
            break
    if how != "auto":
        return how == "kernel"
    places = {_is_cuda(array) for array in arrays if array is not None}
    if len(places) > 1:
        raise ValueError(
            "some arrays are in host memory and some in CUDA memory; move them to one of the two"
        )
    return places == {True}


def _is_cuda(array: Any) -> bool:
    if isinstance(array, torch.Tensor):
        return array.is_cuda
    return not isinstance(array, np.ndarray)  # a device array made by `on_device`


def on_host(array: Any) -> np.ndarray:
    """NumPy's view of host memory; bfloat16 comes as int16 with the same bits."""
    if isinstance(array, torch.Tensor):
        return _plain(array).numpy()
    return array


def on_device(array: Any) -> Any:
    """What a kernel takes, over the same memory; bfloat16 comes as int16 with the same bits.

    Device arrays pass through: persistent buffers are wrapped once.
    """
    if isinstance(array, torch.Tensor) and array.is_cuda:
        _select(array)
        return cuda.as_cuda_array(_plain(array), sync=False)
    if SIMULATED and isinstance(array, (np.ndarray, torch.Tensor)):
        return _stand_in(on_host(array))
    return array


def stream() -> Any:
    """Torch's current stream on the device of the arrays last asked about, for Numba's launches."""
    if SIMULATED:
        return 0
    device = cuda.get_current_device().id
    return cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)


def is_bfloat16(array: Any) -> bool:
    """Whether a kernel must widen the bits itself: Numba has no such type."""
    if isinstance(array, torch.Tensor):
        return array.dtype is torch.bfloat16
    return array.dtype == np.int16


def _select(array: torch.Tensor) -> None:
    """Numba works on one device at a time: that of the array."""
    if cuda.get_current_device().id != array.device.index:
        cuda.select_device(array.device.index)


def _plain(array: torch.Tensor) -> torch.Tensor:
    array = array.detach()
    return array.view(torch.int16) if array.dtype is torch.bfloat16 else array


def _stand_in(array: np.ndarray) -> Any:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(array)
