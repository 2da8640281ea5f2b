"""The Fréchet distance between two Gaussians, by the route that is exact for the number of images at hand.

    d^2 = |mu_a - mu_b|^2 + tr A + tr B - 2 tr (A B)^1/2

tr (A B)^1/2 is the nuclear norm of F_a F_b^T for any factors F^T F = covariance. With more rows than features and a
healthy spectrum it comes cheaply from eigvalsh(L^T B L), A = L L^T. Otherwise the singular values are taken themselves:
square roots of eigenvalues turn rounding noise of 1e-16 into 1e-8, once for each direction the rows do not span.
scipy's sqrtm is slower, and may return a complex matrix or raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from chexray.stats.moments import BLOCK_ROWS, Moments

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Gaussian:
    """One side of a distance: n, mean (d,), and the covariance as moments (n > d) or as centred rows (n <= d)."""

    n: int
    mean: np.ndarray
    moments: Moments | None
    centred: np.ndarray | None

    @classmethod
    def of_rows(cls, x: np.ndarray) -> Gaussian:
        """From (n, d) rows, keeping whichever is smaller: the rows or their scatter."""
        if len(x) > x.shape[1]:
            return cls.of_moments(Moments.of(x))
        x = np.asarray(x, dtype=np.float64)
        mean = x.mean(axis=0)
        return cls(len(x), mean, None, x - mean)

    @classmethod
    def of_moments(cls, moments: Moments) -> Gaussian:
        return cls(moments.n, moments.mean, moments, None)

    @cached_property
    def trace(self) -> float:
        if self.moments is not None:
            return float(np.trace(self.moments.covariance))
        assert self.centred is not None
        return float(np.einsum("ij,ij->", self.centred, self.centred)) / max(self.n - 1, 1)

    @cached_property
    def cholesky(self) -> np.ndarray | None:
        """Lower L with L L^T = covariance, or None where that is not positive definite."""
        return None if self.moments is None else _cholesky(self.moments.covariance)

    @cached_property
    def factor(self) -> np.ndarray:
        """F, (r, d) with F^T F = covariance: centred rows, Cholesky factor, or the eigenvectors with any variance."""
        if self.centred is not None:
            return self.centred / np.sqrt(max(self.n - 1, 1))
        assert self.moments is not None
        if self.n > len(self.mean) and self.cholesky is not None:
            return self.cholesky.T
        values, vectors = _eigh(self.moments.covariance)
        kept = values > len(values) * EPS * max(values[-1], 0.0)
        return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two feature sets.

    FID on Inception pool3 features (Heusel et al. 2017); its log on z-scored radiomics is FRD.
    At least 0, in squared feature units, and biased upwards for small n: compare at equal n. Degenerate covariances
    (n <= d, constant or repeated features, a single row) are fine; `frechet_distance_small` is exacter for n <= d.
    """
    return gaussian_distance(Gaussian.of_moments(a), Gaussian.of_moments(b))


def frechet_distance_small(x: np.ndarray, y: np.ndarray) -> float:
    """`frechet_distance` from (n, d) and (m, d) rows: singular values where n or m <= d, at a cost of min(n, m)^3."""
    return gaussian_distance(Gaussian.of_rows(x), Gaussian.of_rows(y))


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """`frechet_distance` of two prepared sides, which remember their factors between calls."""
    root = _root_by_cholesky(a, b)
    if root is None:
        root = nuclear_norm(a.factor @ b.factor.T)
    return assemble(a.mean, b.mean, a.trace, b.trace, root)


def assemble(mean_a: np.ndarray, mean_b: np.ndarray, trace_a: float, trace_b: float, root: float) -> float:
    """The distance from its parts; rounding below 0 is 0."""
    shift = mean_a - mean_b
    return max(0.0, float(shift @ shift) + trace_a + trace_b - 2 * root)


def nuclear_norm(m: np.ndarray) -> float:
    """The sum of singular values."""
    if 0 in m.shape:
        return 0.0
    try:
        return float(np.linalg.svd(m, compute_uv=False).sum())
    except np.linalg.LinAlgError:  # divide and conquer fails to converge on rare matrices; QR iteration does not
        return float(np.sum(scipy.linalg.svd(m, compute_uv=False, lapack_driver="gesvd")))


def _cholesky(m: np.ndarray) -> np.ndarray | None:
    """Lower factor, or None for a matrix that is singular up to rounding, which may still get through Cholesky."""
    try:
        lower = np.linalg.cholesky(m)
    except np.linalg.LinAlgError:
        return None
    pivots = np.diag(lower) ** 2
    return lower if pivots.min() > len(m) * EPS * pivots.max() else None


