"""The Vendi score: against its definition, for n below and above d, and merged from any shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats.spectrum import Directions, gram, gram_vendi, vendi_score

X = np.random.default_rng(0).normal(size=(80, 12)).astype(np.float32) + 0.5


def by_definition(x: np.ndarray) -> float:
    """exp of the Shannon entropy of the eigenvalues of K/n, K the cosine kernel (Friedman and Dieng 2023, def. 3.1)."""
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1)[:, None]
    values = np.linalg.eigvalsh(unit @ unit.T / len(x))
    values = values[values > 1e-15]
    return float(np.exp(-np.sum(values * np.log(values))))


@pytest.mark.parametrize("n", [1, 2, 7, 12, 13, 80])
def test_follows_the_definition(n):
    assert vendi_score(X[:n]) == pytest.approx(by_definition(X[:n]), rel=1e-9)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 80), max_size=6), seed=st.integers(0, 999))
def test_any_partition_in_any_order_gives_the_same(cuts, seed):
    order = np.random.default_rng(seed).permutation(80)
    total = Directions.of(X[:0])
    for piece in np.split(order, sorted(cuts)):
        total = total.merge(Directions.of(X[piece]))
    assert total.vendi() == pytest.approx(vendi_score(X), rel=1e-9)


def test_unmerge_undoes_merge():
    assert Directions.of(X).unmerge(Directions.of(X[:30])).vendi() == pytest.approx(vendi_score(X[30:]), rel=1e-9)


def test_it_counts_different_images():
    assert vendi_score(np.eye(6)) == pytest.approx(6)
    assert vendi_score(np.repeat(np.eye(6), 5, axis=0)) == pytest.approx(6)
    assert vendi_score(np.ones((9, 4))) == pytest.approx(1)
    assert vendi_score(X * np.arange(1, 81)[:, None]) == pytest.approx(vendi_score(X)), "lengths do not matter"


def test_a_principal_submatrix_is_a_subset():
    kernel = gram(X[:10])
    assert gram_vendi(kernel[2:, 2:]) == pytest.approx(vendi_score(X[2:10]), rel=1e-9)
