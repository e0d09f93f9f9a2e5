"""Text increments join to the whole text and never cut a character; pieces show the invisible."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.text import IncrementalText, decode, visible_piece

HOSTILE = "naïve 🌳🏴‍☠️ <b>&amp;</b>\x00\x1b[31m\t\r\n  日本語 \u202egnirts\u202c end"


@pytest.fixture(scope="module")
def bytes_tokenizer():
    """One token per byte: every character beyond ASCII is cut."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<end>": 0} | {char: at + 1 for at, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def test_increments_join_to_the_text(bytes_tokenizer):
    ids = bytes_tokenizer.encode(HOSTILE)
    increments = IncrementalText(bytes_tokenizer).add(ids)
    assert len(increments) == len(ids)
    assert "".join(increments) == HOSTILE
    assert not any("\ufffd" in text for text in increments)


def test_bytes_that_are_no_text_do_not_block_what_follows(bytes_tokenizer):
    broken = [bytes_tokenizer.convert_tokens_to_ids("ÿ")] * 40  # byte 0xFF, never valid
    ids = broken + bytes_tokenizer.encode("after")
    text = "".join(IncrementalText(bytes_tokenizer).add(ids))
    assert text.endswith("after")


def test_a_long_text_stays_whole(bytes_tokenizer):
    text = "x = [1, 2]  # ✓\n" * 400
    ids = bytes_tokenizer.encode(text)
    assert (
        "".join(IncrementalText(bytes_tokenizer).add(ids)) == text == decode(bytes_tokenizer, ids)
    )


def test_pieces_show_whitespace_controls_and_bytes(bytes_tokenizer):
    def piece(text: str) -> str:
        return visible_piece(bytes_tokenizer, bytes_tokenizer.encode(text)[0])

    assert piece(" ") == "·"
    assert piece("\n") == "\\n"
    assert piece("\t") == "\\t"
    assert piece("\x1b") == "\\u001b"
    assert piece("a") == "a"
    assert piece("é") == "<0xC3>"
    assert visible_piece(bytes_tokenizer, 0) == "<end>"
