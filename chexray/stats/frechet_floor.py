"""What Fréchet distance a perfect generator gets at given sizes, from the real set alone.

Disjoint sets of n and m images never fit into n real ones, and the distance follows no simple law of n below n = 2 d.
So real images are split between patients, and the distance of the halves is carried to the wanted sizes by the ratio
of the two distances between Gaussian samples of like spectrum and like patients. The ratio depends little on what the
samples leave out (tails, shapes), which the halves hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chexray.stats.moments import BLOCK_ROWS
from chexray.stats.resampling import clustered_std_error
from chexray.stats.spectrum import unit_rows, vendi_score

Distance = Callable[[np.ndarray, np.ndarray], float]

CHEAP_S = 0.02
"""CPU-seconds of a distance up to which more repeats cost nothing that is noticed."""

LARGE, SMALLER_ERROR = 12, 0.02
"""From n = 12 d on both sets are thinned to that, which is 2 % from the law of 1/n."""

MOST_PAIRS = 1000
"""Differences that the traces are taken from: their Gram matrix is then 8 MB."""

VENDI_SAMPLES = 3

FEWEST_SHARE = 0.2
"""Share of the patients on the smaller side of a split."""

PAIRINGS = 4
"""Random pairings that the traces are averaged over."""

POWERS = np.arange(0.0, 4.01, 0.05)
HEADS = np.array([0.0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256])
"""Powers a of (i + b)^-a, and heads b, among which the spectrum is sought."""


@dataclass(frozen=True)
class Population:
    """What Gaussian samples are drawn from: `spectrum`, (d,) eigenvalues of the covariance, and `alike`, in [0, 1], the
    share of the variance that lies between patients."""

    spectrum: np.ndarray
    alike: float

    @classmethod
    def of(cls, x: np.ndarray, patients: np.ndarray | None, rng: np.random.Generator) -> Population:
        """Fitted to (n, d) rows: a power law with a flat head that has the traces of the covariance and its powers.

        Traces come without bias from differences of strangers (Kong and Valiant 2017), where the eigenvalues of a
        sample are far off below n = d.
        """
        traces = np.mean([_traces(_differences(x, patients, rng)) for _ in range(PAIRINGS)], axis=0)
        return cls(_spectrum(traces, x.shape[1]), _alike(x, patients, traces[0], rng))

    def draw(self, patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A row for each code: (len(patients), d) float32; rows of one code share a part."""
        codes = np.unique(patients, return_inverse=True)[1].reshape(-1)
        scale = np.sqrt(self.spectrum).astype(np.float32)
        x = rng.standard_normal((len(codes), len(scale)), dtype=np.float32)
        groups = int(codes.max()) + 1
        if groups < len(codes) and self.alike > 0:
            shared = rng.standard_normal((groups, len(scale)), dtype=np.float32)
            x = np.float32(math.sqrt(self.alike)) * shared[codes] + np.float32(math.sqrt(1 - self.alike)) * x
        return x * scale


