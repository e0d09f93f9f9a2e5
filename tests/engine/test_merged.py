"""Trees of several draft models merged: the union, lossless decoding, caches that stay true."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from engine.drafters.merged import Part, merge
from engine.errors import UserError
from engine.records import FinishReason, Origin
from engine.registry import METHODS, method_names, parse_options
from engine.requests import Request
from engine.sampling import Sampling
from engine.tree import MOST_DRAFTS, Children, TokenTree, root_only, tree_from_lists
from engine.verify import Choice, match
from tests.engine.test_contract import GREEDY, WARM, _check_record
from tests.engine.tiny import (
    IdTokenizer,
    decode_all,
    engine_for,
    near,
    requests,
    tiny,
    tokens_of,
)

FEW = [
    pytest.param("static-tree", {"paths": "0;1;3;0.0;0.2;0.0.1"}, id="static"),
    pytest.param("dynamic-tree", {"nodes": 8, "depth": 5, "exit": 0.1}, id="dynamic"),
    pytest.param("speculative", {"keep_generating": 0.1}, id="chains"),
]
#: every method that merges, and the policies that prune in their own ways
MERGING = [
    *FEW,
    *(
        pytest.param(name, {}, id=name)
        for name in method_names()
        if METHODS[name].merges and name not in {case.values[0] for case in FEW}
    ),
    *(
        pytest.param("dynamic-tree", {"policy": policy, "nodes": 8, "top_k": 4}, id=policy)
        for policy in ("eagle2", "opt-tree", "best-first", "grow-and-prune")
    ),
]
WANTED = requests(max_new_tokens=12)
#: columns of a tree that merging equal ones may not change
COLUMNS = [
    f.name for f in dataclasses.fields(TokenTree) if f.name.endswith("_M") and f.name != "drafts_M"
]


def paths(tree: TokenTree, nodes: range | None = None) -> set[tuple[int, ...]]:
    """Token sequences from the root to each of the nodes, by default the scored ones."""
    return {
        tuple(int(tree.tokens_M[at]) for at in tree.path_to(node))
        for node in nodes or range(tree.num_nodes)
    }


def same(one: TokenTree, other: TokenTree) -> bool:
    return (one.num_nodes, one.children) == (other.num_nodes, other.children) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in COLUMNS
    )


def random_tree(rng: np.random.Generator, size: int) -> TokenTree:
    """A tree over few tokens, so that two of them have paths in common; some nodes are pruned."""
    tokens, parents, taken = [9], [-1], set()
    while len(tokens) < size:
        edge = (int(rng.integers(len(tokens))), int(rng.integers(4)))
        if edge not in taken:
            taken.add(edge)
            parents.append(edge[0])
            tokens.append(edge[1])
    tree = tree_from_lists(tokens, parents, [0.0, *(-rng.random(size - 1)).tolist()])
    tree.num_nodes = int(rng.integers(1, size + 1))
    tree.round_pruned_M[tree.num_nodes :] = 7
    return tree


# --- the union ---


def test_equal_trees_give_that_tree():
    rng = np.random.default_rng(0)
    for size in range(1, 14):
        tree = random_tree(rng, size)
        for count in (2, 3):
            union, parts = merge([tree] * count)
            assert same(union, tree)
            assert union.drafts_M.tolist() == [0] + [2**count - 1] * (size - 1)
            assert all(part.place_M.tolist() == list(range(size)) for part in parts)


def test_disjoint_trees_stand_side_by_side_the_first_ones_best():
    one = tree_from_lists([9, 1, 2, 3], [-1, 0, 0, 1], [0.0, -0.5, -1.0, -0.1])
    two = tree_from_lists([9, 4, 5, 6], [-1, 0, 0, 1], [0.0, -0.1, -0.2, -0.3])
    union, _ = merge([one, two])
    union.check_integrity()
    assert union.tokens_M.tolist() == [9, 1, 2, 3, 4, 5, 6]
    assert union.parents_M.tolist() == [-1, 0, 0, 1, 0, 0, 4]
    assert union.rank_M.tolist() == [0, 0, 1, 0, 2, 3, 0]
    assert union.drafts_M.tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert union.num_drafted == 6


def test_a_token_at_one_depth_under_two_parents_stays_two_nodes():
    """Merging by (token, depth) instead of by path would lose a path and make another up."""
    one = tree_from_lists([9, 1, 5, 7], [-1, 0, 1, 2], [0.0] * 4)
    two = tree_from_lists([9, 2, 5, 8], [-1, 0, 1, 2], [0.0] * 4)
    union, _ = merge([one, two])
    assert paths(union) == paths(one) | paths(two)
    assert union.num_drafted == 6


def test_shared_prefixes_are_drafted_once_and_believed_by_the_surest():
    one = tree_from_lists([9, 1, 2], [-1, 0, 1], [0.0, -2.0, -0.3])
    two = tree_from_lists([9, 3, 1, 4, 2], [-1, 0, 0, 2, 2], [0.0, -0.1, -1.0, -0.2, -0.9])
    one.round_added_M[1] = 3
    one.draft_passes, two.draft_passes = 2, 3
    union, parts = merge([one, two])
    assert union.tokens_M.tolist() == [9, 1, 2, 3, 4]
    assert union.rank_M.tolist() == [0, 0, 0, 1, 1]
    assert union.draft_logprob_M == pytest.approx([0.0, -1.0, -0.3, -0.1, -0.2])
    assert union.drafts_M.tolist() == [0, 3, 3, 2, 2]
    assert union.round_added_M.tolist() == [0, 1, 2, 1, 2]
    assert union.draft_passes == 5
    assert [part.place_M.tolist() for part in parts] == [[0, 1, 2], [0, 3, 1, 4, 2]]


def test_ranks_that_a_shape_skips_stay_skipped_and_others_follow_them():
    one = tree_from_lists([9, 1, 2], [-1, 0, 0], [0.0, -1.0, -2.0])
    one.rank_M[:] = [0, 0, 3]
    two = tree_from_lists([9, 5, 2, 6], [-1, 0, 0, 0], [0.0, -1.0, -2.0, -3.0])
    union, _ = merge([one, two])
    assert union.tokens_M.tolist() == [9, 1, 2, 5, 6]
    assert union.rank_M.tolist() == [0, 0, 3, 4, 5]


def test_what_one_draft_pruned_and_another_kept_is_scored():
    one = tree_from_lists([9, 1, 2, 3], [-1, 0, 0, 1], [0.0, -1.0, -2.0, -9.0])
    one.num_nodes, one.round_pruned_M[2:] = 2, 4  # 2 and 1-3 are pruned
    two = tree_from_lists([9, 2, 8, 1], [-1, 0, 1, 0], [0.0, -0.1, -0.2, -5.0])
    two.num_nodes, two.round_pruned_M[3:] = 3, 2  # 1 is pruned
    union, _ = merge([one, two])
    union.check_integrity()
    assert union.tokens_M.tolist() == [9, 1, 2, 8, 3]
    assert union.num_nodes == 4
    assert union.round_pruned_M.tolist() == [-1, -1, -1, -1, 4]
    assert union.drafts_M.tolist() == [0, 1, 2, 2, 1], "those whose own tree holds it"


def test_a_draft_that_is_silent_changes_nothing():
    tree = tree_from_lists([9, 1, 2], [-1, 0, 1], [0.0, -1.0, -2.0], children=Children.COUPLED)
    for trees in ([tree, root_only(9)], [root_only(9), tree]):
        assert same(merge(trees)[0], tree)
    assert merge([root_only(9), root_only(9)])[0].num_drafted == 0


def agreeing(tree: TokenTree, law: dict[tuple[int, ...], int]):
    """Rule 1 with a target whose choice depends on the path alone."""

    def choose(node: int) -> Choice:
        path = tuple(int(tree.tokens_M[at]) for at in tree.path_to(node))
        token = law.setdefault(path, hash(path) % 4)
        return Choice(token, lambda other: float(other == token))

    return match(tree, choose)


def test_random_trees_keep_every_path_and_every_draft_learns_its_own_verdict():
    rng = np.random.default_rng(1)
    deeper = 0
    for _ in range(300):
        own = [random_tree(rng, int(rng.integers(1, 16))) for _ in range(int(rng.integers(2, 5)))]
        union, parts = merge(own)
        union.check_integrity()
        assert paths(union) == set.union(*map(paths, own))
        everything = range(len(union.tokens_M))
        assert paths(union, everything) == set.union(
            *(paths(tree, range(len(tree.tokens_M))) for tree in own)
        )
        for parent in everything:
            ranks = union.rank_M[1:][union.parents_M[1:] == parent].tolist()
            assert len(ranks) == len(set(ranks)), "two siblings of one rank"
        law: dict[tuple[int, ...], int] = {}
        verdict = agreeing(union, law)
        emitted = [int(union.tokens_M[n]) for n in verdict.path_A[1:]] + [verdict.next_token]
        for which, part in enumerate(parts):
            assert (union.drafts_M[part.scored_N[1:]] & (1 << which)).all()
            alone, told = agreeing(part.tree, law), part.verdict(verdict, emitted)
            assert told.path_A == alone.path_A
            assert (told.next_token, told.origin) == (alone.next_token, alone.origin)
            assert told.fate_N.tolist() == alone.fate_N.tolist()
            assert np.array_equal(told.accept_prob_N, alone.accept_prob_N, equal_nan=True)
        accepted = [len(agreeing(tree, law).path_A) for tree in own]
        assert len(verdict.path_A) == max(accepted)
        deeper += len(set(accepted)) > 1
    assert deeper > 50, "the trees hardly differed"


def test_trees_of_other_roots_are_a_mistake():
    with pytest.raises(AssertionError, match="roots"):
        merge([root_only(1), root_only(2)])


# --- decoding ---


@pytest.fixture(scope="module")
def models():
    target = tiny()
    return target, near(target), near(target, noise=0.3, seed=6)


@pytest.fixture(scope="module")
def plain(models):
    return {
        sampling: tokens_of(
            decode_all(engine_for("autoregressive", {}, *models[:2], sampling=sampling), WANTED)[0]
        )
        for sampling in (GREEDY, WARM)
    }


@pytest.mark.parametrize(("method", "options"), MERGING)
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize("batch", [1, 4])
def test_same_tokens_as_plain_decoding(models, plain, method, options, sampling, batch):
    engine = engine_for(method, options, *models, sampling=sampling, batch=batch)
    done, steps = decode_all(engine, WANTED)
    assert tokens_of(done) == plain[sampling]
    assert len(steps) < sum(len(tokens) for tokens in plain[sampling].values())
    most = METHODS[method].max_nodes(parse_options(method, options)) - 1
    assert {step.budget for step in steps} == {2 * most}
    by = set()
    for step in steps:
        _check_record(step)
        if step.tree.num_drafted:
            by |= set(step.tree.drafts_M[1 : step.tree.num_nodes].tolist())
    assert by == {1, 2, 3}, "a draft brought nothing, or never what the other did"


@pytest.mark.parametrize(("method", "options"), MERGING)
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
def test_equal_draft_models_give_the_trees_of_one(models, method, options, sampling):
    target, draft, _ = models
    runs = [
        decode_all(engine_for(method, options, target, *drafts, sampling=sampling), WANTED[:2])[1]
        for drafts in ([draft], [draft, draft])
    ]
    for one, other in zip(*runs, strict=True):
        assert same(one.tree, other.tree)
        assert one.verdict.path_A == other.verdict.path_A
        assert other.tree.draft_passes == 2 * one.tree.draft_passes


def test_two_drafts_accept_at_least_what_the_better_one_does(models):
    target, *drafts = models
    steps = [
        len(decode_all(engine_for("static-tree", {}, target, *chosen), WANTED)[1])
        for chosen in ([drafts[0]], [drafts[1]], drafts)
    ]
    assert steps[2] < min(steps[:2])


@pytest.mark.parametrize(("method", "options"), FEW)
def test_without_cache_the_same_trees(models, method, options):
    runs = [
        decode_all(engine_for(method, options, *models, cache=cache), WANTED[:3])[1]
        for cache in (True, False)
    ]
    for one, other in zip(*runs, strict=True):
        assert one.tree.tokens_M.tolist() == other.tree.tokens_M.tolist()
        assert one.tree.parents_M.tolist() == other.tree.parents_M.tolist()
        assert other.tree.draft_logprob_M == pytest.approx(one.tree.draft_logprob_M, abs=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("method", "options"),
    [("static-tree", {"expansion": "2,1,1,1"}), ("speculative", {"length": 4})],
)
def test_every_drafts_cache_says_what_a_pass_without_one_would(models, method, options, batch):
    """What a node was believed, recomputed by plain passes over prompt, text so far and path."""
    _, *drafts = models
    asked = requests(3, max_new_tokens=16)
    done, steps = decode_all(engine_for(method, options, *models, batch=batch), asked)
    texts = {r.index: [*r.prompt_ids, *done[r.index].token_ids] for r in asked}
    deviating = 0
    for step in steps:
        tree = step.tree
        accepted = [
            max((int(tree.drafts_M[at]) >> which & 1 for at in step.verdict.path_A[1:]), default=0)
            for which in range(2)
        ]
        deviating += accepted[0] != accepted[1]
        prefix = texts[step.request][: step.position - 1]
        for node in range(1, tree.num_nodes):
            path = [int(tree.tokens_M[at]) for at in tree.path_to(node)]
            believed = [
                _logprob(draft, [*prefix, *path[:-1]], path[-1])
                for which, draft in enumerate(drafts)
                if tree.drafts_M[node] >> which & 1
            ]
            assert max(believed) == pytest.approx(float(tree.draft_logprob_M[node]), abs=2e-4)
    assert deviating > 3, "no path was ever one draft's alone"


def _logprob(loaded, tokens: list[int], token: int) -> float:
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([tokens])).logits[0, -1]
    return float(torch.log_softmax(logits.float(), -1)[token])


@pytest.mark.parametrize(("method", "options"), FEW)
@pytest.mark.parametrize("batch", [1, 4])
def test_eos_ends_a_request_wherever_it_falls(plain, method, options, batch):
    for at in (0, 4):
        eos = plain[GREEDY][2][at]
        target = tiny(eos=eos)
        drafts = near(target), near(target, noise=0.3, seed=6)
        done, _ = decode_all(engine_for(method, options, target, *drafts, batch=batch), WANTED)
        for index, full in plain[GREEDY].items():
            cut = full.index(eos) + 1 if eos in full else len(full)
            assert done[index].token_ids == full[:cut]
            ended = FinishReason.EOS if eos in full else FinishReason.LENGTH
            assert done[index].finish_reason is ended


@pytest.mark.parametrize(("method", "options"), FEW)
def test_length_is_exact_and_a_prompt_may_fill_the_context(models, plain, method, options):
    for length in (1, 2, 3):
        wanted = requests(2, max_new_tokens=length)
        done, _ = decode_all(engine_for(method, options, *models), wanted)
        for request in wanted:
            expected = plain[GREEDY][request.index][: request.max_new_tokens]
            assert done[request.index].token_ids == expected
    for size in (159, 157, 150):
        full = [Request(0, "", tuple(i % 60 for i in range(size)), 99)]
        reference, _ = decode_all(engine_for("autoregressive", {}, *models[:2]), full)
        done, _ = decode_all(engine_for(method, options, *models), full)
        assert done[0].token_ids == reference[0].token_ids
        assert len(done[0].token_ids) == 160 - size


# --- what cannot be merged ---


@pytest.mark.parametrize(
    "config",
    [
        {"verify": "traversal"},
        {"verify": "multi-step"},
        {"verify": "without-replacement"},
        {"children": "sampled"},
    ],
    ids=lambda config: next(iter(config.values())),
)
def test_draws_are_refused_with_what_to_do(models, config):
    with pytest.raises(UserError, match="Use --verify match with coupled or fixed"):
        engine_for("static-tree", {}, *models, sampling=WARM, **config)
    with pytest.raises(UserError, match="one draft model"):
        engine_for("speculative", {}, *models, sampling=WARM, verify="block")


def test_methods_and_policies_for_one_draft_model_say_so(models):
    with pytest.raises(UserError, match=r"Policy auto .* Take another policy, or one"):
        engine_for("dynamic-tree", {"policy": "auto"}, *models)
    alone = [n for n in method_names() if METHODS[n].needs_draft and not METHODS[n].merges]
    assert alone
    for name in alone:
        with pytest.raises(UserError, match="speculative, static-tree, dynamic-tree"):
            engine_for(name, {}, *models)


def test_the_draft_that_speaks_another_language_is_named(models):
    class Other(IdTokenizer):
        def get_vocab(self) -> dict[str, int]:
            return {f"x{token}": at for token, at in super().get_vocab().items()}

    stranger = dataclasses.replace(models[2], tokenizer=Other(), name="stranger")
    with pytest.raises(UserError, match="stranger"):
        engine_for("static-tree", {}, *models[:2], stranger)


def test_more_drafts_than_a_node_has_bits_are_refused(models):
    target, draft, _ = models
    with pytest.raises(UserError, match=f"at most {MOST_DRAFTS}"):
        engine_for("static-tree", {}, target, *[draft] * (MOST_DRAFTS + 1))


def test_typical_acceptance_of_merged_trees_is_recorded_whole(models):
    sampling = Sampling(temperature=0.8, seed=3)
    _, steps = decode_all(
        engine_for("static-tree", {}, *models, sampling=sampling, verify="typical"), requests(3)
    )
    assert any(step.verdict.num_accepted for step in steps)
    for step in steps:
        _check_record(step)


def test_a_part_knows_where_its_own_path_ends():
    one = tree_from_lists([9, 1, 2], [-1, 0, 1], [0.0] * 3)
    two = tree_from_lists([9, 1, 3], [-1, 0, 0], [0.0] * 3)
    union, (first, second) = merge([one, two])
    verdict = agreeing(union, {(9,): 1, (9, 1): 2, (9, 1, 2): 0})
    assert isinstance(first, Part)
    told = [part.verdict(verdict, [1, 2, 0]) for part in (first, second)]
    assert [t.path_A for t in told] == [[0, 1, 2], [0, 1]]
    assert [t.next_token for t in told] == [0, 2]
    assert [t.origin for t in told] == [Origin.BONUS, Origin.BONUS]
