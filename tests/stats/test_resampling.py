"""Clustered errors, patient-disjoint halves and the delete-a-group jackknife."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats.resampling import (
    bootstrap_counts,
    clustered_std_error,
    jackknife_groups,
    jackknife_std_error,
    normal_interval,
    split_half,
)

patients = st.lists(st.integers(0, 12), min_size=2, max_size=60).map(lambda codes: np.array(codes, dtype=np.int64))


def test_without_patients_the_error_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    assert clustered_std_error(x, None) == pytest.approx(x.std(ddof=1) / math.sqrt(50), rel=1e-12)
    assert clustered_std_error(x, np.arange(50) * 7 - 3) == pytest.approx(clustered_std_error(x, None), rel=1e-12)


def test_copies_of_an_image_within_a_patient_add_no_information():
    rng = np.random.default_rng(1)
    x = rng.normal(size=40)
    copied = clustered_std_error(np.repeat(x, 3), np.repeat(np.arange(40), 3))
    assert copied == pytest.approx(clustered_std_error(x, None), rel=1e-12)


def test_one_patient_has_no_error():
    assert math.isnan(clustered_std_error(np.arange(5.0), np.zeros(5, dtype=np.int64)))
    assert math.isnan(jackknife_std_error(np.array([1.0])))


@pytest.mark.calibration
def test_the_clustered_error_matches_monte_carlo():
    rng = np.random.default_rng(2)
    subjects = np.sort(rng.integers(0, 60, 150))
    means, errors = [], []
    for _ in range(400):
        x = rng.normal(size=60)[subjects] + 0.5 * rng.normal(size=150)
        means.append(x.mean())
        errors.append(clustered_std_error(x, subjects))
    true = float(np.std(means))
    assert np.mean(errors) == pytest.approx(true, rel=0.1)
    assert clustered_std_error(x, None) < 0.8 * true, "ignoring patients must be seen to fail here"


@given(codes=patients, seed=st.integers(0, 99))
def test_halves_share_no_image_and_no_patient(codes, seed):
    a, b = split_half(len(codes), codes, np.random.default_rng(seed))
    assert np.array_equal(np.sort(np.concatenate([a, b])), np.arange(len(codes)))
    assert not set(codes[a]) & set(codes[b])
    assert abs(len(a) - len(b)) <= np.bincount(codes).max()


def test_halves_of_separate_images_are_equal():
    rng = np.random.default_rng(3)
    a, b = split_half(11, None, rng)
    assert {len(a), len(b)} == {5, 6}
    codes = np.array([0] * 7 + [1] * 3 + list(range(2, 12)))
    a, b = split_half(20, codes, rng)
    assert len(a) == len(b) == 10


@given(codes=patients, groups=st.integers(2, 25), seed=st.integers(0, 99))
def test_jackknife_groups_are_whole_patients_and_cover_all(codes, groups, seed):
    blocks = jackknife_groups(len(codes), codes, groups, np.random.default_rng(seed))
    assert len(blocks) == min(groups, len(set(codes.tolist())))
    assert all(len(block) for block in blocks)
    assert np.array_equal(np.sort(np.concatenate(blocks)), np.arange(len(codes)))
    owners = [set(codes[block].tolist()) for block in blocks]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_leaving_out_single_images_gives_the_error_of_a_mean():
    rng = np.random.default_rng(4)
    x = rng.normal(size=30)
    left_out = (x.sum() - x) / 29
    assert jackknife_std_error(left_out) == pytest.approx(x.std(ddof=1) / math.sqrt(30), rel=1e-12)


def test_the_same_seed_deals_the_same_groups():
    codes = np.arange(40) // 3
    a, b = (jackknife_groups(40, codes, 5, np.random.default_rng(9)) for _ in range(2))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_an_interval_stays_in_the_range_of_the_metric():
    assert normal_interval(1.0, 1.0) == pytest.approx((-0.95996, 2.95996), abs=1e-4)
    assert normal_interval(1.0, 1.0, low=0.0, high=2.0) == (0.0, 2.0)
    low, high = normal_interval(1.0, 1.0, level=0.5)
    assert high - low == pytest.approx(2 * 0.67449, abs=1e-4)


@settings(max_examples=25)
@given(codes=patients, seed=st.integers(0, 99))
def test_a_bootstrap_takes_whole_patients(codes, seed):
    counts = bootstrap_counts(len(codes), codes, np.random.default_rng(seed))
    for code in set(codes.tolist()):
        assert len(set(counts[codes == code].tolist())) == 1


def test_patients_must_match_images():
    with pytest.raises(ValueError, match="3 patient codes for 4 images"):
        clustered_std_error(np.zeros(4), np.zeros(3, dtype=np.int64))
