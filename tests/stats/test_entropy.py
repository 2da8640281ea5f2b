"""The inception score: parity with torch-fidelity, and the same value for any shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats import entropy
from chexray.stats.entropy import EntropyState, inception_score, split_ids


def logits(n: int, classes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        np.random.default_rng(7).normal(size=(9, classes))[rng.integers(0, 9, n)] * 3 + rng.normal(size=(n, classes))
    ).astype(np.float32)


@pytest.mark.parametrize(("n", "splits"), [(203, 10), (100, 1), (57, 7), (20, 10)])
def test_agrees_with_torch_fidelity(n, splits):
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torch_fidelity.metric_isc")
    x = logits(n, 100, 0)
    expected = module.isc_features_to_metric(torch.from_numpy(x), splits=splits)
    assert inception_score(x, splits) == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    found = EntropyState.of(x, split_ids(n, splits), splits).scores()
    assert found.std() == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 90), max_size=6), seed=st.integers(0, 999))
def test_any_partition_in_any_order_gives_the_same(cuts, seed):
    x, split = logits(90, 30, 1), split_ids(90, 5)
    order = np.random.default_rng(seed).permutation(90)
    state = EntropyState.of(x[:0], split[:0], 5)
    for piece in np.split(order, sorted(cuts)):
        state = state.merge(EntropyState.of(x[piece], split[piece], 5))
    assert float(state.scores().mean()) == pytest.approx(inception_score(x, 5), rel=1e-9)


def test_unmerge_undoes_merge(monkeypatch):
    x, split = logits(60, 30, 2), split_ids(60, 3)
    monkeypatch.setattr(entropy, "BLOCK_ROWS", 13)
    left = EntropyState.of(x, split, 3).unmerge(EntropyState.of(x[:20], split[:20], 3))
    np.testing.assert_allclose(left.scores(), EntropyState.of(x[20:], split[20:], 3).scores(), rtol=1e-9)


def test_the_ends_of_the_range():
    assert inception_score(np.zeros((50, 20)), 5) == pytest.approx(1)
    assert inception_score(np.tile(np.eye(10) * 1e4, (10, 1)), 1) == pytest.approx(10)


def test_splits_are_equal_chunks_of_a_permutation():
    ids = split_ids(25, 4)
    assert np.array_equal(np.bincount(ids), [6, 6, 6, 7])
    assert not np.array_equal(ids, np.sort(ids))
