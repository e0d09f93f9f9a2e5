"""Early exit and Kangaroo: what is shared between drafting and verification, and what it saves.

That their output is that of plain decoding is in test_contract.py, as for every method.
"""

from __future__ import annotations

import copy
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import UserError
from engine.heads.kangaroo import KangarooAdapter, causal
from engine.inside import Inside, capture
from engine.parts import Part
from engine.records import FinishReason
from engine.requests import Request
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.tree import Source
from tests.engine.heads_fixture import untrained, write_head
from tests.engine.tiny import CONFIGS, decode_all, engine_for, requests, tiny, tokens_of

GREEDY, WARM = Sampling(), Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=11)
PROMPT = (3, 14, 15, 9, 26, 5)
OUTPUTS = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "out_proj", "fc2")


def idle_from(loaded, exit_layer: int):
    """The model, of whose layers from `exit_layer` on none changes anything."""
    with torch.no_grad():
        for layer in Inside.of(loaded.model).layers[exit_layer:]:
            for name, module in layer.named_modules():
                if name.rpartition(".")[2] in OUTPUTS:
                    for weight in module.parameters():
                        weight.zero_()
    return loaded


def deeper(architecture: str, *, layers: int = 4, seed: int = 1):
    """A tiny model of so many layers."""
    config = copy.deepcopy(CONFIGS[architecture])
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = (config.layer_types * layers)[:layers]
    with patch.dict(CONFIGS, {architecture: config}):
        loaded = tiny(architecture, seed=seed)
    loaded.content_hash = f"{layers} layers"
    return loaded


def shaken(target, **sizes) -> KangarooAdapter:
    """An adapter whose attention has a say."""
    adapter = untrained("kangaroo", target, **sizes)
    torch.manual_seed(2)
    nn.init.normal_(adapter.self_attn.o_proj.weight, std=0.1)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(weight.half())  # as it is saved
    return adapter.requires_grad_(False)


def last_layer_as_adapter(target) -> KangarooAdapter:
    """What the last layer of a Llama does but for its MLP, which is silenced in the target too."""
    layer = target.model.model.layers[-1]
    heads = target.model.config
    adapter = untrained(
        "kangaroo", target, exit_layer=heads.num_hidden_layers - 1,
        num_kv_heads=heads.num_key_value_heads,
    )  # fmt: skip
    with torch.no_grad():
        layer.mlp.down_proj.weight.zero_()
        for name, weight in adapter.named_parameters():
            source = target.model.model if name.startswith("norm") else layer
            weight.copy_(source.get_parameter(name))
    return adapter


def own_cache(adapter: KangarooAdapter, hidden_BND: torch.Tensor) -> list[torch.Tensor]:
    """Keys and values (N, heads, dim) that an adapter makes of a text in one pass."""
    kept = []

    def attend(query, key, value):
        kept.extend(states[0].transpose(0, 1) for states in (key, value))
        return causal(query, key, value)

    adapter(hidden_BND, torch.arange(hidden_BND.shape[1])[None], attend)
    return kept


@pytest.mark.parametrize("architecture", list(CONFIGS))
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
def test_an_exit_that_says_what_the_target_says_is_accepted_to_the_last_token(
    architecture, sampling
):
    target = idle_from(tiny(architecture, seed=1), 1)
    options = {"layers": 1, "length": 3}
    for batch in (1, 2):
        engine = engine_for("early-exit", options, target, None, sampling=sampling, batch=batch)
        _, steps = decode_all(engine, requests(2, max_new_tokens=20))
        full = [step for step in steps if step.tree.num_drafted == 3]
        assert len(full) >= 10
        assert all(step.verdict.num_accepted == 3 for step in full), (
            "tokens per step are length + 1"
        )


@pytest.mark.parametrize("method", ["early-exit", "kangaroo"])
def test_the_plain_step_of_the_live_estimate_is_one_pass_over_all_layers(method, monkeypatch):
    target = deeper("llama")
    engine = engine_for(method, {}, target, None)
    expected, _ = decode_all(engine_for("autoregressive", {}, target, None), requests(1))
    passes = []
    forward = TreeRunner.forward

    def noted(self, nodes):
        passes.append(self.part.whole)
        return forward(self, nodes)

    monkeypatch.setattr(TreeRunner, "forward", noted)
    assert engine.plain_step_ns(requests(3)[2], steps=3) > 0
    assert passes == [True] * 5
    done, _ = decode_all(engine, requests(1))
    assert tokens_of(done) == tokens_of(expected), "the cache is as it was"


