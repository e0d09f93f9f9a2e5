"""Hardware profiles: what passes of a model cost on a device, measured there and kept as a file.

`benchmarks/gpu.py` writes them into data/hardware; simulations of machines that are not at hand
read them. Times are milliseconds of one pass, inputs and launching included, by the nodes of each
request, the context behind it, and how many requests share the pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.costs import PassCost
from engine.errors import UserError
from engine.models import DTYPES
from engine.paths import data_folder

VERSION = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's passes cost by."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    parameters: int
    read: int  # of them in every pass: not an embedding whose rows are only looked up


@dataclass(frozen=True, slots=True)
class Passes:
    """Pass times of one model in one way of execution, so many requests side by side."""

    role: str  # target or draft
    execution: str
    batch: int
    cost: PassCost  # by nodes of each request and by context


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """A device, a model (and a draft), and the times of their passes there."""

    name: str
    device: str
    driver: str
    torch: str
    dtype: str
    models: Mapping[str, Shape]  # by role
    passes: tuple[Passes, ...]
    #: False: derived from something else, and `how` says from what
    measured: bool
    how: str
    #: bytes per second that a copy within the device's memory was measured to move; None: unknown
    bandwidth: float | None = None
    #: what else was found there (kernels, steps, speedups), as `benchmarks/gpu.py` writes it
    findings: Mapping[str, Any] = field(default_factory=dict)

    def batches(self, role: str, execution: str) -> list[int]:
        """Batch sizes that were measured, in order."""
        return sorted(p.batch for p in self.passes if (p.role, p.execution) == (role, execution))

    def cost(self, role: str, execution: str, batch: int) -> PassCost:
        """Raises UserError where that was not measured."""
        for passes in self.passes:
            if (passes.role, passes.execution, passes.batch) == (role, execution, batch):
                return passes.cost
        known = ", ".join(f"{p.role} {p.execution} x {p.batch}" for p in self.passes)
        raise UserError(
            f"Profile {self.name} has no passes of the {role} in {execution} for {batch} requests;"
            f" it has {known or 'none'}."
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the way back."""
        passes = [
            {"role": p.role, "execution": p.execution, "batch": p.batch, **p.cost.as_json()}
            for p in self.passes
        ]
        return {
            "version": VERSION, "name": self.name, "device": self.device, "driver": self.driver,
            "torch": self.torch, "dtype": self.dtype,
            "models": {role: asdict(shape) for role, shape in self.models.items()},
            "passes": passes, "measured": self.measured, "how": self.how,
            "bandwidth": self.bandwidth, "findings": dict(self.findings),
        }  # fmt: skip


def from_json(stored: Any, *, source: str = "the profile") -> HardwareProfile:
    """Raises UserError that says what is wrong with it."""
    try:
        if stored["version"] != VERSION:
            raise ValueError(f"it is of version {stored['version']}, this code reads {VERSION}")
        if stored["dtype"] not in DTYPES:
            raise ValueError(f"dtype {stored['dtype']!r} is unknown")
        if not isinstance(stored["measured"], bool):
            raise ValueError(f"measured is {stored['measured']!r}, neither true nor false")
        models = {str(role): Shape(**shape) for role, shape in stored["models"].items()}
        passes = tuple(_passes(one, models) for one in stored["passes"])
        keys = [(p.role, p.execution, p.batch) for p in passes]
        if not passes or len(set(keys)) != len(keys):
            raise ValueError("passes are missing or given twice")
        bandwidth = stored.get("bandwidth")
        if bandwidth is not None and not 0.0 < float(bandwidth) < float("inf"):
            raise ValueError(f"bandwidth {bandwidth!r} is no positive number")
        texts = {
            key: str(stored[key]) for key in ("name", "device", "driver", "torch", "dtype", "how")
        }
        return HardwareProfile(
            **texts,
            models=models,
            passes=passes,
            measured=stored["measured"],
            bandwidth=bandwidth,
            findings=dict(stored.get("findings") or {}),
        )
    except KeyError as error:
        raise UserError(f"{source} is no hardware profile: it lacks {error}.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{source} is no hardware profile: {error}.") from error


def _passes(stored: Mapping[str, Any], models: Mapping[str, Shape]) -> Passes:
    role, batch = str(stored["role"]), int(stored["batch"])
    if role not in models:
        raise ValueError(f"passes of {role!r} belong to none of its models")
    if batch < 1:
        raise ValueError(f"a batch of {batch} is none")
    return Passes(role, str(stored["execution"]), batch, PassCost.from_json(dict(stored)))


def read_profile(name_or_path: str) -> HardwareProfile:
    """A profile of data/hardware by its name, or a file. Raises UserError."""
    folder = data_folder() / "hardware"
    path = folder / f"{name_or_path}.json"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.json"))) or "none"
        raise UserError(
            f"There is no hardware profile {name_or_path!r}; known are: {known}. benchmarks/gpu.py"
            " measures one."
        )
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
    return from_json(stored, source=str(path))
