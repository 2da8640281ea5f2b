"""Kernel inception distance (Binkowski et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages
from chexray.metrics.common import NO_FLOOR, Error, Floor, measured, moments_error, nulls, refusal
from chexray.metrics.pairwise import TOO_FEW, related_pairs, same_features_note
from chexray.outputs import Upstream
from chexray.stats.kernels import (
    Cubic,
    KernelSums,
    SubsetMmd,
    kernel_sums,
    permutation_p_value,
    subset_indices,
    subset_mmd,
)
from chexray.stats.mmd_floor import mmd_floor
from chexray.stats.related import Related
from chexray.stats.resampling import clustered_std_error
from chexray.stats.tiles import threaded
from chexray.stats.unrelated_mmd import unrelated_mmd

TEST_IMAGES = 500
"""Images a side in the permutation test: its float64 matrix is then 8 MB and 499 relabellings cost some 0.1 s."""

OUTPUT = Output(
    "kid", better="lower", unit="MMD^2",
    says="Distance between the distributions of real and synthetic features; the number of images does not bias it.",
    cannot_see="copies of real images, or differences that its encoder does not see",
    paper="Binkowski et al. 2018, arXiv 1801.01401", family="fidelity", rank=1, upstream=Upstream("kid"),
)  # fmt: skip
ON_SUBSETS = replace(
    OUTPUT, name="kid_subsets",
    says="KID averaged over random subsets, as torch-fidelity and CheXGenBench compute it.",
    rank=0,
)  # fmt: skip


@dataclass(frozen=True)
class KID(ScoreFromImages):
    """Kernel inception distance, unbiased MMD^2 with the kernel (x.y/d + 1)^3. Lower is better; 0 when the sets agree.

    Exact over all pairs of images that share neither a patient nor a prompt, within a set and across the sets:
    unbiased at any n and with any number of images a patient, so slightly negative values occur; the floor is 0. Null
    when no such pair is left. Its error is the exact delete-one jackknife over patients and prompts: by Monte Carlo
    1.0 to 1.1 times the true one where the sets differ and 1.2 to 1.8 times where they agree. Its interval has
    Student's quantile for few patients and is marked and widened for heavy tails as that of FID: 93 to 100 % of 95 %
    intervals hold the mean over draws (8 to 600 images, 15 to 320 patients, normal and t5 features;
    tests/calibration/intervals.py). Whether the sets agree is asked by about["p_value"], a permutation test on at most
    500 images a side, one a patient and a prompt. about["pairs_left_out"] counts the related pairs.

    subsets > 0 gives "kid_subsets" instead, the mean over that many random subsets of `subset_size` images as
    torch-fidelity and torchmetrics compute it, over all pairs, with the subsets of torch-fidelity. about["std"] is
    what they print after it: the spread of a KID of `subset_size` images, not the error of the mean. subset_size "min"
    is how CheXGenBench calls it, with as many images as the smaller set has; between equal sets all its subsets are
    permutations of everything, and one is computed. Its floor is what related real pairs add.

    Per image: "kid_influence", with mean 0: without image i, KID would be about influence_i / n_synthetic smaller.
    """

    subsets: int = 0
    """Random subsets to average over, as other libraries do; 0 for the exact value over all pairs."""
    subset_size: int | str = 1000
    """Images in each subset; `min` for as many as the smaller set has."""

    reads = "features"
    outputs = (OUTPUT,)
    needs_real = True
    min_samples = 2

    def __post_init__(self) -> None:
        if not isinstance(self.subsets, int) or self.subsets < 0:
            raise MetricError(f"kid.subsets is {self.subsets!r}, expected 0 (exact) or a number of subsets")
        if self.subset_size != "min" and not (isinstance(self.subset_size, int) and self.subset_size >= 2):
            raise MetricError(f'kid.subset_size is {self.subset_size!r}, expected at least 2, or "min"')
        if self.subsets:
            object.__setattr__(self, "outputs", (ON_SUBSETS,))

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = threaded, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The value, its error and floor; see the class."""
        if refused := refusal(self.outputs, real, synthetic, self.min_samples):
            return refused, {}
        related = related_pairs(real, synthetic)
        if self.subsets:
            return [self._on_subsets(real, synthetic, related, mapper, floor)], {}
        found = unrelated_mmd(_sums(real, synthetic, related, mapper), related)
        if not all(found.pairs):
            return nulls(self.outputs, "undefined", _no_pair(found.pairs)), {}
        error = Error(reason=TOO_FEW)
        if math.isfinite(found.std_error):
            error = moments_error(found.added, "jackknife", "signed", real, synthetic, std_error=found.std_error)
        score = measured(
            self.outputs[0],
            found.value,
            error,
            Floor(0.0, 0.0, "unbiased") if floor else NO_FLOOR,
            about={
                "note": same_features_note(real, synthetic),
                "pairs_left_out": found.left_out or None,
                **(_test(real, synthetic, seed) if math.isfinite(found.value) else {}),
            },
        )
        if found.influence_y is None or score.value is None:
            return [score], {}
        return [score], {"kid_influence": found.influence_y}

    def _on_subsets(self, real: Rows, synthetic: Rows, related: Related | None, mapper: Mapper, floor: bool) -> Score:
        n, m = len(real), len(synthetic)
        size = min(n, m) if isinstance(self.subset_size, str) else self.subset_size
        if min(n, m) < size:
            reason = f"{min(n, m)} images on one side, and subsets of {size} were asked for"
            return nulls(self.outputs, "too_few", reason)[0]
        # Subsets of all images of both sides are permutations of one another.
        subsets = 1 if n == m == size else self.subsets
        indices = subset_indices(n, m, subsets, size)
        found = subset_mmd(real.features, synthetic.features, indices, Cubic(), mapper=mapper)
        return measured(
            self.outputs[0],
            float(found.values.mean()),
            _subset_error(found, indices, real, synthetic),
            _subset_floor(real, synthetic, related, mapper) if floor else NO_FLOOR,
            method={"subsets": subsets, "subset_size": size},
            about={
                "std": float(found.values.std()) if subsets > 1 else None,
                "note": same_features_note(real, synthetic),
            },
        )


