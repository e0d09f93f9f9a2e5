"""Accepted cache rows move in place: kernel and twin against a gather into new memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cuda_ext.gather import as_words, gather_rows, reference_gather_rows
from tests.cuda_ext.cases import real_device


def paths_of(rng: np.random.Generator, count: int, most: int) -> list[list[int]]:
    """Ascending rows, the root first: anything a tree's accepted path can be."""
    return [
        [0, *sorted(rng.choice(np.arange(1, most), int(rng.integers(0, most)), False).tolist())]
        for _ in range(count)
    ]


def moved(cache: torch.Tensor, slots, starts, paths, how: str) -> None:
    width = max(map(len, paths))
    path_BN = np.full((len(paths), width), -1, np.int32)
    for b, path in enumerate(paths):
        path_BN[b, : len(path)] = path
    given = [np.asarray(slots, np.int32), np.asarray(starts, np.int32), path_BN,
             np.array([len(path) for path in paths], np.int32)]  # fmt: skip
    arrays = [torch.from_numpy(array).to(cache.device) for array in given]
    gather_rows(as_words(cache), *arrays, how=how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("features", [1, 6, 16])
def test_rows_move_as_in_the_reference(how, dtype, features):
    """Sources and destinations overlap in most of these."""
    rng = np.random.default_rng(features)
    for _ in range(4):
        cache = torch.from_numpy(rng.normal(size=(3, 4, 20, features))).to(dtype)
        before = cache.float().numpy().copy()
        slots, starts = [2, 0, 3], [5, 0, 9]
        paths = paths_of(rng, 3, 10)
        moved(cache, slots, starts, paths, how)
        expected = reference_gather_rows(before, slots, starts, paths)
        np.testing.assert_array_equal(cache.float().numpy(), expected)


def test_a_row_moves_as_the_widest_words_it_divides_into():
    for shape, dtype, expected in [
        ((1, 1, 2, 6), torch.float32, (torch.int64, 3)),
        ((1, 1, 2, 3), torch.float32, (torch.int32, 3)),
        ((1, 1, 2, 3), torch.bfloat16, (torch.int16, 3)),
        ((1, 1, 2, 4), torch.bfloat16, (torch.int64, 1)),
    ]:
        words = as_words(torch.zeros(shape, dtype=dtype))
        assert (words.dtype, words.shape[-1]) == expected


@pytest.mark.gpu
def test_rows_move_on_a_device(device):
    assert real_device()
    rng = np.random.default_rng(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        cache = torch.from_numpy(rng.normal(size=(64, 8, 512, 128))).to(device, dtype)
        before = cache.float().cpu().numpy()
        slots, starts, paths = list(range(8)), [400] * 8, paths_of(rng, 8, 64)
        moved(cache, slots, starts, paths, "auto")
        expected = reference_gather_rows(before, slots, starts, paths)
        np.testing.assert_array_equal(cache.float().cpu().numpy(), expected)
