"""Models that other ranks load by themselves: functions with arguments, which can be sent."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.engine import EngineConfig, build_engine
from engine.models import LoadedModel
from engine.parallel.asked import RanksConfig
from engine.registry import METHODS, parse_options
from engine.sampling import Sampling
from tests.engine.heads_fixture import with_head
from tests.engine.tiny import near, tiny


def load_tiny(device: str, *, architecture: str, seed: int = 0) -> LoadedModel:
    return tiny(architecture, seed=seed)


def load_near(device: str, *, architecture: str, seed: int = 5) -> LoadedModel:
    return near(tiny(architecture), seed=seed)


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
    num_drafts: int = 1,
    **config: Any,
) -> Any:
    """An engine over tiny models of an architecture, on so many ranks.

    Methods with a trained head get an untrained one. `num_drafts` models are merged.
    """
    target = tiny(architecture)
    seeds = range(5, 5 + num_drafts) if METHODS[method].needs_draft else []
    drafts = [near(target, seed=seed) for seed in seeds]
    options = with_head(method, options, target)
    config.setdefault("sampling", Sampling())
    ranks = RanksConfig(
        num_ranks,
        divided=divided,
        placement=placement,
        look_ahead=look_ahead,
        load_target=LoaderOf(load_tiny, architecture=architecture),
        load_drafts=tuple(
            LoaderOf(load_near, architecture=architecture, seed=seed) for seed in seeds
        ),
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
        draft=drafts[0] if drafts else None,
        other_drafts=drafts[1:],
    )
