"""Vendi score (Friedman and Dieng 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import NO_FLOOR, Error, Floor, Values, measured, refusal
from chexray.metrics.stand_ins import draws_of, n_patients, repetition, stand_ins
from chexray.stats.frechet_floor import vendi_growth
from chexray.stats.intervals import Spread, added_by_block
from chexray.stats.moments import shards
from chexray.stats.resampling import jackknife_groups
from chexray.stats.spectrum import Directions, gram, gram_vendi, vendi_score

GROUPS = 20
FEWEST_FOR_FLOOR, FEWEST_TO_EXTRAPOLATE = 8, 20
"""Independent real images that a floor needs, at as many synthetic ones and at more."""

GROWTH_ERROR = 0.1
"""Error of the growth beyond the real images, as a share of it: Gaussians and mixtures, up to ten times as many."""

OUTPUT = Output(
    "vendi", better="higher", nearest_to_floor=True, moves_with=("n_synthetic",), needs_floor=True, low=1.0,
    unit="images",
    says="Effective number of different images in the synthetic set.",
    cannot_see="the real images: noise scores high",
    paper="Friedman and Dieng 2023, arXiv 2210.02410", family="fidelity",
)  # fmt: skip
"""Neither end is best: a set that collapses scores low and one that scatters scores high."""


@dataclass(frozen=True)
class Vendi(ScoreFromImages):
    """The effective number of different images, by cosine similarity of features. Higher is more diverse.

    Between 1 and min(n, d), of the synthetic set alone, and larger for larger n: read it beside the floor, the value
    of as many real images, one a patient, which a generator that collapses does not reach. Where there are fewer it is
    carried on by Gaussian samples, and its error is then that of the real set: 2 to 6 times that of the value at
    n_real = n_synthetic / 4 to / 10. Beyond it lay 2 to 12 % of perfect draws, 3 % over all cases. The error leaves
    out each of 20 blocks of patients. Monte Carlo (tests/calibration/intervals.py; 8 to 600 images, 15 to 320 patients,
    normal and t5 features): 0.8 to 1.1 times the true one, 92 to 98 % of 95 % intervals, with Student's quantile, hold
    the mean.
    """

    reads = "features"
    outputs = (OUTPUT,)
    needs_real = False
    min_samples = 2

    def summarise(self, rows: Rows) -> Directions:
        return Directions.of(rows.features)

    def compute(self, real: Directions | None, synthetic: Directions) -> Values:
        return {"vendi": synthetic.vendi()}

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The score, its jackknife error and the real set's value; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples, self.needs_real, refuse_zero_rows=True):
            return refused, {}
        value, error = self._score(synthetic, seed, mapper)
        high = float(min(synthetic.features.shape))
        floored = self._floor(real, synthetic, seed, mapper) if floor else NO_FLOOR
        return [measured(self.outputs[0], value, error, floored, high=high)], {}

    def _floor(self, real: Rows, synthetic: Rows, seed: int, mapper: Mapper) -> Floor:
        """The score of independent real images; where these are too few, carried on by samples of like spectrum."""
        why_not = refusal(self.outputs, synthetic, real, self.min_samples, False, refuse_zero_rows=True)
        if why_not:
            return Floor(reason=why_not[0].reason)
        repeats, n = repetition(synthetic), len(synthetic)
        found, rows = [], real
        for draw in range(draws_of(n)):
            rows = real.take(stand_ins(real, n, repeats, np.random.default_rng([seed, draw])))
            found.append(math.log(vendi_score(rows.features)))
            if len(rows) == len(real):
                break
        if len(rows) < (needed := FEWEST_FOR_FLOOR if len(rows) >= n else FEWEST_TO_EXTRAPOLATE):
            return Floor(reason=f"{len(rows)} independent real images, and {needed} are needed")
        error = self._score(rows, seed, mapper)[1].value
        if error is None:
            return Floor(reason="the real images that are left are of one patient")
        # Draws of one set overlap: their mean is as sure as their number and the whole set allow.
        share = min(1.0, len(rows) / n_patients(real))
        spread = error / math.exp(found[-1])
        relative = spread * math.sqrt(share + (1 - share) / len(found))
        value = math.exp(float(np.mean(found)))
        if len(rows) >= n:
            return Floor.of(value, value * relative, "real_stand_ins", value * spread)
        growth = vendi_growth(rows.features, rows.subjects, n, seed)
        model = GROWTH_ERROR * (growth - 1)
        return Floor.of(value * growth, value * growth * math.hypot(relative, model), "real_stand_ins_extrapolated")

    def _score(self, rows: Rows, seed: int, mapper: Mapper) -> tuple[float, Error]:
        n, x = len(rows), rows.features
        blocks = jackknife_groups(n, rows.subjects, GROUPS, np.random.default_rng(seed))
        if n > x.shape[1]:
            pieces = shards(n)
            run = mapper if len(pieces) > 1 else serial
            whole = Directions(0, np.zeros((x.shape[1], x.shape[1])))
            for part in run(_directions, pieces, x):
                whole = whole.merge(part)
            value, left_out = whole.vendi(), (whole.unmerge(Directions.of(x[block])).vendi() for block in blocks)
        else:
            kernel = gram(x)
            value, left_out = gram_vendi(kernel), (gram_vendi(_without(kernel, block)) for block in blocks)
        if len(blocks) < 2:
            return value, Error.of(float("nan"), "")
        added = added_by_block(value, np.array(list(left_out)), np.array([len(block) for block in blocks]))
        return value, Error.of_spread(Spread.of(added), "jackknife")


def _directions(span: tuple[int, int], x: np.ndarray) -> Directions:
    return Directions.of(x[span[0] : span[1]])


def _without(kernel: np.ndarray, block: np.ndarray) -> np.ndarray:
    keep = np.delete(np.arange(len(kernel)), block)
    return kernel[np.ix_(keep, keep)]
