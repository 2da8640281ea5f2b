"""KID as a metric: value, error, floor, p-value, the two subset protocols, and bad input in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows, serial
from chexray.metrics.kid import KID


def rows(n: int, d: int = 32, seed: int = 0, *, shift: float = 0.0, patients: int | None = None) -> Rows:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 0.3 + shift
    subjects = None
    if patients:
        subjects = np.sort(rng.integers(0, patients, n))
        x += rng.normal(size=(patients, d))[subjects]
    return Rows(np.array([f"id{i:05d}" for i in range(n)]), x.astype(np.float32), subjects)


def test_it_is_found_by_name_and_says_what_it_returns():
    assert registry.find("metrics", "kid") is KID
    assert [(o.name, o.better) for o in KID().outputs] == [("kid", "lower")]
    assert [o.name for o in KID(subsets=5).outputs] == ["kid_subsets"]
    assert [o.name for o in KID.outputs] == ["kid"]


def test_a_score_is_complete_and_reproducible():
    real, synthetic = rows(150), rows(120, seed=1, shift=0.2)
    (score,), images = KID().score_images(real, synthetic, seed=3)
    assert score.ci_low < score.value < score.ci_high
    assert score.std_error_method == "jackknife"
    assert (score.real_floor, score.real_floor_std_error, score.beyond_floor) == (0.0, 0.0, "worse")
    assert score.params["floor_method"] == "unbiased"
    assert score.params["p_value"] == pytest.approx(1 / 500)
    assert images["kid_influence"].shape == (120,)
    assert images["kid_influence"].mean() == pytest.approx(0, abs=1e-9)
    assert KID().score(real, synthetic, seed=3, mapper=serial) == [score]


def test_the_influence_names_the_image_that_pulls():
    real, synthetic = rows(150), rows(120, seed=1, shift=0.1)
    synthetic.features[17] += 2
    _, images = KID().score_images(real, synthetic, floor=False)
    assert np.argmax(images["kid_influence"]) == 17


def test_intervals_rank_two_generators():
    real = rows(400)
    near, far = (KID().score(real, rows(400, seed=s, shift=t), floor=False)[0] for s, t in ((1, 0.1), (2, 0.4)))
    assert near.ci_high < far.ci_low


def test_patients_widen_the_interval():
    real = rows(300, patients=40)
    clustered = KID().score(real, rows(300, seed=1, shift=0.3), floor=False)[0]
    alone = KID().score(Rows(real.ids, real.features), rows(300, seed=1, shift=0.3), floor=False)[0]
    assert clustered.value < alone.value, "pairs of one patient are alike, and are left out"
    assert clustered.std_error > 1.5 * alone.std_error
    assert clustered.params["pairs_left_out"] == sum(n * (n - 1) // 2 for n in np.bincount(real.subjects))
    assert clustered.params["p_value_n_real"] <= 40


def test_the_subset_protocol_reports_mean_std_and_an_error_of_the_mean():
    real, synthetic = rows(400), rows(300, seed=1, shift=0.2)
    exact = KID().score(real, synthetic, floor=False)[0]
    (score,) = KID(subsets=60, subset_size=100).score(real, synthetic, floor=False)
    assert score.metric == "kid_subsets"
    assert score.value == pytest.approx(exact.value, abs=4 * score.params["std"] / np.sqrt(60))
    assert exact.std_error * 0.8 < score.std_error < exact.std_error * 1.3
    assert score.std_error < score.params["std"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_subset_size_min_is_what_chexgenbench_computes():
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    real, synthetic = rows(80), rows(80, seed=1, shift=0.2)
    theirs = torchmetrics.KernelInceptionDistance(feature=torch.nn.Identity(), subsets=3, subset_size=80)
    for side, is_real in ((real, True), (synthetic, False)):
        theirs.update(torch.from_numpy(side.features), real=is_real)
    (score,) = KID(subsets=100, subset_size="min").score(real, synthetic, floor=False)
    assert score.value == pytest.approx(theirs.compute()[0].item(), abs=2e-6)
    exact = KID().score(real, synthetic, floor=False)[0]
    assert score.value == pytest.approx(exact.value, abs=1e-6)
    assert score.std_error == pytest.approx(exact.std_error, rel=1e-4)


def test_subset_size_min_of_unequal_sets_averages_all_its_subsets_as_upstream_does():
    """Upstream draws 100 subsets; one of them alone has the spread of a KID of that size."""
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    real, synthetic = rows(32), rows(168, seed=1, shift=0.1)
    for x, y in ((real, synthetic), (synthetic, real)):
        expected = theirs.kid_features_to_metric(
            torch.from_numpy(x.features), torch.from_numpy(y.features),
            kid_subsets=100, kid_subset_size=32, rng_seed=2020, verbose=False,
            kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0,
        )  # fmt: skip
        (score,) = KID(subsets=100, subset_size="min").score(x, y, floor=False)
        assert (score.params["subset_size"], score.params["subsets"]) == (32, 100)
        assert score.value == pytest.approx(expected["kernel_inception_distance_mean"], abs=1e-6)
        assert score.params["std"] == pytest.approx(expected["kernel_inception_distance_std"], abs=1e-6)


def test_patients_and_prompts_leave_kid_unbiased():
    """Two images a patient, and each synthetic image near the real one of its prompt: over all pairs KID is far off."""
    apart, plain = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        patients, prompts = np.arange(60) // 2, np.arange(60)
        x = rng.normal(size=(30, 16))[patients] + 0.5 * rng.normal(size=(60, 16)) + 0.3
        y = x + rng.normal(size=(60, 16)) * 0.3
        real, synthetic = (Rows(np.arange(60).astype(str), z.astype(np.float32), None, None) for z in (x, y))
        plain.append(KID().score(real, synthetic, floor=False)[0].value)
        named = (
            Rows(real.ids, real.features, patients, prompts),
            Rows(synthetic.ids, synthetic.features, patients, prompts),
        )
        apart.append(KID().score(*named, floor=False)[0].value)
    truth = 0.0
    assert np.mean(plain) < -8 * np.std(plain) / np.sqrt(40)
    assert abs(np.mean(apart) - truth) < 4 * np.std(apart) / np.sqrt(40) + 0.02


def test_when_all_pairs_are_related_there_is_no_kid():
    one = np.zeros(20, np.int64)
    real, synthetic = (Rows(r.ids, r.features, None, one) for r in (rows(20), rows(20, seed=1)))
    (score,) = KID().score(real, synthetic)
    assert (score.value, score.status) == (None, "undefined")
    assert "two real images shares a patient or a prompt" in score.reason
    assert KID(subsets=5, subset_size="min").score(real, synthetic)[0].value is not None


def test_tiny_features_have_a_kid():
    """At a scale of 1e-4 the kernel is 1 + 1e-8: float32 rounds it to 1 and the value to 0."""
    real, synthetic = (Rows(r.ids, r.features * np.float32(1e-4)) for r in (rows(100), rows(100, seed=1, shift=0.5)))
    x, y = real.features.astype(np.longdouble), synthetic.features.astype(np.longdouble)
    xx, yy, xy = ((a @ b.T / 32 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / 9900 - 2 * xy.mean()
    (score,) = KID().score(real, synthetic)
    assert score.value == pytest.approx(float(expected), rel=1e-3)
    assert score.ci_low > 0


@pytest.mark.parametrize(
    ("real", "synthetic", "status", "words"),
    [
        (rows(1), rows(5), "too_few", "1 real image"),
        (rows(5), rows(0), "too_few", "0 synthetic images"),
        (rows(5), rows(5, shift=np.nan), "undefined", "NaN"),
        (rows(5, shift=1e18), rows(5), "undefined", "too large"),
    ],
)
def test_bad_input_is_a_null_with_a_reason(real, synthetic, status, words):
    (score,), images = KID().score_images(real, synthetic)
    assert (score.value, score.status) == (None, status)
    assert words in score.reason
    assert images == {}


def test_subsets_larger_than_a_set_are_a_null_with_a_reason():
    (score,) = KID(subsets=10).score(rows(50), rows(60))
    assert (score.metric, score.status) == ("kid_subsets", "too_few")
    assert "1000" in score.reason


def test_identical_and_constant_sets_have_a_value():
    same = rows(40)
    (score,) = KID().score(same, same)
    assert score.value <= 0
    assert score.params["p_value"] > 0.5
    assert "same features" in score.params["note"]
    constant = Rows(same.ids, np.ones((40, 8), dtype=np.float32))
    (score,) = KID().score(constant, constant)
    assert score.value == pytest.approx(0, abs=1e-9)


def test_two_images_have_a_value_and_say_why_there_is_no_error():
    (score,) = KID().score(rows(2), rows(9, seed=1))
    assert score.value is not None
    assert score.std_error is None
    assert "too few" in score.params["std_error_reason"]


@pytest.mark.parametrize("wrong", [{"subsets": -1}, {"subset_size": 1}, {"subset_size": "max"}, {"subsets": 0.5}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(MetricError, match="expected"):
        KID(**wrong)
