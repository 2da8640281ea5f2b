"""What precision, recall, density and coverage a perfect generator gets, from the real set alone.

An image of another patient is what a perfect generator gives. So each real image is asked whether the balls of the
other patients' images hold it, with the radii these have without its own patient: its patient is left out, and all
others stay, so the manifold has nearly the size of the real set and nothing is extrapolated. Without patients this is
a matter of ranks: density 1, coverage 1 - C(n - 1, k) / C(n + m - 1, k) (Naeem et al. 2020), whatever the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln

from chexray.stats.neighbours import centre_and_scale
from chexray.stats.resampling import clustered_std_error
from chexray.stats.tiles import Mapper, as_tensor, full_precision, spans, threaded

ENTRIES = 2**24
"""Distances held at once: 64 MiB."""

MOST_OF_A_PATIENT = 24
"""Images of one patient that lists of neighbours allow for; more are rare and move a floor little."""

PAIR_ENTRIES = 2**23

MODEL_ERROR = 0.12
"""Error of the beta distribution where patients have several images, as a share of what these take from coverage."""

Estimate = tuple[float, float]


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows of each row: `index`, (n, width), nearest first, and patient codes 0 ..., (n,)."""

    index: np.ndarray
    patients: np.ndarray
    k: int

    @classmethod
    def of(cls, x: np.ndarray, patients: np.ndarray | None, k: int, *, mapper: Mapper = threaded) -> Neighbours:
        """Of (n, d) float32 rows; wide enough to hold k strangers beside two other patients."""
        n = len(x)
        codes = np.arange(n) if patients is None else np.unique(patients, return_inverse=True)[1].reshape(-1)
        largest = min(int(np.bincount(codes).max()), MOST_OF_A_PATIENT)
        width = min(n - 1, k + 2 * largest)
        centre, scale = centre_and_scale(x)
        points = ((x - centre) * scale).astype(np.float32)
        rows = max(1, min(1024, ENTRIES // n))
        items = [(start, stop, width) for start, stop in spans(0, n, rows)]
        return cls(np.concatenate(list(mapper(_nearest, items, points))), codes, k)

    @property
    def sizes(self) -> np.ndarray:
        """Images of each image's patient, (n,)."""
        return np.bincount(self.patients)[self.patients]

    def holds(self) -> np.ndarray:
        """(n, width) bool: whether the ball of a row holds this neighbour, its patient left out of the real set.

        The ball reaches to the k-th nearest that is left, so it does when fewer than k of other patients are nearer.
        """
        found = np.empty(self.index.shape, dtype=bool)
        for start, stop in spans(0, len(found), _rows_at_once(self.index)):
            codes = self.patients[self.index[start:stop]]
            same = codes[:, :, None] == codes[:, None, :]
            before = np.tril(np.ones(same.shape[1:], bool), -1)
            own_before = (same & before).sum(2)
            rank = np.arange(codes.shape[1]) - own_before
            found[start:stop] = (rank < self.k) & (codes != self.patients[start:stop, None])
        return found

    def held(self) -> np.ndarray:
        """(n,) bool: whether any ball of another patient holds the image, its own patient left out."""
        found = np.zeros(len(self.index), dtype=bool)
        found[self.index[self.holds()]] = True
        return found


def _rows_at_once(index: np.ndarray) -> int:
    return max(1, PAIR_ENTRIES // index.shape[1] ** 2)


def _nearest(item: tuple[int, int, int], points: np.ndarray) -> np.ndarray:
    start, stop, width = item
    p = as_tensor(points)
    with full_precision():
        tile = torch.mm(p[start:stop], p.T).sub_(p.square().sum(1) / 2)
        tile[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
        return tile.topk(width, 1).indices.numpy()


def held_share(found: Neighbours) -> Estimate:
    """The expected share of new images in some ball, and its standard error by patient: precision, or recall."""
    held = found.held()
    share, n = float(held.mean()), len(held)
    error = clustered_std_error(held, found.patients)
    smooth = (n * share + 2) / (n + 4)  # as in the metric: a share of 1 is not certain
    return share, max(error, math.sqrt(smooth * (1 - smooth) / (n + 4)))


@dataclass(frozen=True)
class Balls:
    """Per row: the mass of its ball for new images, and its square, unbiased up to 1/n; (n,) each."""

    mass: np.ndarray
    square: np.ndarray
    k: int

    @classmethod
    def of(cls, found: Neighbours) -> Balls:
        n, width = found.index.shape
        sizes = found.sizes
        strangers = (n - sizes).astype(np.float64)
        squares = np.bincount(found.patients).astype(np.float64) ** 2
        pairs = strangers**2 - (squares.sum() - sizes.astype(np.float64) ** 2)
        mass, square = np.zeros(n), np.zeros(n)
        position = np.arange(width)
        for start, stop in spans(0, n, _rows_at_once(found.index)):
            at = found.index[start:stop]
            codes, left = found.patients[at], sizes[at].astype(np.float64)
            same = codes[:, :, None] == codes[:, None, :]
            # before[i, a, b]: how many nearer than the b-th are of the patient of the a-th.
            before = np.cumsum(same, axis=1, dtype=np.int16) - same
            before = before.transpose(0, 2, 1)
            eligible = codes != found.patients[start:stop, None]
            own_before = before[:, position, position]
            # A mass is as 1 over the size of the set, here without the patients that were left out.
            mass[start:stop] = ((position - own_before < found.k) * eligible * (1 - left / n)).sum(1)
            both = (position - own_before[:, None, :] - before < found.k) & ~same & (position[:, None] < position)
            rest = n - left[:, :, None] - left[:, None, :]
            weight = np.maximum(rest * (rest + 1) / (n * (n + 1)), 0.0) * (
                both & eligible[:, :, None] & eligible[:, None]
            )
            square[start:stop] = 2 * weight.sum((1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(mass / strangers, square / pairs, found.k)

    def density(self, patients: np.ndarray) -> Estimate:
        """The expected density, and its standard error by patient."""
        scale = len(self.mass) / self.k
        return scale * float(self.mass.mean()), scale * clustered_std_error(self.mass, patients)

    def coverage(self, m: int, patients: np.ndarray) -> Estimate:
        """The expected coverage by m independent images, and its standard error, a jackknife over patients.

        1 - E (1 - p)^m with p of a beta distribution that has the two moments; for independent images it has them.
        """
        n, mass, square = (np.bincount(patients, part) for part in (np.ones(len(self.mass)), self.mass, self.square))
        whole = float(_covered(n.sum(), mass.sum(), square.sum(), m))
        without = _covered(n.sum() - n, mass.sum() - mass, square.sum() - square, m)
        g = len(without)
        spread = math.sqrt((g - 1) / g * float(np.sum((without - without.mean()) ** 2)))
        n, k = len(self.mass), self.k
        independent = 1 - math.exp(gammaln(n) + gammaln(n - k + m) - gammaln(n - k) - gammaln(n + m))
        return whole, math.hypot(spread, MODEL_ERROR * min(abs(independent - whole), whole))


def _covered(n: np.ndarray, mass: np.ndarray, square: np.ndarray, m: int) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = mass / n, square / n
        variance = np.maximum(second - first**2, 1e-9 * first**2)
        a = np.maximum(first * (first - second) / variance, 1e-6)
        b = a * (1 - first) / first
        log_missed = gammaln(a + b) + gammaln(b + m) - gammaln(b) - gammaln(a + b + m)
    return np.where(first > 0, 1 - np.exp(log_missed), 0.0)
