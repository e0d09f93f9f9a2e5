"""The EAGLE head while drafting: features, the cache after steps, published checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from engine.compiled import forward_for
from engine.drafters.eagle import EagleDrafter
from engine.errors import UserError
from engine.growth import top_k
from engine.heads.eagle import EagleHead
from engine.heads.eagle_model import DRAFTING, FEATURES
from engine.heads.files import load_head
from engine.inside import capture
from engine.requests import Request
from engine.sampling import Sampling
from engine.training.eagle import EagleObjective
from engine.training.heads import HeadBatch
from engine.tree import Source
from tests.engine.compiling import SIZE, needs_compiler, square
from tests.engine.heads_fixture import untrained, write_head
from tests.engine.tiny import VOCAB, decode_all, engine_for, requests, tiny, tokens_of

ARCHITECTURES = ["llama", "qwen3", "gpt2", "gpt-neox", "gemma3"]
GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=11)


def lively(target, **sizes) -> EagleHead:
    """A random head whose layer does something, unlike that of an untrained one."""
    head = untrained("eagle", target, **sizes)
    with torch.no_grad():
        for weight in head.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.3)
    return head


def follow(drafter: EagleDrafter, texts, *, wrong: frozenset[int] = frozenset()):
    """Have a drafter draft given texts, by request, but for wrong tokens at some positions.

    Returns a list per request that collects the rows of logits it drafts by.
    """
    rows: dict[int, list] = {request: [] for request in texts}

    def grow(growth, chooser, depth):
        node, request = 0, chooser.noise.request
        for position in range(chooser.position, chooser.position + min(depth, 4)):
            (row,) = yield [node]
            rows[request].append(row)
            token = (texts[request][position] + (position in wrong)) % VOCAB
            _, logprob = top_k(row.logits_V, 1, row.log_norm)
            (node,) = growth.add_children(node, np.array([token]), logprob, logprob)
        return None

    drafter.grow = grow
    return rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch", [1, 4])
def test_drafting_computes_what_training_did(architecture, batch):
    """Step k of the training-time test at position t is the k-th drafted row behind row t."""
    target = tiny(architecture, seed=1)
    sizes = {"kv_heads": 2} if architecture == "llama" else {}
    head = lively(target, **sizes)
    objective = EagleObjective(target, steps=4)
    objective.module = head
    ids = torch.randint(0, VOCAB, (1, 24), generator=torch.Generator().manual_seed(4))
    logits, states = capture(target.model, objective.points, input_ids=ids, use_cache=False)
    trained = [objective._logits(out) for out in objective._roll(HeadBatch(ids, states, logits))]

    engine = engine_for("eagle", {"head": str(write_head(head, target))}, target, None, batch=batch)
    engine._drafter._head.load_state_dict(head.state_dict())  # files hold half the digits
    text = ids[0].tolist()
    places = [0, 3, 11, 17][:batch]
    for at in places:
        engine.add(Request(at, "", tuple(text[: at + 2]), 20))
    rows = follow(engine._drafter, dict.fromkeys(places, text))
    engine._drafter.propose([active.sequence for active in engine._slots if active])
    for at in places:
        assert len(rows[at]) == 4
        for step, row in enumerate(rows[at]):
            drafted = functional.log_softmax(torch.from_numpy(row.logits_V), -1)
            expected = functional.log_softmax(trained[step][0, at], -1)
            assert torch.allclose(drafted, expected, atol=2e-4), (at, step)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("wrong", [frozenset(), frozenset({13, 21})], ids=["all", "some"])
def test_rows_after_steps_are_those_of_a_fresh_run(architecture, wrong):
    """Whether all, some or none of a chain was accepted, nothing drafted stays in the cache."""
    target = tiny(architecture, seed=1)
    options = {"head": str(write_head(lively(target), target)), "depth": 4}
    rows_are_those_of_a_fresh_run(target, options, wrong)


def rows_are_those_of_a_fresh_run(target, options, wrong: frozenset[int]) -> None:
    """Follow what the target says, but for tokens at `wrong`, and compare rows after each step."""
    wanted = requests(3, max_new_tokens=24)
    plain = tokens_of(decode_all(engine_for("autoregressive", {}, target, None), wanted)[0])
    texts = {r.index: [*r.prompt_ids, *plain[r.index], *[0] * 8] for r in wanted}
    engine, fresh = (engine_for("eagle", options, target, None, batch=b) for b in (3, 1))
    follow(engine._drafter, texts, wrong=wrong)
    for request in wanted:
        engine.add(request)
    accepted = set()
    for _ in range(5):
        accepted |= {record.verdict.num_accepted for record in engine.step().steps}
        for active in filter(None, engine._slots):
            _check_rows(engine, active.sequence, fresh)
    assert max(accepted) == 4, "the trap of full acceptance was not tried"
    if wrong:
        assert len(accepted) > 1


def _check_rows(engine, sequence, fresh) -> None:
    """Compare a slot's rows with those of an engine that gets its tokens as a prompt."""
    drafter, slot = engine._drafter, sequence.slot
    runner, length = drafter._runner, int(drafter._runner.length_B[slot])
    assert [*sequence.tokens[: 1 + length], *drafter._pending[slot]] == sequence.tokens
    fresh.add(Request(0, "", tuple(sequence.tokens), 4))
    other = fresh._drafter._runner
    rows = [*runner.keys, *runner.values, *runner.states.values()]
    again = [*other.keys, *other.values, *other.states.values()]
    for one, another in zip(rows, again, strict=True):
        assert torch.allclose(one[slot, :length], another[0, :length], atol=1e-4)
    fresh.cancel()
    shape, ids = drafter._head.shape, torch.tensor([sequence.tokens])
    model = engine._loaded.model
    _, states = capture(model, tuple(sorted(set(shape.points))), input_ids=ids, use_cache=False)
    features = drafter._head.read([states[point] for point in shape.points])[0]
    assert torch.allclose(runner.states[FEATURES][slot, :length], features[:length], atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_deep_chain_is_accepted_whole_again_and_again(sampling, batch):
    """Nine tokens at once are more than the head takes along by default."""
    target = tiny(seed=1)
    wanted = requests(2, max_new_tokens=32)
    plain = tokens_of(
        decode_all(engine_for("autoregressive", {}, target, None, sampling=sampling), wanted)[0]
    )
    head = str(write_head(lively(target), target))
    for policy in ("opt-tree", "best-first"):
        options = {"head": head, "policy": policy, "depth": 9, "nodes": 12}
        engine = engine_for("eagle", options, target, None, sampling=sampling, batch=batch)
        done, steps = decode_all(engine, wanted)
        assert tokens_of(done) == plain
        drafted = [step.tree for step in steps if step.tree.num_drafted]
        assert all(set(tree.source_M[1:]) == {Source.HEAD} for tree in drafted)
    texts = {r.index: [*r.prompt_ids, *plain[r.index], *[0] * 9] for r in wanted}
    engine = engine_for("eagle", options, target, None, sampling=sampling, batch=batch)
    follow(engine._drafter, texts)
    done, steps = decode_all(engine, wanted)
    assert tokens_of(done) == plain
    assert len(steps) < 0.4 * sum(map(len, plain.values()))


def test_a_request_of_one_token_has_no_feature_yet():
    target = tiny(seed=1)
    engine = engine_for("eagle", {}, target, None)
    engine.add(Request(0, "", (5,), 8))
    trees = [record.tree for _ in range(3) for record in engine.step().steps]
    assert trees[0].num_drafted == 0
    assert all(tree.num_drafted for tree in trees[1:3])


def eagle3(target, **sizes) -> dict[str, torch.Tensor]:
    """Random tensors of a published EAGLE-3 head for a tiny target, draft vocabulary included."""
    generator = torch.Generator().manual_seed(8)
    hidden, heads, dim, middle, rows = 32, 4, 8, 48, 20
    shapes = {
        "fc.weight": (hidden, 3 * hidden),
        "midlayer.self_attn.q_proj.weight": (heads * dim, 2 * hidden),
        "midlayer.self_attn.k_proj.weight": (heads // 2 * dim, 2 * hidden),
        "midlayer.self_attn.v_proj.weight": (heads // 2 * dim, 2 * hidden),
        "midlayer.self_attn.o_proj.weight": (hidden, heads * dim),
        "midlayer.mlp.gate_proj.weight": (middle, hidden),
        "midlayer.mlp.up_proj.weight": (middle, hidden),
        "midlayer.mlp.down_proj.weight": (hidden, middle),
        "midlayer.hidden_norm.weight": (hidden,),
        "midlayer.input_layernorm.weight": (hidden,),
        "midlayer.post_attention_layernorm.weight": (hidden,),
        "norm.weight": (hidden,),
        "lm_head.weight": (rows, hidden),
    } | sizes  # fmt: skip
    tensors = {
        name: torch.randn(shape, generator=generator) * (0.2 if len(shape) > 1 else 1.0)
        for name, shape in shapes.items()
    }
    known = torch.randperm(VOCAB, generator=generator)[:rows].sort().values
    tensors["d2t"] = known - torch.arange(rows)
    tensors["t2d"] = torch.zeros(VOCAB, dtype=torch.bool).index_fill_(0, known, True)
    return tensors


def publish(folder, tensors, **config):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    told = {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "rms_norm_eps": 1e-5, "rope_theta": 500.0,
        "max_position_embeddings": 160,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [-1, 0, 1]},
    } | config  # fmt: skip
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def test_a_published_head_of_eagle_3_drafts_what_its_layer_says(tmp_path):
    target = tiny(seed=1)
    tensors = eagle3(target)
    folder = publish(tmp_path / "head", tensors)
    head = load_head(str(folder), target, kind="eagle")
    assert head.shape.points == (0, 1, 2)
    engine = engine_for("eagle", {"head": str(folder), "top_k": 8}, target, None)
    text = [3, 44, 17, 9, 30, 31, 2]
    engine.add(Request(0, "", tuple(text), 20))
    tree = engine._drafter.propose([engine._slots[0].sequence])[0]
    expected = functional.log_softmax(_reference(tensors, target, text), -1)
    known = tensors["d2t"] + torch.arange(20)
    children = [node for node in range(1, tree.num_nodes) if tree.parents_M[node] == 0]
    assert children
    for node in children:
        assert tree.tokens_M[node] in known
        row = int((known == int(tree.tokens_M[node])).nonzero())
        assert float(tree.draft_logprob_M[node]) == pytest.approx(float(expected[row]), abs=1e-4)
    wanted = requests(3)
    plain = decode_all(engine_for("autoregressive", {}, target, None), wanted)[0]
    for batch in (1, 3):
        engine = engine_for("eagle", {"head": str(folder)}, target, None, batch=batch)
        assert tokens_of(decode_all(engine, wanted)[0]) == tokens_of(plain)


def _reference(tensors, target, text) -> torch.Tensor:
    """Logits behind the last token, after `cnets.py` of SafeAILab/EAGLE, one row at a time."""
    ids = torch.tensor([text])
    _, states = capture(target.model, (0, 1, 2), input_ids=ids, use_cache=False)
    features = torch.cat([states[p][0, :-1] for p in (0, 1, 2)], -1) @ tensors["fc.weight"].T

    def norm(rows, name):
        return rows * (rows.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * tensors[name]

    def turned(rows):  # (N, heads, 8) by position, halves paired
        at = torch.arange(rows.size(0))[:, None] * 500.0 ** (-torch.arange(0, 8, 2) / 8)
        cos, sin = at.cos().repeat(1, 2)[:, None], at.sin().repeat(1, 2)[:, None]
        return rows * cos + torch.cat([-rows[..., 4:], rows[..., :4]], -1) * sin

    layer = "midlayer."
    embeds = target.model.get_input_embeddings()(ids)[0, 1:]
    both = torch.cat(
        [
            norm(embeds, layer + "input_layernorm.weight"),
            norm(features, layer + "hidden_norm.weight"),
        ],
        -1,
    )
    q, k, v = (
        (both @ tensors[f"{layer}self_attn.{name}_proj.weight"].T).view(len(text) - 1, -1, 8)
        for name in "qkv"
    )
    q, k, v = turned(q), turned(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    weights = (torch.einsum("hd,nhd->hn", q[-1], k) / 8**0.5).softmax(-1)
    mixed = torch.einsum("hn,nhd->hd", weights, v).flatten()
    out = features[-1] + mixed @ tensors[layer + "self_attn.o_proj.weight"].T
    inner = norm(out, layer + "post_attention_layernorm.weight")
    gate, up, down = (
        tensors[f"{layer}mlp.{name}_proj.weight"].T for name in ("gate", "up", "down")
    )
    out = out + (functional.silu(inner @ gate) * (inner @ up)) @ down
    return norm(out, "norm.weight") @ tensors["lm_head.weight"].T


def test_published_heads_that_do_not_fit_are_refused(tmp_path):
    target = tiny(seed=1)
    good = eagle3(target)
    neither = {"fc.weight": good["fc.weight"], "layer.weight": torch.zeros(32, 32)}
    with pytest.raises(UserError, match=r"neither midlayer.* nor layers\.0"):
        load_head(str(publish(tmp_path / "a", neither)), target, kind="eagle")
    wide = publish(tmp_path / "b", good, target_hidden_size=64)
    with pytest.raises(UserError, match="target_hidden of 64"):
        load_head(str(wide), target, kind="eagle")
    other = publish(tmp_path / "c", good, intermediate_size=64)
    with pytest.raises(UserError, match=r"gate_proj.*\(48, 32\).*\(64, 32\)"):
        load_head(str(other), target, kind="eagle")
    beyond = publish(tmp_path / "d", good | {"d2t": good["d2t"] + 50})
    with pytest.raises(UserError, match="drafts token"):
        load_head(str(beyond), target, kind="eagle")


@needs_compiler
@pytest.mark.slow
def test_a_compiled_head_drafts_the_same_trees(tmp_path):
    target = square(tmp_path / "model")
    head = lively(target, intermediate=SIZE)
    options = {"head": str(write_head(head, target)), "nodes": 8, "depth": 3}
    for batch in (3, 1):  # one slot runs packages that three slots have needed
        trees = []
        for execution in ("eager", "compiled"):
            engine = engine_for("eagle", options, target, None, batch=batch)
            runner = engine._drafter._runner
            if execution == "compiled":
                runner.run = forward_for(runner.loaded, batch, lambda *_: None, part=DRAFTING)
            assert runner.run.mode == execution
            _, steps = decode_all(engine, requests(4, max_new_tokens=12))
            trees.append([(s.request, s.position, s.tree.tokens_M.tolist()) for s in steps])
        assert trees[0] == trees[1]


def test_sizes_that_make_no_head_are_refused():
    target = tiny(seed=1)
    for sizes, words in (
        ({"heads": 3, "kv_heads": 2}, "kv_heads"),
        ({"points": [0, 7]}, "no point 7"),
        ({"hidden": 48}, "trained for another"),
        ({"width": 3}, "no size 'width'"),
        ({"heads": "many"}, "make no EAGLE head"),
    ):
        with pytest.raises(UserError, match=words):
            EagleHead.build(sizes, target)
