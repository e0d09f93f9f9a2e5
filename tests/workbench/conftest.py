"""A tiny pair on disk, and folders of their own for every test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest


class TinyPair(NamedTuple):
    """Model folders, as a spec names them."""

    target: str
    draft: str


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DRAFTREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DRAFTREE_PROFILES", str(tmp_path / "profiles"))


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> TinyPair:
    """A random target, and a draft that agrees with it now and then."""
    from tiny_pair import write_pair

    folders = write_pair(tmp_path_factory.mktemp("pair"))
    return TinyPair(str(folders.target), str(folders.draft))
