"""What a verdict rests on beside distances: is the null a baseline, where do images lie, which repeat others?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chexray.engine.blocks import FeatureBlocks
from chexray.privacy.baseline import Baseline, check_baseline
from chexray.privacy.case_mix import MIN_REFERENCES, Dimensions, local_dimension
from chexray.privacy.distances import MatchedReferences
from chexray.privacy.ratio import RatioTest
from chexray.privacy.repeats import MOST, repeat_groups
from chexray.stats.nearest import NearestRows
from chexray.suites.privacy.searches import (
    HELDOUT,
    MATCHED_SIZES,
    NULL,
    TRAINING,
    EncodedSets,
    Key,
    distance,
    own_or_patient,
)
from chexray.suites.privacy.sets import ImageSet, Sets
from chexray.suites.privacy.views import Viewed

MOST_REFERENCES = 1000
"""Training patients that local dimensions are estimated from."""


@dataclass(frozen=True)
class Evidence:
    """Nearest training and nearest held-out image of the synthetic images, and of the images of the baseline.

    viewed: the same four among turned and cropped images, where the space has views: they are judged. The others, among
    images as they are, give the distances that other tools report.
    """

    near: NearestRows
    far: NearestRows
    null_near: NearestRows
    null_far: NearestRows
    null_patients: np.ndarray | None
    matched: MatchedReferences | None = None
    baseline: Baseline | None = None
    dimensions: Dimensions | None = None
    viewed: Viewed | None = None

    @property
    def judged(self) -> Viewed:
        """What the ratio is made of: near, far, null_near, null_far."""
        return self.viewed or (self.near, self.far, self.null_near, self.null_far)


def baseline_of(
    found: dict[Key, NearestRows], label: str, samples: dict[str, np.ndarray | None], heldout: ImageSet
) -> Baseline:
    """Whether the held-out images are of patients that differ from each other, by reference sets of one size."""
    near, far = (
        found.get((label, NULL, MATCHED_SIZES, side), found[label, NULL, side]) for side in (TRAINING, HELDOUT)
    )
    row, sample = far.row, samples[heldout.name]
    if sample is not None:
        row = np.where(row < 0, -1, sample[row])
    named = heldout.table["subject_id"].null_count == 0
    return check_baseline(distance(near), distance(far), row, named=named)


def dimensions_of(
    spaces: dict[str, EncodedSets],
    sets: Sets,
    null: ImageSet,
    training: ImageSet,
    seed: int,
    null_rows: np.ndarray | None = None,
    training_rows: np.ndarray | None = None,
) -> dict[tuple[str, str], Dimensions]:
    """{(label, synthetic set): local dimensions of its images and of those of the null}; {} for few training patients.

    References: one image of each of at most MOST_REFERENCES training patients, drawn at random.
    """
    rows = np.arange(len(training)) if training_rows is None else training_rows
    shuffled = np.random.default_rng([seed, len(rows), 3]).permutation(rows)
    first = np.unique(own_or_patient(training)[shuffled], return_index=True)[1]
    chosen = np.sort(shuffled[np.sort(first)[:MOST_REFERENCES]])
    if len(chosen) < MIN_REFERENCES:
        return {}
    found = {}
    for label, space in spaces.items():
        references = space.of(training).take(chosen)
        other = _local(space.of(null, null_rows), references)
        for images in sets.synthetic:
            found[label, images.name] = Dimensions(_local(space.of(images), references), other)
    return found


def _local(blocks: FeatureBlocks, references: np.ndarray) -> np.ndarray:
    """(n,) local dimension of each image of a set, read block by block."""
    out = np.empty(blocks.n)
    for i in range(blocks.n_blocks):
        out[blocks.rows_of(i)] = local_dimension(blocks.read(i), references)
    return out


def repeats_of(
    space: EncodedSets, images: ImageSet, training: ImageSet, test: RatioTest, found: Evidence
) -> np.ndarray:
    """(n,) codes of synthetic images that count once: see `repeat_groups`."""
    suspects = test.ranking[: min(test.n_flagged, MOST)]
    features = space.of(images).take(np.sort(suspects)) if len(suspects) else np.zeros((0, 1), np.float32)
    near = found.judged[0]
    nearest = own_or_patient(training)[near.row]
    return repeat_groups(nearest, distance(near), np.sort(suspects), features)
