"""Profiles as JSON files, one per pair and setting; found by all that pass times depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.calibration import Calibration
from engine.costs import Known, PairCost, PassCost, Profile
from engine.errors import UserError
from engine.paths import profiles_folder
from workbench import environment

if TYPE_CHECKING:
    from engine.models import LoadedModel
    from workbench.models import Pair

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Setting:
    """All that pass times depend on. A profile fits where every field is the same."""

    target_hash: str
    draft_hash: str
    device: str
    dtype: str
    threads: int
    mode: str  # eager or compiled
    cache: bool
    batch: int
    processor: str  # and the graphics processor, where there is one
    torch: str

    @classmethod
    def here(
        cls, target: LoadedModel, draft: LoadedModel, *, mode: str, cache: bool, batch: int = 1
    ) -> Setting:
        """The setting of two loaded models in this process."""
        import torch

        gpu = environment.gpu(target.device)
        processor = environment.cpu_name() + (f", {gpu['name']}" if gpu else "")
        return cls(
            target_hash=target.content_hash,
            draft_hash=draft.content_hash,
            device=target.device,
            dtype=target.dtype,
            threads=torch.get_num_threads(),
            mode=mode,
            cache=cache,
            batch=batch,
            processor=processor,
            torch=torch.__version__,
        )

    def differences(self, other: Setting) -> list[str]:
        """What a profile of `other` was made for instead, in words."""
        words = {"cache": lambda on: "a cache" if on else "no cache"}
        found = []
        for name in (f.name for f in fields(self)):
            theirs = getattr(other, name)
            if theirs != getattr(self, name):
                say = words.get(name, lambda value, name=name: f"{name.replace('_', ' ')} {value}")
                found.append(say(theirs))
        return found


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile with what it was made for, on what, and from which runs."""

    setting: Setting
    target: str  # names, for people
    draft: str
    made: str  # ISO 8601, UTC
    costs: PairCost
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)  # by kind
    runs: Mapping[str, int] = field(default_factory=dict)  # by kind: how many runs were counted
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """What the engine takes."""
        return Profile(self.costs, self.calibrations)

    @property
    def name(self) -> str:
        """How people tell it from others."""
        counted = sum(one.num_tested for one in self.calibrations.values())
        acceptance = f"{counted:,} children counted" if counted else "no stored runs counted"
        return f"profile of {self.made[:16].replace('T', ' ')} UTC, {acceptance}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the way back."""
        return {
            "format": FORMAT,
            "setting": asdict(self.setting),
            "target": self.target,
            "draft": self.draft,
            "made": self.made,
            "costs": {name: cost.as_json() for name, cost in self.costs._asdict().items() if cost},
            "acceptance": {kind: one.as_json() for kind, one in self.calibrations.items()},
            "runs": dict(self.runs),
            "environment": dict(self.environment),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> StoredProfile:
        """Raises KeyError, TypeError or ValueError for what is no profile of this format."""
        if stored["format"] != FORMAT:
            raise ValueError(f"format {stored['format']}, this Draftree reads {FORMAT}")
        costs = {name: PassCost.from_json(cost) for name, cost in stored["costs"].items()}
        return cls(
            setting=Setting(**stored["setting"]),
            target=str(stored["target"]),
            draft=str(stored["draft"]),
            made=str(stored["made"]),
            costs=PairCost(**costs),
            calibrations={
                str(kind): Calibration.from_json(one) for kind, one in stored["acceptance"].items()
            },
            runs={str(kind): int(count) for kind, count in stored["runs"].items()},
            environment=dict(stored["environment"]),
        )


def profile_file(stored: StoredProfile) -> Path:
    """Where it lies; the name hashes its setting."""
    digest = hashlib.sha256(repr(stored.setting).encode()).hexdigest()[:12]
    pair = "--".join(Path(name).name[:60] for name in (stored.target, stored.draft))
    return profiles_folder() / f"{pair}-{digest}.json"


def write(stored: StoredProfile) -> Path:
    """Write it, whole or not at all, over an older one of the same setting.

    Raises UserError where it cannot be written.
    """
    file = profile_file(stored)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(stored.as_json()), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise UserError(
            f"The profile cannot be written to {file.parent}: {error.strerror or error}. Set "
            "DRAFTREE_PROFILES to a folder you can write to."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return file


def profiles_of_pair(target_hash: str, draft_hash: str) -> list[StoredProfile]:
    """All profiles of a pair, newest first. Files that cannot be read are passed over."""
    found = []
    for file in profiles_folder().glob("*.json"):
        try:
            stored = StoredProfile.from_json(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if (stored.setting.target_hash, stored.setting.draft_hash) == (target_hash, draft_hash):
            found.append(stored)
    return sorted(found, key=lambda stored: stored.made, reverse=True)


def find(setting: Setting) -> tuple[StoredProfile | None, str]:
    """The profile made for this very setting, or None and why there is none."""
    known = profiles_of_pair(setting.target_hash, setting.draft_hash)
    for stored in known:
        if stored.setting == setting:
            return stored, ""
    if not known:
        return None, "no profile of this pair; draftree profile makes one"
    nearest = min(known, key=lambda stored: len(setting.differences(stored.setting)))
    other = ", ".join(setting.differences(nearest.setting))
    return None, f"the profile of this pair is of another setting ({other})"


def profile_finder(pair: Pair, *, cache: bool, batch: int) -> Callable[[str], Known]:
    """For `EngineConfig.profile_for`: asked with the mode once that is known."""

    def known(mode: str) -> Known:
        if pair.draft is None or pair.others:
            return Known(None, "profiles are of one target and one draft")
        setting = Setting.here(pair.target, pair.draft, mode=mode, cache=cache, batch=batch)
        stored, why = find(setting)
        return Known(stored.profile, stored.name) if stored else Known(None, why)

    return known
