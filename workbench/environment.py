"""What a run ran on: everything measuring.md asks a run to store beside its spec."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.models import LoadedModel
    from workbench.spec import RunSpec

PACKAGES = (
    "draftree",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "numba",
    "duckdb",
    "pyarrow",
    "pandas",
    "scipy",
)
#: switches of numerical libraries that change what is measured
_SWITCHES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "CUDA_VISIBLE_DEVICES",
    "KMP_AFFINITY",
    "OMP_WAIT_POLICY",
)


def describe(
    spec: RunSpec,
    *,
    target: LoadedModel,
    draft: LoadedModel | None,
    mode: str,
    other_drafts: Sequence[LoadedModel] = (),
) -> dict[str, Any]:
    """The environment of a run, as JSON values. Further drafts are `draft 2`, `draft 3`, ...

    Where the method drafts with a trained head, `head` says which one that was.
    """
    import torch

    drafts = [draft, *other_drafts] if draft else []
    models = {"target": _model(target)} | {
        f"draft {number}" if number > 1 else "draft": _model(one)
        for number, one in enumerate(drafts, 1)
    }
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": package_versions(),
        "git": git_state(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu(target.device),
        "device": target.device,
        "dtype": target.dtype,
        "attention": getattr(target, "attention", None),
        "mode": mode,
        "models": models,
        "tokenizers_match": all(same_tokenizer(target, one) for one in drafts) if drafts else None,
        "seed": spec.seed,
        "switches": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
    } | _head(spec, target)


def package_versions() -> dict[str, str]:
    """Versions of what matters for a figure; packages that are not there are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def cpu_name() -> str:
    """The processor's name as its maker gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor; empty where the system does not tell."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    except OSError:
        pass
    return ""


def git_state() -> dict[str, Any] | None:
    """Commit and whether files differ from it, where the code runs from a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def gpu(device: str) -> dict[str, Any] | None:
    """Name, memory and driver of a CUDA device, None on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    properties = torch.cuda.get_device_properties(torch.device(device))
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "driver": driver_version(),
    }


def driver_version() -> str | None:
    """Version of the NVIDIA driver, None where it cannot be asked."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def _model(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "name": loaded.name,
        "path": loaded.path,
        "content_hash": loaded.content_hash,
        "vocab_size": loaded.vocab_size,
        "context_length": loaded.context_length,
        "dtype": loaded.dtype,
    }


def _head(spec: Any, target: LoadedModel) -> dict[str, Any]:
    """The trained head of a run's method; nothing for other methods, and for whole comparisons."""
    from engine.heads import KINDS

    if getattr(spec, "method", None) not in KINDS:
        return {}
    from engine.heads.files import CARD, find_head, read_card, resolve_head
    from engine.models import content_hash

    named = spec.options.get("head")
    folder = resolve_head(named) if named else find_head(spec.method, target)
    if folder is None:
        return {}
    card = read_card(folder) if (folder / CARD).is_file() else {}
    return {
        "head": {
            "name": folder.name,
            "path": str(folder),
            "content_hash": content_hash(str(folder)),
            "made": card.get("date", ""),
        }
    }


def same_tokenizer(target: LoadedModel, draft: LoadedModel) -> bool:
    """Whether both map the same pieces to the same ids."""
    return target.tokenizer.get_vocab() == draft.tokenizer.get_vocab()
