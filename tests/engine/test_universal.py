"""A draft model of another tokenizer: the same tokens as plain decoding, by way of text."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.errors import UserError
from engine.models import LoadedModel
from engine.requests import Request
from engine.sampling import Sampling
from engine.seams import append_aligned, common_prefix, followed
from tests.engine.tiny import decode_all, engine_for, tokens_of

LETTERS = "abcdefgh \n"
GREEDY, WARM = Sampling(), Sampling(temperature=0.8, seed=3)
#: random models are sure of nothing
BOLD = {"floor": 0, "length": 6, "most": 8}


def tokenizer(pairs: list[str]) -> PreTrainedTokenizerFast:
    """Letters, and some pairs of letters as tokens of their own."""
    vocab = {token: at for at, token in enumerate([*LETTERS, *pairs])}
    merges = [tuple(pair) for pair in pairs]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def model(words: PreTrainedTokenizerFast, *, seed: int, context: int = 160) -> LoadedModel:
    torch.manual_seed(seed)
    size = len(words)
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=context, bos_token_id=None,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval().requires_grad_(False)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.ndim == 2:
                weight.mul_(6.0)
    return LoadedModel(
        model=made, tokenizer=words, name=f"model-{seed}", path="", content_hash=str(seed),
        vocab_size=size, context_length=context, eos_ids=frozenset(), dtype="float32",
        device="cpu", attention="sdpa",
    )  # fmt: skip


TARGET = model(tokenizer(["ab", "cd", "ef"]), seed=1)
DRAFT = model(tokenizer(["bc", "de", "ha", "a "]), seed=2)


def wanted(count: int = 3, new: int = 30) -> list[Request]:
    texts = ["abcabc def", "hgfedcba\nab", "a"]
    return [
        Request(at, text, tuple(TARGET.tokenizer.encode(text)), new)
        for at, text in enumerate(texts[:count])
    ]


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    "options",
    [BOLD, {"floor": 0.02, "exit": 0.1, "ahead": 2}, BOLD | {"context": 12, "look_behind": 3}],
    ids=["bold", "careful", "short"],
)
def test_same_tokens_as_plain_decoding(sampling, batch, cache, options):
    plain, _ = decode_all(
        engine_for("autoregressive", {}, TARGET, None, sampling=sampling), wanted()
    )
    engine = engine_for(
        "universal", options, TARGET, DRAFT, sampling=sampling, batch=batch, cache=cache
    )
    done, steps = decode_all(engine, wanted())
    assert tokens_of(done) == tokens_of(plain)
    assert any(step.tree.num_drafted for step in steps)
    for step in steps:
        step.tree.check_integrity()


def test_the_draft_cache_says_what_a_fresh_one_would():
    """Whatever was kept and cropped at the seams: the same drafts as with nothing kept."""
    runs = []
    for cache in (True, False):
        engine = engine_for("universal", BOLD, TARGET, DRAFT, cache=cache)
        runs.append(decode_all(engine, wanted(new=60))[1])
    for one, other in zip(*runs, strict=True):
        assert one.tree.tokens_M.tolist() == other.tree.tokens_M.tolist()


def test_copied_guesses_save_passes_and_change_nothing():
    """What the text had before is run along: the same drafts, from fewer passes."""
    found = {}
    for ahead in (0, 5):
        options = BOLD | {"length": 12, "ahead": ahead}
        _, steps = decode_all(engine_for("universal", options, TARGET, DRAFT), wanted(new=60))
        found[ahead] = (
            [step.tree.tokens_M.tolist() for step in steps],
            sum(step.tree.draft_passes for step in steps),
        )
    assert found[0][0] == found[5][0]
    assert found[5][1] < 0.8 * found[0][1]


def test_it_stops_where_it_is_unsure():
    drafted = []
    for floor in (0.0, 0.05, 0.9):
        options = BOLD | {"floor": floor}
        _, steps = decode_all(engine_for("universal", options, TARGET, DRAFT), wanted())
        drafted.append(sum(step.tree.num_drafted for step in steps))
    assert drafted[0] > drafted[1] > drafted[2]


@pytest.mark.parametrize(
    ("letters", "count", "expected"),
    [
        ("abcdef abc", 4, "def "),
        ("abcd abce abc", 2, "e "),  # the latest copy
        ("xyzabcdefghQ xyzabcdefgh", 1, "Q"),  # the longest run first
        ("abababab", 9, "ab"),  # a copy may overlap the end
        ("abcdef", 4, ""),
        ("", 4, ""),
        ("abcabc", 0, ""),
    ],
)
def test_what_followed_the_last_run(letters, count, expected):
    assert followed(letters, count) == expected


class Upper:
    """The target's own tokenizer under other numbers: every draft can be right."""

    def __init__(self, words: Any) -> None:
        self._words, self._size = words, len(words)

    def encode(self, text: str, **_: Any) -> list[int]:
        return [(i + 5) % self._size for i in self._words.encode(text)]

    def decode(self, ids: list[int], **settings: Any) -> str:
        return self._words.decode([(i - 5) % self._size for i in ids], **settings)

    def get_vocab(self) -> dict[str, int]:
        return {token: (i + 5) % self._size for token, i in self._words.get_vocab().items()}


def test_a_draft_that_is_the_target_in_disguise_is_nearly_always_right():
    draft = copy.copy(TARGET)
    draft.tokenizer = Upper(TARGET.tokenizer)
    draft.model = copy.deepcopy(TARGET.model)
    with torch.no_grad():  # row i + 5 of the disguised tables is row i of the target's
        rolled = TARGET.model.model.embed_tokens.weight.roll(5, 0)
        draft.model.model.embed_tokens.weight.copy_(rolled)
        draft.model.lm_head.weight.copy_(TARGET.model.lm_head.weight.roll(5, 0))
    _, steps = decode_all(
        engine_for("universal", {"length": 4, "floor": 0}, TARGET, draft), wanted(1, 60)
    )
    emitted = sum(len(step.emitted) for step in steps)
    assert emitted / len(steps) > 3


def test_a_small_draft_context_is_enough():
    short = model(DRAFT.tokenizer, seed=2, context=48)
    plain, _ = decode_all(engine_for("autoregressive", {}, TARGET, None), wanted(1, 100))
    done, steps = decode_all(engine_for("universal", BOLD, TARGET, short), wanted(1, 100))
    assert tokens_of(done) == tokens_of(plain)
    assert steps[-2].tree.num_drafted > 0


def test_other_methods_name_it_where_vocabularies_differ():
    with pytest.raises(UserError, match="universal"):
        engine_for("speculative", {}, TARGET, DRAFT)


@pytest.mark.parametrize(
    ("known", "again", "expected"),
    [
        ([1, 2, 3], [2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 2, 3], [2, 9, 5], [1, 2, 9, 5]),  # the last token came out otherwise
        ([1, 2, 3], [7, 8], [1, 2, 3, 7, 8]),  # nothing in common: append all
        ([], [4, 5], [4, 5]),
        ([1, 2, 1, 2], [1, 2, 1, 2, 6], [1, 2, 1, 2, 6]),
    ],
)
def test_alignment(known, again, expected):
    assert append_aligned(known, again, 4) == expected


def test_common_prefix():
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    assert common_prefix([], [1]) == 0
