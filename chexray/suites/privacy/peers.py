"""AuthPct, C_T and NNAA for one space and synthetic set: what other tools report, on the same searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chexray.engine.blocks import FeatureBlocks
from chexray.engine.search import Search
from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.privacy.peers import (
    AUTHENTICITY,
    C_T,
    NNAA_LOSS,
    ToTraining,
    assign_cells,
    authenticity,
    c_t,
    fit_cells,
    nnaa_loss,
)
from chexray.stats.nearest import Found
from chexray.suites.common import Context
from chexray.suites.privacy.searches import Key, Space, distance, run_searches
from chexray.suites.privacy.sets import ImageSet, Sets

CELL_SAMPLE = 8192
"""Training images that the cells of C_T are fitted to."""

NNAA_SAMPLE = 2000
"""Images of each of the three sets that NNAA compares."""


def spacing_searches(
    context: Context, sets: Sets, spaces: dict[str, Space], found: Mapping[Key, Found], names: Sequence[Key]
) -> dict[str, np.ndarray]:
    """{label: (N,) distances of training images to the nearest other one}, NaN but for those that the searches `names`,
    without their label, found; {} when the run does not ask for peers.

    Those are all AuthPct reads, so a training set of any size is searched for at most n_synthetic + n_heldout images.
    """
    if not context.plan.config.privacy.peers:
        return {}
    searches: dict[Key, Search] = {}
    n = len(sets.training)
    for label, space in spaces.items():
        rows = np.unique(np.concatenate([found[label, *name].row for name in names]))
        blocks, own = space.of(sets.training), np.arange(n)
        searches[(label,)] = Search(blocks, blocks, own, own, query_rows=rows[rows >= 0])
    spacing = {}
    for (label,), each in run_searches(context, searches).items():
        spacing[label] = np.full(n, np.nan)
        spacing[label][searches[(label,)].query_rows] = distance(each)
    return spacing


def peer_nulls(context: Context, status: str, reason: str) -> list[Score]:
    """The scores of `peer_scores` as nulls with one reason; none when the run does not ask for peers."""
    return nulls([AUTHENTICITY, C_T, NNAA_LOSS], status, reason) if context.plan.config.privacy.peers else []


def peer_scores(
    context: Context,
    sets: Sets,
    space: Space,
    images: ImageSet,
    near: Found,
    heldout_near: Found | None,
    spacing: np.ndarray,
) -> list[Score]:
    """authenticity, c_t and nnaa_loss; without held-out images the first alone, without a floor."""
    if heldout_near is None or sets.heldout is None:
        return [
            authenticity(ToTraining(distance(near), near.row), spacing),
            *nulls([C_T, NNAA_LOSS], "undefined", "no held-out images"),
        ]
    seed = context.plan.config.seed
    t, h, s = space.of(sets.training), space.of(sets.heldout), space.of(images)
    centres = fit_cells(_sample(t, CELL_SAMPLE), seed=seed)
    return [
        authenticity(
            ToTraining(distance(near), near.row),
            spacing,
            heldout=ToTraining(distance(heldout_near), heldout_near.row),
        ),
        c_t(
            distance(near), distance(heldout_near), _cells(s, centres), _cells(h, centres),
            heldout_subjects=sets.heldout.patients, seed=seed,
        ),
        nnaa_loss(
            *(_sample(blocks, NNAA_SAMPLE) for blocks in (t, h, s)), n_most=NNAA_SAMPLE, seed=seed,
        ),
    ]  # fmt: skip


def _sample(blocks: FeatureBlocks, size: int) -> np.ndarray:
    """At most `size` rows in the order of the set, from the blocks' random order: few files are read."""
    rows = np.concatenate([blocks.rows_of(i) for i in range(blocks.n_blocks)])[:size]
    return blocks.take(np.sort(rows))


def _cells(blocks: FeatureBlocks, centres: np.ndarray) -> np.ndarray:
    """(n,) int64: the cell of each image of the set, read block by block."""
    cells = np.empty(blocks.n, np.int64)
    for i in range(blocks.n_blocks):
        cells[blocks.rows_of(i)] = assign_cells(blocks.read(i), centres)
    return cells
