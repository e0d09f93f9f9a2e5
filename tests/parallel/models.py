"""Models that other ranks load by themselves: functions with arguments, which can be sent."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.engine import EngineConfig, build_engine
from engine.models import LoadedModel
from engine.parallel.build import RanksConfig
from engine.registry import METHODS, parse_options
from engine.sampling import Sampling
from tests.engine.tiny import near, tiny


def load_tiny(device: str, *, architecture: str, seed: int = 0) -> LoadedModel:
    return tiny(architecture, seed=seed)


def load_near(device: str, *, architecture: str) -> LoadedModel:
    return near(tiny(architecture))


class LoaderOf:
    """A loader of equal ones is equal: ranks keep what they have loaded."""

    def __init__(self, load: Any, **arguments: Any) -> None:
        self.load, self.arguments = load, arguments

    def __call__(self, device: str) -> LoadedModel:
        return partial(self.load, device, **self.arguments)()

    def __hash__(self) -> int:
        return hash((self.load, *sorted(self.arguments.items())))

    def __eq__(self, other: object) -> bool:
        return hash(self) == hash(other)


def engine_on(
    num_ranks: int,
    architecture: str,
    method: str,
    options: dict[str, Any],
    *,
    divided: str = "draft",
    placement: str = "beside",
    look_ahead: bool = True,
    **config: Any,
) -> Any:
    """An engine over tiny models of an architecture, on so many ranks."""
    target = tiny(architecture)
    draft = near(target) if METHODS[method].needs_draft else None
    config.setdefault("sampling", Sampling())
    ranks = RanksConfig(
        num_ranks,
        divided=divided,
        placement=placement,
        look_ahead=look_ahead,
        load_target=LoaderOf(load_tiny, architecture=architecture),
        load_draft=LoaderOf(load_near, architecture=architecture),
    )
    return build_engine(
        EngineConfig(
            method=method,
            options=parse_options(method, options),
            execution="eager",
            capacity=160,
            ranks=ranks,
            **config,
        ),
        target=target,
        draft=draft,
    )
