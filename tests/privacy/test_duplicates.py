"""Duplicates against all pairs compared one by one, and the threshold against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from chexray.privacy.duplicates import (
    Bits,
    Hamming,
    Nearest,
    calibrated_bits,
    duplicate_scores,
    find_duplicates,
    first_equal,
    nearer,
)
from chexray.privacy.outputs import DUPLICATES

digests = st.lists(st.integers(0, 5), max_size=25).map(
    lambda codes: np.random.default_rng(0).integers(0, 65536, (6, 8))[codes].astype(np.float32).reshape(-1, 8)
)


def no_neighbour(n: int) -> Hamming:
    return Hamming(np.full(n, np.inf), np.full(n, -1))


@given(synthetic=digests, training=digests)
@settings(max_examples=100, deadline=None)
def test_exact_duplicates_by_comparing_all_pairs(synthetic: np.ndarray, training: np.ndarray) -> None:
    nothing = nearer(no_neighbour(len(synthetic)))
    found = find_duplicates(synthetic, training, nothing, nothing, Bits(40, 40, None, 0))
    for i, row in enumerate(synthetic):
        same = [j for j, other in enumerate(training) if (row == other).all()]
        twins = [j for j, other in enumerate(synthetic) if (row == other).all()]
        assert found.exact_training[i] == (same[0] if same else -1)
        assert found.exact_within[i] == (twins[0] if len(twins) > 1 else -1)
    assert not found.near_training.any()
    assert not found.near_within.any()


def test_a_last_word_of_zero_counts_and_so_does_minus_zero() -> None:
    rows = np.array([[1, 0], [1, 256], [0, 1], [-0.0, 1], [np.nan, 0], [np.nan, 0]], dtype=np.float32)
    first, count = first_equal(rows)
    np.testing.assert_array_equal(first, [0, 1, 2, 2, 4, 4])
    np.testing.assert_array_equal(count, [1, 1, 2, 2, 2, 2])


def test_many_equal_images_are_fast() -> None:
    first, count = first_equal(np.ones((200_000, 8), dtype=np.float32))
    assert not first.any()
    assert (count == 200_000).all()


def test_hamming_distances_of_signs_and_their_mirror_images() -> None:
    rng = np.random.default_rng(1)
    training = rng.choice([-1.0, 1.0], (30, 256))
    mirror = rng.choice([-1.0, 1.0], 256)
    synthetic = rng.choice([-1.0, 1.0], (12, 256))
    synthetic[0] = training[7]
    synthetic[0, :10] *= -1
    synthetic[1] = training[9] * mirror
    sides = []
    for queries in (synthetic, synthetic * mirror):
        squared = ((queries[:, None] - training) ** 2).sum(2)
        sides.append(Hamming.of_signs(squared.min(1), squared.argmin(1)))
    found = nearer(*sides)
    assert (found.bits[0], found.row[0], found.mirrored[0]) == (10, 7, False)
    assert (found.bits[1], found.row[1], found.mirrored[1]) == (0, 9, True)
    both = np.minimum(
        *(np.array([[(a != b).sum() for b in training] for a in q]) for q in (synthetic, synthetic * mirror))
    )
    np.testing.assert_array_equal(found.bits, both.min(1))
    assert not nearer(Hamming(np.ones(2), np.zeros(2)), Hamming(np.ones(2), np.ones(2))).mirrored.any()


@given(
    null=st.lists(st.integers(0, 60), max_size=40),
    default=st.integers(0, 60),
    most=st.sampled_from([0.001, 0.05, 0.2, 1.0]),
)
@settings(max_examples=200, deadline=None)
def test_bits_are_the_largest_that_the_null_allows(null: list[int], default: int, most: float) -> None:
    found = calibrated_bits(np.array(null, dtype=float), default, most=most)
    allowed = [b for b in range(-1, default + 1) if not null or sum(x <= b for x in null) <= most * len(null) + 1e-9]
    assert found.bits == max(allowed)
    assert found.null_share == (sum(x <= found.bits for x in null) / len(null) if null else None)
    assert (found.default_bits, found.n_null) == (default, len(null))


def test_bits_of_fractions_and_of_no_null() -> None:
    assert calibrated_bits(np.array([32.25, 60.0]), 40).bits == 32
    assert calibrated_bits(np.array([32.0, 60.0]), 40).bits == 31
    assert calibrated_bits(None, 40) == Bits(40, 40, None, 0)


def test_scores_count_images_and_say_their_threshold() -> None:
    rng = np.random.default_rng(2)
    training = rng.integers(0, 65536, (50, 8)).astype(np.float32)
    synthetic = rng.integers(0, 65536, (20, 8)).astype(np.float32)
    synthetic[:2] = training[[30, 4]]
    synthetic[5] = synthetic[9]
    plain, flipped = np.full(20, 70.0), np.full(20, 75.0)
    plain[:3], flipped[3] = [0, 0, 33], 12
    row = np.arange(20)
    within = np.full(20, 70.0)
    within[[5, 9, 11, 12]] = 0, 0, 20, 20
    bits = calibrated_bits(np.r_[np.full(4, 35.0), np.full(1996, 60.0)], 40)
    found = find_duplicates(
        synthetic, training, nearer(Hamming(plain, row), Hamming(flipped, row)), nearer(Hamming(within, row)), bits
    )
    np.testing.assert_array_equal(found.exact_training[:3], [30, 4, -1])
    np.testing.assert_array_equal(np.flatnonzero(found.near_training), [0, 1, 2, 3])
    scores = duplicate_scores(found, bits, heldout_exact=np.arange(1000) < 1)
    assert [score.metric for score in scores] == [output.name for output in DUPLICATES]
    assert [score.value for score in scores] == [2, 4, 2, 4]
    assert bits.bits == 34
    assert scores[0].real_floor == pytest.approx(0.02)
    assert scores[1].real_floor == 0.0
    assert scores[1].ci_low < 4 < scores[1].ci_high
    assert scores[1].params["n_mirrored"] == 1
    assert "at most 34 bits, not 40" in scores[1].params["note"]
    assert scores[2].ci_low is None
    assert "unchecked" in duplicate_scores(found, Bits(40, 40, None, 0))[1].params["note"]


def test_scores_of_nothing_and_of_a_null_full_of_equal_hashes() -> None:
    bits = calibrated_bits(np.zeros(50), 40)
    assert bits.bits == -1
    one = nearer(Hamming(np.zeros(1), np.zeros(1, dtype=int)))
    found = find_duplicates(np.ones((1, 8), np.float32), np.zeros((2, 8), np.float32), one, one, bits)
    assert "nothing counts as near" in duplicate_scores(found, bits)[1].params["note"]
    assert not found.near_training.any()
    empty = nearer(no_neighbour(0))
    none = find_duplicates(np.empty((0, 8), np.float32), np.ones((2, 8), np.float32), empty, empty, bits)
    assert [score.status for score in duplicate_scores(none, bits)] == ["too_few"] * 4
    with pytest.raises(ValueError, match="1 digests"):
        find_duplicates(np.ones((1, 8), np.float32), np.zeros((2, 8), np.float32), empty, one, bits)


@pytest.mark.parametrize(
    ("hits", "n_null", "near_null", "loud"), [(4, 222, 0, True), (1, 400, 0, False), (4, 222, 3, False)]
)
def test_a_count_of_near_duplicates_alarms_when_the_null_does_not_explain_it(hits, n_null, near_null, loud) -> None:
    n = 80
    to_training = Nearest(np.where(np.arange(n) < hits, 5.0, 90.0), np.zeros(n, int), np.zeros(n, bool))
    within = Nearest(np.full(n, 90.0), np.ones(n, int), np.zeros(n, bool))
    digests = np.arange(8.0 * n, dtype=np.float32).reshape(n, 8)
    bits = Bits(10, 10, near_null / n_null, n_null)
    found = find_duplicates(digests, digests[:0], to_training, within, bits)
    near = duplicate_scores(found, bits)[1]
    exact = fisher_exact([[hits, n - hits], [near_null, n_null - near_null]], alternative="greater").pvalue
    assert near.params["p_value"] == pytest.approx(exact)
    assert near.params["significant"] is loud
    assert duplicate_scores(found, bits, n_sets=3)[1].params["p_value"] == pytest.approx(min(1, 3 * exact))
    assert "significant" not in duplicate_scores(found, Bits(10, 10, None, 0))[1].params
