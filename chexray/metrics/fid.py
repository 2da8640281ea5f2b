"""Fréchet distance of features (Heusel et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import NO_FLOOR, Error, Floor, Values, measured, moments_error, refusal
from chexray.metrics.stand_ins import n_patients, units
from chexray.outputs import Upstream
from chexray.stats.frechet import (
    Gaussian,
    Influence,
    LeaveOut,
    distance_seconds,
    frechet_distance,
    frechet_distance_small,
    gaussian_distance,
    influence,
)
from chexray.stats.frechet_floor import Distance, Repeats, frechet_floor
from chexray.stats.intervals import added_by_block, added_by_unit
from chexray.stats.moments import Moments, merge_all, moments_of_shard, shards
from chexray.stats.resampling import jackknife_groups

ERRORS = ("auto", "influence", "jackknife", "none")

FEWEST_PATIENTS = 6
"""Fewer patients are not split: a side of two says nothing of how patients differ."""

INFLUENCE_FROM = 2
"""Influence from n = 2 d on: there it agrees with the jackknife, and both are 1.0 to 1.6 times the true error."""

MAPPED_FROM_S = 2.0
"""Smaller jackknives run in place: sending them to a cluster would cost more than they do."""

OUTPUT = Output(
    "fid", better="lower", moves_with=("n_real", "n_synthetic"), needs_floor=True, low=0.0,
    unit="squared feature units",
    says="Distance between the means and covariances of real and synthetic features; few images raise it.",
    cannot_see="copies of real images, or differences beyond mean and covariance",
    paper="Heusel et al. 2017, arXiv 1706.08500", family="fidelity", rank=3, upstream=Upstream("fid"),
)  # fmt: skip


@dataclass(frozen=True)
class FID(ScoreFromImages):
    """Fréchet distance of real and synthetic features. Lower is better; 0 when their means and covariances agree.

    In squared feature units, biased upwards by about 1/n: compare at equal n, and read it beside its floor, which is
    for these very sizes and patients. Beyond it lay 0 to 5 % of perfect draws (d = 24 to 48, n = d/4 to 10 d, 1 to 16
    images a patient, ratios 1:10 to 10:1), and 92 to 100 % of generators 4 errors above it. about["bias_dominated"]
    is true where the smaller set has fewer than 2 d images: most of the value is then bias.

    error: "influence" sums the first-order terms of each image per patient; "jackknife" leaves out each of `groups`
    blocks of whole patients, on both sides; "auto" takes the first from n = 2 d on and the second below; "none".
    The error is of the distance at this n, not of the distance between the populations: an interval holds the mean over
    draws at this n. It is on the log scale, with Student's quantile for as many degrees of freedom as the patients that
    carry the error leave, and reaches farther up where their terms are skewed. Monte Carlo
    (tests/calibration/intervals.py; d = 16 to 96, n from d/4 to 10 d, 3000/30 to 30/300, 15 to 320 patients of 1 to 16
    images, normal and t5 features): the error is 0.9 to 1.6 times the true one, and 90 to 100 % of the intervals hold
    the mean: 96 to 100 % where the sets agree, as a jackknife overstates the error there. With t5 features the error of
    most sets is below the true one, which few sets with an outlier make. Heavier tails (t3) leave no error to estimate:
    about["ci_heavy_tails"] is then true, about["note"] says so, and the interval is that of 2 degrees of freedom (96
    % at t3 and n = 320, where 1.96 standard errors hold the mean in 64 %). A jackknife of more than about
    `max_error_seconds` CPU-seconds is not run, and the result says so.

    Per image: "fid_influence", psi with mean 0: without image i the distance would be about psi_i / n smaller.
    """

    error: str = "auto"
    """Error estimate: `influence`, `jackknife`, `none`, or `auto`, which takes the first from n = 2 d images on."""
    groups: int = 20
    """Blocks of patients that the jackknife leaves out, one at a time."""
    max_error_seconds: float = 60.0
    """CPU-seconds above which a jackknife is not run."""

    reads = "features"
    outputs = (OUTPUT,)
    needs_real = True
    min_samples = 2

    def __post_init__(self) -> None:
        check_error("fid", self.error, self.groups)

    def summarise(self, rows: Rows) -> Moments:
        return Moments.of(rows.features)

    def compute(self, real: Moments, synthetic: Moments) -> Values:
        return {"fid": frechet_distance(real, synthetic)}

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The distance, its error and floor; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples):
            return refused, {}
        a, b = fit_gaussian(real, mapper), fit_gaussian(synthetic, mapper)
        smaller, width = min(a.n, b.n), len(a.mean)
        first_order = None
        if self.error in ("auto", "influence") and smaller >= INFLUENCE_FROM * width and a.moments and b.moments:
            first_order = influence(a.moments, b.moments)
        value = first_order.distance if first_order else gaussian_distance(a, b)
        images = {"fid_influence": first_order.of_b(synthetic.features)} if first_order else {}
        error = self._error(value, real, synthetic, (a, b), (first_order, images), seed, mapper)
        score = measured(
            self.outputs[0],
            value,
            error,
            fid_floor(real, synthetic, seed) if floor else NO_FLOOR,
            about={
                "bias_dominated": True if smaller < INFLUENCE_FROM * width else None,
                "note": "both sides have the same moments" if value <= 1e-9 * (a.trace + b.trace) else None,
            },
        )
        return [score], images

    def _error(
        self,
        value: float,
        real: Rows,
        synthetic: Rows,
        sides: tuple[Gaussian, Gaussian],
        first_order: tuple[Influence | None, Images],
        seed: int,
        mapper: Mapper,
    ) -> Error:
        if self.error == "none":
            return Error()
        psi, images = first_order
        if psi is not None:
            added = (
                added_by_unit(psi.of_a(real.features), real.subjects),
                added_by_unit(images["fid_influence"], synthetic.subjects),
            )
            return moments_error(added, "influence", "log", real, synthetic)
        if self.error == "influence":
            return Error(reason="the influence needs at least 2 images a feature and covariances of full rank")
        return self._jackknife(value, real, synthetic, sides, seed, mapper)

    def _jackknife(
        self, value: float, real: Rows, synthetic: Rows, sides: tuple[Gaussian, Gaussian], seed: int, mapper: Mapper
    ) -> Error:
        """Each side's blocks left out against the whole other side: the sides are independent, so variances add."""
        a, b = sides
        seconds = 2 * self.groups * distance_seconds(a.n, b.n, len(a.mean), shared=True)
        if seconds > self.max_error_seconds:
            return too_long(self.groups, seconds, self.max_error_seconds)
        run = mapper if seconds > MAPPED_FROM_S else serial
        rng = np.random.default_rng(seed)
        parts = []
        for rows, side, other in ((real, a, b), (synthetic, b, a)):
            blocks = jackknife_groups(len(rows), rows.subjects, self.groups, rng)
            if len(rows) - max(map(len, blocks)) < self.min_samples:
                return Error(reason="too few images or patients to leave some of them out")
            whole = LeaveOut(rows.features, side, other)
            sizes = np.array([len(block) for block in blocks])
            parts.append(added_by_block(value, np.array(list(run(_left_out, blocks, whole))), sizes))
        return moments_error(parts, "jackknife", "log", real, synthetic)


