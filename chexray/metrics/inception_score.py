"""Inception score (Salimans et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import NO_FLOOR, Error, Floor, Values, measured, refusal
from chexray.metrics.stand_ins import draws_of, n_patients, repetition, stand_ins
from chexray.stats.entropy import EntropyState, split_ids
from chexray.stats.intervals import Spread, added_by_block
from chexray.stats.resampling import jackknife_groups

GROUPS = 20

FEWEST_TO_EXTRAPOLATE = 20
"""Real images below which the score of more is not said."""

BLOCKS_VARY = 1.2
"""What an error from 20 blocks is widened by: it is itself known to 16 %, and two of them meet in a comparison."""
INPUTS = {"logits": "logits", "features": "pool3_upstream"}

OUTPUT = Output(
    "inception_score", better="higher", moves_with=("n_synthetic",), needs_floor=True, low=1.0,
    says="How clearly each synthetic image shows one ImageNet class, and how many classes the set shows.",
    cannot_see="the real images, or anything clinical: its classes are those of ImageNet",
    paper="Salimans et al. 2016, arXiv 1606.03498", family="fidelity",
)  # fmt: skip


@dataclass(frozen=True)
class InceptionScore(ScoreFromImages):
    """Mean over `splits` of exp(mean KL(p(y|x) || p(y))). Higher is better, in [1, classes]; synthetic images alone.

    The classes are ImageNet's and mean nothing clinically; biased downwards for few images in a split. Splits are
    torch-fidelity's. The error leaves out each of 20 blocks of patients: 0.9 to 1.1 times the true one by Monte Carlo
    (the first-order error falls to 0.6 of it). Floor: the value of as many real images, one a
    patient; where there are fewer, carried on as 1/n. Beyond it lay 3 to 4 % of perfect draws.

    source: "logits", or "features", which takes pooled features for logits as CheXGenBench does (method["input"] is
    then "pool3_upstream") and gives numbers near 1.2 where logits give 30.
    """

    splits: int = 10
    """Parts of the set that are scored one by one and averaged."""
    source: str = "logits"
    """`logits`, or `features` to repeat what CheXGenBench computes."""

    outputs = (OUTPUT,)
    needs_real = False
    requires = "logits"

    def __post_init__(self) -> None:
        if self.source not in INPUTS:
            raise MetricError(f"inception_score.source is {self.source!r}, expected one of {', '.join(INPUTS)}")
        if self.splits < 1:
            raise MetricError(f"inception_score.splits is {self.splits}, expected at least 1")

    @property
    def reads(self) -> str:
        return self.source

    @property
    def min_samples(self) -> int:
        """Two images in each split: one alone scores 1 whatever it shows."""
        return 2 * self.splits

    def summarise(self, rows: Rows) -> EntropyState:
        return EntropyState.of(rows.features, split_ids(len(rows), self.splits), self.splits)

    def compute(self, real: EntropyState | None, synthetic: EntropyState) -> Values:
        return {"inception_score": float(synthetic.scores().mean())}

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The score, its jackknife error and the real set's value; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples, self.needs_real):
            return refused, {}
        whole = self.summarise(synthetic)
        score = measured(
            self.outputs[0],
            self.compute(None, whole)["inception_score"],
            self._jackknife(synthetic, whole, seed),
            self._floor(real, synthetic, seed) if floor else NO_FLOOR,
            high=float(synthetic.features.shape[1]),
            method={"input": INPUTS[self.source]},
        )
        return [score], {}

    def _floor(self, real: Rows, synthetic: Rows, seed: int) -> Floor:
        """The score of independent real images; of fewer than asked, carried on: its logarithm moves as 1/n."""
        why_not = refusal(self.outputs, synthetic, real, self.min_samples, False)
        if why_not:
            return Floor(reason=why_not[0].reason)
        repeats, n = repetition(synthetic), len(synthetic)
        value, error, most = self._of_stand_ins(real, n, repeats, seed)
        if most < (self.min_samples if most >= n else FEWEST_TO_EXTRAPOLATE):
            return Floor(reason=f"{most} independent real images, and {FEWEST_TO_EXTRAPOLATE} are needed")
        # Draws of one set overlap: their mean is as sure as their number and the whole set allow.
        share = min(1.0, most / n_patients(real))
        spread = BLOCKS_VARY * error
        error = spread * math.sqrt(share + (1 - share) / draws_of(most))
        if most >= n:
            return Floor.of(math.exp(value), math.exp(value) * error, "real_stand_ins", math.exp(value) * spread)
        half, _, n_half = self._of_stand_ins(real, most // 2, repeats, seed)
        change = (value - half) * (1 / most - 1 / n) / (1 / n_half - 1 / most)
        floor = math.exp(value + change)
        return Floor.of(floor, floor * math.hypot(error, change / 2), "real_stand_ins_extrapolated")

    def _of_stand_ins(self, real: Rows, n: int, repeats: int, seed: int) -> tuple[float, float, int]:
        """Of up to n real images in the place of synthetic ones: mean log score, its error for one draw, and how many.

        NaN where there are fewer than the score needs.
        """
        found, errors, most = [], [], 0
        for draw in range(draws_of(n)):
            rows = real.take(stand_ins(real, n, repeats, np.random.default_rng([seed, draw])))
            most = len(rows)
            if most < self.min_samples:
                return math.nan, math.nan, most
            whole = self.summarise(rows)
            value = self.compute(None, whole)["inception_score"]
            found.append(math.log(value))
            error = self._jackknife(rows, whole, seed).value
            errors += [] if error is None else [error / value]
        return float(np.mean(found)), float(np.mean(errors)) if errors else math.nan, most

    def _jackknife(self, rows: Rows, whole: EntropyState, seed: int) -> Error:
        """Images leave their split and the others stay where they are: replicates differ by those images alone."""
        split = split_ids(len(rows), self.splits)
        blocks = jackknife_groups(len(rows), rows.subjects, GROUPS, np.random.default_rng(seed))
        values = []
        for block in blocks if len(blocks) > 1 else []:
            left = whole.unmerge(EntropyState.of(rows.features[block], split[block], self.splits))
            values.append(self.compute(None, left)["inception_score"])
        value, sizes = self.compute(None, whole)["inception_score"], np.array([len(block) for block in blocks])
        added = added_by_block(value, np.array(values), sizes) if values else np.zeros(0)
        return Error.of_spread(Spread.of(added), "jackknife")
