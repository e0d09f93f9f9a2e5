"""Where things lie: shipped data, stored runs, caches. Nobody else builds such a path."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def _root() -> Path:
    """The folder that holds app.py, pages/ and data/: the checkout, or the wheel's bundle."""
    checkout = Path(__file__).resolve().parent.parent
    bundle = checkout / "workbench" / "_bundled"
    return bundle if bundle.is_dir() else checkout


def data_folder() -> Path:
    """Shipped data: prompts, the embedded model pair. `DRAFTREE_DATA` overrides."""
    override = os.environ.get("DRAFTREE_DATA")
    return Path(override) if override else _root() / "data"


def app_file() -> Path:
    """The Streamlit script that `draftree app` serves."""
    return _root() / "app.py"


def runs_folder() -> Path:
    """Stored runs. `DRAFTREE_RUNS` overrides; not created here."""
    override = os.environ.get("DRAFTREE_RUNS")
    return Path(override) if override else Path(platformdirs.user_data_dir("draftree")) / "runs"


def profiles_folder() -> Path:
    """Hardware profiles of model pairs. `DRAFTREE_PROFILES` overrides; not created here."""
    override = os.environ.get("DRAFTREE_PROFILES")
    return Path(override) if override else Path(platformdirs.user_data_dir("draftree")) / "profiles"


def skips_folder() -> Path:
    """Sets of skipped layers found by searches, where they cannot lie beside their model.

    `DRAFTREE_SKIPS` overrides; not created here.
    """
    override = os.environ.get("DRAFTREE_SKIPS")
    return Path(override) if override else Path(platformdirs.user_data_dir("draftree")) / "skips"


def cache_folder() -> Path:
    """Compiled forwards and other things that can be made again. `DRAFTREE_CACHE` overrides."""
    override = os.environ.get("DRAFTREE_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("draftree"))
