"""Precision, recall, density and coverage (Kynkäänniemi et al. 2019, Naeem et al. 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages
from chexray.metrics.common import NO_FLOOR, Error, Floor, Values, measured, refusal
from chexray.metrics.pairwise import same_features_note, two_sided_error
from chexray.metrics.stand_ins import draws_of, n_patients, repetition, stand_ins, units
from chexray.outputs import Upstream
from chexray.stats.intervals import effective_units
from chexray.stats.manifold_floor import Balls as FloorBalls
from chexray.stats.manifold_floor import Neighbours, held_share
from chexray.stats.manifolds import Balls, Manifolds, manifolds
from chexray.stats.neighbours import nearest_neighbours
from chexray.stats.resampling import independent_units
from chexray.stats.tiles import threaded

LEFT_OUT = "patients_left_out"

FEWEST_PATIENTS = 8
"""A floor from fewer patients would have an error of a third of its spread and more."""

SLOPE_KEPT, SLOPE_ERROR, DOUBLING_ERROR = 0.7, 0.6, 0.015
"""Recall moves with the logarithm of the manifold's size, and ever less: what of the last slope is kept, its error as a
share of the change, and the error of each doubling. Gaussians and mixtures in 16 to 128 dimensions, 12 to 3,200 images.
"""

UPSTREAM_K = 5
"""Neighbours of CheXGenBench's numbers, which the values depend on."""


def _declared(name: str, moves_with: tuple[str, ...], says: str, cannot_see: str, paper: str, **more: Any) -> Output:
    return Output(
        name, better="higher", moves_with=moves_with, low=0.0, says=says, cannot_see=cannot_see, paper=paper,
        family="fidelity", upstream=Upstream(name, method={"k": UPSTREAM_K}), **more,
    )  # fmt: skip


_2019, _2020 = "Kynkaanniemi et al. 2019, arXiv 1904.06991", "Naeem et al. 2020, arXiv 2002.09797"
# Balls shrink as the set they are drawn around grows: the real one, but for recall.
OUTPUTS = (
    _declared(
        "precision", ("n_real",), "Share of synthetic images that lie among the real ones.",
        "what is missing from the synthetic set, or copies; one outlier among the real images raises it",
        _2019, high=1.0, unit="share", rank=6,
    ),
    _declared(
        "recall", ("n_synthetic",), "Share of real images that lie among the synthetic ones.",
        "bad synthetic images, or copies; one outlier among the synthetic images raises it",
        _2019, high=1.0, unit="share", rank=5,
    ),
    _declared(
        "density", ("n_real",), "How densely real images lie around a synthetic image; about 1 for other real images.",
        "what is missing from the synthetic set; images that crowd around few real ones raise it",
        _2020, nearest_to_floor=True, needs_floor=True, rank=7,
    ),
    _declared(
        "coverage", ("n_real", "n_synthetic"), "Share of real images with a synthetic image among their neighbours.",
        "bad synthetic images beside good ones, or copies",
        _2020, high=1.0, unit="share", rank=2,
    ),
)  # fmt: skip
"""Density has no best end: averages of two real images get 2.6, other real images 1.0."""


