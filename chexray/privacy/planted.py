"""How many altered copies of training images a run's own search finds: what "no copy found" is worth in this run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chexray.metrics.base import Score
from chexray.privacy.outputs import planted_found
from chexray.privacy.shares import effective_n, share_interval


def planted_scores(found: Mapping[str, np.ndarray], subjects: np.ndarray | None, searched: str) -> list[Score]:
    """planted_found_<alteration> for each, in order: the share of n planted copies that was found. Higher is better.

    found: {alteration: (n,) bool}, copies of the same n training images in the same order. subjects: (n,) patient
    codes, or None. searched: the spaces that looked, in words. The interval is that of Clopper and Pearson at the
    number of independent images. method: n, `alteration` in words and `searched`; about: n_found.
    """
    scores = []
    for name, hit in found.items():
        n, share = len(hit), float(np.mean(hit))
        low, high = share_interval(share, effective_n(hit, subjects))
        output = planted_found(name)
        method = {"n": n, "alteration": output.label, "searched": searched}
        scores.append(
            Score(
                output, share, ci_low=low, ci_high=high, std_error_method="clopper_pearson",
                method=method, about={"n_found": int(hit.sum())},
            )
        )  # fmt: skip
    return scores


def drawn(order: np.ndarray, subjects: np.ndarray | None, n: int) -> np.ndarray:
    """The first n rows of `order`, (N,) row numbers, no two of one patient while there are patients left.

    subjects: (N,) patient codes by row. Sorted (min(n, N),) int64.
    """
    if subjects is None:
        return np.sort(order[:n])
    first = np.unique(subjects[order], return_index=True)[1]
    rank = np.ones(len(order), dtype=np.int64)
    rank[first] = 0
    return np.sort(order[np.argsort(rank, kind="stable")][:n])