@pytest.mark.parametrize("batch", [1, 3])
def test_after_full_acceptance_the_adapter_lacks_no_token(batch):
    """An adapter that is the rest of its target goes on being right, whatever was accepted.

    One key too few or in the wrong place, and its attention is not the layer's any more.
    """
    target = tiny(seed=1)
    head = write_head(last_layer_as_adapter(target), target)
    options = {"head": str(head), "confidence": 0, "length": 4}
    engine = engine_for("kangaroo", options, target, None, batch=batch)
    done, steps = decode_all(engine, [Request(i, "", PROMPT[i:], 50) for i in range(3)])
    assert all(step.verdict.num_accepted == step.tree.num_drafted for step in steps)
    assert [len(step.emitted) for step in steps] == [5] * 30
    assert len(set(done[0].token_ids)) > 5, "a text that stands still shows nothing"


@pytest.mark.parametrize("method", ["early-exit", "kangaroo"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "gpt-neox", "gemma2", "gemma3"])
def test_caches_are_those_of_plain_decoding_entry_by_entry(method, architecture):
    """After every step: keys, values, states at the exit, and the adapter's own keys and values."""
    target = deeper(architecture)
    options = {"policy": "best-first", "nodes": 7, "top_k": 3}
    if method == "kangaroo":
        adapter = shaken(target, exit_layer=2)
        options |= {"head": str(write_head(adapter, target)), "confidence": 0}
    else:
        options["layers"] = 2
    engine = engine_for(method, options, target, None, batch=2)
    runner = engine._target.runner
    assert runner.part == Part(first=2)
    for request in requests(2, max_new_tokens=30):
        engine.add(request)
    accepted = 0
    while engine.busy:
        accepted += sum(step.verdict.num_accepted for step in engine.step().steps)
        for active in filter(None, engine._slots):
            slot, tokens = active.sequence.slot, active.sequence.tokens[:-1]
            plain = TreeRunner(target, num_slots=1, capacity=160, max_tree=1)
            plain.admit(0, tokens)
            cols = len(tokens)
            assert runner.length_B[slot] == cols
            for layer in range(4):
                for ours, theirs in ((runner.keys, plain.keys), (runner.values, plain.values)):
                    assert torch.allclose(
                        ours[layer][slot, :cols], theirs[layer][0, :cols], atol=1e-4, rtol=1e-4
                    ), f"layer {layer}"
            _, states = capture(target.model, (2,), input_ids=torch.tensor([tokens]))
            assert torch.allclose(runner.states[2][slot, :cols], states[2][0], atol=1e-4, rtol=1e-4)
            if method == "kangaroo":
                for ours, theirs in zip(
                    (runner.keys[-1], runner.values[-1]), own_cache(adapter, states[2]), strict=True
                ):
                    assert torch.allclose(ours[slot, :cols], theirs, atol=1e-4, rtol=1e-4)
    assert accepted > 2


@pytest.mark.parametrize("method", ["early-exit", "kangaroo"])
@pytest.mark.parametrize("policy", ["chain", "eagle2", "opt-tree", "best-first", "grow-and-prune"])
def test_verification_runs_the_later_layers_alone(method, policy):
    """All nodes of a tree have passed the first ones, each once, when drafting is over."""
    target = deeper("llama")
    engine = engine_for(method, {"policy": policy}, target, None)
    engine.add(Request(0, "", PROMPT, 40))
    ran = [0, 0]  # tokens that have passed the first layer and the last
    first, *_, last = Inside.of(target.model).layers
    before: list[list[int]] = []

    def count(at, args):
        ran[at] += args[0].shape[1]

    hooks = [
        first.register_forward_pre_hook(lambda module, args: count(0, args)),
        last.register_forward_pre_hook(lambda module, args: count(1, args)),
    ]
    score = engine._target.score
    engine._target.score = lambda trees: (before.append(list(ran)), score(trees))[1]
    while engine.busy:
        ran[:] = [0, 0]
        (step,) = engine.step().steps
        assert before[-1] == [ran[0], 0], "a first layer verified, or a last one drafted"
        assert ran[1] == step.tree.num_nodes
        assert step.tree.num_nodes <= ran[0] <= len(step.tree.tokens_M)
        assert set(step.tree.source_M[1:].tolist()) <= {Source.SELF}
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("batch", [1, 2])
def test_each_part_is_given_the_keys_that_it_was_compiled_for(batch):
    """The target's two layers, and to the draft the adapter's too."""
    engine = engine_for("kangaroo", {}, tiny(seed=1), None, batch=batch)
    given: dict[str, set[int]] = {"draft": set(), "target": set()}
    for name, runner in (("draft", engine._drafter._runner), ("target", engine._target.runner)):

        class Noting:
            """A forward that notes how many layers of keys it is given."""

            run, to = runner.run, given[name]
            mode, min_slots, packs = run.mode, run.min_slots, run.packs
            envelope = staticmethod(run.envelope)

            def __call__(self, *args, **kwargs):
                self.to.add(len(args[4]))
                return self.run(*args, **kwargs)

        runner.run = Noting()
    decode_all(engine, requests(2, max_new_tokens=4))
    assert given == {"draft": {3}, "target": {2}}


