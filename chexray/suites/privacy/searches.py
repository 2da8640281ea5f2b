"""The nearest-image searches behind the numbers: which set against which, and in which space.

Each synthetic set is searched against all of training and against the held-out images; these, for the null, against
training and against other held-out patients. A number that needs references of one size gets a sample of the larger set
as a set of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from chexray.engine.blocks import FeatureBlocks, Stored, write_blocks
from chexray.engine.pools import gpu_share
from chexray.engine.search import Search, search
from chexray.stats.nearest import NearestRows
from chexray.suites.common import Context
from chexray.suites.privacy.sets import ImageSet, Sets

SET_ASIDE, MAX_SET_ASIDE = 0.2, 5000
"""Without a held-out set: the share of training patients, and the most images, that stand for unseen patients."""

MATCHED = 0.02
"""Reference sets whose sizes differ by less need no sampling: the bias is a fiftieth of one over the dimension."""


Key = tuple[str, ...]
"""Names a search: the encoder, then what is searched against what. A tuple, since a user may call a set anything."""

NULL, SYNTHETIC, MATCHED_SIZES = "null", "synthetic", "matched sizes"
TRAINING, HELDOUT, WITHIN, MIRRORED = "training", "heldout", "within", "mirrored"
"""Words of these names."""


@dataclass
class EncodedSets:
    """One encoder's space, with blocks of each set in it. Sets are known by name."""

    context: Context
    label: str
    output: str = "features"
    blocks: dict[str, FeatureBlocks] = field(default_factory=dict)

    def of(self, images: ImageSet, rows: np.ndarray | None = None) -> FeatureBlocks:
        """The blocks of a set, or of some of its rows; gathered on first use."""
        name = images.name if rows is None else f"{images.name}#{len(rows)}-{int(rows.sum())}"
        if name not in self.blocks:
            context = self.context
            keys = images.keys if rows is None else images.keys.take(pa.array(rows))
            spec = context.plan.encoders[self.label][1]
            stored = Stored(spec, context.done[self.label], self.output)
            self.blocks[name] = write_blocks(context.store, stored, keys, workers=context.workers)
        return self.blocks[name]


def run_searches(context: Context, searches: Mapping[Key, Search]) -> dict[Key, NearestRows]:
    """What the searches find; those that an earlier run finished are read."""
    progress = context.progress("search", "images", 0)
    root, storage = context.plan.store_uri, context.plan.storage
    numbered = {str(i): each for i, each in enumerate(searches.values())}
    found = search(
        numbered,
        root=root,
        storage=storage,
        workers=context.workers,
        progress=progress,
        gpu_share=gpu_share(context.resources, context.workers),
    )
    return dict(zip(searches, found.values(), strict=True))


def own_or_patient(images: ImageSet) -> np.ndarray:
    """Codes that keep an image from meeting itself and, where patients are known, its own patient: (n,) int64."""
    return np.arange(len(images)) if images.patients is None else images.patients


def matched_sample(n: int, size: int, seed: int) -> np.ndarray | None:
    """Sorted rows of a sample of `size` out of n; None when the two are as good as equal and no sample is needed."""
    if size >= n * (1 - MATCHED):
        return None
    return np.sort(np.random.default_rng([seed, n, size]).permutation(n)[:size])


def set_aside(training: ImageSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training patients that stand for unseen ones, and the rows of all others; both sorted. Whole patients."""
    patients = own_or_patient(training)
    known = np.unique(patients)
    shuffled = np.random.default_rng([seed, len(known)]).permutation(known)
    counts = np.bincount(np.searchsorted(known, patients))[np.searchsorted(known, shuffled)]
    limit = min(MAX_SET_ASIDE, SET_ASIDE * len(training))
    chosen = shuffled[: int(np.searchsorted(np.cumsum(counts), limit, side="right"))]
    aside = np.isin(patients, chosen)
    return np.flatnonzero(aside), np.flatnonzero(~aside)


def distance(found: NearestRows) -> np.ndarray:
    """(n,) float64 distances, infinite where there was no reference."""
    return np.sqrt(found.squared)


__all__ = [
    "HELDOUT", "MATCHED_SIZES", "MIRRORED", "NULL", "SYNTHETIC", "TRAINING", "WITHIN", "EncodedSets", "Key", "Sets",
    "distance", "matched_sample", "own_or_patient", "run_searches", "set_aside",
]  # fmt: skip