def _differences(x: np.ndarray, patients: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Differences of disjoint pairs of rows of different patients, over sqrt 2: independent, of mean 0."""
    order = rng.permutation(len(x))
    if patients is not None:
        # By patient, the first half against the second: no patient meets itself unless it has half of the rows.
        known, codes = np.unique(patients, return_inverse=True)
        shuffled = rng.permutation(len(known))[codes.reshape(-1)]
        order = order[np.argsort(shuffled[order], kind="stable")]
    half = len(order) // 2
    kept = rng.permutation(half)[:MOST_PAIRS]
    first, second = order[:half][kept], order[half : 2 * half][kept]
    if patients is not None:
        apart = patients[first] != patients[second]
        first, second = first[apart], second[apart]
        keep = rng.permutation(len(first))
        # One difference a patient of either side: they are to be independent.
        keep = keep[np.sort(np.unique(patients[first[keep]], return_index=True)[1])]
        keep = keep[np.sort(np.unique(patients[second[keep]], return_index=True)[1])]
        first, second = first[keep], second[keep]
    return (x[first].astype(np.float64) - x[second]) / math.sqrt(2)


def _traces(z: np.ndarray) -> np.ndarray:
    """Unbiased traces of the covariance and of its second and third power, from rows of mean 0."""
    p = len(z)
    gram = z @ z.T
    upper = np.triu(gram, 1)
    second = float(np.sum(upper**2)) / math.comb(p, 2) if p > 1 else math.nan
    third = float(np.einsum("ij,jk,ik->", upper, upper, gram, optimize=True)) / math.comb(p, 3) if p > 2 else math.nan
    return np.array([float(np.trace(gram)) / p, second, third])


def _spectrum(traces: np.ndarray, d: int) -> np.ndarray:
    first, second, third = traces
    i = np.arange(1, d + 1)
    heads = HEADS[d > HEADS]
    shapes = (i + heads[:, None, None]) ** -POWERS[:, None]
    shapes /= shapes.sum(-1, keepdims=True)
    wanted = max(second, first**2 / d) / first**2, max(third, 0.0) / first**3
    cost = np.log((shapes**2).sum(-1) / wanted[0]) ** 2
    if wanted[1] > wanted[0] ** 2 / 2:  # by Cauchy and Schwarz at least its square; noise below
        cost = cost + 0.25 * np.log((shapes**3).sum(-1) / wanted[1]) ** 2
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return first * shapes[best]


def _alike(x: np.ndarray, patients: np.ndarray | None, trace: float, rng: np.random.Generator) -> float:
    if patients is None:
        return 0.0
    order = rng.permutation(len(x))
    order = order[np.argsort(patients[order], kind="stable")]
    same = patients[order[1:]] == patients[order[:-1]]
    if not same.any():
        return 0.0
    a, b = order[1:][same], order[:-1][same]
    squares = float(np.mean(np.sum((x[a].astype(np.float64) - x[b]) ** 2, axis=1)))
    return min(max(1 - squares / (2 * trace), 0.0), 0.9999)


@dataclass(frozen=True)
class Repeats:
    """How many splits of the real set, and how many Gaussian samples, a floor is averaged over."""

    splits: int = 8
    samples: int = 8

    @classmethod
    def for_seconds(cls, seconds: float) -> Repeats:
        """As many as a distance of so many CPU-seconds allows. Distances of many features scatter little."""
        return cls(8, 8) if seconds < CHEAP_S else cls(3, 2)


def frechet_floor(
    x: np.ndarray,
    patients: np.ndarray | None,
    synthetic_units: np.ndarray,
    distance: Distance,
    *,
    repeats: Repeats,
    seed: int,
    extrapolated: Distance | None = None,
) -> tuple[float, float]:
    """The distance expected between `x` and as many new images as `synthetic_units` has codes, and its standard error.

    x: (n, d) rows; patients: (n,) codes or None; synthetic_units: (m,) codes, equal for images made alike (of one
    prompt). distance: of two sets of rows. extrapolated: what is asked for in place of `distance` at the wanted sizes:
    a number in its units, whose own expectation may be about 0. Far above n = d, where the distance is as 1/n, smaller
    sets stand for both.

    Monte Carlo, 24 to 48 dimensions, n = d/4 to 10 d, ratios 1:10 to 10:1, 1 to 16 images a patient: within 0.7 of the
    standard deviation of the distance itself, and within 7 %; up to 20 % too high where patients differ in other
    directions than images do, and the halves have several images of each.
    """
    codes = np.arange(len(x)) if patients is None else np.unique(patients, return_inverse=True)[1].reshape(-1)
    population = Population.of(x, patients, np.random.default_rng([seed, 1]))
    smaller = min(1.0, LARGE * x.shape[1] / min(len(x), len(synthetic_units)))
    if smaller < 1:
        rng = np.random.default_rng([seed, 5])
        kept = _share_of(codes, smaller, rng)
        x, codes, synthetic_units = x[kept], codes[kept], synthetic_units[_share_of(synthetic_units, smaller, rng)]
        codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    ratios = []
    for repeat in range(repeats.splits):
        rng = np.random.default_rng([seed, 2, repeat])
        a, b = _split(codes, len(synthetic_units), rng)
        sampled = population.draw(codes[a], rng), population.draw(np.arange(len(b)), rng)
        ratios.append(distance(x[a], x[b]) / distance(*sampled))
    wanted = []
    for repeat in range(repeats.samples):
        rng = np.random.default_rng([seed, 3, repeat])
        sampled = population.draw(codes, rng), population.draw(synthetic_units, rng)
        wanted.append((extrapolated or distance)(*sampled))
    factor, base = smaller * float(np.mean(ratios)), float(np.mean(wanted))
    # The distance is quadratic in the features: its scale is known as well as their variance is.
    centre = x.mean(0, dtype=np.float64)
    squares = np.concatenate(
        [np.sum((x[start : start + BLOCK_ROWS] - centre) ** 2, axis=1) for start in range(0, len(x), BLOCK_ROWS)]
    )
    scale = clustered_std_error(squares, codes) / float(squares.mean())
    shapes = SMALLER_ERROR if smaller < 1 else 0.0
    error = math.hypot(
        factor * _error_of_mean(wanted),
        smaller * base * _error_of_mean(ratios),
        factor * base * math.hypot(scale, shapes),
    )
    return factor * base, error


def _share_of(codes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices of all images of about a share of the codes."""
    known = np.unique(codes)
    return np.flatnonzero(np.isin(codes, rng.permutation(known)[: math.ceil(share * len(known))]))


def _error_of_mean(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _split(codes: np.ndarray, m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images of some patients, and one image each of the others, in about the ratio of n to m.

    A side has a fifth of the patients at least: fewer say nothing of how patients differ.
    """
    order = rng.permutation(len(codes))
    patients = rng.permutation(int(codes.max()) + 1)
    ratio = len(codes) / m
    share = ratio / (ratio + len(codes) / len(patients))
    cut = round(len(patients) * min(max(share, FEWEST_SHARE), 1 - FEWEST_SHARE))
    first = np.isin(codes[order], patients[:cut])
    others = order[~first]
    return order[first], others[np.unique(codes[others], return_index=True)[1]]


def vendi_growth(x: np.ndarray, patients: np.ndarray | None, n: int, seed: int) -> float:
    """By what factor the Vendi score of the rows of `x` grows with n of them.

    From samples of their directions: the mean one and, around it, a Gaussian of their spectrum.
    """
    rng = np.random.default_rng([seed, 4])
    unit = unit_rows(x)
    population = Population.of(unit, patients, rng)
    spread = float(population.spectrum.sum())
    mean = math.sqrt(max(1 - spread, 0.0))

    def sampled(size: int) -> float:
        z = population.draw(np.arange(size), rng)
        return vendi_score(np.concatenate([np.full((size, 1), mean, np.float32), z], axis=1))

    growth = [sampled(n) / sampled(len(x)) for _ in range(VENDI_SAMPLES)]
    return float(np.mean(growth))
