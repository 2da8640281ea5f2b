"""Moments: any partition in any order gives what numpy gives on the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats import moments
from chexray.stats.moments import Moments, merge_all, moments_of_shard, shards

X = (np.random.default_rng(0).normal(size=(120, 7)) * np.arange(1, 8) + 3).astype(np.float32)


def close(a: Moments, b: Moments) -> None:
    """Equal up to rounding of the whole set's numbers."""
    assert a.n == b.n
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-12, atol=1e-12 * np.abs(Moments.of(X).scatter).max())


def test_moments_are_numpys():
    found = Moments.of(X)
    np.testing.assert_allclose(found.mean, X.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(X.astype(np.float64), rowvar=False), rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, 120), max_size=8), seed=st.integers(0, 999))
def test_any_partition_in_any_order_gives_the_same(cuts, seed):
    order = np.random.default_rng(seed).permutation(120)
    pieces = [Moments.of(piece) for piece in np.split(X[order], sorted(cuts))]
    close(merge_all(pieces), Moments.of(X))


@settings(max_examples=25)
@given(cut=st.integers(0, 120))
def test_unmerge_undoes_merge(cut):
    close(Moments.of(X).unmerge(Moments.of(X[:cut])), Moments.of(X[cut:]))


def test_blocks_do_not_show(monkeypatch):
    whole = Moments.of(X)
    monkeypatch.setattr(moments, "BLOCK_ROWS", 11)
    close(Moments.of(X), whole)


def test_a_large_offset_costs_no_digits():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4))
    np.testing.assert_allclose(Moments.of(x + 1e6).covariance, np.cov(x, rowvar=False), rtol=1e-8)


def test_shards_cover_the_rows_once(monkeypatch):
    monkeypatch.setattr(moments, "SHARD_ROWS", 50)
    assert list(shards(120)) == [(0, 50), (50, 100), (100, 120)]
    close(merge_all(moments_of_shard(span, X) for span in shards(120)), Moments.of(X))


def test_few_rows():
    assert Moments.of(X[:1]).covariance.max() == 0
    empty = Moments.of(X).unmerge(Moments.of(X))
    assert empty.n == 0
    close(empty.merge(Moments.of(X)), Moments.of(X))
    with pytest.raises(ValueError, match="nothing to merge"):
        merge_all([])
    with pytest.raises(ValueError, match="cannot take 120 rows out of 1"):
        Moments.of(X[:1]).unmerge(Moments.of(X))
