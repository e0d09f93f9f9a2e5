"""Passes as CUDA graphs: a pass is recorded once per envelope and launched as one thing after that.

A decoding pass is hundreds of small kernels, and launching them from Python takes longer than
running them does on a large GPU. A graph holds shapes and addresses fixed: `EnvelopeForward` keeps
both, and this module records and replays. Where there is no GPU, `Rerun` stands in for it.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.envelopes import Inputs
from engine.errors import UserError
from engine.forward import Logits
from engine.models import LoadedModel
from engine.replaying import EnvelopeForward, Maker, Replay, Step, tried

MODE = "graph"
#: passes before recording: libraries choose their kernels and allocate their workspaces in them
_WARM_UPS = 2


class CudaGraphs:
    """Records passes on one device. Its graphs share one pool of memory for what lies between.

    That is safe as long as they run one after another, on one stream: a graph's outputs stay
    alive, and what another graph overwrites is only what is dead by then. So each forward has
    graphs of its own.
    """

    mode = MODE
    reuses_outputs = True

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._pool: Any = None

    def __call__(self, step: Step, inputs: Inputs) -> Replay:
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            here = torch.cuda.current_stream()
            side = torch.cuda.Stream()
            side.wait_stream(here)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    step(*inputs)
            here.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # on a stream of this device: torch's own one for recording belongs to the first device
            # it was used on. Other threads may go on using the device meanwhile
            recording = torch.cuda.graph(
                graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
            )
            with recording:
                logits = Logits(*step(*inputs))

        def replay() -> Logits:
            graph.replay()
            return logits

        return replay


class Rerun:
    """Does on any device what a graph does: the same step over the same buffers, into the same.

    It is no faster. Tests of everything around a graph use it, and dry runs of the benchmarks.
    """

    mode = MODE
    reuses_outputs = True

    def __call__(self, step: Step, inputs: Inputs) -> Replay:
        fixed = Logits(*step(*inputs))

        def replay() -> Logits:
            with torch.inference_mode():
                for into, values in zip(fixed, step(*inputs), strict=True):
                    into.copy_(values)
            return fixed

        return replay


def maker_for(loaded: LoadedModel) -> Maker:
    """What records this model's passes. Raises UserError where it is not on a CUDA device."""
    if not loaded.device.startswith("cuda"):
        raise UserError(
            f"Execution graph replays CUDA graphs, and {loaded.name} is on the {loaded.device}. Use"
            " --device cuda where there is one, or --execution compiled, which is the CPU's"
            " counterpart."
        )
    return CudaGraphs(loaded.device)


def graph_forward(loaded: LoadedModel, *, num_slots: int = 1) -> EnvelopeForward:
    """A forward of this model through graphs, tried on a node.

    Raises UserError where the model is not on a CUDA device, or cannot be recorded: a pass that
    asks the device for a number, as some kinds of position embeddings do.
    """
    forward = tried(loaded, maker_for(loaded), num_slots=num_slots)
    if forward.trouble:
        raise UserError(
            f"{loaded.name} cannot be recorded as a CUDA graph ({forward.trouble});"
            " use --execution eager."
        )
    return forward
