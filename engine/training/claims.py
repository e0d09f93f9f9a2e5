"""What a work folder was made for, so that one recipe never goes on with another's work."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def same_claim(work_dir: Path, part: str, key: dict[str, Any]) -> bool:
    """Note what `part` is made for, and return whether that is what it was made for before.

    A part without a note counts as the same.
    """
    note = work_dir / f"{part}.json"
    key = json.loads(json.dumps(key))
    known = json.loads(note.read_text()) if note.exists() else key
    if known == key:
        work_dir.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(key))
    return bool(known == key)


def claim(work_dir: Path, part: str, key: dict[str, Any], parts: Sequence[str]) -> None:
    """Note what `part` is made for; `parts` that were made for something else are removed."""
    if not same_claim(work_dir, part, key):
        discard(work_dir, parts)
        same_claim(work_dir, part, key)


def discard(work_dir: Path, parts: Sequence[str]) -> None:
    """Remove parts (files or folders) and their notes."""
    for part in parts:
        path = work_dir / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        (work_dir / f"{Path(part).stem}.json").unlink(missing_ok=True)
        logger.info("discarded %s", path)