def _sums(real: Rows, synthetic: Rows, related: Related | None, mapper: Mapper) -> KernelSums:
    return kernel_sums(real.features, synthetic.features, Cubic(), related=related, mapper=mapper)


def _no_pair(pairs: tuple[int, int, int]) -> str:
    """Which of the three means has no pair left, in words."""
    where = ("two real images", "two synthetic images", "a real and a synthetic image")
    kind = next(what for what, count in zip(where, pairs, strict=True) if not count)
    return f"every pair of {kind} shares a patient or a prompt, and KID leaves such pairs out"


def _subset_floor(real: Rows, synthetic: Rows, related: Related | None, mapper: Mapper) -> Floor:
    """Pairs of one patient stay in the published protocol: its floor is their share times their excess."""
    if related is None:
        return Floor(0.0, 0.0, "unbiased")
    return Floor.of(*mmd_floor(_sums(real, synthetic, related, mapper), related, biased=False), "real_pairs")


def _test(real: Rows, synthetic: Rows, seed: int) -> dict[str, float]:
    """The p-value of "same distribution" and the images a side it used. Nothing with fewer than two images a side.

    One image a patient and a prompt on each side. Of related images on the two sides one is dropped, at random.
    """
    rng = np.random.default_rng([seed, 1])
    sides = []
    for rows in (real, synthetic):
        order = rng.permutation(len(rows))
        for codes in (rows.subjects, rows.prompts):
            if codes is not None:
                order = order[_firsts(codes[order])]
        sides.append(rows.take(order[:TEST_IMAGES]))
    x, y = sides
    related = related_pairs(x, y)
    if related is not None:
        across = np.zeros((len(x), len(y)), bool)
        for of_x, of_y in (related.patients, related.prompts):
            across |= of_x[:, None] == of_y
        y_drop = across.any(0) & (rng.random(len(y)) < 0.5)
        x, y = x.take(~across[:, ~y_drop].any(1)), y.take(~y_drop)
    if min(len(x), len(y)) < 2:
        return {}
    p_value = permutation_p_value(x.features, y.features, Cubic(), rng=rng)
    return {"p_value": p_value, "p_value_n_real": len(x), "p_value_n_synthetic": len(y)}


def _firsts(codes: np.ndarray) -> np.ndarray:
    """Sorted positions of the first image of each code, and of every image without one (-1)."""
    return np.sort(np.concatenate([np.flatnonzero(codes < 0), _first_known(codes)]))


def _first_known(codes: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(codes >= 0)
    return known[np.unique(codes[known], return_index=True)[1]]


def _subset_error(found: SubsetMmd, indices: list[tuple[np.ndarray, np.ndarray]], real: Rows, synthetic: Rows) -> Error:
    """The error of the mean over subsets, from the jackknife within them.

    A subset of s of n images has the variance v; the mean over infinitely many has v s/n, and K of them leave a K-th of
    the difference.
    """
    if found.influence_x is None or found.influence_y is None:
        return Error(reason="too few images to leave one out")
    variance = 0.0
    for side, rows, influence in ((0, real, found.influence_x), (1, synthetic, found.influence_y)):
        share = influence.shape[1] / len(rows)
        subjects = [None if rows.subjects is None else rows.subjects[pair[side]] for pair in indices]
        each = [clustered_std_error(psi, codes) ** 2 for psi, codes in zip(influence, subjects, strict=True)]
        variance += float(np.mean(each)) * (share + (1 - share) / len(indices))
    return Error.of(math.sqrt(variance), "jackknife")
