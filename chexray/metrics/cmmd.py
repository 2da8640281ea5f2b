"""CLIP maximum mean discrepancy (Jayasumana et al. 2024), on any encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages
from chexray.metrics.common import NO_FLOOR, Floor, measured, refusal
from chexray.metrics.pairwise import related_pairs, same_features_note, two_sided_error
from chexray.stats.kernels import Gaussian, kernel_sums, mmd
from chexray.stats.mmd_floor import mmd_floor
from chexray.stats.tiles import spans, threaded

SCALE = 1000.0
"""The published numbers are MMD^2 times 1000."""

OUTPUT = Output(
    "cmmd", better="lower", moves_with=("n_real", "n_synthetic"), needs_floor=True, low=0.0,
    unit=f"MMD^2 x {SCALE:g}",
    says="Distance between real and synthetic images, by a Gaussian kernel on features of unit length.",
    cannot_see="copies of real images, or differences that its encoder does not see",
    paper="Jayasumana et al. 2024, arXiv 2401.09603", family="fidelity",
)  # fmt: skip


@dataclass(frozen=True)
class CMMD(ScoreFromImages):
    """1000 MMD^2 of unit-length features with a Gaussian kernel of width `sigma`. Lower is better; at least 0.

    The published estimator is the biased one, too large by about a multiple of 1/n: compare at equal n and read it
    beside its floor, which is exact: real pairs of different and of the same patients are counted as often as a
    perfect generator's would be. Beyond it lay 0 to 5 % of perfect draws (range of KID). The error is the exact
    delete-one jackknife, summed per patient: by Monte Carlo 1.0 to 1.6 times the true one, and 92 to 100 % of 95 %
    intervals hold the mean over draws at this n. Comparable with published CMMD only on CLIP ViT-L/14 features at 336
    pixels.
    """

    sigma: float = 10.0
    """Width of the Gaussian kernel, on features of unit length."""

    reads = "features"
    outputs = (OUTPUT,)
    needs_real = True
    min_samples = 2

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise MetricError(f"cmmd.sigma is {self.sigma}, expected a positive width (10 in the paper)")

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = threaded, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The value, its error and floor; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples, refuse_zero_rows=True):
            return refused, {}
        related = related_pairs(real, synthetic)
        x, y = centred_unit_rows(real.features, synthetic.features)
        sums = kernel_sums(x, y, Gaussian(self.sigma), related=related, mapper=mapper)
        found = mmd(sums.whole, biased=True)
        of_x, of_y = (None if psi is None else SCALE * psi for psi in (found.influence_x, found.influence_y))
        expected, doubt = mmd_floor(sums, related, biased=True)
        score = measured(
            self.outputs[0],
            max(SCALE * found.value, 0.0),  # rounding alone can take it below
            two_sided_error(of_x, of_y, real, synthetic, "jackknife"),
            Floor.of(SCALE * expected, SCALE * doubt, "real_pairs") if floor else NO_FLOOR,
            about={"note": same_features_note(real, synthetic)},
        )
        return [score], {}


def centred_unit_rows(*sets: np.ndarray) -> list[np.ndarray]:
    """Each row of (n, d) sets divided by its length, less the mean of all; float32, reckoned in float64.

    No row may be all zero. The mean moves no distance; without it float32 would round away what tells rows apart when
    all point one way, as they do with an offset.
    """
    centre = sum(block.sum(0) for x in sets for _, block in _unit_blocks(x)) / sum(map(len, sets))
    found = [np.empty_like(x, dtype=np.float32) for x in sets]
    for x, out in zip(sets, found, strict=True):
        for start, block in _unit_blocks(x):
            out[start : start + len(block)] = block - centre
    return found


def _unit_blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start, stop in spans(0, len(x), 1024):
        block = x[start:stop].astype(np.float64)
        yield start, block / np.linalg.norm(block, axis=1, keepdims=True)
