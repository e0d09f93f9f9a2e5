"""`engine/sampling.py` on a device: warping by torch, and the noise that requests share with it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from engine.growth import Noise
from engine.sampling import Sampling


def warp_on_device(logits_RV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """`sampling.warp` by torch: log-probabilities after temperature, top-k and top-p, float64.

    A sort of every row where there is a top-p, so a whole pass costs what the host pays for a path.
    """
    scores = logits_RV.double() / sampling.temperature
    vocab_size = scores.shape[-1]
    if 0 < sampling.top_k < vocab_size:
        kth = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    probs = scores.softmax(-1)
    if sampling.top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        probs = torch.zeros_like(probs).scatter_(1, order, ordered)
        probs /= probs.sum(-1, keepdim=True)
    return probs.log()


class NoiseTable:
    """Gumbel noise by position on one device, copied there once: what drafting has asked for,
    verification finds.

    It is drawn on the host. NumPy's exponentials take as many of the keyed numbers as their
    rejections need, so where one begins is known only when all before it are drawn.
    """

    def __init__(self, device: torch.device) -> None:
        self.table_RV = torch.zeros(0, 0, dtype=torch.float64, device=device)
        self._rows: WeakKeyDictionary[Noise, dict[int, int]] = WeakKeyDictionary()  # by position
        self._free: list[int] = []

    def row(self, noise: Noise, position: int) -> int:
        """The row of `table_RV` with the noise of a position; it stays until that is forgotten.

        The table may be replaced by a longer one.
        """
        rows = self._rows.setdefault(noise, {})
        if position not in rows:
            values = torch.from_numpy(noise.at(position))
            row = self._free_row(len(values))
            if self.table_RV.is_cuda:
                values = values.pin_memory()
            self.table_RV[row].copy_(values, non_blocking=True)
            rows[position] = row
        return rows[position]

    def _free_row(self, vocab_size: int) -> int:
        """A row that no position holds which will be asked for again."""
        if not self._free:
            for noise, rows in self._rows.items():
                for position in [p for p in rows if p < noise.floor]:
                    del rows[position]
            held = {row for rows in self._rows.values() for row in rows.values()}
            self._free = [row for row in range(len(self.table_RV)) if row not in held]
        if not self._free:
            size = len(self.table_RV)
            more = self.table_RV.new_zeros(max(size, 8), vocab_size)
            self.table_RV = torch.cat([self.table_RV, more]) if size else more
            self._free = list(range(size, len(self.table_RV)))
        return self._free.pop()


class DeviceNoise:
    """The tables of an engine, one for each device that it drafts or judges on."""

    def __init__(self) -> None:
        self._tables: dict[torch.device, NoiseTable] = {}

    def on(self, device: torch.device) -> NoiseTable:
        """The table of this device."""
        if device not in self._tables:
            self._tables[device] = NoiseTable(device)
        return self._tables[device]
