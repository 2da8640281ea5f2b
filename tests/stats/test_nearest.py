"""The streaming nearest-neighbour search against float64 brute force and scikit-learn, also where float32 fails."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats import nearest as module
from chexray.stats.nearest import Block, NearestRows, nearest, nearest_in_blocks
from chexray.stats.neighbours import squared_distances

Pair = tuple[np.ndarray, np.ndarray]


def brute(x, y, rows=None, x_codes=None, y_codes=None) -> NearestRows:
    """The definition: every pair from float64 differences, the lowest row among equals."""
    rows = np.arange(len(y)) if rows is None else rows
    order = np.argsort(rows)
    squared = np.full((len(x), len(y) + 1), np.inf)
    for i in range(len(x)):
        squared[i, :-1] = squared_distances(x, y, np.full(len(y), i), order)
        if x_codes is not None and y_codes is not None:
            squared[i, :-1][y_codes[order] == x_codes[i]] = np.inf
    least = squared.argmin(1)
    found = squared[np.arange(len(x)), least]
    return NearestRows(found, np.where(np.isinf(found), -1, np.append(rows[order], -1)[least]))


def cut(y: np.ndarray, sizes, rng, codes=None, rows=None) -> list[Block]:
    """y in shuffled order in blocks of these sizes, which are used again and again."""
    rows, order, blocks, start, turn = np.arange(len(y)) if rows is None else rows, rng.permutation(len(y)), [], 0, 0
    while start < len(y):
        part = order[start : start + sizes[turn % len(sizes)]]
        blocks.append(Block(y[part], rows[part], None if codes is None else codes[part]))
        start, turn = start + len(part), turn + 1
    return blocks


def same(got: NearestRows, expected: NearestRows) -> None:
    np.testing.assert_array_equal(got.squared, expected.squared)
    np.testing.assert_array_equal(got.row, expected.row)
    assert (got.squared.dtype, got.row.dtype) == (np.float64, np.int64)


def gaussian(n: int, m: int, d: int, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), (rng.normal(size=(m, d)) * 0.9 + 0.1).astype(np.float32)


def offset() -> Pair:
    """An offset of 1e3 with differences of 1e-3: raw float32 products see nothing but rounding."""
    rng = np.random.default_rng(1)
    near = 1e3 + rng.normal(size=(600, 48)) * 1e-3
    return near[:200].astype(np.float32), near[200:].astype(np.float32)


def far_clusters() -> Pair:
    """Tight clusters far apart, which centring does not help: most of a cluster is in doubt in float32."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(3, 32)) * 1e3
    x, y = (centres[rng.integers(0, 3, n)] + rng.normal(size=(n, 32)) * 1e-2 for n in (150, 900))
    return x.astype(np.float32), y.astype(np.float32)


def one_giant(size: float, others: float) -> Pair:
    """One reference so large that, on its scale, the squares of the others vanish in float32, or nearly."""
    x, y = gaussian(90, 120, 12)
    x, y = x * np.float32(others), y * np.float32(others)
    y[7] = size
    return x, y


def duplicates() -> Pair:
    """Copies of queries among references, each many times, and a thousand identical blanks nearest to many queries."""
    x, y = gaussian(120, 1500, 16)
    y[:300] = np.repeat(x[:60], 5, axis=0)
    y[400:1400] = 0
    x[100:] *= np.float32(0.01)
    return x, y


def nearer_and_nearer() -> Pair:
    x, y = gaussian(40, 900, 8)
    return x, y[np.argsort(-np.square(y - x[0]).sum(1))]


def simplex() -> Pair:
    """Distinct references at exactly the same distance from every query."""
    y = np.concatenate([np.eye(100), -np.eye(100)]).astype(np.float32)
    return np.zeros((5, 100), dtype=np.float32), np.random.default_rng(0).permutation(y)


def grid() -> Pair:
    rng = np.random.default_rng(3)
    return rng.integers(0, 3, (150, 6)).astype(np.float32), rng.integers(0, 3, (500, 6)).astype(np.float32)


def constant_features() -> Pair:
    x, y = gaussian(60, 300, 20)
    for array in (x, y):
        array[:, 5:] = 0.3
    return x, y


