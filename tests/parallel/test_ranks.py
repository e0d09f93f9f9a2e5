"""Real ranks over gloo: the tokens and trees of one, whatever is divided and wherever it lies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine.engine import EngineConfig, build_engine
from engine.errors import UserError
from engine.models import load_model
from engine.parallel.asked import RanksConfig
from engine.registry import parse_options
from engine.requests import Request
from engine.sampling import Sampling
from tests.engine.tiny import decode_all, requests, tokens_of
from tests.parallel.models import engine_on

pytestmark = pytest.mark.slow

#: a cut at which trees may differ; and how far sums of one model's log-probabilities lie apart
#: when its passes have other rows
CLOSE, NOISE = 1e-5, 1e-4
TREE = {"policy": "eagle2", "nodes": 16, "depth": 5, "top_k": 4}
SAMPLED = Sampling(0.8, seed=4)


def decoded(engine, wanted):
    try:
        done, steps = decode_all(engine, wanted)
    finally:
        engine.close()
    return tokens_of(done), steps


def assert_same_but_at_cuts(trees, others):
    """Trees may differ only where, in one of them, what is in and what is out nearly tie."""
    for one, other in zip(trees, others, strict=True):
        ours, theirs = path_scores(one), path_scores(other)
        for path in ours.keys() & theirs.keys():
            assert abs(ours[path] - theirs[path]) < NOISE
        kept, others_kept = (
            set(list(ours)[: one.num_drafted]),
            set(list(theirs)[: other.num_drafted]),
        )
        assert len(kept) == len(others_kept)
        if kept != others_kept:
            last_in = min(ours[path] for path in kept - others_kept)
            first_out = max(ours[path] for path in others_kept - kept)
            assert abs(last_in - first_out) < CLOSE


def path_scores(tree):
    """Path score of each proposed node, those that stayed first, by its tokens from the root."""
    found, paths, scores = {}, [(int(tree.tokens_M[0]),)], [0.0]
    for node in range(1, len(tree.tokens_M)):
        parent = tree.parents_M[node]
        paths.append((*paths[parent], int(tree.tokens_M[node])))
        scores.append(scores[parent] + float(tree.draft_logprob_M[node]))
        found[paths[-1]] = scores[-1]
    return found


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_the_embedded_pair_has_the_same_tokens_and_trees(four_ranks, num_ranks):
    target, draft = load_model("pycode-target"), load_model("pycode-draft")
    options = parse_options("dynamic-tree", {"nodes": 20, "depth": 5, "top_k": 5})
    wanted = [
        Request(at, "", tuple(target.tokenizer.encode(text)), 40)
        for at, text in enumerate(["def quicksort(items):\n", "import os\n\ndef main("])
    ]

    def run(ranks):
        config = EngineConfig(
            method="dynamic-tree", options=options, sampling=Sampling(), batch=2,
            execution="eager", capacity=128, ranks=ranks,
        )  # fmt: skip
        return decoded(build_engine(config, target=target, draft=draft), wanted)

    tokens, steps = run(None)
    on_ranks, others = run(RanksConfig(num_ranks))
    assert on_ranks == tokens
    assert_same_but_at_cuts([s.tree for s in steps], [s.tree for s in others])


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("num_ranks", "divided", "placement"),
    [
        (2, "draft", "beside"),
        (4, "draft", "beside"),
        (2, "draft", "own"),
        (4, "draft", "own"),
        (2, "target", "beside"),
        (2, "both", "beside"),
        (3, "target", "own"),
        (4, "both", "split"),
    ],
)
def test_tokens_are_those_of_one_rank(four_ranks, num_ranks, divided, placement, sampling):
    wanted = requests(3)
    how = {"sampling": sampling, "batch": 2}
    plain, _ = decoded(engine_on(1, "llama", "dynamic-tree", TREE, **how), wanted)
    engine = engine_on(
        num_ranks, "llama", "dynamic-tree", TREE, divided=divided, placement=placement, **how
    )
    tokens, _ = decoded(engine, wanted)
    assert tokens == plain


@pytest.mark.parametrize("rule", ["multi-step", "without-replacement"])
def test_drawn_children_and_their_rules_work_on_ranks(four_ranks, rule):
    tree = {"expansion": "3,2,1"}
    how = {"sampling": SAMPLED, "verify": rule}
    plain, _ = decoded(engine_on(1, "llama", "static-tree", tree, **how), requests(2))
    for placement in ("beside", "own"):
        engine = engine_on(2, "llama", "static-tree", tree, placement=placement, **how)
        tokens, _ = decoded(engine, requests(2))
        assert tokens == plain


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
def test_a_target_cut_over_ranks_gives_the_same_tokens(four_ranks, architecture):
    plain, _ = decoded(engine_on(1, architecture, "autoregressive", {}), requests(2))
    engine = engine_on(2, architecture, "autoregressive", {}, divided="target")
    assert engine.parallel.description["target"] == [0, 1]
    heads = engine._target.runner.keys[0].shape[2]
    assert heads == 1, "each rank has half of two key-value heads"
    tokens, _ = decoded(engine, requests(2))
    assert tokens == plain


@pytest.mark.parametrize(
    ("num_ranks", "architecture", "method", "how", "part"),
    [
        (4, "llama", "dynamic-tree", {"divided": "target"}, "2 key-value heads"),
        (2, "gpt2", "dynamic-tree", {"divided": "target"}, "no tensor-parallel plan"),
        (2, "llama", "autoregressive", {}, "nothing to do: autoregressive has no draft model"),
        (2, "llama", "prompt-lookup", {"placement": "own"}, "no draft model to place"),
        (2, "llama", "layer-skip", {}, "nothing to do: layer-skip has no draft model"),
        (2, "llama", "staged", {}, "staged drafts on one rank, .*, or --placement own"),
        (3, "llama", "dynamic-tree", {"divided": "both", "placement": "own"}, "placement split"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(num_ranks, architecture, method, how, part):
    with pytest.raises(UserError, match=part):
        engine_on(num_ranks, architecture, method, {}, **how)


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({}, "nothing to do: policy auto weighs times"),
        ({"placement": "own"}, "must have beside it"),
        ({"placement": "split", "divided": "both"}, "must have beside it"),
    ],
)
def test_policy_auto_drafts_beside_a_target_that_is_cut(how, part):
    with pytest.raises(UserError, match=part):
        engine_on(2, "llama", "dynamic-tree", {"policy": "auto"}, **how)


@pytest.mark.parametrize(
    ("num_ranks", "divided", "placement", "lanes"),
    [
        (2, "draft", "beside", {(0, "target"), (0, "draft"), (0, "network"), (1, "draft"),
                                (1, "network")}),
        (2, "draft", "own", {(0, "target"), (0, "network"), (1, "draft")}),
        (2, "target", "beside", {(0, "target"), (1, "target"), (0, "draft")}),
    ],
)  # fmt: skip
def test_lanes_are_whole_and_on_one_clock(four_ranks, num_ranks, divided, placement, lanes):
    engine = engine_on(
        num_ranks, "llama", "dynamic-tree", TREE, divided=divided, placement=placement
    )
    engine.plain_step_ns(requests(1)[0])
    engine.parallel.begin_lanes()
    _, steps = decode_all(engine, requests(2))
    rows = engine.parallel.take_lanes()
    engine.close()
    assert {(row.rank, row.lane) for row in rows} == lanes
    assert all(row.begin_ns <= row.end_ns for row in rows)
    passes = sorted(row.step for row in rows if row.rank == 0 and row.what == "score")
    assert passes == list(range(len(steps))), "one target pass per step, counted from 0"
    for rank, lane in lanes:  # what one lane of one rank does is done one after another
        mine = [row for row in rows if (row.rank, row.lane) == (rank, lane)]
        assert all(a.end_ns <= b.begin_ns for a, b in pairwise(mine))
    first, last = min(r.begin_ns for r in rows), max(r.end_ns for r in rows)
    ours = [row for row in rows if row.rank == 0]
    slack = 50_000_000  # a clock that is off would be off by seconds
    assert min(r.begin_ns for r in ours) - first < slack
    assert last - max(r.end_ns for r in ours) < slack


def test_the_draft_goes_on_while_the_target_scores(four_ranks):
    engine = engine_on(2, "llama", "dynamic-tree", TREE, placement="own")
    engine.parallel.begin_lanes()
    decode_all(engine, requests(4, max_new_tokens=60))
    rows = engine.parallel.take_lanes()
    engine.close()
    ahead = [row for row in rows if row.what == "look ahead"]
    scores = [row for row in rows if row.what == "score"]
    assert ahead
    assert any(
        one.begin_ns < score.end_ns and score.begin_ns < one.end_ns
        for one in ahead
        for score in scores
    )


def test_engines_on_fewer_ranks_take_turns_on_the_same_processes(four_ranks):
    two = engine_on(2, "llama", "dynamic-tree", TREE)
    four = engine_on(4, "llama", "static-tree", {"expansion": "3,2"})
    plain, _ = decode_all(engine_on(1, "llama", "dynamic-tree", TREE), requests(1))
    for engine in (two, four, two):
        done, _ = decode_all(engine, requests(1))
        assert tokens_of(done) == tokens_of(plain)
    pids = [member.process.pid for member in four_ranks._members]
    assert len(set(pids)) == 3
    two.close()
    four.close()
    assert np.all([member.process.poll() is None for member in four_ranks._members])
