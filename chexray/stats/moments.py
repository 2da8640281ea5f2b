"""Mean and scatter of a feature set, in float64, that merge exactly in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 4096
"""Rows turned to float64 at a time: 64 MB at 2048 features."""

SHARD_ROWS = 8192
"""Rows of one summarising task. Fixed, so that the order of the sums does not depend on who computes them."""


@dataclass(frozen=True)
class Moments:
    """n rows, their mean (d,) and their scatter (d, d) = sum (x - mean)(x - mean)^T, both float64."""

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Moments:
        """The moments of the rows of `x`, (n, d). Centred block by block, so an offset of the features costs no digits.

        Memory: one block in float64 and two (d, d) matrices, whatever n.
        """
        total = cls.empty(x.shape[1])
        for start in range(0, len(x), BLOCK_ROWS):
            block = np.asarray(x[start : start + BLOCK_ROWS], dtype=np.float64)
            mean = block.mean(axis=0)
            centred = block - mean
            total = total.merge(cls(len(block), mean, centred.T @ centred))
        return total

    @classmethod
    def empty(cls, width: int) -> Moments:
        """The moments of no rows: what merging starts from."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1979)."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.n / n)
        scatter = self.scatter + other.scatter + np.outer(shift * (self.n * other.n / n), shift)
        return Moments(n, mean, scatter)

    def unmerge(self, part: Moments) -> Moments:
        """The moments of this set without `part`, a subset of it: `merge` solved for one side."""
        if part.n > self.n:
            raise ValueError(f"cannot take {part.n} rows out of {self.n}")
        n = self.n - part.n
        if part.n == 0 or n == 0:
            return self if part.n == 0 else Moments.empty(len(self.mean))
        mean = self.mean + (self.mean - part.mean) * (part.n / n)
        shift = part.mean - mean
        scatter = self.scatter - part.scatter - np.outer(shift * (n * part.n / self.n), shift)
        return Moments(n, mean, scatter)

    @property
    def covariance(self) -> np.ndarray:
        """(d, d) covariance with n - 1 in the denominator; zeros for a single row."""
        return self.scatter / max(self.n - 1, 1)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Merges in the fixed binary tree of the sequence, holding at most log2(count) partial results at a time."""
    pending: list[tuple[int, Moments]] = []
    for part in parts:
        size = 1
        while pending and pending[-1][0] == size:
            part = pending.pop()[1].merge(part)
            size *= 2
        pending.append((size, part))
    if not pending:
        raise ValueError("nothing to merge")
    total = pending.pop()[1]
    while pending:
        total = pending.pop()[1].merge(total)
    return total


def shards(n: int) -> Sequence[tuple[int, int]]:
    """The fixed (start, stop) pieces of n rows."""
    return [(start, min(start + SHARD_ROWS, n)) for start in range(0, n, SHARD_ROWS)]


def moments_of_shard(span: tuple[int, int], x: np.ndarray) -> Moments:
    """The moments of one piece, for a mapper."""
    return Moments.of(x[span[0] : span[1]])
