"""What a draft pass offers to a growing tree: a row for each node, on the host or on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from engine.device_candidates import DevicePass, DeviceRow, NoiseAt
from engine.device_sampling import DeviceNoise
from engine.growth import Noise, Row, to_width
from engine.models import LoadedModel
from engine.runner import NodeLogits, check_finite
from engine.sampling import Sampling
from engine.tree import Children


class Place(NamedTuple):
    """Where the children of one request's new rows would stand."""

    noise: Noise
    position_N: list[int]


class DraftRows:
    """Makes rows of the passes of one draft model.

    With `on_device` None they stay where the logits are, on a CUDA device. Trees are the same
    either way: FIXED children to the bit, COUPLED ones unless scores agree to fifteen digits.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        kind: Children,
        sampling: Sampling,
        vocab_size: int,
        on_device: bool | None = None,
        noise: DeviceNoise | None = None,
    ) -> None:
        self._loaded = loaded
        self._coupled = kind is Children.COUPLED
        self._sampling = sampling
        self._vocab_size = vocab_size
        self._on_device = on_device
        self._noise = noise or DeviceNoise()

    def of(self, found: NodeLogits, places: Mapping[int, Place]) -> list[Row]:
        """The rows of a pass, in its order; `places` by slot.

        Raises DecodeError where a row is not finite, or rows on a device do when first asked.
        """
        stays = found.logits_RV.is_cuda if self._on_device is None else self._on_device
        if not stays:
            logits_RV, log_norm_R = found.on_host()
            check_finite(log_norm_R, self._loaded)
            return list(map(Row, to_width(logits_RV, self._vocab_size), log_norm_R))
        whole = DevicePass(
            found,
            self._loaded,
            vocab_size=self._vocab_size,
            sampling=self._sampling,
            noise=self._noise_of(found, places) if self._coupled else None,
        )
        return [DeviceRow(whole, at) for at in range(len(found.log_norm_R))]

    def _noise_of(self, found: NodeLogits, places: Mapping[int, Place]) -> NoiseAt:
        """Noise under each row, drawn and copied while the device is still busy with the pass.

        Rows that ran for the cache's sake alone are given any.
        """
        table = self._noise.on(found.logits_RV.device)
        row_R = [0] * len(found.log_norm_R)
        for slot, (noise, position_N) in places.items():
            for at, position in enumerate(position_N, found.first[slot]):
                if position >= noise.floor:
                    row_R[at] = table.row(noise, position)
        rows = torch.tensor(row_R, pin_memory=table.table_RV.is_cuda)
        return NoiseAt(table.table_RV, rows.to(table.table_RV.device, non_blocking=True))
