"""Parts of a model: what runs, what is kept, and that nothing of the model itself changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.compiling import part_from_json, part_to_json
from engine.errors import UserError
from engine.inside import Inside, capture
from engine.packages import package_path
from engine.parallel.asked import RanksConfig
from engine.parts import NORMED, Part, Sublayer, Uses
from engine.runner import Nodes, TreeRunner
from engine.sharing import SharedRunner
from engine.target import Target
from engine.tree import tree_from_lists
from engine.two_part import TwoPartTarget
from tests.engine.tiny import CONFIGS, engine_for, tiny

IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
SHALLOW = Part(last=1, taps=(1,))
USES = Uses(target=Part(first=1), draft=SHALLOW)


@pytest.fixture(params=list(CONFIGS), scope="module")
def loaded(request):
    return tiny(request.param)


@torch.inference_mode()
def test_captured_states_are_those_between_the_layers(loaded):
    inside = Inside.of(loaded.model)
    want = loaded.model(input_ids=IDS, output_hidden_states=True)
    logits, states = capture(loaded.model, (0, 1, NORMED), input_ids=IDS)
    assert torch.equal(logits, want.logits)
    assert torch.equal(states[0], want.hidden_states[0])
    assert torch.equal(states[1], want.hidden_states[1])
    assert torch.equal(states[NORMED], want.hidden_states[-1])
    assert torch.allclose(inside.head(states[NORMED]), want.logits, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_a_skipped_sublayer_is_one_that_adds_nothing(loaded, kind):
    inside = Inside.of(loaded.model)
    plain = loaded.model(input_ids=IDS).logits
    part, _ = inside.part(Part(skipped=frozenset({Sublayer(kind, 1)})))
    layer = inside.layers[1]
    names = ("self_attn", "attn", "attention") if kind == "attention" else ("mlp", "fc2")
    sublayer = next(getattr(layer, name) for name in names if hasattr(layer, name))

    def silence(module, args, out):
        return (out[0] * 0, *out[1:]) if isinstance(out, tuple) else out * 0

    hook = sublayer.register_forward_hook(silence)
    try:
        want = loaded.model(input_ids=IDS).logits
    finally:
        hook.remove()
    assert torch.allclose(part(input_ids=IDS).logits, want, atol=1e-5)
    assert not torch.allclose(want, plain, atol=1e-2)
    assert torch.equal(loaded.model(input_ids=IDS).logits, plain), "the model itself has changed"


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("drafted", [0, 3, 5])
def test_two_parts_score_a_tree_as_the_whole_does(loaded, slots, drafted):
    """Drafted in another order than the nodes', and some leaves never; keys and values too."""
    room = {"num_slots": slots, "capacity": 60, "max_tree": 12}
    whole = TreeRunner(loaded, **room)
    owner = TreeRunner(loaded, **room, uses=USES)
    shallow = SharedRunner(owner, SHALLOW)
    targets = Target(whole), TwoPartTarget(owner, shallow)
    trees = {}
    for slot in range(slots):
        prompt = [3 * slot + t for t in range(3 + 4 * slot)]
        for target in targets:
            target.admit({slot: prompt})
        shallow.admit(slot, prompt[:-1])
        trees[slot] = tree_from_lists([prompt[-1], 8, 7, 6, 5], [-1, 0, 0, 1, 1], [-1.0] * 5)
    for _ in range(2):
        if drafted:
            order, parents = [0, 2, 1, 4, 3][:drafted], [-1, 0, 0, 2, 2][:drafted]
            for slot in trees:
                shallow.node_rows[slot] = [
                    order.index(node) if node in order else -1 for node in range(5)
                ]
            shallow.forward(
                {slot: Nodes(tree.tokens_M[order], parents) for slot, tree in trees.items()}
            )
        want, got = (target.score(trees) for target in targets)
        for slot in trees:
            assert np.allclose(want[slot].logits_NV, got[slot].logits_NV, atol=2e-5)
            for target in targets:
                target.commit(slot, [0, 1, 4])
            cols = int(whole.length_B[slot])
            assert shallow.length_B[slot] == owner.length_B[slot] == cols
            for ours, theirs in zip(
                owner.keys + owner.values, whole.keys + whole.values, strict=True
            ):
                assert torch.allclose(ours[slot, :cols], theirs[slot, :cols], atol=2e-5)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_states_follow_what_is_committed(loaded, use_cache):
    points = (1, NORMED)
    room = {"num_slots": 2, "capacity": 60, "max_tree": 12, "use_cache": use_cache}
    runner = TreeRunner(loaded, **room, uses=Uses(Part(taps=points)))
    runner.admit(1, [1, 2, 3])
    runner.forward({1: Nodes([4, 9, 5, 6], [-1, 0, 0, 2])})
    runner.keep(1, [0, 2, 3])
    _, want = capture(loaded.model, points, input_ids=torch.tensor([[1, 2, 3, 4, 5, 6]]))
    for point in points:
        assert torch.allclose(runner.states[point][1, :6], want[point][0], atol=2e-5)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Part(last=3), "no layers 0 to 2"),
        (Part(first=2), "no layers 2 to 1"),
        (Part(last=0), "no layers"),
        (Part(skipped=frozenset({Sublayer("mlp", 2)})), "no mlp 2"),
        (Part(taps=(3,)), "no point 3"),
    ],
)
def test_a_part_that_a_model_does_not_have_is_refused(part, words):
    with pytest.raises(UserError, match=words):
        Inside.of(tiny().model).part(part)


@pytest.mark.parametrize(
    "part",
    [Part(), Part(first=1), SHALLOW, Part(skipped=frozenset({Sublayer("mlp", 0)}), taps=(NORMED,))],
)
def test_a_part_survives_being_written_down(part):
    again = part_from_json(part_to_json(part), tiny())
    assert again == part
    assert again.key == part.key


def test_parts_have_packages_of_their_own():
    loaded = tiny()
    parts = [Part(), Part(first=1), SHALLOW, Part(taps=(1,)), Part(last=1)]
    assert len({package_path(loaded, "tree", part) for part in parts}) == len(parts)


def test_ranks_without_anything_to_do_are_refused_with_a_sentence():
    with pytest.raises(UserError, match=r"nothing to do: .* Use --parallel target"):
        engine_for("early-exit", {"layers": 1}, tiny(), None, ranks=RanksConfig(num_ranks=2))
