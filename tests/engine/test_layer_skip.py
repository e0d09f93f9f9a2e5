"""Layer skipping: sets as they are typed and kept, one cache without drift, what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import OPTConfig

from engine.drafters import skip_sets
from engine.drafters.layer_skip import Options, can_skip_halves, resolved
from engine.drafters.skip_sets import SavedSet, check_set, parse_set, set_text, starting_points
from engine.errors import UserError
from engine.inside import Inside
from engine.parts import Sublayer
from engine.sampling import Sampling
from tests.engine import tiny as tinies
from tests.engine.tiny import CONFIGS, decode_all, engine_for, requests, tiny, tokens_of

GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=11)


@pytest.fixture
def skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTREE_SKIPS", str(tmp_path / "skips"))
    return tmp_path / "skips"


# -- how sets are written ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("a3+m4-6", "a3+m4-6"),
        ("M4 m5,m6  A3", "a3+m4-6"),
        ("l2", "l2"),
        ("a2,m2,a3,m3,a5", "l2-3+a5"),
        ("a1-6,m3", "a1-6+m3"),
        ("l0-1,l2", "l0-2"),
    ],
)
def test_sets_are_read_and_written(text, shortest):
    found = parse_set(text)
    assert found
    assert set_text(found) == shortest
    assert parse_set(shortest) == found


def test_a_range_stands_for_its_layers():
    assert parse_set("a1-2,l4") == {
        Sublayer("attention", 1), Sublayer("attention", 2),
        Sublayer("attention", 4), Sublayer("mlp", 4),
    }  # fmt: skip


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4, 8, 32])
def test_starting_points_keep_the_first_and_last_layers(num_layers):
    points = starting_points(num_layers)
    for skipped in points.values():
        layers = {layer for _, layer in skipped}
        assert check_set(skipped, num_layers, name="model") == skipped
        if num_layers > 2:
            assert not layers & {0, num_layers - 1}
    if num_layers == 8:
        assert set_text(points["every other middle layer"]) == "l1+l3+l5"
        assert set_text(points["the middle half of the layers"]) == "l2-4"
        assert any(len(one) == 9 for one in points.values()), "half of the sublayers and more"


@pytest.mark.parametrize(
    ("skip", "reason"),
    [
        ("", "leaves nothing out"),
        ("a5-3", "a5-3 runs backwards"),
        ("a2", "layer 2, and llama has 2, counted from 0 to 1"),
        ("x3", r"'x3', which is neither a set nor the name of a saved one.*a3\+m4-6"),
        ("a1,", None),
        ("none.json", "no such file"),
    ],
)
def test_what_is_no_set_is_a_sentence(skips, skip, reason):
    target = tiny()
    if reason is None:
        assert resolved(Options(skip=skip), target).skipped == {Sublayer("attention", 1)}
        return
    with pytest.raises(UserError, match=reason):
        engine_for("layer-skip", {"skip": skip}, target, None)


# -- saved sets ----------------------------------------------------------------------------------


def saved(skip: str, target_hash: str, made: str = "2026-01-01T00:00:00") -> SavedSet:
    return SavedSet(skip=skip, target="m", target_hash=target_hash, num_layers=2, made=made)


def beside(tmp_path: Path):
    """A tiny model that claims to lie in a folder."""
    target = copy.copy(tiny())
    target.path, target.content_hash = str(tmp_path / "model"), "abc"
    Path(target.path).mkdir()
    return target


def test_a_set_is_kept_beside_its_model_and_found_by_name(skips, tmp_path):
    target = beside(tmp_path)
    file = skip_sets.save(saved("m1", "abc"), "mine", path=target.path)
    assert file == tmp_path / "model" / "layer-skip" / "mine.json"
    assert json.loads(file.read_text())["skip"] == "m1"
    found = resolved(Options(skip="mine"), target)
    assert (set_text(found.skipped), found.source) == ("m1", "saved: mine")
    assert engine_for("layer-skip", {"skip": "mine"}, target, None).setting == (
        "skips m1 (saved: mine)"
    )
    assert set_text(resolved(Options(skip=str(file)), target).skipped) == "m1"
    with pytest.raises(UserError, match="there are: mine"):
        resolved(Options(skip="yours"), target)


def test_auto_takes_the_newest_of_this_target_and_else_a_known_start(skips, tmp_path):
    target = beside(tmp_path)
    begun = resolved(Options(), target)
    assert set_text(begun.skipped) == "l1"
    assert "nothing was searched for llama" in begun.source
    skip_sets.save(saved("a0", "abc", "2026-01-02"), "older", path=target.path)
    skip_sets.save(saved("a1", "abc", "2026-01-03"), "newer", path=target.path)
    skip_sets.save(saved("l0", "other", "2026-01-04"), "foreign", path=target.path)
    (tmp_path / "model" / "layer-skip" / "broken.json").write_text("{")
    found = resolved(Options(), target)
    assert (set_text(found.skipped), found.source) == ("a1", "saved: newer")


def test_a_set_of_another_target_is_refused_and_says_how_all_the_same(skips, tmp_path):
    target = beside(tmp_path)
    skip_sets.save(saved("a1", "other"), "foreign", path=target.path)
    with pytest.raises(UserError, match=r"found for m \(other\).*llama \(abc\).*-o skip=a1"):
        resolved(Options(skip="foreign"), target)


def test_a_damaged_set_is_a_sentence(skips, tmp_path):
    target = beside(tmp_path)
    file = skip_sets.save(saved("a1", "abc"), "mine", path=target.path)
    whole = file.read_text()
    for text in ("", whole[: len(whole) // 2], "[1]", whole.replace("a1", "a5-3"), '{"kind": 3}'):
        file.write_text(text)
        with pytest.raises(UserError, match="no saved set of sublayers, or damaged"):
            resolved(Options(skip="mine"), target)


def test_where_the_model_cannot_be_written_to_the_users_folder_is(skips, tmp_path, monkeypatch):
    target = beside(tmp_path)
    (Path(target.path) / "layer-skip").write_text("in the way")
    assert skip_sets.save(saved("a1", "abc"), "mine", path=target.path) == skips / "mine.json"
    assert set_text(resolved(Options(skip="mine"), target).skipped) == "a1"
    monkeypatch.setenv("DRAFTREE_DATA", str(tmp_path))
    (Path(target.path) / "layer-skip").unlink()
    file = skip_sets.save(saved("a1", "abc"), "shipped", path=target.path)
    assert file == skips / "shipped.json", "an embedded model stays as it is"
    shutil.rmtree(skips)
    skips.write_text("in the way too")
    with pytest.raises(UserError, match=r"cannot be kept in .*-o skip=a1.*DRAFTREE_SKIPS"):
        skip_sets.save(saved("a1", "abc"), "mine", path="")


# -- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "sampling"),
    [("llama", GREEDY), ("qwen3", WARM), ("gpt2", WARM), ("gpt-neox", GREEDY), ("gemma2", WARM),
     ("gemma3", GREEDY)],
)  # fmt: skip
def test_the_same_tokens_and_the_same_cache_as_plain_decoding(architecture, sampling):
    """Keys and values of every layer, entry by entry, after all steps, whatever was skipped."""
    target = tiny(architecture, seed=1)
    wanted = requests(4, max_new_tokens=30)
    for batch in (4, 1):
        plain = engine_for("autoregressive", {}, target, None, sampling=sampling, batch=batch)
        reference = tokens_of(decode_all(plain, wanted)[0])
        for skip, form in (
            ("l0", {"policy": "eagle2", "nodes": 7}), ("a1", {}), ("m0-1", {"length": 3}),
        )[:: 1 if batch == 4 else 3]:  # fmt: skip
            engine = engine_for(
                "layer-skip", {"skip": skip, "exit": 0.2} | form, target, None,
                sampling=sampling, batch=batch,
            )  # fmt: skip
            done, steps = decode_all(engine, wanted)
            assert tokens_of(done) == reference, f"{skip}, batch {batch}"
            assert sum(step.verdict.num_accepted for step in steps) > 0
            _compare_caches(engine, plain, batch=batch, wanted=wanted)


def _compare_caches(engine, plain, *, batch, wanted) -> None:
    """Of the requests that ran last in each slot."""
    ours, theirs = engine._target.runner, plain._target.runner
    last = wanted[-1:] if batch == 1 else wanted
    for slot, request in enumerate(last):
        rows = len(request.prompt_ids) + request.max_new_tokens - 1  # the last token never runs
        for one, other in zip(ours.keys + ours.values, theirs.keys + theirs.values, strict=True):
            known = other[slot, :rows]
            assert known.abs().amax(dim=(1, 2)).min() > 0, "a row that was never written"
            assert torch.allclose(one[slot, :rows], known, atol=2e-4, rtol=1e-4)


def test_layers_that_add_nothing_are_skipped_for_free():
    """With layer 1 an identity, the draft that leaves it out is the target: all is accepted."""
    target = tiny("llama", seed=3)
    with torch.no_grad():
        layer = Inside.of(target.model).layers[1]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    wanted = requests(3, max_new_tokens=30)
    rates = {}
    for skip in ("l1", "l0"):
        _, steps = decode_all(
            engine_for("layer-skip", {"skip": skip, "exit": 0, "length": 4}, target, None), wanted
        )
        drafted = sum(step.tree.num_drafted for step in steps)
        rates[skip] = sum(step.verdict.num_accepted for step in steps) / drafted
    assert rates["l1"] == 1.0
    assert rates["l0"] < 0.9


def test_the_exit_begins_as_in_the_paper():
    target = tiny()
    for sampling, start in ((Sampling(), 0.8), (WARM, 0.5)):
        engine = engine_for("layer-skip", {}, target, None, sampling=sampling)
        engine.add(requests(1)[0])
        assert engine._drafter._exits[0].threshold == start
    engine = engine_for("layer-skip", {"exit": 0}, target, None)
    engine.add(requests(1)[0])
    assert engine._drafter._exits == {}


@pytest.mark.parametrize("rule", ["multi-step", "without-replacement", "traversal"])
def test_drawn_children_run_and_repeat(rule):
    target = tiny()
    found = []
    for batch in (1, 1, 4):
        engine = engine_for(
            "layer-skip", {"skip": "m1", "exit": 0.2}, target, None, sampling=WARM, verify=rule,
            batch=batch,
        )  # fmt: skip
        done, steps = decode_all(engine, requests())
        found.append(tokens_of(done))
        assert any(step.verdict.num_accepted for step in steps)
    assert found[0] == found[1] == found[2]


def test_half_a_layer_is_refused_where_residuals_do_not_pass_by(monkeypatch):
    post = OPTConfig(
        vocab_size=tinies.VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=160, word_embed_proj_dim=32,
        do_layer_norm_before=False,
    )  # fmt: skip
    for architecture in CONFIGS:
        assert can_skip_halves(tiny(architecture).model), architecture
    monkeypatch.setitem(CONFIGS, "opt-350m", post)
    target = tiny("opt-350m")
    with pytest.raises(UserError, match=r"attention 1 cannot be left out alone.* such as l1"):
        engine_for("layer-skip", {"skip": "l0,a1"}, target, None)
    wanted = requests(2)
    done, _ = decode_all(engine_for("layer-skip", {"skip": "l1"}, target, None), wanted)
    plain, _ = decode_all(engine_for("autoregressive", {}, target, None), wanted)
    assert tokens_of(done) == tokens_of(plain)