@dataclass(frozen=True)
class PRDC(ScoreFromImages):
    """Precision, recall, density and coverage of k-nearest-neighbour manifolds. Higher is better.

    precision: share of synthetic images in the ball of a real one, which reaches to its k-th nearest real neighbour.
    density: mean number of real balls around a synthetic image, over k; may exceed 1. recall: share of real images in
    the ball of a synthetic one. coverage: share of real balls that hold a synthetic image. All but density lie in
    [0, 1] and change with n: compare at equal n. Equal to the `prdc` package on float64 features.

    The errors are delete-one jackknife errors of both sides, per patient, to first order also in the radii of the balls
    that would grow. Density has the interval of a count, the others Wilson's, both with as many images as would have
    the same error, so they hold at 0 and at 1; Student's quantile allows for few patients. Monte Carlo
    (tests/calibration/intervals.py; 8 to 600 images of 15 to 320 patients, d/4 to 10 d, unequal sides, normal and t5
    features, density from 0.0001 to 1): density's error is 0.8 to 1.5 times the true one and 90 to 100 % of its 95 %
    intervals hold the mean over draws at this n; precision, recall and coverage 0.8 to 1.7 times and 88 to 100 %.
    Shares above 0.95, or below 0.02, of at most 30 images have errors of up to 4 times: they are never less than the
    binomial error of half a hit more, so that 100 % does not look certain.

    Floors hold for these very n_real and n_synthetic: `stats.manifold_floor`. Beyond them lay, over d = 24 to 48, n =
    d/4 to 10 d, ratios 1:10 to 10:1 and 1 to 16 images a patient, 1 % of perfect draws for precision and recall and 2
    to 4 % for coverage; density depends on its error, which is too small at few real images.

    Per image: "nearest_real_index" (row of the real set), "nearest_real_distance", "realism" (Kynkäänniemi: above 1 in
    the manifold, inf on a copy), "rarity" (Han et al. 2023: radius of the smallest real ball around it, NaN outside).
    """

    k: int = UPSTREAM_K
    """Neighbour whose distance is the radius of an image's ball."""

    reads = "features"
    outputs = OUTPUTS
    needs_real = True

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise MetricError(f"prdc.k is {self.k!r}, expected a number of neighbours of at least 1")

    @property
    def min_samples(self) -> int:
        return self.k + 1

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = threaded, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The four numbers, their errors and floors; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples, refuse_constant=True):
            return refused, {}
        floors = self._floors(real, synthetic, seed, mapper) if floor else {}
        found = self._manifolds(real, synthetic, mapper)
        values, influences = _values(found, self.k), _influences(found, self.k, real, synthetic)
        scores = [
            measured(
                output,
                values[output.name],
                self._error(output.name, values[output.name], influences[output.name], real, synthetic),
                floors.get(output.name, NO_FLOOR),
                method={"k": self.k},
                about={
                    "std_error_conditional_on": "radii" if output.name == "coverage" else None,
                    "note": same_features_note(real, synthetic),
                },
            )
            for output in self.outputs
        ]
        images = {
            "nearest_real_index": found.nearest,
            "nearest_real_distance": found.distance,
            "realism": found.realism,
            "rarity": found.rarity,
        }
        return scores, images

    def _floors(self, real: Rows, synthetic: Rows, seed: int, mapper: Mapper) -> dict[str, Floor]:
        """By metric; see `stats.manifold_floor`. Recall asks a manifold of as many independent real images as there are
        synthetic ones, and where there are not as many, what more of them would change."""
        if len(real) < self.k + 2 or n_patients(real) < FEWEST_PATIENTS:
            reason = f"a floor needs {self.k + 2} real images of {FEWEST_PATIENTS} patients"
            return dict.fromkeys((output.name for output in self.outputs), Floor(reason=reason))
        around = Neighbours.of(real.features, real.subjects, self.k, mapper=mapper)
        balls = FloorBalls.of(around)
        return {
            "precision": Floor.of(*held_share(around), LEFT_OUT),
            "recall": self._recall_floor(real, synthetic, seed, mapper),
            "density": Floor.of(*balls.density(around.patients), LEFT_OUT),
            "coverage": _coverage_floor(balls, around.patients, synthetic),
        }

    def _recall_floor(self, real: Rows, synthetic: Rows, seed: int, mapper: Mapper) -> Floor:
        repeats, wanted = repetition(synthetic), len(synthetic) + 1  # each in turn is the image that is asked
        most = len(stand_ins(real, wanted, repeats, np.random.default_rng(seed)))
        quarter = max(most // 4, self.k + 2)
        needed = (self.k + 2) * (1 if most >= wanted else 2)
        if most < needed:
            return Floor(reason=f"{most} independent real images, and {needed} are needed")

        def share(size: int, repeat: int) -> tuple[float, float]:
            rows = real.take(stand_ins(real, size, repeats, np.random.default_rng([seed, repeat, size])))
            return held_share(Neighbours.of(rows.features, rows.subjects, self.k, mapper=mapper))

        draws = draws_of(most) if most < len(real) else 1
        found = np.array([share(most, repeat) for repeat in range(draws)])
        # Draws of one set overlap: their mean is as sure as their number and the whole set allow.
        overlap = min(1.0, most / n_patients(real))
        error = float(found[:, 1].mean()) * math.sqrt(overlap + (1 - overlap) / draws)
        value = float(found[:, 0].mean())
        if most >= wanted:
            return Floor.of(value, error, "real_stand_ins")
        smaller = np.mean([share(quarter, repeat)[0] for repeat in range(draws_of(quarter))])
        doublings = math.log2(wanted / most)
        change = doublings * (value - float(smaller)) / math.log2(most / quarter) * SLOPE_KEPT
        kept = min(max(value + change, 0.0), 1.0)
        error = math.hypot(error, SLOPE_ERROR * change, DOUBLING_ERROR * doublings)
        return Floor.of(kept, error, "real_stand_ins_extrapolated")

    def _error(
        self, name: str, value: float, influence: tuple[np.ndarray, np.ndarray], real: Rows, synthetic: Rows
    ) -> Error:
        """Counts and shares have intervals of their own kind, which hold where none or all images are hits.

        The error of a share is at least the binomial one with half a hit added (Jeffreys), so that it is never 0.
        """
        error = two_sided_error(*influence, real, synthetic, "jackknife", "count" if name == "density" else "share")
        if error.value is None or error.spread is None:
            return error
        averaged = synthetic if name in ("precision", "density") else real
        units = effective_units(len(averaged), averaged.subjects)
        if name == "density":
            return replace(error, step=1 / (self.k * units))
        n = len(averaged)
        share = (n * value + 0.5) / (n + 1)
        value = max(error.value, math.sqrt(share * (1 - share) / (n + 1)))
        return replace(error, value=value, spread=replace(error.spread, std_error=value), step=1 / units)

    def _manifolds(self, real: Rows, synthetic: Rows, mapper: Mapper) -> Manifolds:
        x, y = real.features, synthetic.features
        x_radii, neighbours = nearest_neighbours(x, self.k, mapper=mapper)
        y_radii, others = nearest_neighbours(y, self.k, mapper=mapper)
        found = manifolds(
            x, y, x_radii, y_radii, real_subjects=real.subjects, synthetic_subjects=synthetic.subjects, mapper=mapper
        )
        return replace(found, real_neighbours=neighbours, synthetic_neighbours=others)


def _coverage_floor(balls: FloorBalls, patients: np.ndarray, synthetic: Rows) -> Floor:
    """Images of one prompt cover less than as many independent ones, and more than one of them: half way, in doubt."""
    most, error = balls.coverage(len(synthetic), patients)
    least, _ = balls.coverage(int(units(synthetic).max()) + 1, patients)
    return Floor.of((least + most) / 2, math.hypot(error, (most - least) / 4), LEFT_OUT)


def _values(found: Manifolds, k: int) -> Values:
    return {
        "precision": float(np.mean(found.in_real.count > 0)),
        "recall": float(np.mean(found.in_synthetic.count > 0)),
        "density": float(found.in_real.count.mean() / k),
        "coverage": float(np.mean(found.holds_synthetic.count > 0)),
    }


def _influences(found: Manifolds, k: int, real: Rows, synthetic: Rows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By how much each real and each synthetic image moves the numbers: (n_real,), (n_synthetic,).

    On the side that is averaged over, that is the image's own term. On the other side it is what would be lost without
    its patient: the points that no other ball holds, or the balls that no other point is in; less what is gained, as
    balls that end at the image then grow.
    """
    n, m = len(real), len(synthetic)
    precise, recalled = found.in_real.count > 0, found.in_synthetic.count > 0
    per_image = found.holds_synthetic.count * (n / (k * m))
    lost_real, lost_synthetic = _lost(found.in_real, real), _lost(found.in_synthetic, synthetic)
    return {
        "precision": (_grown(lost_real, found.real_neighbours, real, 1 - precise.mean()), precise),
        "recall": (recalled, _grown(lost_synthetic, found.synthetic_neighbours, synthetic, 1 - recalled.mean())),
        "density": (_grown(per_image, found.real_neighbours, real), found.in_real.count / k),
        "coverage": (found.holds_synthetic.count > 0, _lost(found.holds_synthetic, synthetic)),
    }


def _grown(held: np.ndarray, neighbours: np.ndarray | None, rows: Rows, new: float = 1.0) -> np.ndarray:
    """(n,) what the balls of n images hold, less what other balls gain without each image.

    A ball that loses one of its k neighbours grows to the next and holds 1/k more in the mean, of which the part `new`
    counts: where a share is near 1, the points gained were held before. Balls of the same patient do not gain: they
    leave with the image. With radii held fixed the error of density was 0.56 of the true one at 30 real and 300
    synthetic images, 0.84 at 150 of each; so it is 1.07 and 1.11.
    """
    if neighbours is None:
        return held
    k = neighbours.shape[1]
    gain = np.repeat(held[:, None] * (new / k), k, axis=1)
    if rows.subjects is not None:
        gain *= rows.subjects[neighbours] != rows.subjects[:, None]
    return held - np.bincount(neighbours.ravel(), weights=gain.ravel(), minlength=len(held))


def _lost(held: Balls, holders: Rows) -> np.ndarray:
    """(n,) float64: points held by images of this holder's patient alone, shared among them, as a share of all points
    times n."""
    n = len(holders)
    patients, count = independent_units(n, holders.subjects)
    only = held.only_patient
    lost = np.bincount(only[only >= 0], minlength=count) / np.bincount(patients, minlength=count)
    return lost[patients] * (n / len(held.count))