@pytest.mark.parametrize("batch", [1, 4])
def test_a_step_without_a_draft_runs_the_root_through_both_parts(batch):
    target = tiny(seed=1)
    options = {"keep_generating": 0.9, "policy": "eagle2"}
    reference = decode_all(engine_for("autoregressive", {}, target, None), requests())[0]
    engine = engine_for("early-exit", options, target, None, batch=batch)
    done, steps = decode_all(engine, requests())
    assert tokens_of(done) == tokens_of(reference)
    assert len({step.tree.num_drafted > 0 for step in steps}) == 2


def test_kangaroo_drafts_until_it_is_unsure_and_keeps_that_token():
    target = tiny(seed=1)
    head = str(write_head(shaken(target), target))
    wanted = requests(3, max_new_tokens=40)

    def chains_at(confidence: float) -> list[np.ndarray]:
        engine = engine_for("kangaroo", {"head": head, "confidence": confidence}, target, None)
        chains = []
        for step in decode_all(engine, wanted)[1]:
            request = wanted[step.request]
            last = len(request.prompt_ids) + request.max_new_tokens - 1
            probs = np.exp(step.tree.draft_logprob_M[1:])
            assert (probs[:-1] >= confidence).all()
            assert len(probs) == min(6, last - step.position) or probs[-1] < confidence
            chains.append(probs)
        return chains

    free = chains_at(0.0)
    assert max(map(len, free)) == 6
    assert max(map(len, chains_at(1.0))) == 1
    middle = float(np.median(np.concatenate(free)))
    assert len({len(chain) for chain in chains_at(middle)}) > 3


def test_an_exit_draws_children_by_every_rule():
    """The exit gives a distribution, so that rules for drawn children hold for it too."""
    target = idle_from(tiny(seed=1), 1)
    for rule in ("multi-step", "without-replacement", "traversal"):
        engine = engine_for("early-exit", {}, target, None, sampling=WARM, verify=rule)
        _, steps = decode_all(engine, requests(2))
        full = [step for step in steps if step.tree.num_drafted == 4]
        assert full
        assert all(step.verdict.num_accepted == 4 for step in full), "p = q: all are accepted"


@pytest.mark.parametrize(("architecture", "layers"), [("llama", 2), ("gemma3", 5), ("gpt2", 99)])
def test_an_exit_behind_the_last_layer_is_refused(architecture, layers):
    with pytest.raises(UserError, match=rf"{layers} layers.*has 2 \(layers 0 to 1\): let 1 of"):
        engine_for("early-exit", {"layers": layers}, tiny(architecture), None)


def test_a_model_of_one_layer_has_no_exit():
    with pytest.raises(UserError, match="single layer"):
        engine_for("early-exit", {}, deeper("llama", layers=1), None)


def test_by_itself_it_exits_behind_a_quarter_of_the_layers():
    for layers, expected in ((2, 1), (4, 1), (8, 2)):
        engine = engine_for("early-exit", {}, deeper("llama", layers=layers), None)
        assert engine._target.runner.part == Part(first=expected)


@pytest.mark.parametrize("method", ["early-exit", "kangaroo"])
def test_an_accepted_end_of_text_ends_the_request(method):
    target = idle_from(tiny(seed=1), 1)
    text = decode_all(engine_for("autoregressive", {}, target, None), [Request(0, "", PROMPT, 24)])
    tokens = text[0][0].token_ids
    for eos in set(tokens):
        ending = idle_from(tiny(seed=1, eos=eos), 1)
        options = {"confidence": 0} if method == "kangaroo" else {}
        done, steps = decode_all(
            engine_for(method, options, ending, None), [Request(0, "", PROMPT, 24)]
        )
        assert done[0].token_ids == tokens[: tokens.index(eos) + 1]
        assert done[0].finish_reason is FinishReason.EOS
        assert sum(step.num_kept for step in steps) == len(done[0].token_ids)
