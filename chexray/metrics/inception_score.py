"""Inception score (Salimans et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import Error, Values, measured, real_reference, refusal
from chexray.stats.entropy import EntropyState, split_ids
from chexray.stats.intervals import Spread, added_by_block
from chexray.stats.resampling import jackknife_groups

GROUPS = 20
INPUTS = {"logits": "logits", "features": "pool3_upstream"}


@dataclass(frozen=True)
class InceptionScore(ScoreFromImages):
    """Mean over `splits` of exp(mean KL(p(y|x) || p(y))). Higher is better, in [1, classes]; synthetic images alone.

    The classes are ImageNet's and mean nothing clinically; biased downwards for few images in a split. Splits are
    torch-fidelity's. The error leaves out each of 20 blocks of patients: 0.9 to 1.1 times the true one by Monte Carlo
    (the first-order error falls to 0.6 of it). Floor: the real set's own value at the same n.

    source: "logits", or "features", which takes pooled features for logits as CheXGenBench does (params["input"] is
    then "pool3_upstream") and gives numbers near 1.2 where logits give 30.
    """

    splits: int = 10
    source: str = "logits"

    outputs = (Output("inception_score", better="higher"),)
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
        refused = refusal(self.outputs, real, synthetic, self.min_samples, self.needs_real)
        if refused:
            return refused, {}
        whole = self.summarise(synthetic)
        floors, method = {}, None
        if floor and refusal(self.outputs, synthetic, real, self.min_samples, False) is None:
            floors, method = real_reference(self._value, real, len(synthetic), seed=seed, min_samples=self.min_samples)
        score = measured(
            self.outputs[0],
            self.compute(None, whole)["inception_score"],
            self._jackknife(synthetic, whole, seed),
            floors.get("inception_score"),
            low=1.0,
            high=float(synthetic.features.shape[1]),
            input=INPUTS[self.source],
            floor_method=method or None,
        )
        return [score], {}

    def _value(self, rows: Rows) -> Values:
        return self.compute(None, self.summarise(rows))

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
