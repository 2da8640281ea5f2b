"""Searches that also see real images turned and cropped, in the spaces that can.

The baseline gets the same: held-out images meet the same views of training images, and every view of a held-out image
is a reference too. So a synthetic image has no more tries than a held-out one, and the rate of false flags stays.

ChestX-ray14, 380 training and 222 held-out images (tests/calibration/altered_copies.py): of 40 copies turned by 9
degrees and cropped to 85 %, `pixels`, `patches` and `perceptual_hash` find 100 % each, 2, 2 and 0 % without views. In
200 splits of patients without a copy they flag 0.57, 0.63 and 0.46 % of images (0.60, 0.71 and 0 % without views), at
0.66 % stated, and 0, 1 and 0 % of splits alarm, at 2.5 % stated. A crop that moves the centre by 2.5 % of a side is
found in 65 % by `pixels`, and hardly by the others: `patches` find 18 % where they find 40 % without views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from chexray.encoders.base import mirroring
from chexray.encoders.views import VIEWS
from chexray.engine.blocks import FeatureBlocks, Stored, write_view_blocks
from chexray.engine.search import Search
from chexray.plan.roles import SMALL
from chexray.stats.nearest import NearestRows
from chexray.suites.common import Context
from chexray.suites.privacy.searches import (
    HELDOUT,
    MIRRORED,
    NULL,
    SYNTHETIC,
    TRAINING,
    EncodedSets,
    Key,
    own_or_patient,
    run_searches,
)
from chexray.suites.privacy.sets import ImageSet, Sets


@dataclass(frozen=True)
class AmongViews:
    """A search of `queries` among the views of some images of a real set, as they are and mirrored.

    label: the encoder. rows: of the real set, None for all. codes: of the queries, and of the rows, as for Search.
    """

    label: str
    queries: FeatureBlocks
    real: ImageSet
    rows: np.ndarray | None = None
    query_codes: np.ndarray | None = None
    real_codes: np.ndarray | None = None


@dataclass(frozen=True)
class FoundView(NearestRows):
    """The nearest view of any image. row: (n,) int64, of the real set or of its `rows`; view: (n,) int64, which of
    VIEWS; mirrored: (n,) bool, where the query's mirror image is strictly nearer than itself."""

    view: np.ndarray
    mirrored: np.ndarray

    def words(self, i: int) -> str:
        """How the real image has to be changed to be nearest to query i: "" or `mirrored, turned by 8 degrees`."""
        parts = [*(["mirrored"] if self.mirrored[i] else []), str(VIEWS[self.view[i]])]
        return ", ".join(part for part in parts if part)


def search_views(context: Context, wanted: Mapping[Key, AmongViews]) -> dict[Key, FoundView]:
    """The nearest view for each search. Those of one set share its blocks, and all of them one call of the engine."""
    if not wanted:
        return {}
    blocks: dict[tuple[str, str, bytes], FeatureBlocks] = {}
    searches: dict[Key, Search] = {}
    for name, each in wanted.items():
        place = (each.label, each.real.name, b"all" if each.rows is None else each.rows.tobytes())
        if place not in blocks:
            blocks[place] = _blocks(context, each)
        codes = (each.query_codes, each.real_codes)
        plain = searches[name] = Search(each.queries, blocks[place], *codes, views=len(VIEWS))
        searches[*name, MIRRORED] = replace(plain, **mirroring(*context.plan.encoders[each.label]))
    found = run_searches(context, searches)
    return {name: _nearer(found[name], found[*name, MIRRORED]) for name in wanted}


def among_views(sets: Sets, spaces: Mapping[str, EncodedSets]) -> dict[Key, AmongViews]:
    """The searches of a ratio against held-out images, in the spaces that have views; see `viewed_of`."""
    training, heldout, wanted = sets.training, sets.heldout, dict[Key, AmongViews]()
    assert heldout is not None
    for label, space in spaces.items():
        if label in space.context.plan.roles.views:
            own = own_or_patient(heldout)
            wanted[label, NULL, TRAINING] = AmongViews(label, space.of(heldout), training)
            wanted[label, NULL, HELDOUT] = AmongViews(label, space.of(heldout), heldout, None, own, own)
            for images in sets.synthetic:
                for side, real in ((TRAINING, training), (HELDOUT, heldout)):
                    wanted[label, SYNTHETIC, side, images.name] = AmongViews(label, space.of(images), real)
    return wanted


def own_views(context: Context, sets: Sets, plain: Mapping[Key, Search], others: np.ndarray) -> dict[Key, FoundView]:
    """The same without held-out images: first the nearest training image, then the nearest of another patient.

    plain: the first searches as they are without views, (label, NULL) among the rows `others` and (label, SYNTHETIC,
    name) among all of training.
    """
    training, patients = sets.training, own_or_patient(sets.training)
    first = {
        (*name, TRAINING): AmongViews(name[0], search.queries, training, others if name[1] == NULL else None)
        for name, search in plain.items()
        if name[0] in context.plan.roles.views
    }
    found = search_views(context, first)
    second = {}
    for name, each in first.items():
        known = patients if each.rows is None else patients[each.rows]
        second[*name[:-1], HELDOUT] = replace(each, query_codes=known[found[name].row], real_codes=known)
    both = {**found, **search_views(context, second)}
    # In the order of the words that `among_views` uses.
    return {(name[0], name[1], name[-1], *name[2:-1]): each for name, each in both.items()}


Viewed = tuple[NearestRows, NearestRows, NearestRows, NearestRows]


def viewed_of(found: Mapping[Key, FoundView], label: str, images: ImageSet) -> Viewed | None:
    """Nearest training and nearest held-out view of a set's images, and of the baseline's; None in a space without."""
    if (label, NULL, TRAINING) not in found:
        return None
    names = [(label, SYNTHETIC, side, images.name) for side in (TRAINING, HELDOUT)]
    near, far, null_near, null_far = (found[name] for name in (*names, (label, NULL, TRAINING), (label, NULL, HELDOUT)))
    return near, far, null_near, null_far


def _blocks(context: Context, each: AmongViews) -> FeatureBlocks:
    keys = each.real.keys if each.rows is None else each.real.keys.take(pa.array(each.rows))
    encoder, spec = context.plan.encoders[each.label]
    small = Stored(context.plan.encoders[SMALL][1], context.done[SMALL], "image")
    plain = Stored(spec, context.done[each.label])
    return write_view_blocks(context.store, encoder, plain, small, keys, workers=context.workers)


def _nearer(plain: NearestRows, mirrored: NearestRows) -> FoundView:
    flipped = mirrored.squared < plain.squared
    reference = np.where(flipped, mirrored.row, plain.row)
    row, view = np.divmod(reference, len(VIEWS))
    none = reference < 0
    squared = np.where(flipped, mirrored.squared, plain.squared)
    return FoundView(squared, np.where(none, -1, row), np.where(none, 0, view), flipped)
