"""Which flagged synthetic images are one event repeated: near one another, or near one training patient.

A generator of few modes draws each mode once and then repeats it with noise. When one mode happens to lie near a
training image, all its repeats are flagged together, without a copy; counted apart they look like many copies.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

MOST = 2000
"""Flagged images compared with each other, the most suspicious first: 32 MB of distances."""


def repeat_groups(
    nearest: np.ndarray, to_training: np.ndarray, suspects: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """(n,) int64 codes, equal for synthetic images that count once.

    nearest: (n,) codes of the patient of the nearest training image, or of that image where patients are unknown: two
    flags from one training patient are one event. to_training: (n,) distances to it. suspects: (k,) rows of the flagged
    images, at most MOST of them; features: (k, d) theirs. Suspects that are nearer to each other than either is to
    training are joined too: copies of two training images are as far apart as these are.
    """
    known, codes = np.unique(nearest, return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    between = cdist(features, features) if len(suspects) else np.zeros((0, 0))
    own = np.asarray(to_training, dtype=np.float64)[suspects]
    left, right = np.nonzero(np.triu(between < np.minimum.outer(own, own), 1))
    if not len(left):
        return codes
    ends = codes[suspects[left]], codes[suspects[right]]
    graph = coo_array((np.ones(len(left)), ends), shape=(len(known), len(known)))
    return connected_components(graph, directed=False)[1].astype(np.int64)[codes]
