"""Hugging Face `generate` as a baseline: exact lengths, one text, and honest clocks."""

from __future__ import annotations

import time

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from engine.errors import UserError
from engine.hf_baseline import LOOKUP_SETTINGS, SETTINGS, Assistance, HFBaseline, Lookup
from engine.models import LoadedModel
from engine.records import FinishReason
from engine.repetition import repetition
from engine.requests import Request
from engine.sampling import Sampling

VOCAB = 64


class Letters:
    """The least of a tokenizer."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(33 + i) for i in ids)


def tiny(seed: int, *, layers: int = 2, vocab: int = VOCAB, eos: int | None = None) -> LoadedModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=eos, repetition_penalty=1.7)
    return LoadedModel(
        model=model,
        tokenizer=Letters(),
        name=f"tiny-{seed}",
        path="",
        content_hash="",
        vocab_size=vocab,
        context_length=256,
        eos_ids=frozenset() if eos is None else frozenset([eos]),
        dtype="float32",
        device="cpu",
        attention="sdpa",
    )


def request(length: int = 9, new: int = 24, index: int = 0) -> Request:
    ids = tuple((7 * i + index) % VOCAB for i in range(length))
    return Request(index=index, prompt="p", prompt_ids=ids, max_new_tokens=new)


def greedy_by_hand(loaded: LoadedModel, ids: tuple[int, ...], count: int) -> list[int]:
    tokens = list(ids)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(loaded.model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(ids) :]


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("cache", [True, False])
def test_plain_is_greedy_decoding_of_exact_length(length: int, cache: bool) -> None:
    target = tiny(0)
    done = HFBaseline(target=target, cache=cache, ignore_eos=True).decode(request(length))
    assert done.record.token_ids == greedy_by_hand(target, request(length).prompt_ids, 24)
    assert done.record.num_steps == done.record.num_emitted == done.record.num_kept == 24
    assert done.record.finish_reason is FinishReason.LENGTH
    assert done.draft_passes == done.record.num_drafted == done.record.num_accepted == 0


@pytest.mark.parametrize("assistance", SETTINGS, ids=str)
@pytest.mark.parametrize("length", [1, 9])
def test_assisted_gives_the_same_text_whatever_drafts(assistance: Assistance, length: int) -> None:
    target = tiny(0)
    plain = HFBaseline(target=target, ignore_eos=True).decode(request(length)).record
    for draft in (tiny(1, layers=1), tiny(0)):
        done = HFBaseline(
            target=target, draft=draft, ignore_eos=True, assistance=assistance
        ).decode(request(length))
        assert done.record.token_ids == plain.token_ids
        assert done.record.num_accepted == 24 - done.record.num_steps
        assert done.draft_passes >= done.record.num_drafted >= done.record.num_accepted


def test_a_draft_equal_to_the_target_is_accepted_in_full() -> None:
    baseline = HFBaseline(
        target=tiny(0), draft=tiny(0), ignore_eos=True, assistance=Assistance(tokens=4)
    )
    record = baseline.decode(request(new=25)).record
    assert record.num_steps == 5
    assert record.num_accepted == record.num_drafted == 20


def test_the_number_of_drafted_tokens_is_the_one_asked_for() -> None:
    target, draft = tiny(0), tiny(1, layers=1)
    for tokens in (1, 3):
        baseline = HFBaseline(
            target=target, draft=draft, ignore_eos=True, assistance=Assistance(tokens=tokens)
        )
        record = baseline.decode(request()).record
        assert record.num_drafted == pytest.approx(tokens * record.num_steps, abs=2 * tokens)


def test_eos_ends_a_request_only_where_it_counts() -> None:
    free = HFBaseline(target=tiny(0), ignore_eos=True).decode(request()).record.token_ids
    eos = free[8]
    for draft in (None, tiny(1, layers=1)):
        target = tiny(0, eos=eos)
        counted = HFBaseline(target=target, draft=draft).decode(request()).record
        assert counted.token_ids == free[: free.index(eos) + 1]
        assert counted.finish_reason is FinishReason.EOS
        ignored = HFBaseline(target=target, draft=draft, ignore_eos=True).decode(request())
        assert ignored.record.token_ids == free


def test_the_models_are_left_as_they_were() -> None:
    target, draft = tiny(0, eos=3), tiny(1, eos=5)
    HFBaseline(target=target, draft=draft, ignore_eos=True).decode(request())
    assert target.model.generation_config.repetition_penalty == 1.7
    assert target.model.generation_config.eos_token_id == 3
    assert draft.model.generation_config.eos_token_id == 5
    assert not target.model._forward_hooks
    assert not target.model._forward_pre_hooks


def test_sampling_is_repeatable_and_keyed_by_request() -> None:
    sampling = Sampling(temperature=1.0, top_k=20, seed=4)
    baseline = HFBaseline(target=tiny(0), sampling=sampling, ignore_eos=True)
    before = torch.random.get_rng_state()
    first, again = (baseline.decode(request()).record.token_ids for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == again
    assert first != greedy_by_hand(tiny(0), request().prompt_ids, 24)
    other = Request(index=1, prompt="", prompt_ids=request().prompt_ids, max_new_tokens=40)
    assert baseline.decode(other).record.token_ids != first


@pytest.mark.parametrize("assisted", [False, True])
def test_the_times_add_up_to_the_wall_time(assisted: bool) -> None:
    baseline = HFBaseline(
        target=tiny(0), draft=tiny(1, layers=1) if assisted else None, ignore_eos=True
    )
    baseline.decode(request())
    begin = time.perf_counter_ns()
    done = baseline.decode(request(length=60))
    wall = time.perf_counter_ns() - begin
    spent = done.record.prefill_ns + done.record.decode_ns
    assert 0.8 * wall < spent <= wall
    assert done.times.wall == done.record.decode_ns
    assert done.times.score > 0
    assert (done.times.draft > 0) == assisted
    assert done.times.unaccounted > 0


def test_a_stop_is_heeded_within_a_pass() -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    done = HFBaseline(target=tiny(0), ignore_eos=True).decode(request(), should_stop=should_stop)
    assert done.record.finish_reason is FinishReason.CANCELLED
    assert done.record.num_kept == 6


def test_wrong_input_gets_a_sentence() -> None:
    with pytest.raises(UserError, match="needs the cache"):
        HFBaseline(target=tiny(0), draft=tiny(1), cache=False)
    with pytest.raises(UserError, match="64 tokens and tiny-1 65"):
        HFBaseline(target=tiny(0), draft=tiny(1, vocab=65))
    with pytest.raises(UserError, match="prompt is empty"):
        HFBaseline(target=tiny(0)).decode(request(length=0))
    with pytest.raises(UserError, match="do not fit into the context of 256"):
        HFBaseline(target=tiny(0)).decode(request(length=250))


def test_repetition_counts_eight_grams_seen_before() -> None:
    assert repetition([]) == repetition([1] * 7) == repetition([1] * 8) == 0.0
    assert repetition([1] * 9) == 0.5
    assert repetition(list(range(20))) == 0.0
    assert repetition(list(range(8)) * 2) == pytest.approx(1 / 9)


@pytest.mark.parametrize("lookup", LOOKUP_SETTINGS, ids=str)
def test_prompt_lookup_is_lossless_and_counts_its_passes(lookup):
    target = tiny(3)
    plain = HFBaseline(target=target, ignore_eos=True).decode(request(new=60))
    found = HFBaseline(target=target, ignore_eos=True, assistance=lookup).decode(request(new=60))
    assert found.record.token_ids == plain.record.token_ids
    assert found.record.num_steps < plain.record.num_steps, "a looping text was never guessed"
    assert found.record.num_steps + found.record.num_accepted == found.record.num_emitted
    assert found.record.num_accepted <= found.record.num_drafted
    assert found.draft_passes == 0


def test_prompt_lookup_needs_the_cache():
    with pytest.raises(UserError, match="cache"):
        HFBaseline(target=tiny(3), cache=False, assistance=Lookup())