def check_error(metric: str, error: str, groups: int) -> None:
    """Raises MetricError for an unknown way to estimate the error, or fewer blocks than can be left out."""
    if error not in ERRORS:
        raise MetricError(f"{metric}.error is {error!r}, expected one of {', '.join(ERRORS)}")
    if groups < 2:
        raise MetricError(f"{metric}.groups is {groups}, expected at least 2 blocks to leave out")


def too_long(groups: int, seconds: float, most: float) -> Error:
    """No error, since its jackknife would take too many CPU-seconds."""
    return Error(
        reason=f"a jackknife of {groups} groups would take about {seconds:.0f} CPU-seconds, "
        f"more than max_error_seconds: {most:g}"
    )


def fit_gaussian(rows: Rows, mapper: Mapper = serial) -> Gaussian:
    """Moments of fixed shards merged in a fixed tree; for n <= d the centred rows, which are smaller and exacter."""
    if len(rows) <= rows.features.shape[1]:
        return Gaussian.of_rows(rows.features)
    pieces = shards(len(rows))
    run = mapper if len(pieces) > 1 else serial
    return Gaussian.of_moments(merge_all(run(moments_of_shard, pieces, rows.features)))


def fid_floor(real: Rows, synthetic: Rows, seed: int, extrapolated: Distance | None = None) -> Floor:
    """What a perfect generator gets at these very sizes; see `stats.frechet_floor`."""
    if n_patients(real) < FEWEST_PATIENTS:
        return Floor(reason=f"a floor needs real images of {FEWEST_PATIENTS} patients")
    if (real.features == real.features[0]).all():
        return Floor(reason="all real images have the same features")
    seconds = distance_seconds(len(real), len(synthetic), real.features.shape[1])
    found = frechet_floor(
        real.features, real.subjects, units(synthetic), frechet_distance_small,
        repeats=Repeats.for_seconds(seconds), seed=seed, extrapolated=extrapolated,
    )  # fmt: skip
    return Floor.of(*found, "real_splits_scaled")


def _left_out(block: np.ndarray, whole: LeaveOut) -> float:
    return whole.without(block)
