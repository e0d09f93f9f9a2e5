"""Profiles are found for the very setting they were made for, and for no other."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from engine.calibration import Calibration
from engine.costs import PairCost, PassCost
from engine.errors import UserError
from workbench import models
from workbench.models import Pair
from workbench.profiling import profile_finder
from workbench.profiling.files import Setting, StoredProfile, find, profiles_of_pair, write


@pytest.fixture
def pair(tiny_pair) -> Pair:
    loaded = (
        models.load(name, dtype="float32", device="cpu")
        for name in (tiny_pair.target, tiny_pair.draft)
    )
    target, draft = loaded
    return Pair(target, draft)


def profile_of(pair: Pair, **changes) -> StoredProfile:
    setting = Setting.here(pair.target, pair.draft, mode="eager", cache=True)
    counted = Calibration()
    counted.add(np.zeros(4, int), np.full(4, -0.3), np.array([True, True, True, False]))
    counted.add_parents(np.array([np.nan, -0.3]), np.array([True, False]))
    return StoredProfile(
        setting=dataclasses.replace(setting, **changes),
        target="big/one",
        draft="small",
        made="2026-11-21T17:00:00.000+00:00",
        costs=PairCost(
            PassCost((1, 2), (10, 20), ((2.0, 3.0), (2.5, 3.5))),
            PassCost((1,), (10,), ((0.5,),)),
        ),
        calibrations={"greedy": counted},
        runs={"greedy": 3},
        environment={"cpu": "some"},
    )


def test_a_profile_comes_back_as_it_was_written(pair):
    stored = profile_of(pair)
    file = write(stored)
    assert "/" not in file.name.removesuffix(".json")
    (again,) = profiles_of_pair(pair.target.content_hash, pair.draft.content_hash)
    assert json.dumps(again.as_json()) == json.dumps(stored.as_json())
    assert again.costs == stored.costs
    assert again.profile.calibrations["greedy"].chance(0, -0.3) > 0.7
    assert write(stored) == file, "a newer one of the same setting takes its place"


def test_the_fitting_profile_is_used_and_named(pair):
    write(profile_of(pair))
    known = profile_finder(pair, cache=True, batch=1)("eager")
    assert known.profile is not None
    assert known.said == "profile of 2026-11-21 17:00 UTC, 4 children counted"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threads": 7}, "threads 7"),
        ({"mode": "compiled"}, "mode compiled"),
        ({"cache": False}, "no cache"),
        ({"dtype": "bfloat16", "processor": "Abacus"}, "dtype bfloat16, processor Abacus"),
        ({"torch": "1.0"}, "torch 1.0"),
    ],
)
def test_a_profile_of_another_setting_is_not_used(pair, changes, said):
    write(profile_of(pair, **changes))
    known = profile_finder(pair, cache=True, batch=1)("eager")
    assert known.profile is None
    assert said in known.said
    assert profile_finder(pair, cache=True, batch=4)("eager").profile is None


def test_a_profile_of_other_models_is_not_used(pair):
    write(profile_of(pair, target_hash="other"))
    known = profile_finder(pair, cache=True, batch=1)("eager")
    assert known.profile is None
    assert "no profile of this pair" in known.said
    several = pair._replace(others=(pair.draft,))
    write(profile_of(pair))
    assert profile_finder(several, cache=True, batch=1)("eager").profile is None


def test_damaged_files_are_passed_over(pair):
    stored = profile_of(pair)
    file = write(stored)
    content = stored.as_json()
    for damaged in ("{", "[]", json.dumps(content | {"format": 99}), json.dumps({"format": 1}),
                    json.dumps(content | {"costs": {"target": {}}})):  # fmt: skip
        file.write_text(damaged)
        assert find(stored.setting)[0] is None
    write(stored)
    assert find(stored.setting)[0] is not None


def test_a_folder_that_cannot_be_written_to(pair, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAFTREE_PROFILES", str(tmp_path / "file"))
    with pytest.raises(UserError, match="DRAFTREE_PROFILES"):
        write(profile_of(pair))
