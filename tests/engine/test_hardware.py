"""Hardware profiles: there and back, and what is wrong with a damaged one is said."""

from __future__ import annotations

import json

import pytest

from engine.costs import PassCost
from engine.errors import UserError
from engine.hardware import HardwareProfile, Passes, Shape, from_json, read_profile


def profile() -> HardwareProfile:
    cost = PassCost((1, 8), (64, 512), ((1.0, 1.5), (1.2, 2.0)))
    return HardwareProfile(
        name="some-gpu", device="Some GPU", driver="1.2", torch="2.11", dtype="bfloat16",
        models={"target": Shape(32, 4096, 32, 8, 14336, 128256, 8_030_000_000, 7_500_000_000)},
        passes=(
            Passes("target", "graph", 4, cost), Passes("target", "graph", 1, cost),
            Passes("target", "eager", 1, cost),
        ),
        measured=True, how="benchmarks/gpu.py", bandwidth=3e12, findings={"speedup": [1]},
    )  # fmt: skip


def test_there_and_back_through_a_file(tmp_path):
    path = tmp_path / "some-gpu.json"
    path.write_text(json.dumps(profile().as_json()))
    assert read_profile(str(path)) == profile()


def test_tables_are_found_by_role_execution_and_batch():
    assert profile().batches("target", "graph") == [1, 4]
    assert profile().cost("target", "graph", 4).at(64)[8] == 1.5
    with pytest.raises(UserError, match="no passes of the draft in graph for 2 requests"):
        profile().cost("draft", "graph", 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 9}, "version 9"),
        ({"dtype": "int4"}, "dtype 'int4' is unknown"),
        ({"measured": "yes"}, "neither true nor false"),
        ({"passes": []}, "passes are missing"),
        ({"models": {}}, "belong to none of its models"),
        ({"models": {"target": {"layers": 3}}}, "missing"),
        ({"bandwidth": -1}, "bandwidth -1"),
        ({"passes": [{"role": "target", "execution": "graph", "batch": 0, "nodes": [1],
                      "contexts": [1], "ms": [[1.0]]}]}, "a batch of 0"),
        ({"passes": [{"role": "target", "execution": "graph", "batch": 1, "nodes": [1, 2],
                      "contexts": [1], "ms": [[1.0]]}]}, "do not fit together"),
        ({"passes": [{"role": "target", "execution": "graph", "batch": 1, "nodes": [1],
                      "contexts": [1], "ms": [[0.0]]}]}, "not a positive number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(change, said):
    with pytest.raises(UserError, match=said):
        from_json(profile().as_json() | change)


def test_a_missing_field_a_missing_file_and_no_json_are_named(tmp_path):
    stored = profile().as_json()
    del stored["device"]
    with pytest.raises(UserError, match="lacks 'device'"):
        from_json(stored)
    with pytest.raises(UserError, match="no hardware profile 'nowhere'"):
        read_profile("nowhere")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_profile(str(tmp_path / "bad.json"))
    with pytest.raises(UserError, match="is no hardware profile"):
        from_json([1])
