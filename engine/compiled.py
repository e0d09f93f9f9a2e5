"""Ahead-of-time compiled forwards: made once per model, kept on disk, loaded in a moment.

Where one cannot be made or loaded, eager serves.
"""

from __future__ import annotations

import logging
import time
import weakref
from pathlib import Path
from typing import Any

import torch

from engine.compiling import OnProgress, compile_apart, example
from engine.forward import Logits
from engine.models import LoadedModel
from engine.packages import PACKED, SINGLE, TREE, kinds_for, package_path, why_not
from engine.packing import Packing
from engine.parts import Part

logger = logging.getLogger(__name__)

_WHOLE = Part()
#: a wider envelope is taken if it is at least this much cheaper than the exact size
PADDING_GAIN = 0.95

#: forwards in use by model and packages: the arms of a comparison share one copy of the weights
_in_use: weakref.WeakKeyDictionary[torch.nn.Module, dict[tuple[Path, ...], CompiledForward]] = (
    weakref.WeakKeyDictionary()
)


def forward_for(
    loaded: LoadedModel, batch: int, on_progress: OnProgress, *, part: Part = _WHOLE
) -> CompiledForward | None:
    """Load the packages, making them first if need be. None (and a log line) if that fails.

    `on_progress` may raise to cancel.
    """
    packages = {kind: package_path(loaded, kind, part) for kind in kinds_for(batch)}
    shared = _in_use.setdefault(loaded.model, {})
    key = tuple(packages.values())
    if key in shared:
        return shared[key]
    missing = [kind for kind, path in packages.items() if not path.is_file()]
    if missing:
        if reason := why_not(loaded, batch):
            logger.warning("%s", reason)
            return None
        if not compile_apart(loaded, missing, part, on_progress):
            return None
    try:
        shared[key] = CompiledForward(loaded, packages, part)
        return shared[key]
    except (RuntimeError, OSError) as error:
        logger.warning("a compiled forward of %s does not load: %s", loaded.name, error)
        for path in packages.values():
            path.unlink(missing_ok=True)
        return None


class CompiledForward:
    """Packages of one model behind the call of `Forward`."""

    mode = "compiled"

    def __init__(self, loaded: LoadedModel, packages: dict[str, Path], part: Part = _WHOLE) -> None:
        self._part = part
        self._run: dict[str, Any] = {}
        for kind, path in packages.items():
            # the loader underneath: its Python wrapper rebuilds argument trees at every call
            self._run[kind] = torch._inductor.aoti_load_package(str(path)).loader.run
        self.min_slots = 1
        self.packs = PACKED in packages
        self._envelopes: dict[int, int] = self._measure(loaded)

    def envelope(self, num_nodes: int, num_slots: int) -> int:
        return max(2, num_nodes) if num_slots > 1 else self._envelopes.get(num_nodes, num_nodes)

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
        inputs = [ids_BN, positions_BN, rows_BN, *masks, *keys, *values, *(states or ())]
        if packing is not None:
            return Logits(*self._run[PACKED]([*inputs, *packing]))
        return Logits(*self._run[SINGLE if ids_BN.shape[1] == 1 else TREE](inputs))

    def _measure(self, loaded: LoadedModel) -> dict[int, int]:
        """Sizes that run faster padded: blocked matrix kernels like some row counts better."""
        cost = {}
        for num_nodes in range(2, 17):
            inputs, told = example(loaded, self._part, nodes=num_nodes, columns=128)
            times = []
            for _ in range(6):
                start = time.perf_counter()
                self(*inputs, states=told)
                times.append(time.perf_counter() - start)
            cost[num_nodes] = min(times)
        envelopes = {}
        for num_nodes, own in cost.items():
            wider = {n: c for n, c in cost.items() if n >= num_nodes and c < own * PADDING_GAIN}
            if wider:
                envelopes[num_nodes] = min(wider, key=lambda n: wider[n])
        return envelopes
