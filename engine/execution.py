"""How passes run: eager, compiled, as CUDA graphs or through Inductor; what is to be had here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.errors import UserError
from engine.forward import Forward
from engine.models import LoadedModel
from engine.parts import Part

if TYPE_CHECKING:
    from engine.engine import EngineConfig

logger = logging.getLogger(__name__)


def forwards_for(
    wanted: Sequence[tuple[LoadedModel, Part]], config: EngineConfig
) -> tuple[list[Forward | None], str]:
    """The forwards of the mode asked for, and that mode; None stands for eager.

    'auto' takes CUDA graphs where all models are on CUDA devices, and compiled forwards on a CPU
    where they are at hand. Raises UserError for a mode that is not to be had here.
    """
    eager: tuple[list[Forward | None], str] = [None] * len(wanted), "eager"
    models = [loaded for loaded, _ in wanted]
    if config.execution == "eager" or not config.cache:
        return eager
    on_cuda = all(m.device.startswith("cuda") for m in models)
    graphs = config.execution == "graph" or (config.execution == "auto" and on_cuda)
    if graphs or config.execution == "inductor":
        if not all(part.whole for _, part in wanted):
            if config.execution == "auto":
                return eager
            raise UserError(
                f"{config.method} runs parts of the target and keeps hidden states, which"
                f" --execution {config.execution} does not do yet; use eager or compiled."
            )
        if graphs:
            return _graphs_for(models, config)
        from engine.inductor import inductor_forward

        config.on_progress("compiling", "compiling in this process, a size at a time", None)
        return [inductor_forward(m, num_slots=config.batch) for m in models], "inductor"
    from engine.compiled import forward_for
    from engine.packages import at_hand, why_not

    if config.execution == "auto" and not all(at_hand(m, config.batch, p) for m, p in wanted):
        return eager
    found = [forward_for(m, config.batch, config.on_progress, part=p) for m, p in wanted]
    if any(forward is None for forward in found):
        if config.execution == "compiled":
            raise UserError(
                next(filter(None, (why_not(m, config.batch) for m in models)), "")
                or "Compiling failed; the reason is in the .log files of the cache folder that"
                " `draftree doctor` names. Use --execution eager."
            )
        return eager
    return list(found), "compiled"


def forward_in(mode: str, loaded: LoadedModel, part: Part, config: EngineConfig) -> Forward | None:
    """One more forward in an engine's mode of execution; None: eager."""
    if mode != "compiled":
        return None
    from engine.compiled import forward_for
    from engine.packages import at_hand

    if config.execution == "auto" and not at_hand(loaded, config.batch, part):
        return None
    return forward_for(loaded, config.batch, config.on_progress, part=part)


def _graphs_for(
    models: list[LoadedModel], config: EngineConfig
) -> tuple[list[Forward | None], str]:
    from engine.graphs import graph_forward

    try:
        return [graph_forward(m, num_slots=config.batch) for m in models], "graph"
    except UserError as error:
        if config.execution == "graph":
            raise
        logger.warning("running eager: %s", error)
        return [None] * len(models), "eager"


def best_mode(models: Sequence[LoadedModel]) -> str:
    """The fastest way of execution that these models may have, compiling included."""
    return "graph" if all(m.device.startswith("cuda") for m in models) else "compiled"
