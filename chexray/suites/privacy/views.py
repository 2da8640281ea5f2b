"""Searches that also see real images turned and cropped, in the spaces that can.

The baseline gets the same: held-out images meet the same views of training images, and every view of a held-out image
is a reference too. So a synthetic image has no more tries than a held-out one, and the rate of false flags stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chexray.engine.blocks import FeatureBlocks
from chexray.engine.search import Search
from chexray.engine.view_blocks import VIEWS, write_view_blocks
from chexray.plan.roles import SMALL
from chexray.stats.nearest import Found
from chexray.suites.common import Context
from chexray.suites.privacy.searches import MIRRORED, Key, run_searches
from chexray.suites.privacy.sets import ImageSet


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
class FoundView(Found):
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
    blocks: dict[tuple[str, ...], FeatureBlocks] = {}
    searches: dict[Key, Search] = {}
    for name, each in wanted.items():
        encoder, _ = context.plan.encoders[each.label]
        rows = "all" if each.rows is None else f"{len(each.rows)}-{int(each.rows.sum())}"
        place = (each.label, each.real.name, rows)
        if place not in blocks:
            blocks[place] = _blocks(context, each)
        codes = (each.query_codes, each.real_codes)
        signs = encoder.mirror_signs() if hasattr(encoder, "mirror_signs") else None  # pyright: ignore[reportAttributeAccessIssue]
        order = encoder.mirror_order() if hasattr(encoder, "mirror_order") else None  # pyright: ignore[reportAttributeAccessIssue]
        views = len(VIEWS)
        searches[name] = Search(each.queries, blocks[place], *codes, views=views)
        searches[*name, MIRRORED] = Search(each.queries, blocks[place], *codes, signs=signs, order=order, views=views)
    found = run_searches(context, searches)
    return {name: _nearer(found[name], found[*name, MIRRORED]) for name in wanted}


def _blocks(context: Context, each: AmongViews) -> FeatureBlocks:
    keys = each.real.keys if each.rows is None else [each.real.keys[row] for row in each.rows]
    encoder, spec = context.plan.encoders[each.label]
    small = (context.plan.encoders[SMALL][1], context.done[SMALL])
    plain = (spec, context.done[each.label])
    return write_view_blocks(context.store, encoder, plain, small, keys, workers=context.workers)


def _nearer(plain: Found, mirrored: Found) -> FoundView:
    flipped = mirrored.squared < plain.squared
    reference = np.where(flipped, mirrored.row, plain.row)
    row, view = np.divmod(reference, len(VIEWS))
    none = reference < 0
    squared = np.where(flipped, mirrored.squared, plain.squared)
    return FoundView(squared, np.where(none, -1, row), np.where(none, 0, view), flipped)
