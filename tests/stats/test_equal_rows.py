"""Equal rows are found as all distances would find them, whatever the offset, the order and the number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from chexray.stats import equal_rows as module
from chexray.stats.equal_rows import equal_rows


def by_all_distances(x, y, tolerance):
    near = (
        cdist(y.astype(np.float64), x.astype(np.float64))
        <= tolerance * np.linalg.norm(y.astype(np.float64), axis=1)[:, None]
    )
    j, i = np.nonzero(near)
    return list(zip(i.tolist(), j.tolist(), strict=True))


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("width", [1, 3, 256])
@pytest.mark.parametrize("tolerance", [1e-6, 1e-3])
def test_as_all_distances_find_them(width, offset, tolerance):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((300, width)) + offset).astype(np.float32)
    y = (rng.standard_normal((200, width)) + offset).astype(np.float32)
    y[::7] = x[5:][: len(y[::7])]
    y[3] = x[0] * np.float32(1 + 0.5 * tolerance)
    y[4] = x[9]
    found = equal_rows(x, y, tolerance)
    assert found is not None
    assert list(zip(*(side.tolist() for side in found), strict=True)) == by_all_distances(x, y, tolerance)


def test_the_size_of_the_pieces_and_the_order_of_rows_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 16)).astype(np.float32)
    y = x[rng.integers(0, 400, 300)]
    i, j = equal_rows(x, y, 1e-6)
    for name, value in [("PAIRS_AT_ONCE", 7), ("ROWS_AT_ONCE", 11), ("VALUES_AT_ONCE", 40)]:
        monkeypatch.setattr(module, name, value)
    again = equal_rows(x, y, 1e-6, limit=10**6)
    assert np.array_equal(again[0], i)
    assert np.array_equal(again[1], j)
    order = rng.permutation(400)
    a, b = equal_rows(x[order], y, 1e-6)
    assert sorted(zip(order[a].tolist(), b.tolist(), strict=True)) == sorted(zip(i.tolist(), j.tolist(), strict=True))


def test_rows_that_are_all_alike_tell_nothing():
    x = np.ones((50, 4), np.float32)
    assert equal_rows(x, x, 1e-6, limit=100) is None
    assert [len(side) for side in equal_rows(x[:3], x[:2], 1e-6)] == [6, 6]
    assert [len(side) for side in equal_rows(x[:0], x, 1e-6)] == [0, 0]
    zeros = np.zeros((2, 4), np.float32)
    assert [len(side) for side in equal_rows(zeros, zeros, 1e-6)] == [4, 4]