def _eigh(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        return scipy.linalg.eigh(m, driver="evd")
    except np.linalg.LinAlgError:
        return scipy.linalg.eigh(m, driver="ev")


def _root_by_cholesky(a: Gaussian, b: Gaussian) -> float | None:
    """tr (A B)^1/2, or None where a side has no Cholesky factor.

    Within 1e-12 of the traces of the singular values, measured on spectra down to k^-4: the factor grades the product.
    """
    if a.moments is None or b.moments is None or min(a.n, b.n) <= len(a.mean):
        return None
    if "cholesky" not in vars(a) and "cholesky" in vars(b):
        a, b = b, a  # the factor at hand saves the other one: most of a jackknife's replicates share a side
    if a.cholesky is None:
        return None
    assert b.moments is not None
    values = np.linalg.eigvalsh(a.cholesky.T @ b.moments.covariance @ a.cholesky)
    return float(np.sqrt(np.maximum(values, 0.0)).sum())


@dataclass(frozen=True)
class Influence:
    """How each image moves the distance: first-order terms of both sides around their fitted Gaussians.

    psi(x) = 2 (mu - mu') . (x - mu) + (x - mu)^T (I - A) (x - mu), A the optimal map from this side's Gaussian to the
    other's, centred so that it averages to 0. Leaving one of n images out changes the distance by about -psi / n, so
    psi > 0 marks what drives the sets apart; Var(psi_a)/n_a + Var(psi_b)/n_b is the variance of the distance for
    n >= 9d (checked by Monte Carlo), and too small below.
    """

    distance: float
    mean_a: np.ndarray
    mean_b: np.ndarray
    root_a: np.ndarray
    root_b: np.ndarray

    def of_a(self, x: np.ndarray) -> np.ndarray:
        """psi of the rows of side a, (n,) float64 with mean 0."""
        return _psi(x, self.mean_a, self.mean_b, self.root_a)

    def of_b(self, y: np.ndarray) -> np.ndarray:
        """psi of the rows of side b, (n,) float64 with mean 0."""
        return _psi(y, self.mean_b, self.mean_a, self.root_b)


def influence(a: Moments, b: Moments) -> Influence | None:
    """The distance with its influence function, from one eigenproblem for both sides; None for degenerate covariances.

    With A = L L^T and L^T B L = V D V^T, the map from a to b is L^-T V D^1/2 V^T L^-1, and back its inverse. Features
    constant on both sides take no part in it.
    """
    live = (np.diag(a.scatter) > 0) | (np.diag(b.scatter) > 0)
    if min(a.n, b.n) <= live.sum() or not live.any():
        return None
    cov_a, cov_b = (m.covariance if live.all() else m.covariance[np.ix_(live, live)] for m in (a, b))
    lower = _cholesky(cov_a)
    if lower is None or _cholesky(cov_b) is None:
        return None
    values, vectors = _eigh(lower.T @ cov_b @ lower)
    if values[0] > len(values) * EPS * values[-1]:
        root = float(np.sqrt(values).sum())
        distance = assemble(a.mean, b.mean, float(np.trace(cov_a)), float(np.trace(cov_b)), root)
    else:  # eigenvalues that come with vectors are the less exact ones
        distance = frechet_distance(a, b)
    # A direction lost in rounding carries next to no variance; bounded, it adds next to nothing to psi.
    quarter = np.maximum(values, 4 * EPS * values[-1]) ** 0.25
    root_a, root_b = np.zeros((2, len(values), len(live)))
    root_a[:, live] = quarter[:, None] * scipy.linalg.solve_triangular(lower, vectors, lower=True, trans=1).T
    root_b[:, live] = (vectors.T @ lower.T) / quarter[:, None]
    return Influence(distance, a.mean, b.mean, root_a, root_b)


def _psi(x: np.ndarray, mean: np.ndarray, other: np.ndarray, root: np.ndarray) -> np.ndarray:
    psi = np.empty(len(x))
    for start in range(0, len(x), BLOCK_ROWS):
        block = np.asarray(x[start : start + BLOCK_ROWS], dtype=np.float64) - mean
        mapped = block @ root.T
        psi[start : start + BLOCK_ROWS] = (
            2 * block @ (mean - other) + np.einsum("ij,ij->i", block, block) - np.einsum("ij,ij->i", mapped, mapped)
        )
    return psi - psi.mean()


class LeaveOut:
    """The distance of rows `x`, (n, d), to `other` with some of the rows left out; what does not change is kept.

    With n > d the rows' moments are taken out of the whole. With n <= d they are taken out of F_x F_other^T, which is
    reduced to n columns at most, so that features are multiplied once for all replicates.
    """

    def __init__(self, x: np.ndarray, side: Gaussian, other: Gaussian):
        """side: the Gaussian of all of `x`."""
        self.x, self.side, self.other = x, side, other
        if self.side.moments is not None:
            _ = other.cholesky  # computed here, it travels with this object to every replicate
        else:
            assert self.side.centred is not None
            cross = self.side.centred @ other.factor.T
            self.cross = np.asarray(np.linalg.qr(cross.T, mode="r")).T if cross.shape[1] > len(cross) else cross
            self.squares = np.einsum("ij,ij->i", self.side.centred, self.side.centred)

    def without(self, rows: np.ndarray) -> float:
        """With the rows at these indices left out."""
        if self.side.moments is not None:
            kept = self.side.moments.unmerge(Moments.of(self.x[rows]))
            return gaussian_distance(Gaussian.of_moments(kept), self.other)
        assert self.side.centred is not None
        keep = np.delete(np.arange(len(self.x)), rows)
        n = len(keep)
        shift = self.side.centred[keep].mean(axis=0)
        trace = (self.squares[keep].sum() - n * float(shift @ shift)) / max(n - 1, 1)
        root = nuclear_norm(self.cross[keep] - self.cross[keep].mean(axis=0)) / np.sqrt(max(n - 1, 1))
        return assemble(self.side.mean + shift, self.other.mean, trace, self.other.trace, root)


def distance_seconds(n: int, m: int, d: int, *, shared: bool = False) -> float:
    """Rough CPU-seconds of one distance between n and m rows of d features, to decide before computing.

    From d = 2048 on one core of a server: 1.14 s by Cholesky (0.38 s with one side `shared` between calls), 2.6 s for
    singular values.
    """
    if min(n, m) > d:
        return (4.4e-11 if shared else 1.3e-10) * d**3
    short, long = sorted((min(n, d), min(m, d)))
    if shared:
        long = short
    return 3.1e-10 * short * short * long
