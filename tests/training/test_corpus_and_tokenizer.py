"""The corpus splits the same way for ever; the tokenizer gives every text back."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.training.corpus import (
    SourceFile,
    is_held_out,
    read_standard_library,
    read_texts,
    split,
)
from engine.training.prepare import Prepared, prepare

HOSTILE = [
    "",
    " ",
    "\n",
    "\r\n\r\n\t x\r",
    "    indented\n\n\n        more\n \n",
    "naïve café — “quotes” \u200b\u202e\ufeff",
    "\x00\x01\x7f\x80\uffff",
    "👩‍👩‍👧 \U0010ffff 𝒳",
    "don't  can't  ''' \"\"\" \\n \\",
    "<|endoftext|> is a special token, written out",
    "1234567890 0x1f 1e-9 ½ ٣",
    "a" * 3000,
    " , . leading spaces before , punctuation !",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_tokenizer_gives_hostile_text_back(tiny: Prepared, text: str) -> None:
    assert tiny.tokenizer.decode(tiny.tokenizer.encode(text)) == text


def test_tokenizer_survives_saving(tiny: Prepared, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in HOSTILE:
        assert loaded.encode(text) == tiny.tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    assert loaded.eos_token == "<|endoftext|>"
    assert loaded.bos_token is None


def test_indentation_is_one_token(tiny: Prepared) -> None:
    assert len(tiny.tokenizer.encode("\n    ")) == 1


def test_library_split_is_disjoint_and_repeatable() -> None:
    files = read_standard_library()
    first, second = split(files), split(list(reversed(files)))
    train = {file.path for file in first.train}
    held_out = {file.path for file in first.held_out}
    assert not train & held_out
    assert held_out == {file.path for file in second.held_out}
    assert {"heapq.py", "json/decoder.py"} <= held_out
    assert 0.01 < len(held_out) / len(files) < 0.06
    texts = {file.text for file in first.held_out}
    assert not any(file.text in texts for file in first.train)


def test_split_does_not_depend_on_other_files() -> None:
    assert is_held_out("heapq.py")
    assert not is_held_out("os.py")
    alone = split([SourceFile("heapq.py", "x = 1"), SourceFile("os.py", "y = 2")])
    assert [file.path for file in alone.held_out] == ["heapq.py"]


def test_texts_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words and words " * 20)
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe" * 100)
    assert [file.path for file in read_texts([tmp_path])] == ["a.txt"]
    with pytest.raises(ValueError, match="no such file"):
        read_texts([tmp_path / "missing"])


def test_prepared_corpus_is_not_mixed_up(tiny_split, tmp_path: Path) -> None:
    prepare(tiny_split, work_dir=tmp_path, vocab_size=300, context=64)
    with pytest.raises(ValueError, match="another corpus"):
        prepare(tiny_split, work_dir=tmp_path, vocab_size=301, context=64)
