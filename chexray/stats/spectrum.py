"""The Vendi score: how many different images a set holds, from the spectrum of its cosine similarities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from chexray.stats.moments import BLOCK_ROWS


@dataclass(frozen=True)
class Directions:
    """n rows of unit length and the sum of their outer products, (d, d) float64: merges in any order."""

    n: int
    outer: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Directions:
        """From (n, d) rows, none of them zero, scaled to unit length here."""
        outer = np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), BLOCK_ROWS):
            unit = unit_rows(x[start : start + BLOCK_ROWS])
            outer += unit.T @ unit
        return cls(len(x), outer)

    def merge(self, other: Directions) -> Directions:
        return Directions(self.n + other.n, self.outer + other.outer)

    def unmerge(self, part: Directions) -> Directions:
        """This state without `part`, a subset of its rows."""
        return Directions(self.n - part.n, self.outer - part.outer)

    def vendi(self) -> float:
        return _effective_number(self.outer / self.n)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float64."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def vendi_score(x: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of K/n, K the cosine kernel of (n, d) rows (Friedman and Dieng 2023).

    Between 1 (all rows parallel) and min(n, d); higher is more diverse, and larger for more images. K/n (n x n) and
    X^T X / n (d x d) have the same non-zero eigenvalues, so the smaller one is taken.
    """
    if len(x) > x.shape[1]:
        return Directions.of(x).vendi()
    return gram_vendi(gram(x))


def gram(x: np.ndarray) -> np.ndarray:
    """The cosine kernel of (n, d) rows, (n, n) float64."""
    unit = unit_rows(x)
    return unit @ unit.T


def gram_vendi(kernel: np.ndarray) -> float:
    """The Vendi score of a cosine kernel; a principal submatrix gives that of a subset."""
    return _effective_number(kernel / len(kernel))


def _effective_number(density: np.ndarray) -> float:
    values = np.maximum(np.linalg.eigvalsh(density), 0.0)
    return float(np.exp(scipy.special.entr(values / values.sum()).sum()))
