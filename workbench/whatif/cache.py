"""Measured ranks, kept in the cache folder: they can be made again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UserError
from engine.paths import cache_folder
from workbench.store.reader import RunReader
from workbench.whatif.ranks import RunRanks, with_ranks

_FORMAT = 1


def completed_at(run_id: str) -> float:
    """When the ranks of a run were measured, 0 where they were not."""
    try:
        return _file(run_id).stat().st_mtime
    except OSError:
        return 0.0


def _file(run_id: str) -> Path:
    return cache_folder() / "ranks" / f"{run_id}.json"


def write_ranks(run_id: str, draft: str, requests: dict[str, Any]) -> None:
    """Keep `requests`: by request its tokens, and their ranks by way of choosing children.

    Raises UserError where they cannot be written.
    """
    content = {"format": _FORMAT, "draft": draft, "requests": requests}
    target = _file(run_id)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            f"The ranks cannot be kept in {target.parent}: {error.strerror or error}. Set "
            "DRAFTREE_CACHE to a folder you can write to."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def cached_ranks(reader: RunReader, recorded: RunRanks, draft: str | None) -> RunRanks | None:
    """Measured ranks of this very text and draft, None where there are none."""
    if draft is None:
        return None
    try:
        content = json.loads(_file(reader.run_id).read_text(encoding="utf-8"))
        requests = content["requests"]
        if content["format"] != _FORMAT or content["draft"] != draft:
            return None
        found = {}
        for request in recorded.requests:
            stored = requests[str(request.request)]
            if stored["tokens"] != request.tokens_L.tolist():
                return None
            found[request.request] = np.array(stored[recorded.children.value], np.int32)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return with_ranks(recorded, found, draft)
