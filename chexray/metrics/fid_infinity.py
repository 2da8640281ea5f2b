"""Fréchet distance extrapolated to infinitely many images (Chong and Forsyth 2020, both sides shrinking)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import NO_FLOOR, Error, Floor, measured, moments_error, refusal
from chexray.metrics.fid import INFLUENCE_FROM, MAPPED_FROM_S, check_error, fid_floor, too_long
from chexray.stats.frechet import distance_seconds, influence
from chexray.stats.frechet_infinity import Design, Shuffled, intercept, prefix_distances, prefix_without_groups
from chexray.stats.intervals import added_by_block, added_by_unit
from chexray.stats.moments import Moments

INFLUENCE_FROM_INFINITY = 12
"""Below n = 12 d the first-order error of the intercept falls short (0.80 to 0.98 of the truth at 6 d)."""


Side = tuple[Rows, Shuffled, np.ndarray]
"""The rows of one side, their shuffle, and their features in its order."""

FEWEST_GROUPS = 4
"""Student's quantile makes up for few replicates: 3.2 at 4."""

OUTPUT = Output(
    "fid_infinity", better="lower", unit="squared feature units",
    says="FID extrapolated to an unlimited number of images.",
    cannot_see="copies of real images, or differences beyond mean and covariance",
    paper="Chong and Forsyth 2020, arXiv 1911.07023", family="fidelity", rank=4,
)  # fmt: skip