CASES = {
    "gaussian": gaussian(230, 1270, 16), "wide": gaussian(40, 130, 3000), "offset": offset(),
    "far clusters": far_clusters(), "one giant": one_giant(1e20, 1e-10),
    "duplicates": duplicates(), "simplex": simplex(),
    "nearer and nearer": nearer_and_nearer(), "grid": grid(), "constant features": constant_features(),
    "all the same": (np.full((9, 4), 0.3, np.float32), np.full((70, 4), 0.3, np.float32)),
    "all zero": (np.zeros((3, 4), np.float32), np.zeros((5, 4), np.float32)),
    "one query": gaussian(1, 50, 7), "one reference": gaussian(50, 1, 7), "one each": gaussian(1, 1, 1),
    "largest float32": tuple(np.sign(z) * np.float32(3.4e38) for z in gaussian(30, 60, 5)),
    "smallest float32": tuple((z * 4).astype(np.int16) * np.float32(1.4e-45) for z in gaussian(30, 60, 5)),
    "1e-20": tuple(z * np.float32(1e-20) for z in gaussian(80, 300, 10)),
    "1e20": tuple(z * np.float32(1e20) for z in gaussian(80, 300, 10)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of 128, so that small sets already take many of them."""
    monkeypatch.setattr(module, "TILE", 128)
    monkeypatch.setattr(module, "BLOCK", 400)
    monkeypatch.setattr(module, "QUERIES", 150)


@pytest.mark.parametrize("case", CASES)
def test_every_row_equals_its_definition(case):
    x, y = CASES[case]
    expected = brute(x, y)
    same(nearest(x, y), expected)
    rng = np.random.default_rng(0)
    for sizes in ([len(y)], [1], [33, 0, 7, 250]) if len(y) < 400 else ([len(y)], [170, 1, 33]):
        same(nearest_in_blocks(x, cut(y, [max(1, size) for size in sizes], rng)), expected)


@pytest.mark.parametrize("case", CASES)
def test_references_of_the_same_code_are_left_out(case):
    x, y = CASES[case]
    rng = np.random.default_rng(1)
    for kinds in (1, 2, 40):
        x_codes, y_codes = rng.integers(0, kinds, len(x)), rng.integers(0, kinds, len(y))
        expected = brute(x, y, x_codes=x_codes, y_codes=y_codes)
        same(nearest(x, y, x_codes=x_codes, y_codes=y_codes), expected)
        same(nearest_in_blocks(x, cut(y, [90], rng, y_codes), codes=x_codes), expected)
        if kinds == 1:
            assert np.isinf(expected.squared).all()
            assert (expected.row == -1).all()


def test_leaving_oneself_out_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neighbors")
    x, _ = gaussian(500, 1, 12)
    distance, row = sklearn.NearestNeighbors(n_neighbors=2, algorithm="brute").fit(x.astype(float)).kneighbors(x)
    got = nearest(x, x, x_codes=np.arange(500), y_codes=np.arange(500))
    np.testing.assert_allclose(np.sqrt(got.squared), distance[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(got.row, row[:, 1])


def test_agrees_with_scikit_learn_at_the_width_and_tile_of_real_use(monkeypatch):
    sklearn = pytest.importorskip("sklearn.neighbors")
    monkeypatch.undo()
    x, y = gaussian(1100, 2500, 768)
    x[:10] = y[77]
    distance, row = sklearn.NearestNeighbors(n_neighbors=1, algorithm="brute").fit(y.astype(float)).kneighbors(x)
    got = nearest(x, y)
    np.testing.assert_allclose(np.sqrt(got.squared), distance[:, 0], rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(got.row, row[:, 0])
    assert (got.squared[:10] == 0).all()
    same(nearest_in_blocks(x, cut(y, [1700, 1, 31], np.random.default_rng(0))), got)


@pytest.mark.parametrize("size", [1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23])
def test_products_that_underflow_rule_nothing_out(size):
    x, y = one_giant(size, 1)
    same(nearest_in_blocks(x, [Block(y, np.arange(len(y)))], centre=np.zeros(12)), brute(x, y))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 60), m=st.integers(0, 300), d=st.integers(1, 20), seed=st.integers(0, 99), kinds=st.integers(0, 5),
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4), step=st.sampled_from([0.0, 1e-3, 1.0]),
)  # fmt: skip
def test_any_blocks_in_any_order_give_the_same_bits(n, m, d, seed, kinds, sizes, step):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(count, d)) for count in (n, m))
    if step:  # a grid: ties and duplicates
        x, y = np.round(x / step) * step, np.round(y / step) * step
    x, y = ((z * 10.0 ** (seed % 60 - 30)).astype(np.float32) for z in (x, y))
    rows = rng.permutation(10 * m)[:m]
    x_codes, y_codes = (rng.integers(0, kinds, count) if kinds else None for count in (n, m))
    expected = brute(x, y, rows, x_codes, y_codes)
    centre = rng.normal(size=d) * 100 if seed % 2 else None
    same(nearest_in_blocks(x, cut(y, sizes, rng, y_codes, rows), codes=x_codes, centre=centre), expected)


def test_few_references_are_compared_in_float64(monkeypatch):
    """The work beyond products is bounded: some looks a row, where blanks, sorting or clusters could ask for all."""
    looks = []

    def counted(x, y, i, j):
        looks.append(len(i))
        return squared_distances(x, y, i, j)

    monkeypatch.setattr(module, "squared_distances", counted)
    for case, most in (("gaussian", 12), ("duplicates", 24), ("nearer and nearer", 12), ("far clusters", 30)):
        looks.clear()
        x, y = CASES[case]
        nearest_in_blocks(x, [Block(y, np.arange(len(y)))])
        assert sum(looks) < most * len(x), case


def test_blocks_of_nothing():
    x, y = gaussian(5, 8, 3)
    empty = Block(y[:0], np.arange(0))
    for got in (nearest_in_blocks(x, []), nearest_in_blocks(x, [empty]), nearest(x, y[:0])):
        assert np.isinf(got.squared).all()
        assert (got.row == -1).all()
    same(nearest_in_blocks(x, [empty, Block(y, np.arange(8)), empty]), brute(x, y))
    assert nearest(x[:0], y).row.shape == (0,)


def test_any_mapper_and_read_only_or_strided_arrays():
    def by_pickle(fn, items, *shared):
        done = {i: pickle.loads(pickle.dumps(fn))(items[i], *shared) for i in reversed(range(len(items)))}
        return [pickle.loads(pickle.dumps(done[i])) for i in range(len(items))]

    x, y = gaussian(400, 500, 8)
    expected = brute(x, y)
    for array in (x, y):
        array.setflags(write=False)
    same(nearest(x, y, mapper=by_pickle), expected)
    same(nearest(np.asfortranarray(x), np.repeat(y, 2, axis=0)[::2]), expected)


def test_the_callers_precision_and_features_are_left_alone():
    x, y = gaussian(100, 200, 8)
    before = x.copy(), y.copy(), torch.get_float32_matmul_precision()
    nearest(x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert torch.get_float32_matmul_precision() == before[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(bad):
    x, y = gaussian(5, 200, 3)
    worse_x, worse_y = x.copy(), y.copy()
    worse_x[3, 1] = worse_y[150, 2] = bad
    with pytest.raises(ValueError, match="queries are not finite"):
        nearest(worse_x, y)
    with pytest.raises(ValueError, match="references are not finite"):
        nearest_in_blocks(x, [Block(y[:9], np.arange(9)), Block(worse_y, np.arange(200))])
    with pytest.raises(ValueError, match="centre"):
        nearest_in_blocks(x, [], centre=np.array([0, bad, 0]))
    with pytest.raises(ValueError, match="references are not finite"):
        nearest(x, worse_y)


def test_what_does_not_fit_is_refused():
    x, y = gaussian(5, 8, 3)
    for block, text in (
        (Block(y[:, :2], np.arange(8)), r"expected \(8, 3\)"),
        (Block(y, np.arange(7)), r"expected \(7, 3\)"),
        (Block(y.astype(np.float64), np.arange(8)), "float64"),
    ):
        with pytest.raises(ValueError, match=text):
            nearest_in_blocks(x, [block])
    with pytest.raises(ValueError, match="every reference"):
        nearest_in_blocks(x, [Block(y, np.arange(8))], codes=np.arange(5))
    with pytest.raises(ValueError, match="4 codes for 5"):
        nearest_in_blocks(x, [], codes=np.arange(4))
