"""Keyed uniforms are NumPy's own, number for number."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_ext.uniforms import keyed_uniforms
from engine.sampling import Sampling, Stream, generator


@pytest.mark.parametrize(
    ("seed", "request_", "root"), [(0, 0, 1), (7, 3, 2047), (2**64 - 1, 2**40, 2**31)]
)
def test_they_are_numpys(seed, request_, root):
    found = np.empty(9)
    for stream in Stream:
        keyed_uniforms(
            np.uint64(seed), np.uint64(request_), np.uint64(root << 32), np.uint64(root),
            np.uint64(stream), found,
        )  # fmt: skip
        expected = [
            generator(
                Sampling(1.0, seed=seed), request=request_, position=root, stream=stream,
                root=root, node=node,
            ).random()
            for node in range(len(found))
        ]  # fmt: skip
        assert found.tolist() == expected
