"""The trigram: probabilities by Katz's definition, updates, storing, and finding it again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from engine import ngram
from engine.errors import UserError


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    """A Markov text over 30 tokens, peaked enough to be worth guessing."""
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(30, 0.08), size=(30, 30))
    tokens = [0, 1]
    for _ in range(6000):
        tokens.append(int(rng.choice(30, p=law[tokens[-2], tokens[-1]])))
    return np.array(tokens)


@pytest.fixture(scope="module")
def model(text) -> ngram.Ngram:
    return ngram.count(text, 30)


def test_probabilities_sum_to_one_with_all_successors_kept(text, monkeypatch):
    """Seen successors and the weighted shorter context together: a law."""
    monkeypatch.setattr(ngram, "KEPT", 30)
    whole = ngram.count(text, 30)
    for before, last in {(int(a), int(b)) for a, b in pairwise(text[:200])}:
        total = sum(whole.next(before, last, 30).values())
        context = whole.bigrams.find(last)
        unseen = float(whole.bigrams.backoff_C[context])
        third = whole.trigrams.find(before * 30 + last)
        weight = float(whole.trigrams.backoff_C[third])
        assert total + weight * unseen == pytest.approx(1.0, abs=2e-3)


def test_discounts_are_katz():
    how_many = {1: 100, 2: 40, 3: 20, 4: 12, 5: 8, 6: 5, 9: 3}
    factor = ngram.discounts(np.repeat(list(how_many), list(how_many.values())))
    rest = 6 * how_many[6] / how_many[1]
    for r in range(1, 6):
        turing = (r + 1) * how_many[r + 1] / (r * how_many[r])
        assert factor[r] == pytest.approx((turing - rest) / (1 - rest))
    assert factor[6] == 1.0
    odd = ngram.discounts(np.repeat([1, 6], [2, 90]))
    assert ((odd[1:6] > 0) & (odd[1:6] < 1)).all(), "odd counts fall back to a fixed discount"


def test_it_guesses_better_than_the_commonest_token(text, model):
    held_out = text[-500:]
    right = sum(
        next(iter(model.next(int(a), int(b), 1)), -1) == c
        for a, b, c in zip(held_out, held_out[1:], held_out[2:], strict=False)
    )
    commonest = np.bincount(held_out).max()
    assert right > 2 * commonest


def test_an_unseen_pair_backs_off_to_the_last_token(model, text):
    pairs = set(zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
    before, last = next((a, b) for a in range(30) for b in range(30) if (a, b) not in pairs)
    assert list(model.next(before, last, 3)) == list(
        dict(sorted(model.next(-1, last, 3).items(), key=lambda item: -item[1]))
    )


def test_own_text_outweighs_with_repetition(model):
    own = ngram.OwnText(model)
    own.extend([5, 6, 29] * 6)
    (token, prob), *_ = own.next(5, 6, 1)
    assert token == 29
    assert prob > 0.8
    alone = ngram.OwnText(ngram.empty(30))
    alone.extend([1, 2, 3, 1, 2])
    assert alone.next(1, 2, 2) == [(3, 1.0)]
    assert alone.next(9, 9, 2) == []


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    model.save(tmp_path / "ngram", vocabulary="x")
    again = ngram.load(tmp_path / "ngram")
    assert again.next(3, 4, 8) == model.next(3, 4, 8)


def test_a_folder_without_one_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="draftree train ngram"):
        ngram.load(tmp_path)
    (tmp_path / ngram.CARD).write_text("{")
    (tmp_path / ngram.WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="draftree train ngram"):
        ngram.load(tmp_path / ".")


class Tokenizer:
    def __init__(self, size: int) -> None:
        self.size = size

    def get_vocab(self) -> dict[str, int]:
        return {f"t{i}": i for i in range(self.size)}


def test_it_is_found_by_its_vocabulary(model, tmp_path):
    right, wrong = Tokenizer(30), Tokenizer(31)
    model.save(tmp_path / "draft" / ngram.FOLDER, vocabulary=ngram.vocabulary_hash(right))
    beside = [str(tmp_path / "target"), str(tmp_path / "draft")]
    assert ngram.find_folder(right, beside=beside) == tmp_path / "draft" / ngram.FOLDER
    assert ngram.find_folder(wrong, beside=beside) is None