@dataclass(frozen=True)
class FIDInfinity(ScoreFromImages):
    """FID with its bias extrapolated away: the intercept at 1/n = 0. Lower is better; may fall below 0 by chance.

    Both sets are cut to the smaller n, about["n_used"], and shrink together over prefixes of one seeded shuffle that
    keeps patients together: at unequal n what is left of the bias would be negative, -0.145 at 2 d against 20 d for a
    truth of 0. Monte Carlo, d = 48, truth 0 and 0.66: mean within 0.07 of the truth from n = 2 d on at any ratio, sd
    0.06 to 0.2; within 0.01 from 3 d on. About 1.3 to 1.9 times the error of FID buys the bias. The floor is what a
    perfect generator gets by this very fit, thus the bias that stays; where it exceeds the error, and below n = 2 d,
    about["bias_dominated"] says so, and about["moves_with_n"] that numbers at other n are not comparable.

    error: "jackknife" leaves out each of up to `groups` blocks of patients from both sides and all prefixes;
    "influence" weighs the first-order terms of FID by what each image counts in the intercept; "auto" takes the second
    from n = 12 d on. The interval has Student's quantile, reaches farther up, and is marked and widened for heavy tails
    as that of FID; it holds the mean over draws at this n. Monte Carlo (tests/calibration/intervals.py; d = 16 to 96, n
    to 10 d, 30/300 to 600/30, 15 to 320 patients of 1 to 16 images, normal and t5 features): 0.9 to 1.6 times the true
    error and 94 to 100 % of 95 % intervals. With fewer than 4 patients in the smallest prefix there is none.
    """

    blocks: int = 6
    """Blocks that the shuffled images are cut into; the fit uses prefixes of whole blocks."""
    first_block: int = 2
    """Blocks in the smallest prefix."""
    error: str = "auto"
    """Error estimate: `influence`, `jackknife`, `none`, or `auto`, which takes the first from n = 12 d images on."""
    groups: int = 20
    """Blocks of patients that the jackknife leaves out, one at a time."""
    max_error_seconds: float = 120.0
    """CPU-seconds above which a jackknife is not run."""

    reads = "features"
    outputs = (OUTPUT,)
    needs_real = True
    min_samples = 30

    def __post_init__(self) -> None:
        check_error("fid_infinity", self.error, self.groups)
        if not 1 <= self.first_block < self.blocks <= self.min_samples // 2:
            raise MetricError(
                f"fid_infinity fits prefixes of {self.first_block} to {self.blocks} blocks: "
                f"expected 1 <= first_block < blocks <= {self.min_samples // 2}"
            )

    @property
    def design(self) -> Design:
        return Design(self.blocks, self.first_block)

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The intercept, its error and floor; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples):
            return refused, {}
        n_used = min(len(real), len(synthetic))
        real, a = self._shuffled(real, n_used, seed)
        synthetic, b = self._shuffled(synthetic, n_used, seed + 1)
        x, y = real.features[a.order], synthetic.features[b.order]
        value = self._intercept(x, y)
        error = self._error(value, (real, a, x), (synthetic, b, y), mapper)
        floored = fid_floor(real.take(a.order), synthetic.take(b.order), seed, self._intercept) if floor else NO_FLOOR
        biased = n_used < INFLUENCE_FROM * x.shape[1] or _bias_shows(floored, error)
        score = measured(
            self.outputs[0],
            value,
            error,
            floored,
            about={"n_used": n_used, **({"bias_dominated": True, "moves_with_n": True} if biased else {})},
        )
        return [score], {}

    def _shuffled(self, rows: Rows, n_used: int, seed: int) -> tuple[Rows, Shuffled]:
        """The first `n_used` rows of a seeded shuffle that keeps patients together, and that shuffle of them."""
        shuffle = Shuffled.of(len(rows), rows.subjects, np.random.default_rng(seed))
        kept = shuffle.order[:n_used]
        place = np.empty(len(rows), np.int64)
        place[np.sort(kept)] = np.arange(n_used)
        return rows.take(np.sort(kept)), Shuffled(place[kept], shuffle.rank[:n_used])

    def _intercept(self, x: np.ndarray, y: np.ndarray) -> float:
        return float(intercept(prefix_distances(x, y, self.design), self.design))

    def _error(self, value: float, real: Side, synthetic: Side, mapper: Mapper) -> Error:
        if self.error == "none":
            return Error()
        smaller, width = min(len(real[0]), len(synthetic[0])), real[2].shape[1]
        if self.error == "influence" or (self.error == "auto" and smaller >= INFLUENCE_FROM_INFINITY * width):
            found = self._influence(real, synthetic)
            if found.value is not None or self.error == "influence":
                return found
        return self._jackknife(value, real, synthetic, mapper)

    def _influence(self, real: Side, synthetic: Side) -> Error:
        psi = influence(Moments.of(real[2]), Moments.of(synthetic[2]))
        if psi is None:
            return Error(reason="the influence needs more images than features and covariances of full rank")
        parts = []
        for (rows, shuffle, x), terms in ((real, psi.of_a), (synthetic, psi.of_b)):
            subjects = None if rows.subjects is None else rows.subjects[shuffle.order]
            parts.append(added_by_unit(self.design.image_weights(len(x)) * terms(x), subjects))
        return moments_error(parts, "influence", "signed", real[0], synthetic[0])

    def _jackknife(self, value: float, real: Side, synthetic: Side, mapper: Mapper) -> Error:
        (_, a, x), (_, b, y) = real, synthetic
        sizes = [(int(n), int(m)) for n, m in zip(*map(self.design.stops, (len(x), len(y))), strict=True)]
        # Every prefix must lose somebody to every group.
        groups = min(self.groups, int(a.rank[sizes[0][0] - 1]), int(b.rank[sizes[0][1] - 1]))
        if groups < min(self.groups, FEWEST_GROUPS):
            return Error(reason=f"fewer than {FEWEST_GROUPS} patients in the smallest prefix to leave out in turn")
        seconds = groups * sum(distance_seconds(n, m, x.shape[1]) for n, m in sizes)
        if seconds > self.max_error_seconds:
            return too_long(groups, seconds, self.max_error_seconds)
        run = mapper if seconds > MAPPED_FROM_S else serial
        prefixes = range(len(self.design.fractions))
        shared = (x, y, a.rank % groups, b.rank % groups, groups, self.design)
        replicates = run(prefix_without_groups, prefixes, *shared)
        without = intercept(list(replicates), self.design)
        added = added_by_block(value, without, np.ones(groups))
        return moments_error([added], "jackknife", "signed", real[0], synthetic[0])


def _bias_shows(floor: Floor, error: Error) -> bool:
    """Whether what is left of the bias, the floor, exceeds the error of the number, or where there is none its own."""
    if floor.value is None or floor.std_error is None:
        return False
    return abs(floor.value) > (2 * floor.std_error if error.value is None else error.value)
