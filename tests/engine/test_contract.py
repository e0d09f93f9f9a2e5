"""What every registered method must keep: the same tokens as plain decoding, and its records whole.

A new method is tested by being registered: SETTINGS only adds option sets worth a run of their own.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from engine import ngram
from engine.errors import UserError
from engine.records import Fate, FinishReason, Origin
from engine.registry import METHODS, method_names, parse_options
from engine.sampling import Sampling
from engine.tree import Source
from tests.engine.heads_fixture import needs_head
from tests.engine.tiny import CONFIGS, decode_all, engine_for, near, requests, tiny, tokens_of

SETTINGS: dict[str, list[dict]] = {
    "speculative": [
        {"length": 1},
        {"length": 6},
        {"length": 6, "exit": 0.5},
        {"keep_generating": 0.3, "length": 3},
    ],
    "static-tree": [
        {"expansion": "1,1,3,1,1,1,1,1"},
        {"paths": "0;1;3;0.0;0.2;0.0.1"},
        {"acceptance": "0.6,0.2,0.1", "nodes": 9},
    ],
    "dynamic-tree": [
        {"policy": policy, "nodes": nodes, "depth": 5, "top_k": 4}
        for policy in ("eagle2", "opt-tree", "best-first", "grow-and-prune")
        for nodes in (3, 12)
    ]
    + [
        {"policy": policy, "nodes": 6, "exit": 0.2, "exit_target": 0.5, "keep_generating": 0.02}
        for policy in ("eagle2", "best-first")
    ]
    + [{"policy": "auto", "most": 10, "depth": 5}],
    "staged": [
        {"policy": policy, "nodes": 8, "depth": 5, "guesses": guesses}
        for policy, guesses in (("eagle2", 1), ("best-first", 4), ("grow-and-prune", 3))
    ],
    "ngram": [{"top_k": 1, "depth": 4}],
    "prompt-lookup": [{"matches": 4, "match": "earliest"}],
    "suffix": [{"shared": False, "nodes": 5}],
    "combine": [{"lookup": "prompt-lookup", "longest": 4}, {"draft_cost": 8, "policy": "opt-tree"}],
    "token-recycling": [{"nodes": 12, "depth": 3}],
    "eagle": [
        {"policy": "eagle2", "nodes": 12, "depth": 10, "top_k": 4, "width": 2},
        {"policy": "opt-tree", "nodes": 3, "threshold": 0, "keep_generating": 0.05},
        {"policy": "best-first", "nodes": 8, "exit": 0.2, "exit_target": 0.5},
        {"policy": "grow-and-prune", "nodes": 8},
    ],
    "medusa": [
        {"tree": "medusa"},
        {"tree": "1;3;0.0;0.2;0.0.1", "keep_generating": 0.05},
        {"nodes": 3, "acceptance": "0.5,0.4;0.2;0.1"},
    ],
    "layer-skip": [
        {"skip": "a1", "exit": 0, "length": 5},
        {"skip": "m0", "keep_generating": 0.3},
        {"skip": "a0,m1", "policy": "eagle2", "nodes": 8, "exit": 0},
        {"skip": "l0", "policy": "best-first", "nodes": 6, "depth": 5},
        {"skip": "l1", "policy": "grow-and-prune", "nodes": 5},
    ],
    "early-exit": [
        {"layers": 1, "length": 1},
        {"length": 6, "exit": 0.3, "keep_generating": 0.3},
        {"policy": "eagle2", "nodes": 12, "depth": 5, "top_k": 4, "width": 2},
        {"policy": "opt-tree", "nodes": 4, "keep_generating": 0.05},
        {"policy": "best-first", "nodes": 8, "exit": 0.2, "exit_target": 0.5},
        {"policy": "grow-and-prune", "nodes": 6},
    ],
    "kangaroo": [
        {"confidence": 0, "length": 4},
        {"confidence": 0.2, "policy": "best-first", "nodes": 8, "keep_generating": 0.05},
        {"confidence": 0.05, "policy": "eagle2", "nodes": 5},
    ],
    "universal": [{"floor": 0, "length": 6, "ahead": 0, "exit": 0.02}],
}
#: a random draft model is sure of nothing, so these methods would draft nothing by default
BOLD = {"universal": {"floor": 0}}
CASES = [
    pytest.param(
        method, options, id=f"{method}-{'-'.join(map(str, options.values())) or 'default'}"
    )
    for method in method_names()
    for options in [BOLD.get(method, {}), *SETTINGS.get(method, [])]
]
pytestmark = pytest.mark.usefixtures("drafting_pays")
GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=11)


@pytest.fixture(scope="module")
def pair():
    target = tiny()
    return target, near(target)


@pytest.fixture(scope="module")
def plain(pair):
    """Plain decoding of the same requests, greedy and sampled."""
    return {
        sampling: tokens_of(
            decode_all(engine_for("autoregressive", {}, *pair, sampling=sampling), requests())[0]
        )
        for sampling in (GREEDY, WARM)
    }


@pytest.mark.parametrize(("method", "options"), CASES)
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize("batch", [1, 4])
def test_same_tokens_as_plain_decoding(pair, plain, method, options, sampling, batch):
    engine = engine_for(method, options, *pair, sampling=sampling, batch=batch)
    done, steps = decode_all(engine, requests())
    assert tokens_of(done) == plain[sampling]
    assert [len(r.token_ids) for _, r in sorted(done.items())] == [24, 25, 26, 27, 28]
    untrained = needs_head(method)  # what such a head guesses may always be wrong
    speculates = sampling.greedy and method != "autoregressive" and not untrained
    if METHODS[method].needs_draft or speculates:
        assert len(steps) < sum(len(r.token_ids) for r in done.values()), (
            "nothing was ever accepted"
        )
    for step in steps:
        _check_record(step)
    if METHODS[method].chain(parse_options(method, options)):
        assert all(_is_chain(step.tree) for step in steps)


def _is_chain(tree) -> bool:
    return tree.parents_M[: tree.num_nodes].tolist() == list(range(-1, tree.num_nodes - 1))


def _check_record(step) -> None:
    tree, verdict = step.tree, step.verdict
    tree.check_integrity()
    assert tree.num_drafted <= step.budget
    path = verdict.path_A
    assert path[0] == 0
    assert all(tree.parents_M[child] == parent for parent, child in pairwise(path))
    assert [int(f) for f in verdict.fate_N[path[1:]]] == [Fate.ACCEPTED] * (len(path) - 1)
    assert (verdict.fate_N == Fate.ACCEPTED).sum() == verdict.num_accepted
    has_children = path[-1] in set(tree.parents_M[1 : tree.num_nodes].tolist())
    assert verdict.origin is (Origin.CORRECTION if has_children else Origin.BONUS)
    assert len(step.emitted) == len(path) == len(step.emitted_logprob) == len(step.top2_gap)
    assert np.isfinite(step.target_logprob_M[: tree.num_nodes]).all()
    assert step.times.wall > 0


@pytest.mark.parametrize("rule", ["multi-step", "without-replacement", "traversal"])
@pytest.mark.parametrize(
    ("method", "options"),
    [("speculative", {}), ("static-tree", {"expansion": "3,2,1"}),
     ("dynamic-tree", {"policy": "best-first", "nodes": 10, "top_k": 3})],
)  # fmt: skip
def test_sampled_children_run_and_repeat(pair, method, options, rule):
    runs = [
        decode_all(
            engine_for(method, options, *pair, sampling=WARM, verify=rule, batch=b), requests()
        )
        for b in (1, 1, 4)
    ]
    assert tokens_of(runs[0][0]) == tokens_of(runs[1][0]), "the same seed gave another output"
    assert tokens_of(runs[0][0]) == tokens_of(runs[2][0]), "the batch changed an output"
    assert any(step.verdict.num_accepted for step in runs[0][1])
    for step in runs[0][1]:
        _check_record(step)


@pytest.mark.parametrize("architecture", [name for name in CONFIGS if name != "llama"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
def test_every_architecture_and_method(architecture, sampling):
    target = tiny(architecture, seed=1)
    draft = near(target)
    wanted = requests(3, max_new_tokens=40)
    reference = tokens_of(
        decode_all(engine_for("autoregressive", {}, target, draft, sampling=sampling), wanted)[0]
    )
    for method in method_names()[1:]:
        for batch in (1, 4):
            engine = engine_for(method, {}, target, draft, sampling=sampling, batch=batch)
            assert tokens_of(decode_all(engine, wanted)[0]) == reference, f"{method}, batch {batch}"


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_greedy_equals_hugging_face_generate(architecture):
    target = tiny(architecture, seed=2)
    engine = engine_for("dynamic-tree", {}, target, near(target))
    done, _ = decode_all(engine, requests(3))
    for request in requests(3):
        with torch.inference_mode():
            prompt = torch.tensor([request.prompt_ids])
            out = target.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, eos_token_id=None,
                max_new_tokens=request.max_new_tokens, pad_token_id=0,
            )  # fmt: skip
        assert done[request.index].token_ids == out[0, len(request.prompt_ids) :].tolist()


@pytest.mark.parametrize(("method", "options"), CASES)
def test_without_cache_the_same(pair, plain, method, options):
    engine = engine_for(method, options, *pair, cache=False)
    done, _ = decode_all(engine, requests(2))
    assert tokens_of(done) == {i: plain[GREEDY][i] for i in range(2)}


@pytest.mark.parametrize(("method", "options"), CASES)
@pytest.mark.parametrize("batch", [1, 4])
def test_eos_ends_a_request_wherever_it_falls(plain, method, options, batch):
    """Every token of the plain output in turn is EOS: accepted, bonus or correction."""
    for at in (0, 3, 4, 7):
        eos = plain[GREEDY][2][at]
        target = tiny(eos=eos)
        done, steps = decode_all(
            engine_for(method, options, target, near(target), batch=batch), requests()
        )
        for index, full in plain[GREEDY].items():
            cut = full.index(eos) + 1 if eos in full else len(full)
            assert done[index].token_ids == full[:cut]
            ended = FinishReason.EOS if eos in full else FinishReason.LENGTH
            assert done[index].finish_reason is ended
        assert sum(step.num_kept for step in steps) == sum(len(r.token_ids) for r in done.values())


@pytest.mark.parametrize(("method", "options"), CASES)
def test_length_is_exact_down_to_one_token(pair, plain, method, options):
    for length in (1, 2, 3):
        wanted = requests(2, max_new_tokens=length)
        done, _ = decode_all(engine_for(method, options, *pair), wanted)
        for request in wanted:
            assert (
                done[request.index].token_ids
                == plain[GREEDY][request.index][: request.max_new_tokens]
            )


@pytest.mark.parametrize(("method", "options"), CASES)
def test_a_prompt_may_fill_the_context(pair, method, options):
    """159 of 160 positions taken: one token comes, and the caches hold."""
    from engine.requests import Request

    for size in (159, 157, 150):
        prompt = tuple(i % 60 for i in range(size))
        reference, _ = decode_all(
            engine_for("autoregressive", {}, *pair), [Request(0, "", prompt, 99)]
        )
        done, _ = decode_all(engine_for(method, options, *pair), [Request(0, "", prompt, 99)])
        assert len(done[0].token_ids) == 160 - size
        assert done[0].token_ids == reference[0].token_ids


def test_stop_strings(pair, plain):
    third, fourth = plain[GREEDY][3][6:8]
    stop = f"{third} {fourth}"
    for method in ("autoregressive", "static-tree"):
        done, _ = decode_all(engine_for(method, {}, *pair), requests(4, stop=(stop,)))
        assert done[3].finish_reason is FinishReason.STOP_STRING
        assert done[3].token_ids == plain[GREEDY][3][: len(done[3].token_ids)]
        assert stop not in done[3].text


def test_cancel_keeps_what_was_made(pair):
    engine = engine_for("static-tree", {}, *pair, batch=2)
    for request in requests(2):
        engine.add(request)
    engine.step()
    ended = engine.cancel()
    assert [r.finish_reason for r in ended] == [FinishReason.CANCELLED] * 2
    assert all(r.token_ids for r in ended)
    assert not engine.busy


@pytest.mark.parametrize("rule", ["multi-step", "without-replacement"])
def test_rules_for_draws_are_refused_where_nothing_is_drawn(pair, rule):
    with pytest.raises(UserError, match="draws none"):
        engine_for("prompt-lookup", {}, *pair, sampling=WARM, verify=rule)


CHAINS = [
    ("speculative", {}),
    ("static-tree", {"expansion": "1,1,1"}),
    ("static-tree", {"paths": "0.0.0"}),
    ("dynamic-tree", {"policy": "best-first", "top_k": 1}),
    ("staged", {"policy": "best-first", "top_k": 1}),
    ("layer-skip", {"skip": "a1", "length": 4}),
    ("layer-skip", {"skip": "m0", "policy": "best-first", "nodes": 1}),
    ("early-exit", {}),
    ("early-exit", {"policy": "best-first", "top_k": 1, "nodes": 3}),
    ("kangaroo", {"confidence": 0.1}),
    ("eagle", {"policy": "best-first", "top_k": 1, "nodes": 3}),
]


@pytest.mark.parametrize(("method", "options"), CHAINS)
def test_block_verification_of_whatever_drafts_chains(pair, method, options):
    runs = [
        decode_all(
            engine_for(method, options, *pair, sampling=WARM, verify="block", batch=batch),
            requests(3),
        )
        for batch in (1, 3)
    ]
    assert tokens_of(runs[0][0]) == tokens_of(runs[1][0])
    for step in runs[0][1]:
        _check_record(step)
    assert any(step.tree.num_drafted for step in runs[0][1])
    if not needs_head(method):
        assert any(step.verdict.num_accepted for step in runs[0][1])


@pytest.mark.parametrize("policy", ["eagle2", "opt-tree", "grow-and-prune", "auto"])
def test_growth_by_single_children_is_a_chain(pair, policy):
    for narrow in ({"top_k": 1}, {"nodes": 1, "most": 1}):
        options = {"policy": policy} | narrow
        if not METHODS["dynamic-tree"].chain(parse_options("dynamic-tree", options)):
            assert policy in ("grow-and-prune", "auto")
            continue
        _, steps = decode_all(engine_for("dynamic-tree", options, *pair), requests(2))
        assert all(_is_chain(step.tree) for step in steps)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("static-tree", {}),
        ("dynamic-tree", {"policy": "best-first"}),
        ("layer-skip", {"policy": "best-first"}),
        ("early-exit", {"policy": "best-first"}),
        ("kangaroo", {"policy": "best-first"}),
        ("eagle", {"policy": "best-first"}),
    ],
)
def test_block_verification_of_trees_is_refused(pair, method, options):
    with pytest.raises(UserError, match=f"{method} with these options drafts trees.*traversal"):
        engine_for(method, options, *pair, sampling=WARM, verify="block")


def test_typical_acceptance_is_another_text_and_greedy_is_not(pair, plain):
    done, steps = decode_all(
        engine_for("static-tree", {}, *pair, sampling=WARM, verify="typical"), requests()
    )
    assert tokens_of(done) != plain[WARM], "a lossy rule gave the lossless text"
    for step in steps:
        _check_record(step)
    done, _ = decode_all(engine_for("static-tree", {}, *pair, verify="typical"), requests())
    assert tokens_of(done) == plain[GREEDY]


@pytest.fixture(scope="module")
def own_words(pair, tmp_path_factory) -> str:
    """A trigram of what the draft model itself writes."""
    _, draft = pair
    wanted = requests(12, max_new_tokens=60)
    done, _ = decode_all(engine_for("autoregressive", {}, draft, draft), wanted)
    tokens = [token for record in done.values() for token in record.token_ids]
    folder = tmp_path_factory.mktemp("ngram")
    ngram.count(np.array(tokens), draft.vocab_size).save(folder)
    return str(folder)


@pytest.mark.parametrize("policy", ["eagle2", "opt-tree", "best-first", "grow-and-prune"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
def test_staged_grows_the_trees_of_dynamic_tree(pair, own_words, policy, sampling):
    options = {"policy": policy, "nodes": 7, "depth": 5, "top_k": 2, "width": 1}
    runs = [
        decode_all(engine_for(method, options | more, *pair, sampling=sampling), requests())[1]
        for method, more in (("dynamic-tree", {}), ("staged", {"model": own_words}))
    ]
    free = 0
    for one, other in zip(*runs, strict=True):
        assert one.tree.tokens_M.tolist() == other.tree.tokens_M.tolist()
        assert one.tree.parents_M.tolist() == other.tree.parents_M.tolist()
        assert other.tree.draft_logprob_M == pytest.approx(one.tree.draft_logprob_M, abs=1e-4)
        assert other.tree.draft_passes <= one.tree.draft_passes
        free += int((other.tree.source_M == Source.NGRAM).sum())
    assert free > 0
    if policy in ("eagle2", "best-first") and sampling is GREEDY:
        passes = [sum(step.tree.draft_passes for step in run) for run in runs]
        assert passes[1] < 0.8 * passes[0]
