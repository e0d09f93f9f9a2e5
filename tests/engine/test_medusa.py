"""Medusa: what its heads guess, from which state, and what becomes of heads that do not fit.

That its output is that of plain decoding is in test_contract.py, as for every method.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from engine.drafters.medusa import Options, accuracies_of, tree_of
from engine.errors import UserError
from engine.heads.files import load_head
from engine.heads.medusa_fused import FusedMedusa
from engine.inside import Inside, capture
from engine.parts import NORMED
from engine.records import FinishReason
from engine.requests import Request
from engine.sampling import Sampling
from engine.tree import Source
from engine.verify_paths import Typical
from tests.engine.compiling import needs_compiler, square
from tests.engine.heads_fixture import medusa_by_heart, untrained, write_head
from tests.engine.tiny import CONFIGS, decode_all, engine_for, requests, tiny, tokens_of

WARM = Sampling(temperature=0.8, seed=11)
PROMPT = (3, 14, 15, 9, 26, 5)


@pytest.fixture(scope="module")
def target():
    return tiny()


def plain_text(target, num_tokens: int) -> list[int]:
    """Prompt and greedy continuation."""
    engine = engine_for("autoregressive", {}, target, None)
    done, _ = decode_all(engine, [Request(0, "", PROMPT, num_tokens)])
    return [*PROMPT, *done[0].token_ids]


def shaken(target, *, seed: int = 1, **sizes):
    """Heads of which no two agree."""
    heads = untrained("medusa", target, **sizes)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in heads.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return heads


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_heads_that_know_the_text_are_accepted_to_the_last_token(target, depth):
    """Of heads that are right about what they say, every step emits the whole depth and one more.

    Heads that are one place off are as sure of themselves, and of no use.
    """
    text = plain_text(target, 4 * (depth + 1))
    assert len(set(text[6:])) > 3, "a text that stands still cannot tell one place from the next"
    path = ".".join("0" * depth)
    emitted = {}
    for shift in (-1, 0, 1):
        heads = medusa_by_heart(target, text, num_heads=depth, shift=shift)
        options = {"head": str(write_head(heads, target)), "tree": path}
        engine = engine_for("medusa", options, target, None)
        done, steps = decode_all(engine, [Request(0, "", PROMPT, 4 * (depth + 1))])
        assert done[0].token_ids == text[6:]
        emitted[shift] = [len(step.emitted) for step in steps]
    assert emitted[0] == [depth + 1] * 4
    assert len(emitted[-1]) > 4 < len(emitted[1])


def test_an_accepted_end_of_text_ends_the_request(target):
    text = plain_text(target, 16)
    heads = write_head(medusa_by_heart(target, text), target)
    first = {token: text[6:].index(token) for token in text[6:]}
    drafted = [token for token, at in first.items() if at % 4 in (0, 1, 2)]  # else it is a bonus
    assert len(drafted) > 2
    for eos in drafted:
        ending = tiny(eos=eos)
        engine = engine_for("medusa", {"head": str(heads), "tree": "0.0.0"}, ending, None)
        done, steps = decode_all(engine, [Request(0, "", PROMPT, 16)])
        assert done[0].token_ids == text[6 : 7 + first[eos]]
        assert done[0].finish_reason is FinishReason.EOS
        assert steps[-1].num_kept < len(steps[-1].emitted) or steps[-1].verdict.num_accepted


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "opt", "qwen3"])
@pytest.mark.parametrize(("batch", "cache"), [(1, True), (4, True), (1, False), (4, False)])
def test_guesses_are_made_from_the_state_before_the_root(architecture, batch, cache):
    """Trees are those that the heads give for the very state a plain pass over the text has."""
    target = tiny(architecture, seed=1)
    folder = str(write_head(shaken(target), target))
    heads = load_head(folder, target)  # rounded as they are on disk
    engine = engine_for(
        "medusa", {"head": folder, "nodes": 12}, target, None, batch=batch, cache=cache
    )
    wanted = requests()
    done, steps = decode_all(engine, wanted)
    states, checked = {}, 0
    for request in wanted:
        text = [*request.prompt_ids, *done[request.index].token_ids]
        with torch.inference_mode():
            _, found = capture(target.model, (NORMED,), input_ids=torch.tensor([text]))
            states[request.index] = heads(found[NORMED][0])  # (H, N, V)
    for step in steps:
        logits_HNV = states[step.request]
        last = step.position - 2  # the root is at position - 1, and has not run
        if step.step == 0 and (last < 0 or not cache):
            assert step.tree.num_drafted == 0, "nothing has run yet"
            continue
        tree = step.tree
        logprob_HV = logits_HNV[:, last].log_softmax(-1)
        best_HV = logprob_HV.sort(-1, descending=True).values
        for node in range(1, tree.num_nodes):
            head, rank = int(tree.depth_M[node]) - 1, int(tree.rank_M[node])
            drafted = float(logprob_HV[head, int(tree.tokens_M[node])])
            assert drafted == pytest.approx(float(best_HV[head, rank]), abs=1e-3)
            assert drafted == pytest.approx(float(tree.draft_logprob_M[node]), abs=1e-3)
            checked += 1
        assert set(tree.source_M[1 : tree.num_nodes].tolist()) <= {Source.HEAD}
    assert checked > 500


@needs_compiler
@pytest.mark.slow
def test_compiled_passes_keep_the_same_states(tmp_path):
    target = square(tmp_path / "model")
    head = str(write_head(shaken(target), target))
    trees = {}
    for execution in ("eager", "compiled"):
        options = {"head": head, "nodes": 6}
        engine = engine_for("medusa", options, target, None, batch=3, execution=execution)
        assert engine.mode == execution
        _, steps = decode_all(engine, requests(4, max_new_tokens=12))
        trees[execution] = [
            (step.request, step.position, step.tree.tokens_M.tolist()) for step in steps
        ]
    assert trees["compiled"] == trees["eager"]


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(("tied", "projection"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_heads_run_together_say_what_each_says_alone(architecture, tied, projection, num_layers):
    target = tiny(architecture)
    sizes = {"num_layers": num_layers, "tied": tied, "projection": projection}
    heads = shaken(target, num_heads=4, **sizes)
    hidden_BD = torch.randn(3, heads.hidden_size)
    with torch.inference_mode():
        together = FusedMedusa(heads, 3, Inside.of(target.model).head)(hidden_BD)
        assert together.shape == (3, 3, target.vocab_size)
        for head in range(3):
            alone = heads.logits(hidden_BD, head)
            torch.testing.assert_close(together[head], alone, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(together[0], together[1], atol=0.1)


def test_heads_share_no_weights(target):
    heads = untrained("medusa", target, num_heads=3, num_layers=2)
    pointers = {weight.data_ptr() for weight in heads.parameters()}
    assert len(pointers) == 3 * 2 * 2, "weight and bias of each block"


def test_budgets_leave_the_worthiest_nodes(target):
    heads = str(write_head(shaken(target), target))
    card_free = accuracies_of({}, 3)
    request = Request(0, "", PROMPT, 20)
    for budget in (0, 1, 3):
        engine = engine_for("medusa", {"head": heads, "nodes": 9}, target, None)
        engine.add(request)
        tree = engine.step({0: budget}).steps[0].tree
        assert tree.num_drafted == budget
        small = tree_of(Options(nodes=max(budget, 1)), card_free)
        assert tree.parents_M[: budget + 1].tolist() == small.parents_N[: budget + 1].tolist()
        assert tree.rank_M[: budget + 1].tolist() == small.rank_N[: budget + 1].tolist()


def test_the_best_tree_follows_what_the_card_says(target):
    def by_rank(*shares):
        return {"by_rank": [*shares, 0.0], "count": 1000}

    wide = {"2": by_rank(0.3, 0.29, 0.28), "3": by_rank(0.1, 0.05), "4": by_rank(0.1)}
    deep = {"2": by_rank(0.9, 0.01), "3": by_rank(0.9, 0.01), "4": by_rank(0.9, 0.01)}
    for card, levels in (
        ({"held_out": wide, "written": {}}, "3 nodes by depth"),
        ({"held_out": wide, "written": deep}, "1 + 1 + 1 nodes by depth"),
    ):
        head = write_head(untrained("medusa", target), target, **card)
        engine = engine_for("medusa", {"head": str(head), "nodes": 3}, target, None)
        assert engine.setting == levels
    measured = accuracies_of({"held_out": wide}, 3, measured=((0.9, 0.05), (0.8,)))
    assert measured == (
        (0.9, 0.05, 0.28, 0.0),
        (0.8, 0.05, 0.0),
        (0.1, 0.0),
    ), "measured where it was, the card's elsewhere"


def test_typical_acceptance_is_lossy_and_takes_more(target):
    """A text known by heart that the noise would leave: what is typical enough passes."""
    text = plain_text(target, 24)
    head = str(write_head(medusa_by_heart(target, text), target))
    wanted, accepted, texts = [Request(0, "", PROMPT, 24)], {}, {}
    hot = Sampling(temperature=2.5, seed=2)
    for rule, typical in (("match", Typical()), ("typical", Typical(epsilon=1e-6, alpha=1e-6))):
        engine = engine_for(
            "medusa", {"head": head, "tree": "0.0.0"}, target, None, sampling=hot, verify=rule,
            typical=typical,
        )  # fmt: skip
        done, steps = decode_all(engine, wanted)
        accepted[rule] = sum(step.verdict.num_accepted for step in steps) / len(steps)
        texts[rule] = tokens_of(done)
        for step in steps:
            step.tree.check_integrity()
    plain = engine_for("autoregressive", {}, target, None, sampling=hot)
    assert texts["match"] == tokens_of(decode_all(plain, wanted)[0])
    assert texts["typical"] != texts["match"]
    assert accepted["typical"] > accepted["match"] + 0.5


@pytest.mark.parametrize("rule", ["multi-step", "traversal"])
def test_rules_for_draws_are_refused(target, rule):
    with pytest.raises(UserError, match="fixed"):
        engine_for("medusa", {}, target, None, sampling=WARM, verify=rule)


def test_heads_of_another_target_are_refused(target):
    other = dataclasses.replace(target, name="other", content_hash="1")
    head = str(write_head(untrained("medusa", other), other))
    with pytest.raises(UserError, match=r"trained for other \(1\), and the target is llama"):
        engine_for("medusa", {"head": head}, target, None)
    engine_for("medusa", {"head": head}, other, None)


def test_a_target_without_heads_says_how_to_make_them(target):
    with pytest.raises(UserError, match=r"no embedded medusa head for llama.*train medusa"):
        engine_for("medusa", {"head": ""}, target, None)
    with pytest.raises(UserError, match="'no-such-head'"):
        engine_for("medusa", {"head": "no-such-head"}, target, None)


def test_paths_deeper_than_the_heads_guess_are_refused_and_the_published_tree_is_cut(target):
    with pytest.raises(UserError, match=r"5 deep, and these heads guess 3"):
        engine_for("medusa", {"tree": "0.0.0.0.0"}, target, None)
    with pytest.raises(UserError, match=r"Path 'best-of'"):
        engine_for("medusa", {"tree": "best-of"}, target, None)
    engine = engine_for("medusa", {"tree": "medusa"}, target, None)
    engine.add(Request(0, "", PROMPT, 20))
    tree = engine.step().steps[0].tree
    assert tree.num_drafted == 10 + 28 + 23
    assert np.bincount(tree.depth_M).tolist() == [1, 10, 28, 23]


def test_every_architecture_of_the_contract_has_a_final_norm_to_read():
    for architecture in CONFIGS:
        assert Inside.of(tiny(architecture).model).norm is not None
