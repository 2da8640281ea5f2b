"""Numbers a prompt and overall: against pandas and scipy, with intervals whose coverage is counted."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chexray.privacy.pair_outputs import LATENT, REID
from chexray.privacy.prompts import bootstrap_means, count_scores, pair_scores, prompt_table
from chexray.privacy.shares import share_interval


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_pairs(rng, n_prompts=40):
    """Codes of prompts with 1 to 6 seeds and their scores, in no order."""
    codes = np.repeat(rng.permutation(1000)[:n_prompts], rng.integers(1, 7, n_prompts))
    codes = rng.permutation(codes)
    return codes, rng.beta(0.5, 2, len(codes))


@pytest.mark.parametrize("extreme", ["max", "min"])
def test_prompt_table_is_a_group_by(rng, extreme):
    codes, values = some_pairs(rng)
    table = prompt_table(codes, values, extreme)
    groups = pd.Series(values).groupby(codes)
    assert table.code.tolist() == list(groups.groups)
    np.testing.assert_array_equal(table.n_seeds, groups.count())
    np.testing.assert_allclose(table.mean, groups.mean(), rtol=1e-14)
    np.testing.assert_array_equal(table.extreme, getattr(groups, extreme)())
    np.testing.assert_array_equal(table.worst, getattr(groups, f"idx{extreme}")())


def test_scores_have_the_names_directions_and_values_of_the_paper(rng):
    codes, values = some_pairs(rng)
    groups = pd.Series(values).groupby(codes)
    scores = pair_scores(REID, values, codes, None, None, rng)
    assert [score.metric for score in scores] == ["reid_mean", "reid_max_mean", "reid_max"]
    assert {score.better for score in scores} == {"lower"}
    expected = (groups.mean().mean(), groups.max().mean(), values.max())
    np.testing.assert_allclose([score.value for score in scores], expected, rtol=1e-14)
    params = scores[0].params
    assert (params["n_prompts"], params["n_pairs"]) == (40, len(values))
    assert (params["n_seeds_min"], params["n_seeds_max"]) == (groups.count().min(), groups.count().max())
    assert scores[0].std_error_method == "bootstrap over prompts"
    distances = pair_scores(LATENT, values, codes, None, values / 2, rng)
    names = ["latent_distance", "latent_distance_min_mean", "latent_distance_min"]
    assert [score.metric for score in distances] == names
    expected = (groups.mean().mean(), groups.min().mean(), values.min())
    np.testing.assert_allclose([score.value for score in distances], expected, rtol=1e-14)
    np.testing.assert_allclose([score.real_floor for score in distances], np.array(expected) / 2, rtol=1e-14)


def test_an_extreme_has_no_error_and_says_that_it_grows(rng):
    codes, values = some_pairs(rng)
    worst = pair_scores(REID, values, codes, None, None, rng, floor_reason="nobody is named")[2]
    assert (worst.std_error, worst.ci_low, worst.ci_high, worst.std_error_method) == (None, None, None, "")
    assert "gets worse with their number" in worst.params["std_error_reason"]
    assert worst.params["floor_reason"] == "nobody is named"
    assert worst.real_floor is None


def test_the_order_of_pairs_changes_nothing(rng):
    codes, values = some_pairs(rng)
    patients = codes % 7
    order = rng.permutation(len(codes))
    thresholds = {"0.5": (0.5, 0.01)}
    for score in (partial(pair_scores, REID), partial(count_scores, thresholds=thresholds)):
        results = []
        for index in (slice(None), order):
            rows = values[index], codes[index], patients[index]
            results.append(score(*rows, floor_values=values[index], rng=np.random.default_rng(5)))
        assert results[0] == results[1]


def test_the_standard_error_is_that_of_scipy(rng):
    values = rng.gamma(0.5, 1, 60)
    (error, low, high), *_ = bootstrap_means(values[:, None], np.arange(60), np.random.default_rng(1))
    found = stats.bootstrap((values,), np.mean, n_resamples=4000, rng=np.random.default_rng(2))
    assert error == pytest.approx(found.standard_error * np.sqrt(60 / 59), rel=0.06)
    assert low is not None
    assert high is not None
    assert low < values.mean() < high
    assert high - values.mean() > values.mean() - low  # the tail is on the right


def test_patients_are_resampled_whole(rng):
    """Ten prompts of each of 12 patients that all score alike are worth 12 prompts, not 120."""
    patient = rng.normal(size=12)
    values = np.repeat(patient, 10)
    codes = np.arange(120)
    whole = pair_scores(LATENT, values + 10, codes, np.repeat(np.arange(12), 10), None, rng)[0]
    apart = pair_scores(LATENT, values + 10, codes, None, None, rng)[0]
    assert whole.std_error == pytest.approx(patient.std(ddof=1) / np.sqrt(12), rel=0.1)
    assert apart.std_error == pytest.approx(patient.std() / np.sqrt(120), rel=0.1)
    assert whole.std_error_method == "bootstrap over patients"
    assert whole.params["n_patients"] == 12


def test_a_prompt_ties_its_patients_and_unknown_ones_stand_alone(rng):
    codes = np.array([0, 0, 1, 2, 3, 4])
    patients = np.array([5, 6, 6, 7, -1, -1])
    score = pair_scores(LATENT, rng.random(6), codes, patients, None, rng)[0]
    assert score.params["n_patients"] == 4  # {0, 1} by patients 5 and 6, {2}, {3}, {4}
    score = pair_scores(LATENT, rng.random(6), codes, np.full(6, -1), None, rng)[0]
    assert score.std_error_method == "bootstrap over prompts"


def test_counts_are_of_prompts_strictly_above_and_never_rounded(rng):
    codes = np.array([0, 0, 1, 1, 2, 2, 3])
    values = np.array([0.85, 0.1, 0.85000001, 0.86, 0.2, 0.9, 0.1])
    floor = np.array([0.9, 0.1, 0.2, 0.1, 0.2, 0.3, 0.1])
    thresholds = {"0.85": (0.85, 0.01), "calibrated": (None, None), "0.95": (0.95, None)}
    middle, calibrated, last = count_scores(values, codes, None, thresholds, floor, rng, uncalibrated="no patients")
    assert (middle.metric, middle.value, middle.real_floor) == ("reid_count_0.85", 2, 1)
    assert middle.params["n_pairs_above"] == 3
    assert middle.params["share"] == 0.5
    assert (middle.params["threshold"], middle.params["false_positive_rate"]) == (0.85, 0.01)
    assert (calibrated.value, calibrated.status, calibrated.reason) == (None, "undefined", "no patients")
    assert (last.value, last.std_error, last.ci_low) == (0, None, 0)
    assert last.ci_high == pytest.approx(4 * share_interval(0, 4)[1])
    fewer = count_scores(values, codes, None, {"0.85": (0.85, 0.01)}, floor[:2], rng, floor_codes=codes[:2])[0]
    assert fewer.real_floor == 4  # one floor prompt, above: brought to four prompts
    assert fewer.params["floor_n_pairs"] == 2


def test_what_cannot_be_computed_is_said(rng):
    empty = np.array([])
    for score in [
        *pair_scores(REID, empty, empty, None, None, rng),
        *count_scores(empty, empty, None, {"0.5": (0.5, None)}, None, rng),
    ]:
        assert (score.value, score.status) == (None, "too_few")
        assert "no pairs" in score.reason
    score = pair_scores(REID, np.array([0.1, np.nan]), np.arange(2), None, None, rng)[0]
    assert (score.status, score.reason) == ("undefined", "the values of 1 of 2 pairs are NaN or infinite")
    score = pair_scores(REID, np.array([0.1]), np.arange(1), None, np.array([np.nan]), rng)[0]
    assert (score.value, score.std_error, score.real_floor) == (0.1, None, None)
    assert "one prompt" in score.params["std_error_reason"]
    assert "NaN" in score.params["floor_reason"]
    score = pair_scores(REID, np.full(20, 0.25), np.arange(20), None, None, rng)[0]
    assert (score.value, score.std_error, score.ci_low, score.ci_high) == (0.25, 0, 0.25, 0.25)


@pytest.mark.parametrize("n_patients", [5, 16, 60])
def test_the_interval_of_a_mean_covers_the_truth(rng, n_patients):
    """Skewed scores with a patient effect, prompts with 1 to 5 seeds; 95 % nominal, in 400 worlds."""
    patient_sd = seed_sd = 1.0
    grid = stats.norm.ppf((np.arange(20000) + 0.5) / 20000) * np.hypot(patient_sd, seed_sd) - 2
    truth = (1 / (1 + np.exp(-grid))).mean()
    worlds, hits = 400, 0
    for _ in range(worlds):
        n_prompts = rng.integers(1, 4, n_patients)
        patient = np.repeat(np.arange(n_patients), n_prompts)
        n_seeds = rng.integers(1, 6, len(patient))
        code = np.repeat(np.arange(len(patient)), n_seeds)
        effect = rng.normal(0, patient_sd, n_patients)[patient[code]]
        values = 1 / (1 + np.exp(2 - effect - rng.normal(0, seed_sd, len(code))))
        score = pair_scores(REID, values, code, patient[code], None, rng)[0]
        assert score.ci_low is not None
        assert score.ci_high is not None
        hits += score.ci_low <= truth <= score.ci_high
    assert 0.9 < hits / worlds < 0.985


@pytest.mark.parametrize(("share", "n_patients"), [(0.05, 16), (0.05, 150), (0.3, 40)])
def test_the_interval_of_a_count_covers_the_truth(rng, share, n_patients):
    """Copies come by patient; a percentile bootstrap covers 57 % of the worlds in the first case."""
    worlds, hits = 200, 0
    for _ in range(worlds):
        patient = np.repeat(np.arange(n_patients), rng.integers(1, 3, n_patients))
        copied = (rng.random(n_patients) < share)[patient]
        n = len(patient)
        values = np.where(copied, 0.9, 0.1)
        score = count_scores(values, np.arange(n), patient, {"0.5": (0.5, None)}, None, rng)[0]
        assert score.ci_low is not None
        assert score.ci_high is not None
        hits += score.ci_low <= share * n <= score.ci_high
    assert hits / worlds > 0.92
