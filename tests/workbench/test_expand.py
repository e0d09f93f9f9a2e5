"""Options as lists: what they stand for, and what is said of those that are malformed."""

from __future__ import annotations

import pytest

from engine.errors import UserError
from workbench.comparing.arms import parse_arms
from workbench.comparing.expand import arm_text, expand, has_lists, read_arm, split_methods


def test_every_combination_once_and_in_order() -> None:
    assert expand(["dynamic-tree:nodes=[4,6],depth=[3,4]", "speculative", "speculative"]) == [
        "dynamic-tree:nodes=4,depth=3",
        "dynamic-tree:nodes=4,depth=4",
        "dynamic-tree:nodes=6,depth=3",
        "dynamic-tree:nodes=6,depth=4",
        "speculative",
    ]
    assert expand(["speculative:length=[3, 3 ,4]"]) == [
        "speculative:length=3",
        "speculative:length=4",
    ]


def test_bars_part_values_that_hold_commas() -> None:
    assert expand(["static-tree:expansion=[2,2,1|3,1]"]) == [
        "static-tree:expansion=2,2,1",
        "static-tree:expansion=3,1",
    ]
    assert expand(["static-tree:paths=[0;1;0.0|0;0.0]"]) == [
        "static-tree:paths=0;1;0.0",
        "static-tree:paths=0;0.0",
    ]


def test_arms_without_lists_stay_as_they_are() -> None:
    plain = "static-tree:expansion=4,2,2"
    assert expand([plain]) == [plain]
    assert not has_lists(plain)
    assert has_lists("dynamic-tree:nodes=[4]")


def test_words_in_a_list_do_not_begin_a_method() -> None:
    text = "dynamic-tree:policy=[eagle2,opt-tree,best-first],nodes=4,speculative"
    assert split_methods(text) == [
        "dynamic-tree:policy=[eagle2,opt-tree,best-first],nodes=4",
        "speculative",
    ]
    labels = [arm.label for arm in parse_arms(text, baselines=[])]
    assert labels == [
        "autoregressive",
        "dynamic-tree:policy=eagle2,nodes=4",
        "dynamic-tree:policy=opt-tree,nodes=4",
        "dynamic-tree:policy=best-first,nodes=4",
        "speculative",
    ]


def test_text_and_back() -> None:
    options = {"policy": ["eagle2", "opt-tree"], "nodes": 4}
    text = arm_text("dynamic-tree", options)
    assert text == "dynamic-tree:policy=[eagle2,opt-tree],nodes=4"
    assert read_arm(text) == ("dynamic-tree", {"policy": "[eagle2,opt-tree]", "nodes": "4"})
    assert arm_text("static-tree", {"expansion": ["2,1", "3"]}) == "static-tree:expansion=[2,1|3]"
    assert expand([arm_text("static-tree", {"expansion": ["2,1", "3"]})])[0].endswith("=2,1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dynamic-tree:nodes=[4,6", "without its other half"),
        ("dynamic-tree:nodes=[]", "a list is written"),
        ("dynamic-tree:nodes=[4,,6]", "a list is written"),
        ("dynamic-tree:nodes=[4]x", "a list is written"),
        ("dynamic-tree:[4,6]", "is no option"),
        ("d:" + ",".join(f"o{at}=[1,2,3]" for at in range(8)), "at most 400"),
    ],
)
def test_malformed_lists_are_named(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        expand([text])


def test_a_value_the_option_does_not_take_is_named() -> None:
    with pytest.raises(UserError, match="nodes of dynamic-tree is 'x'"):
        parse_arms(["dynamic-tree:nodes=[4,x]"])
