"""Tokenizers that give any text back: byte-level BPE, in which indentation is cheap, and bytes."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""Separates files in training and ends a text; there is no beginning-of-text token."""

PIECES = "|".join(
    (
        r"(?:\r?\n[ \t]*)+",  # line ends with the indentation after them
        r" ?\p{L}+",  # a word with the space before it
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+",  # operators and brackets
        r"\s+",
    )
)
"""What a token never crosses; within a piece BPE merges freely."""


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 4096, context: int = 2048
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `texts`.

    All 256 bytes are in the vocabulary, so decoding an encoded text gives the text back,
    character for character, whatever it holds.
    """
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def byte_tokenizer(*, context: int = 2048) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes: token b is the byte b, token 256 ends a text.

    It is byte-level BPE without a merge, so that any reader of fast tokenizers loads it.
    """
    letters = {chr(code): byte for byte, code in enumerate(_letters_of_bytes())}
    bpe = tokenizers.Tokenizer(models.BPE(vocab=letters, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _letters_of_bytes() -> list[int]:
    """The code point by which byte-level tokenizers write each byte (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    rest = iter(range(256, 512))
    return [byte if byte in printable else next(rest) for byte in range(256)]
