"""Passes by torch.compile: the model compiled in this process for each envelope, shapes fixed.

Works on CPU and GPU, needs nothing on disk, and compiles anew in every process: seconds to a
minute for each envelope. On a CPU `engine/compiled.py` is usually the better choice.
"""

from __future__ import annotations

import itertools
import shutil
from types import FunctionType, MethodType
from typing import Any

import torch

from engine.envelopes import Inputs
from engine.errors import UserError
from engine.forward import HFStep, Logits
from engine.models import LoadedModel
from engine.replaying import EnvelopeForward, Replay, Step, tried

MODE = "inductor"
_numbers = itertools.count()


class Inductor:
    """Compiles the step for the shapes of its inputs."""

    mode = MODE
    reuses_outputs = False

    def __call__(self, step: Step, inputs: Inputs) -> Replay:
        assert isinstance(step, HFStep)
        compiled = torch.compile(_own_code(step), dynamic=False, fullgraph=True)

        def replay() -> Logits:
            with torch.inference_mode():
                return Logits(*compiled(*inputs))

        try:
            replay()  # compiles
        except torch._dynamo.exc.TorchDynamoException as error:
            raise RuntimeError(str(error)) from error
        return replay


def _own_code(step: HFStep) -> Any:
    """The step's forward as a function with a code object of its own.

    The compiler counts recompilations by code object and after eight of them silently runs
    eagerly: envelopes that share `HFStep.forward` would reach that soon.
    """
    whole = HFStep.forward
    code = whole.__code__.replace(co_name=f"forward_{next(_numbers)}")
    own = FunctionType(code, whole.__globals__, code.co_name, whole.__defaults__)
    return MethodType(own, step)


def inductor_forward(loaded: LoadedModel, *, num_slots: int = 1) -> EnvelopeForward:
    """A forward of this model by torch.compile, tried on a node.

    Raises UserError where there is no compiler, or the model cannot be compiled as a whole.
    """
    on_cpu = not loaded.device.startswith("cuda")
    if on_cpu and not any(map(shutil.which, ("g++", "clang++"))):
        raise UserError("No C++ compiler was found; install g++ for --execution inductor.")
    forward = tried(loaded, Inductor(), num_slots=num_slots)
    if forward.trouble:
        raise UserError(
            f"torch.compile cannot compile {loaded.name} ({forward.trouble});"
            " use --execution eager."
        )
    return forward
