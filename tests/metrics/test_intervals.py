"""Small slices of tests/calibration/intervals.py: the intervals of the metrics cover where normal ones do not."""

from __future__ import annotations

import numpy as np
import pytest
from calibration.intervals import World, heavy_tail_marks, measure

from chexray.metrics.base import Output, Rows
from chexray.metrics.common import Error, measured
from chexray.metrics.fid import FID
from chexray.metrics.fid_infinity import FIDInfinity
from chexray.stats.intervals import Spread

PATIENTS = {"images": "geometric", "synthetic_images": "geometric"}


@pytest.mark.calibration
@pytest.mark.parametrize(
    ("world", "metric", "before"),
    [
        (World(64, 64, degrees=5, **PATIENTS), "fid", 0.79),
        (World(64, 64, degrees=5, **PATIENTS), "kid", 0.83),
        (World(64, 64, **PATIENTS), "density", 0.68),
        (World(90, 90, images="1-16", synthetic_images="1-16"), "density", 0.31),
        (World(90, 90, images="1-16", synthetic_images="1-16"), "recall", 0.74),
        (World(30, 300, shift=0), "density", 0.77),
        (World(100, 400, degrees=5, images=4), "precision", 0.67),
    ],
    ids=str,
)
def test_intervals_cover_heavy_tails_few_patients_and_numbers_near_zero(world, metric, before):
    """`before`: the coverage of 1.96 standard errors, measured over 120 draws."""
    part = metric if metric in ("fid", "kid") else "prdc"
    found = {cell.metric: cell for cell in measure(world, 100, (part,))}[metric]
    assert found.covered >= 0.87 > before, f"{found.covered:.2f} covered; two standard errors below 0.90 are 0.84"
    assert 0.75 < found.ratio < 1.75


@pytest.mark.calibration
def test_blocks_of_unequal_size_do_not_inflate_the_error():
    """30 synthetic images in 20 blocks of one or two: the error of FID was 3.0 times the true one."""
    (found,) = measure(World(1000, 30, shift=0, d=48), 30, ("fid",))
    assert found.ratio < 1.9


@pytest.mark.calibration
def test_few_patients_still_give_fid_infinity_an_error():
    (found,) = measure(World(240, 240, images=16, synthetic_images=16), 40, ("fid_infinity",))
    assert found.with_interval == 1
    assert found.covered >= 0.9


@pytest.mark.calibration
def test_heavy_tails_are_marked_and_ordinary_ones_are_not():
    rates = {(name, n): rate for name, n, rate in heavy_tail_marks(25) if n == 320}
    assert rates["t3", 320] >= 0.8
    assert rates["t5", 320] <= 0.45
    assert rates["normal", 320] == rates["normal, d = 2", 320] == 0


def test_a_marked_score_says_so_and_is_wide():
    world = World(320, 320, degrees=2.2)
    real, synthetic = world.draw(np.random.default_rng(3))
    for metric in (FID(), FIDInfinity()):
        (score,) = metric.score(real, synthetic, floor=False)
        assert score.params["ci_heavy_tails"] is True
        assert "a few images decide this number" in score.params["note"]
        assert score.ci_high - score.value > 4 * score.std_error
    (plain,) = FID().score(*World(320, 320).draw(np.random.default_rng(3)), floor=False)
    assert "ci_heavy_tails" not in plain.params
    assert "note" not in plain.params


def test_a_note_of_the_metric_stays_beside_that_of_the_tails():
    error = Error.of_spread(Spread(1.0, 5.0), "jackknife", heavy_tails="heavy tails: said")
    score = measured(Output("fid"), 2.0, error, about={"note": "both sides have the same moments"})
    assert score.params["note"] == "both sides have the same moments; heavy tails: said"


@pytest.mark.parametrize("n", [100, 20])
def test_features_of_tiny_scale_keep_their_error(n):
    """2^-60 is far below what float32 keeps of a square; the influence and the blocks work in float64."""
    real, synthetic = World(n, n, d=24).draw(np.random.default_rng(4))
    scale = 2.0**-60
    tiny = (Rows(rows.ids, rows.features * np.float32(scale)) for rows in (real, synthetic))
    (plain,), (small,) = FID().score(real, synthetic, floor=False), FID().score(*tiny, floor=False)
    for name in ("value", "std_error", "ci_low", "ci_high"):
        assert getattr(small, name) == pytest.approx(scale**2 * getattr(plain, name), rel=1e-9)
