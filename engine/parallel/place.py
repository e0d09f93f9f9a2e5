"""Where a rank is: its number, its device, its groups, and what it keeps between commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from engine.models import LoadedModel
from engine.parallel.exchange import Alone, Exchange, GroupExchange
from engine.parallel.lanes import Lanes

if TYPE_CHECKING:
    from engine.parallel.rank import Begin

_meshes = count()
#: models loaded in this process by how they were loaded, the last ones
_MOST_KEPT = 4


class Place:
    """One rank's surroundings. Groups must be asked for by all ranks in the same order."""

    def __init__(self, rank: int, num_ranks: int, device: str, lanes: Lanes) -> None:
        self.rank, self.num_ranks, self.device = rank, num_ranks, device
        self.lanes = lanes
        self._groups: dict[tuple[int, ...], Any] = {}
        self._meshes: dict[tuple[int, ...], Any] = {}
        self._models: dict[Any, LoadedModel] = {}
        #: shares of targets that are cut over ranks. To try one out takes all its ranks, so all
        #: keep or forget it together, as rank 0 says
        self.targets: dict[Any, LoadedModel] = {}
        #: whether rank 0 wants something of this rank now
        self.busy: Callable[[], bool] = lambda: False

    def exchange(self, ranks: tuple[int, ...]) -> Exchange:
        """This rank's place among `ranks`; for those outside of them, a place alone."""
        if len(ranks) > 1 and ranks not in self._groups:
            self._groups[ranks] = distributed.new_group(list(ranks), backend="gloo")
        if len(ranks) == 1 or self.rank not in ranks:
            return Alone()
        return GroupExchange(self._groups[ranks], ranks)

    def mesh(self, ranks: tuple[int, ...]) -> Any:
        """A one-dimensional device mesh of these ranks, for tensor parallelism."""
        from torch.distributed.device_mesh import DeviceMesh

        if ranks not in self._meshes:
            kind = torch.device(self.device).type
            # torch keeps plans by mesh, and meshes of the same name are the same to it: those of a
            # group that is gone would come back
            name = f"tp{next(_meshes)}"
            self._meshes[ranks] = DeviceMesh(kind, list(ranks), mesh_dim_names=(name,))
        return self._meshes[ranks]

    def model(self, key: Any, load: Callable[[], LoadedModel]) -> LoadedModel:
        """A model, kept for the next engine that asks for it by the same key."""
        if key not in self._models:
            while len(self._models) >= _MOST_KEPT:
                self._models.pop(next(iter(self._models)))
            self._models[key] = load()
        return self._models[key]


def device_of(rank: int, device: str) -> str:
    """The device of a rank: with CUDA one GPU each, counted from rank 0's."""
    kind, _, index = device.partition(":")
    return f"{kind}:{int(index or 0) + rank}" if kind == "cuda" else device


def join(begin: Begin, store: distributed.Store | None = None) -> None:
    """Meet the other ranks: gloo for all, NCCL beside it where there are GPUs."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if store is None:
        store = distributed.TCPStore("127.0.0.1", begin.port, is_master=False)
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if begin.device.startswith("cuda") else "gloo",
        store=store,
        rank=begin.rank,
        world_size=begin.num_ranks,
        timeout=timedelta(seconds=begin.timeout_s),
    )
