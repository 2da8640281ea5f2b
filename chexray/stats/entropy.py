"""The inception score as a sum over images: mergeable, and the same for any order of the shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special

from chexray.stats.moments import BLOCK_ROWS

SHUFFLE_SEED = 2020
"""torch-fidelity's default: with it a score agrees to the last digits."""


def split_ids(n: int, splits: int) -> np.ndarray:
    """Which split each of n images belongs to, (n,) int64: torch-fidelity's shuffled chunks, by rank of the image.

    An image's split depends on its place in the whole set only, so shards may come in any order.
    """
    rank = np.empty(n, dtype=np.int64)
    rank[np.random.RandomState(SHUFFLE_SEED).permutation(n)] = np.arange(n)
    bounds = np.arange(1, splits) * n // splits
    return np.searchsorted(bounds, rank, side="right")


@dataclass(frozen=True)
class EntropyState:
    """Per split: n (splits,), the sum of p (splits, classes) and the sum of p log p (splits,), p = softmax(logits)."""

    n: np.ndarray
    sum_p: np.ndarray
    sum_p_log_p: np.ndarray

    @classmethod
    def of(cls, logits: np.ndarray, split: np.ndarray, splits: int) -> EntropyState:
        """From (n, classes) logits and the split of each row."""
        n = np.bincount(split, minlength=splits)
        sum_p, sum_p_log_p = np.zeros((splits, logits.shape[1])), np.zeros(splits)
        for start in range(0, len(logits), BLOCK_ROWS):
            p, p_log_p = _probabilities(logits[start : start + BLOCK_ROWS])
            ids = split[start : start + BLOCK_ROWS]
            sum_p_log_p += np.bincount(ids, weights=p_log_p, minlength=splits)
            sum_p += np.stack([p[ids == s].sum(axis=0) for s in range(splits)])
        return cls(n, sum_p, sum_p_log_p)

    def merge(self, other: EntropyState) -> EntropyState:
        return EntropyState(self.n + other.n, self.sum_p + other.sum_p, self.sum_p_log_p + other.sum_p_log_p)

    def unmerge(self, part: EntropyState) -> EntropyState:
        """This state without `part`, a subset of its images."""
        # Classes no remaining image predicts would otherwise keep a rounding residue below zero.
        sum_p = np.maximum(self.sum_p - part.sum_p, 0.0)
        return EntropyState(self.n - part.n, sum_p, self.sum_p_log_p - part.sum_p_log_p)

    def scores(self) -> np.ndarray:
        """exp(mean KL(p || q)) of each split that holds an image, in order; each in [1, classes]."""
        held = self.n > 0
        n = self.n[held]
        q = self.sum_p[held] / n[:, None]
        return np.exp(self.sum_p_log_p[held] / n - scipy.special.xlogy(q, q).sum(axis=1))


def inception_score(logits: np.ndarray, splits: int = 10) -> float:
    """Mean over splits of exp(mean KL(p(y|x) || p(y))) (Salimans et al. 2016), higher is better, in [1, classes].

    Biased downwards for few images in a split.
    """
    return float(EntropyState.of(logits, split_ids(len(logits), splits), splits).scores().mean())


def _probabilities(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p, (n, classes) float64, and sum p log p, (n,)."""
    log_p = scipy.special.log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    p = np.exp(log_p)
    return p, np.einsum("ij,ij->i", p, log_p)
