"""From what is asked of ranks to ranks: what makes no sense is refused, the rest is laid out."""

from __future__ import annotations

from engine.errors import UserError
from engine.parallel.asked import Parts, RanksConfig
from engine.parallel.build import Parallel
from engine.parallel.group import group_of
from engine.parallel.measuring import MEASURED_PREFIX, step_times
from engine.parallel.needs import DIVISIBLE, most_drafting, why_not
from engine.parallel.placement import PassTimes, layout_of
from engine.parallel.tensor_parallel import degrees, why_not_cut
from engine.runner import TreeRunner

#: stands for times where those do not matter: one rank drafts, and the target gets the others
_ANY_TIMES = PassTimes(1.0, 1.0)


def start(config: RanksConfig, parts: Parts) -> Parallel:
    """Ranks for one engine, started where they are not there yet.

    Raises UserError for what makes no sense on several ranks; nothing is started then.
    """
    asked = {"num_drafts": len(parts.drafts)}
    reason = why_not(
        parts.method, parts.options, divided=config.divided, placement=config.placement, **asked
    )
    if reason:
        raise UserError(reason)
    most = most_drafting(parts.method, parts.options, **asked)
    split = config.placement == "split"
    layout = layout_of(
        config.num_ranks,
        divided=config.divided,
        placement=config.placement,
        most_drafting=most,
        times=_measured(parts) if split and most != 1 else _ANY_TIMES,
        degrees=degrees(parts.target, config.num_ranks) if split else (),
    )
    reason = why_not_cut(parts.target, len(layout.target))
    if reason:
        raise UserError(reason)
    _check_loadable(config, parts)
    if len(layout.target) > 1 and parts.execution not in ("auto", "eager"):
        raise UserError(
            f"A target that is cut over ranks runs eager; --execution {parts.execution} is for"
            " ranks that hold it whole."
        )
    _check_devices(config.num_ranks, parts.target.device)
    group = group_of(config.num_ranks, device=parts.target.device, threads=config.threads)
    return Parallel(config, parts, layout, group)


def _check_loadable(config: RanksConfig, parts: Parts) -> None:
    by_folder = [parts.target] if config.load_target is None else []
    by_folder += parts.drafts if not config.load_drafts else []
    for loaded in by_folder:
        if not loaded.path:
            raise UserError(f"{loaded.name} was not loaded from a folder; ranks cannot load it.")


def _measured(parts: Parts) -> PassTimes:
    """Times of a step on one rank. Several draft models take their turns there."""
    rows = max(parts.max_nodes, parts.max_draft_rows)
    target, draft = (
        TreeRunner(one, num_slots=1, capacity=MEASURED_PREFIX, max_tree=rows)
        for one in (parts.target, parts.drafts[0])
    )
    times = step_times(
        target,
        draft,
        nodes=parts.max_nodes,
        rows=parts.max_draft_rows,
        levels=max(1, DIVISIBLE[parts.method].levels(parts.options)),
    )
    return times._replace(draft=times.draft * len(parts.drafts))


def _check_devices(num_ranks: int, device: str) -> None:
    import torch

    if not device.startswith("cuda"):
        return
    first = int(device.partition(":")[2] or 0)
    there = torch.cuda.device_count()
    if first + num_ranks > there:
        raise UserError(
            f"{num_ranks} ranks need a GPU each, from {device} on, and torch sees {there}; lower "
            "--ranks, or use --device cpu."
        )
