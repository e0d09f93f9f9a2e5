"""What tests of several engine modules share."""

from __future__ import annotations

import pytest

from engine.costs import PairCost, PassCost
from engine.drafters import auto


@pytest.fixture
def drafting_pays(monkeypatch):
    """Policy auto drafts where it pays; here it does, whatever else the machine is doing."""
    slow = PassCost((1, 64), (1, 2), ((10.0, 11.0), (10.0, 11.0)))
    fast = PassCost((1, 64), (1, 2), ((0.1, 0.2), (0.1, 0.2)))
    monkeypatch.setattr(auto, "measure", lambda *runners, **how: PairCost(slow, fast))
