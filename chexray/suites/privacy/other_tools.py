"""AuthPct, C_T and NNAA for one space and synthetic set: what other tools report, on the same searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from chexray.engine.blocks import FeatureBlocks
from chexray.engine.search import Search
from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.privacy.baseline import Baseline
from chexray.privacy.dgm_eval import c_t_pca64
from chexray.privacy.nnaa import nnaa_loss
from chexray.privacy.other_tools import ToTraining, assign_cells, authenticity, c_t, fit_cells
from chexray.privacy.outputs import C_T, C_T_PCA64, NNAA_LOSS, OTHER_TOOLS
from chexray.stats.nearest import NearestRows
from chexray.suites.common import Context
from chexray.suites.privacy.searches import EncodedSets, Key, distance, own_or_patient, run_searches
from chexray.suites.privacy.sets import ImageSet, Sets

CELL_SAMPLE = 8192
"""Training images that the cells of C_T are fitted to."""

MOST_WHOLE = 50_000
"""Images of a set up to which dgm-eval's C_T is computed: 300 MB in float64 at 768 features."""

NNAA_SAMPLE = 2000
"""Images of each of the three sets that NNAA compares."""


def spacing_searches(
    context: Context, sets: Sets, spaces: dict[str, EncodedSets], found: Mapping[Key, NearestRows], names: Sequence[Key]
) -> dict[str, np.ndarray]:
    """{label: (N,) distances of training images to the nearest one of another patient}, NaN but for those that the
    searches `names`, without their label, found; {} when the run does not ask for peers.

    Those are all AuthPct reads, so a training set of any size is searched for at most n_synthetic + n_heldout images.
    """
    if not context.plan.config.privacy.peers:
        return {}
    searches: dict[Key, Search] = {}
    n = len(sets.training)
    for label, space in spaces.items():
        rows = np.unique(np.concatenate([found[label, *name].row for name in names]))
        blocks, own = space.of(sets.training), own_or_patient(sets.training)
        searches[(label,)] = Search(blocks, blocks, own, own, query_rows=rows[rows >= 0])
    spacing = {}
    for (label,), each in run_searches(context, searches).items():
        spacing[label] = np.full(n, np.nan)
        spacing[label][searches[(label,)].query_rows] = distance(each)
    return spacing


def peer_nulls(context: Context, status: str, reason: str) -> list[Score]:
    """The scores of `peer_scores` as nulls with one reason; none when the run does not ask for peers."""
    return nulls(OTHER_TOOLS, status, reason) if context.plan.config.privacy.peers else []


def peer_scores(
    context: Context,
    sets: Sets,
    space: EncodedSets,
    images: ImageSet,
    near: NearestRows,
    heldout_near: NearestRows | None,
    spacing: np.ndarray,
    *,
    prompts: np.ndarray | None = None,
    baseline: Baseline | None = None,
) -> list[Score]:
    """authenticity, c_t, c_t_pca64 and nnaa_loss; without held-out images the first alone, without a floor.

    prompts: codes of the synthetic images. baseline: where it has a `problem`, nnaa_loss is null for that reason, as it
    counts how near held-out images are to each other."""
    if heldout_near is None or sets.heldout is None:
        return [
            authenticity(ToTraining(distance(near), near.row), spacing),
            *nulls([C_T, C_T_PCA64, NNAA_LOSS], "undefined", "no held-out images"),
        ]
    seed, heldout = context.plan.config.seed, sets.heldout
    t, h, s = space.of(sets.training), space.of(heldout), space.of(images)
    centres = fit_cells(_sample(t, CELL_SAMPLE)[0], seed=seed)
    found = [
        authenticity(
            ToTraining(distance(near), near.row),
            spacing,
            heldout=ToTraining(distance(heldout_near), heldout_near.row),
        ),
        c_t(
            distance(near), distance(heldout_near), _cells(s, centres), _cells(h, centres),
            heldout_subjects=heldout.patients, synthetic_groups=prompts, seed=seed,
        ),
    ]  # fmt: skip
    if max(t.n, h.n, s.n) > MOST_WHOLE:
        reason = f"a set of more than {MOST_WHOLE:,} images: dgm-eval's variant holds all of them in memory"
        found += nulls([C_T_PCA64], "undefined", reason)
    else:
        whole = (blocks.take(np.arange(blocks.n)) for blocks in (t, h, s))
        found.append(c_t_pca64(*whole, heldout_subjects=heldout.patients, synthetic_groups=prompts, seed=seed))
    if baseline is not None and baseline.problem:
        return [*found, *nulls([NNAA_LOSS], "undefined", baseline.problem)]
    (real, i), (unseen, j), (made, k) = (_sample(blocks, NNAA_SAMPLE) for blocks in (t, h, s))
    return [
        *found,
        nnaa_loss(
            real, unseen, made, n_most=NNAA_SAMPLE, seed=seed,
            training_subjects=None if sets.training.patients is None else sets.training.patients[i],
            heldout_subjects=None if heldout.patients is None else heldout.patients[j],
            synthetic_groups=None if prompts is None else prompts[k],
        ),
    ]  # fmt: skip


def _sample(blocks: FeatureBlocks, size: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `size` images in the order of the set, from the blocks' random order: few files are read. And their
    rows."""
    rows = np.sort(np.concatenate([blocks.rows_of(i) for i in range(blocks.n_blocks)])[:size])
    return blocks.take(rows), rows


def _cells(blocks: FeatureBlocks, centres: np.ndarray) -> np.ndarray:
    """(n,) int64: the cell of each image of the set, read block by block."""
    cells = np.empty(blocks.n, np.int64)
    for i in range(blocks.n_blocks):
        cells[blocks.rows_of(i)] = assign_cells(blocks.read(i), centres)
    return cells
