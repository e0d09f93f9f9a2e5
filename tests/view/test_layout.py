"""Invariants of the one layout: whatever the tree, it can be read."""

import json
from itertools import pairwise

import numpy as np
import pytest
from scripted_runs import random_step

from engine.records import Origin
from workbench.events import StepDone
from workbench.view.folding import EMITTED, FOLD
from workbench.view.layout import BOX_HEIGHT, GAP, layout
from workbench.view.steps import step_layout

SIZES = [1, 2, 3, 7, 16, 33, 64, 127, 198, 199, 200, 255, 320]


def made(num_nodes: int, *, seed: int = 0, num_pruned: int = 0) -> StepDone:
    return random_step(np.random.default_rng(seed), 0, num_nodes, num_pruned=num_pruned)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_nodes", SIZES)
def test_boxes_stand_apart_and_time_runs_to_the_right(num_nodes: int, seed: int):
    tree = step_layout(made(num_nodes, seed=seed))
    boxes = range(len(tree["node"]))
    columns: dict[int, list[int]] = {}
    for box in boxes:
        columns.setdefault(tree["depth"][box], []).append(box)
    for column in columns.values():
        assert len({tree["x"][box] for box in column}) == 1
        levels = sorted(tree["y"][box] for box in column)
        assert all(lower - upper > BOX_HEIGHT for upper, lower in pairwise(levels))
    for box in boxes:
        up = tree["up"][box]
        if up < 0:
            assert box == 0
            continue
        assert up < box
        assert tree["x"][up] + tree["w"][up] + GAP <= tree["x"][box] + 1e-6
        assert tree["depth"][box] == tree["depth"][up] + 1
    assert max(tree["x"][box] + tree["w"][box] for box in boxes) <= tree["width"] + 1e-6
    assert max(tree["y"]) + BOX_HEIGHT / 2 <= tree["height"] + 1e-6
    assert min(tree["y"]) - BOX_HEIGHT / 2 >= 0


@pytest.mark.parametrize("num_nodes", SIZES)
def test_siblings_stand_in_rank_order_and_the_first_is_level_with_its_parent(num_nodes: int):
    tree = step_layout(made(num_nodes, seed=1))
    children: dict[int, list[int]] = {}
    for box, up in enumerate(tree["up"]):
        children.setdefault(up, []).append(box)
    for up, boxes in children.items():
        by_level = sorted(boxes, key=lambda box: tree["y"][box])
        ranked = [tree["rank"][box] for box in by_level if tree["node"][box] > 0]
        assert ranked == sorted(ranked)
        special = [tree["node"][box] for box in by_level if tree["node"][box] < 0]
        assert [tree["node"][box] for box in by_level][len(ranked) :] == special or up < 0
        if up >= 0:
            assert tree["y"][by_level[0]] == tree["y"][up]


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("num_nodes", SIZES)
def test_every_node_is_drawn_or_counted(num_nodes: int, pruned: bool):
    step = made(num_nodes, seed=2, num_pruned=num_nodes // 3)
    tree = step_layout(step, pruned=pruned)
    drawn = [node for node in tree["node"] if node >= 0]
    assert len(drawn) == len(set(drawn))
    assert len(drawn) + tree["hidden_nodes"] == len(step.pieces_M)
    assert tree["hidden_nodes"] == sum(tree["hidden"])
    assert len(tree["node"]) <= 200
    assert tree["node"].count(EMITTED) == 1
    assert set(step.record.verdict.path_A) <= set(drawn)


def test_small_trees_are_not_folded_and_large_ones_can_be_unfolded():
    assert step_layout(made(199))["hidden_nodes"] == 0
    step = made(320)
    assert step_layout(step)["hidden_nodes"] > 0
    whole = step_layout(step, unfolded=True)
    assert whole["hidden_nodes"] == 0
    assert FOLD not in whole["node"]
    assert len(whole["node"]) == 321


def test_the_likeliest_nodes_survive_folding():
    step = made(320, seed=4)
    tree = step_layout(step)
    drawn = {node for node in tree["node"] if node >= 0}
    whole = step_layout(step, unfolded=True)
    p_path = dict(zip(whole["node"], whole["p_path"], strict=True))
    folded = [p_path[node] for node in p_path if node > 0 and node not in drawn]
    off_path = drawn - set(step.record.verdict.path_A)
    assert max(folded) <= min(p_path[node] for node in off_path)


def test_pruned_nodes_are_counted_at_their_parents_or_drawn():
    step = made(10, num_pruned=40)
    tree = step_layout(step)
    assert "pruned" not in tree["kind"]
    assert tree["hidden_nodes"] == 40
    assert FOLD not in tree["node"]
    shown = step_layout(step, pruned=True)
    assert shown["kind"].count("pruned") == 40
    assert shown["hidden_nodes"] == 0


def test_the_emitted_token_hangs_on_the_end_of_the_accepted_path():
    for seed in range(20):
        step = made(16, seed=seed)
        tree = step_layout(step)
        box = tree["node"].index(EMITTED)
        assert tree["node"][tree["up"][box]] == step.record.verdict.path_A[-1]
        bonus = step.record.verdict.origin is Origin.BONUS
        assert tree["kind"][box] == ("bonus" if bonus else "correction")
        assert tree["round"][box] == max(tree["round"])


def test_the_result_is_plain_json_and_the_same_every_time():
    step = made(64, num_pruned=4)
    text = json.dumps(step_layout(step), allow_nan=False)
    assert json.loads(text) == step_layout(step)
    assert text == json.dumps(step_layout(made(64, num_pruned=4)))


def test_unknown_probabilities_are_none():
    step = made(5, num_pruned=2)
    step.record.tree.draft_logprob_M[1] = np.nan
    tree = step_layout(step, pruned=True)
    assert tree["p_draft"][tree["node"].index(1)] is None
    assert tree["p_target"][tree["node"].index(5)] is None
    assert tree["p_draft"][0] is None


def test_an_ill_formed_piece_cannot_leave_its_box():
    step = made(3)
    pieces = ["a\nb", "x" * 500, "\u202eevil\x1b[2J"]
    tree = layout(step.record, pieces, emitted="·" * 40)
    assert all(len(label) <= 13 for label in tree["label"])
    assert all(char.isprintable() for label in tree["label"] for char in label)


def test_of_several_draft_models_a_box_says_whose_tree_has_it():
    step = made(5)
    assert set(step_layout(step)["drafts"]) == {None}
    step.record.tree.drafts_M = np.array([0, 1, 2, 3, 3], np.uint8)
    tree = step_layout(step)
    said = {node: of for node, of in zip(tree["node"], tree["drafts"], strict=True) if node > 0}
    assert said == {1: "1", 2: "2", 3: "1+2", 4: "1+2"}
