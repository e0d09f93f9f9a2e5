"""Inputs of a tree pass: kernel and twin against the reference, in one pass or several."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_ext.mask import Inputs, NewNodes, SlotState, reference_tree_inputs, tree_inputs

ROWS, MOST = 64, 24


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("passes", [1, 3])
def test_inputs_are_the_references(how, window, passes):
    rng = np.random.default_rng(passes)
    prefixes = np.array([0, 9, 30], np.int32)
    slots = SlotState(
        prefixes, np.zeros(3, np.int32),
        np.full((3, MOST), 99, np.int32), np.tril(np.ones((3, MOST, MOST), np.uint8)),
    )  # fmt: skip
    tokens, parents = [[], [], []], [[], [], []]
    for number in range(passes):
        counts = [int(rng.integers(1, 7)) for _ in range(3)]
        counts[number % 3] = 0 if passes > 1 else 2  # a slot may rest
        width, cols = 8, ROWS - 1
        new = NewNodes(
            np.full((3, width), 77, np.int64), np.full((3, width), 99, np.int32),
            np.array(counts, np.int32),
        )  # fmt: skip
        for b, count in enumerate(counts):
            for i in range(count):
                row = len(tokens[b])
                tokens[b].append(int(rng.integers(50)))
                parents[b].append(int(rng.integers(max(-1, row - 4), row)))
                new.tokens_BN[b, i], new.parents_BN[b, i] = tokens[b][-1], parents[b][-1]
        size = cols if window else 0
        inputs = Inputs(
            *(np.full((3, width), -5, np.int64) for _ in range(3)),
            np.full((3, width, cols), np.nan, np.float32),
            np.full((3, width, size), np.nan, np.float32),
        )
        tree_inputs(inputs, new, slots, rows_per_slot=ROWS, window=window, how=how)
        for b, count in enumerate(counts):
            slots.count_B[b] += count
            expected = reference_tree_inputs(
                tokens[b], parents[b], prefix=int(prefixes[b]), slot=b, rows_per_slot=ROWS,
                window=window, cols=cols,
            )  # fmt: skip
            for found, want in zip(inputs, expected, strict=True):
                if found.size:
                    np.testing.assert_array_equal(
                        found[b, :count], np.asarray(want)[len(tokens[b]) - count :]
                    )
            padding = [0, 0, b * ROWS + ROWS - 1]
            assert [a[b, count:].tolist() for a in inputs[:3]] == [
                [value] * (width - count) for value in padding
            ]
            for mask in inputs[3:]:
                if mask.size:
                    assert (mask[b, count:, 0] == 0).all()
                    assert np.isneginf(mask[b, count:, 1:]).all()
