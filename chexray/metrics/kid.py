"""Kernel inception distance (Binkowski et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages
from chexray.metrics.common import Error, Values, measured, nulls, real_floor, refusal
from chexray.metrics.pairwise import floor_repeats, same_features_note, two_sided_error
from chexray.stats.kernels import (
    Cubic,
    Mmd,
    SubsetMmd,
    kernel_sums,
    mmd,
    permutation_p_value,
    subset_indices,
    subset_mmd,
)
from chexray.stats.resampling import clustered_std_error
from chexray.stats.tiles import threaded

TEST_IMAGES = 500
"""Images a side in the permutation test: its float64 matrix is then 8 MB and 499 relabellings cost some 0.1 s."""


@dataclass(frozen=True)
class KID(ScoreFromImages):
    """Kernel inception distance, unbiased MMD^2 with the kernel (x.y/d + 1)^3. Lower is better; 0 when the sets agree.

    Exact over all pairs by default, unbiased at any n, so slightly negative values occur. Its error is the exact
    delete-one jackknife, summed per patient where they are known: by Monte Carlo 1.0 to 1.1 times the true error where
    the sets differ and 1.4 times where they agree. Its interval has Student's quantile for few patients and is marked
    and widened for heavy tails as that of FID: 93 to 100 % of 95 % intervals hold the mean over draws (8 to 600 images,
    15 to 320 patients, normal and t5 features; tests/calibration/intervals.py). Whether they do is asked by
    params["p_value"], a permutation test on at most 500 images a side, one a patient.

    subsets > 0 gives "kid_subsets" instead, the mean over that many random subsets of `subset_size` images as
    torch-fidelity and torchmetrics compute it, with the subsets of torch-fidelity. params["std"] is what they
    print after it: the spread of a KID of `subset_size` images, not the error of the mean. subset_size "min" is how
    CheXGenBench calls it, with as many images as the smaller set has: computed once, since for equal sets all its
    subsets are permutations of everything.

    Per image: "kid_influence", with mean 0: without image i, KID would be about influence_i / n_synthetic smaller.
    """

    subsets: int = 0
    subset_size: int | str = 1000

    reads = "features"
    outputs = (Output("kid", better="lower"),)
    needs_real = True
    min_samples = 2

    def __post_init__(self) -> None:
        if not isinstance(self.subsets, int) or self.subsets < 0:
            raise MetricError(f"kid.subsets is {self.subsets!r}, expected 0 (exact) or a number of subsets")
        if self.subset_size != "min" and not (isinstance(self.subset_size, int) and self.subset_size >= 2):
            raise MetricError(f'kid.subset_size is {self.subset_size!r}, expected at least 2, or "min"')
        if self.subsets:
            object.__setattr__(self, "outputs", (Output("kid_subsets", better="lower"),))

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = threaded, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The value, its error and floor; see the class."""
        refused = refusal(self.outputs, real, synthetic, self.min_samples)
        if refused:
            return refused, {}
        floors, method = {}, ""
        if floor:
            floors, method = real_floor(
                lambda a, b: {"kid": _exact(a, b, mapper).value},
                real, len(synthetic), seed=seed, repeats=floor_repeats(real), min_samples=self.min_samples,
            )  # fmt: skip
        about = {"floor_method": method or None, "note": same_features_note(real, synthetic)}
        if self.subsets:
            return [self._on_subsets(real, synthetic, mapper, floors, about)], {}
        found = _exact(real, synthetic, mapper)
        error = two_sided_error(
            found.influence_x, found.influence_y, real, synthetic, "jackknife", "signed", moments=True
        )
        tested = _test(real, synthetic, seed) if math.isfinite(found.value) else {}
        score = measured(self.outputs[0], found.value, error, floors.get("kid"), **about, **tested)
        images = (
            {"kid_influence": found.influence_y} if found.influence_y is not None and score.value is not None else {}
        )
        return [score], images

    def _on_subsets(self, real: Rows, synthetic: Rows, mapper: Mapper, floors: Values, about: dict) -> Score:
        n, m = len(real), len(synthetic)
        size = min(n, m) if isinstance(self.subset_size, str) else self.subset_size
        if min(n, m) < size:
            reason = f"{min(n, m)} images on one side, and subsets of {size} were asked for"
            return nulls(self.outputs, "too_few", reason)[0]
        subsets = 1 if self.subset_size == "min" else self.subsets
        indices = subset_indices(n, m, subsets, size)
        found = subset_mmd(real.features, synthetic.features, indices, Cubic(), mapper=mapper)
        error = _subset_error(found, indices, real, synthetic)
        std = float(found.values.std()) if subsets > 1 else None
        value = float(found.values.mean())
        return measured(
            self.outputs[0], value, error, floors.get("kid"), subsets=subsets, subset_size=size, std=std, **about
        )


def _exact(real: Rows, synthetic: Rows, mapper: Mapper) -> Mmd:
    return mmd(kernel_sums(real.features, synthetic.features, Cubic(), mapper=mapper), biased=False)


def _test(real: Rows, synthetic: Rows, seed: int) -> dict[str, float]:
    """The p-value of "same distribution" and the images a side it used. Nothing with fewer than two patients a side."""
    rng = np.random.default_rng([seed, 1])
    sides = []
    for rows in (real, synthetic):
        order = rng.permutation(len(rows))
        if rows.subjects is not None:
            order = order[np.sort(np.unique(rows.subjects[order], return_index=True)[1])]
        sides.append(rows.features[order[:TEST_IMAGES]])
    x, y = sides
    if min(len(x), len(y)) < 2:
        return {}
    p_value = permutation_p_value(x, y, Cubic(), rng=rng)
    return {"p_value": p_value, "p_value_n_real": len(x), "p_value_n_synthetic": len(y)}


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
