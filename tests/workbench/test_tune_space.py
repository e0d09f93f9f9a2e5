"""What a search varies: derived from declared options, pinned, narrowed, or refused."""

from __future__ import annotations

import optuna
import pytest

from engine.errors import UserError
from engine.registry import METHODS, describe, method_names, parse_options
from workbench.tuning.space import Choice, Range, defaults, derive, num_points, suggest
from workbench.tuning.sublayers import Sublayers


def by_name(method: str, **wanted):
    return {one.name: one for one in derive(method, **wanted)}


@pytest.mark.parametrize("method", [name for name in method_names() if name != "autoregressive"])
def test_every_method_has_a_space_of_its_own_options(method: str) -> None:
    found = by_name(method)
    infos = {info.name: info for info in describe(method)}
    assert found
    assert not {"keep_generating", "exit", "exit_target", "memory"} & set(found)
    for name, one in found.items():
        if isinstance(one, Sublayers):
            continue
        ends = one.values if isinstance(one, Choice) else (one.low, one.high)
        for value in ends:
            number = int(value) if infos[name].type == "int" else value
            assert getattr(parse_options(method, {name: number}), name) == number
    point = defaults(method, found.values(), {})
    usual = parse_options(method, {})
    assert point == {name: getattr(usual, name) for name in found}
    METHODS[method].max_nodes(parse_options(method, point))


def test_wide_bounds_are_narrowed_and_taken_on_a_logarithmic_scale() -> None:
    nodes = by_name("dynamic-tree")["nodes"]
    assert nodes == Range("nodes", 1, 24, 1, log=True), "declared up to 255"
    width = by_name("dynamic-tree")["width"]
    assert (width.low, width.high, width.log) == (0, 8, False)
    threshold = by_name("dynamic-tree")["threshold"]
    assert (threshold.low, threshold.high, threshold.step) == (0.0, 0.2, 0.01)
    assert threshold.size == 21
    recycled = by_name("token-recycling")["nodes"]
    assert (recycled.low, recycled.high) == (10, 255)


def test_pinning_narrowing_and_choosing() -> None:
    found = by_name("dynamic-tree", fix={"policy": "opt-tree"}, space={"nodes": "4..32"})
    assert "policy" not in found
    assert found["nodes"] == Range("nodes", 4, 32, 1, log=True)
    found = by_name("dynamic-tree", only=["depth"], space={"nodes": "[4,8,16]", "top-k": "2..4"})
    assert set(found) == {"nodes", "depth", "top_k"}
    assert found["nodes"] == Choice("nodes", (4, 8, 16))
    assert num_points(found.values()) == 3 * 16 * 3
    shapes = by_name("static-tree", space={"expansion": "[2,2|3,2,1]"}, only=["nodes"])
    assert shapes["expansion"].values == ("2,2", "3,2,1")
    assert "3,2,1" in by_name("static-tree")["expansion"].values, "declared as worth a try"
    assert by_name("dynamic-tree", only=["exit"])["exit"].high == 1.0, "common ones if named"
    assert by_name("suffix", space={"shared": "[on,off]"})["shared"].values == (True, False)


def test_the_first_point_lies_in_the_space_where_the_default_does_not() -> None:
    space = derive("dynamic-tree", only=["depth"], space={"nodes": "8..16", "top_k": "[1,2]"})
    assert defaults("dynamic-tree", space, {}) == {"nodes": 8, "depth": 4, "top_k": 1}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"space": {"nods": "1..4"}}, "has no option 'nods'"),
        ({"space": {"nodes": "0..4"}}, "Option nodes of dynamic-tree is 0"),
        ({"space": {"nodes": "[4,x]"}}, "Option nodes of dynamic-tree is 'x'"),
        ({"space": {"nodes": "9..4"}}, "write the smaller number first"),
        ({"space": {"policy": "1..4"}}, "is no number"),
        ({"fix": {"nodes": "4"}, "space": {"nodes": "4..8"}}, "both fixed and to be searched"),
        ({"fix": {"nodes": "400"}}, "from 1 to 255"),
        ({"only": ["nodes"], "space": {"nodes": "[4]"}}, "nothing left to vary"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(wanted, reason: str) -> None:
    with pytest.raises(UserError) as told:
        derive("dynamic-tree", **wanted)
    assert reason in str(told.value)


def test_text_needs_to_be_told_what_to_try() -> None:
    with pytest.raises(UserError, match=r"--space paths=\[a\|b\]"):
        derive("static-tree", only=["paths"])
    with pytest.raises(UserError, match="no option to search"):
        derive("autoregressive")


def test_options_that_a_policy_does_not_use_are_no_dimensions() -> None:
    fixed = by_name("dynamic-tree", fix={"policy": "auto"})
    assert {"most", "depth", "top_k", "width"} == set(fixed)
    assert "rounds" in by_name("dynamic-tree", fix={"policy": "grow-and-prune"})
    assert not {"rounds", "most"} & set(by_name("staged", fix={"policy": "opt-tree"}))
    with pytest.raises(UserError, match="only where policy is grow-and-prune"):
        derive("dynamic-tree", only=["rounds"])


def test_a_point_holds_what_matters_in_it() -> None:
    space = derive("dynamic-tree", only=["policy", "nodes", "most"])
    point = {"policy": "auto", "nodes": 4, "most": 8}
    found = suggest(optuna.trial.FixedTrial(point), "dynamic-tree", space, {})
    assert found == {"policy": "auto", "most": 8}
    point["policy"] = "opt-tree"
    found = suggest(optuna.trial.FixedTrial(point), "dynamic-tree", space, {})
    assert found == {"policy": "opt-tree", "nodes": 4}
