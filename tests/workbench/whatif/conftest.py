"""Runs of the tiny pair, and what they are asked."""

from __future__ import annotations

from typing import Any

import pytest

from workbench import job
from workbench.spec import RunSpec


@pytest.fixture
def decode(tiny_pair):
    """Decodes with the tiny pair and gives the run's id."""

    def run(**changes: Any) -> str:
        values = {
            "method": "dynamic-tree",
            "target": tiny_pair.target,
            "draft": tiny_pair.draft,
            "prompt": "def walk(",
            "max_new_tokens": 40,
            "execution": "eager",
            "ignore_eos": True,
        } | changes
        if "workload" in changes:
            values.pop("prompt")
        finished = job.execute(RunSpec(**values), lambda event: None, lambda: False)
        assert finished.status == "finished", finished.message
        return finished.run_id

    return run
