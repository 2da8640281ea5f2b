"""Equal and nearly equal images, by digests of their pixels and perceptual hashes, mirrored ones too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from chexray.encoders.base import HashEncoder, mirroring
from chexray.encoders.views import VIEWS
from chexray.engine.search import Search
from chexray.metrics.base import Score
from chexray.privacy.duplicates import (
    Bits,
    Duplicates,
    Hamming,
    Nearest,
    calibrated_bits,
    duplicate_scores,
    find_duplicates,
    first_equal,
    nearer,
)
from chexray.privacy.outputs import EXACT_TRAINING, NEAR_TRAINING
from chexray.stats.nearest import NearestRows
from chexray.suites.common import Context
from chexray.suites.privacy.copies import prompt_codes
from chexray.suites.privacy.failures import FailureCollector
from chexray.suites.privacy.searches import MIRRORED, NULL, TRAINING, WITHIN, EncodedSets, Key, run_searches
from chexray.suites.privacy.sets import ImageSet, Sets
from chexray.suites.privacy.views import AmongViews, FoundView, search_views

SCHEMA = pa.schema(
    [
        ("synthetic_set", pa.string()), ("sample_id", pa.string()), ("kind", pa.string()), ("other_set", pa.string()),
        ("other_id", pa.string()), ("bits", pa.float64()), ("mirrored", pa.bool_()), ("view", pa.string()),
    ]
)  # fmt: skip
"""One row a duplicate: kind is exact_training, near_training, exact_within or near_within; bits: Hamming distance.
view: how the other image is to be changed to be so near, besides mirrored; empty for the image as it is."""

FIRST = 6
"""Ids of images that a row repeats; duplicates.parquet has all of them."""


@dataclass
class DuplicatesOf:
    """What was found for one synthetic set; `found` is None when that failed. bits: what is near a training image."""

    synthetic: ImageSet
    scores: list[Score]
    found: Duplicates | None
    images: pa.Table
    bits: Bits


def search_duplicates(context: Context, sets: Sets, guard: FailureCollector) -> list[DuplicatesOf]:
    """A `DuplicatesOf` for each synthetic set; none when the run does not ask for duplicates."""
    label = context.plan.roles.duplicates
    if label is None:
        return []
    heldout = sets.heldout if sets.heldout is not None and len(sets.heldout) else None
    found, views = _nearest_hashes(context, sets, label, heldout)

    def nearest(name: Key) -> Nearest:
        return nearer(_hamming(found[name]), _hamming(found[*name, MIRRORED]))

    def to_training(name: Key) -> Nearest:
        if name not in views:
            return nearest(name)
        return Nearest(_hamming(views[name]).bits, views[name].row, views[name].mirrored)

    asked = context.plan.config.privacy.near_bits
    default = cast(HashEncoder, context.plan.encoders[label][0]).near_bits if asked is None else asked
    bits = calibrated_bits(None if heldout is None else to_training((NULL,)).bits, default)
    bits_within = calibrated_bits(None if heldout is None else nearest((NULL,)).bits, default)
    digests = {images.name: _digests(context, label, images) for images in (sets.training, *sets.synthetic)}
    heldout_exact = None
    if heldout is not None:
        mine = _digests(context, label, heldout)
        first, _ = first_equal(np.concatenate([digests[sets.training.name], mine]))
        heldout_exact = first[len(sets.training) :] < len(sets.training)
    results = []
    for images in sets.synthetic:
        one = DuplicatesOf(images, [], None, SCHEMA.empty_table(), bits)
        with guard(f"{label} {images.name}", NEAR_TRAINING, one.scores):
            one.found = find_duplicates(
                digests[images.name],
                digests[sets.training.name],
                to_training((TRAINING, images.name)),
                nearest((WITHIN, images.name)),
                bits,
                bits_within,
            )
            one.images = _images(one.found, images, sets.training, views.get((TRAINING, images.name)))
            scores = duplicate_scores(
                one.found, bits, bits_within=bits_within, heldout_exact=heldout_exact, prompts=prompt_codes(images),
                n_sets=len(sets.synthetic),
            )  # fmt: skip
            one.scores += [_naming(each, one.images) for each in scores]
        results.append(one)
    return results


def _nearest_hashes(
    context: Context, sets: Sets, label: str, heldout: ImageSet | None
) -> tuple[dict[Key, NearestRows], dict[Key, FoundView]]:
    """(what is nearest, as it is and MIRRORED; nearest views of training images, where the space has views)."""
    mirror = mirroring(*context.plan.encoders[label])
    space = EncodedSets(context, label)
    t = space.of(sets.training)
    searches: dict[Key, Search] = {}

    def both_ways(name: Key, search: Search) -> None:
        searches[name] = search
        searches[*name, MIRRORED] = Search(
            search.queries, search.references, search.query_codes, search.reference_codes, **mirror
        )

    to_real = [(NULL,), *((TRAINING, images.name) for images in sets.synthetic)]
    for images in sets.synthetic:
        own, s = np.arange(len(images)), space.of(images)
        both_ways((TRAINING, images.name), Search(s, t))
        both_ways((WITHIN, images.name), Search(s, s, own, own))
    if heldout is not None:
        both_ways((NULL,), Search(space.of(heldout), t))
    found = run_searches(context, searches)
    wanted = {
        name: AmongViews(label, each.queries, sets.training) for name, each in searches.items() if name in to_real
    }
    return found, search_views(context, wanted) if label in context.plan.roles.views else {}


def _naming(score: Score, images: pa.Table) -> Score:
    """The number with the first ids that it counts, the most alike first; exact duplicates are near ones too."""
    exact, near = "exact_training", "near_training"
    kinds = {EXACT_TRAINING: (exact,), NEAR_TRAINING: (exact, near)}
    rows = [row for row in images.to_pylist() if row["kind"] in kinds.get(score.output, ())]
    ids = [row["sample_id"] for row in sorted(rows, key=lambda row: row["bits"])]
    return replace(score, about={**score.about, "note_flagged": ids[:FIRST]}) if ids else score


def _hamming(found: NearestRows) -> Hamming:
    return Hamming.of_signs(found.squared, found.row)


def _digests(context: Context, label: str, images: ImageSet) -> np.ndarray:
    spec = context.plan.encoders[label][1]
    return context.store.read(spec, "digest", images.keys, context.done[label])


def _images(found: Duplicates, images: ImageSet, training: ImageSet, views: FoundView | None) -> pa.Table:
    """The duplicates as rows; an exact one is not listed again as near."""
    rows: list[dict[str, Any]] = []
    exact, inside = found.exact_training >= 0, found.exact_within >= 0
    kinds = (
        ("exact_training", exact, found.exact_training, None, None, training),
        ("near_training", found.near_training & ~exact, found.training_row, found.training_bits,
         found.training_mirrored, training),
        ("exact_within", inside, found.exact_within, None, None, images),
        ("near_within", found.near_within & ~inside, found.within_row, found.within_bits,
         found.within_mirrored, images),
    )  # fmt: skip
    ids = images.ids
    for kind, hit, row, bits, mirrored, other in kinds:
        other_ids = other.ids
        rows += [
            {
                "synthetic_set": images.name, "sample_id": ids[i], "kind": kind, "other_set": other.name,
                "other_id": other_ids[row[i]], "bits": 0.0 if bits is None else float(bits[i]),
                "mirrored": False if mirrored is None else bool(mirrored[i]),
                "view": str(VIEWS[views.view[i]]) if views is not None and kind == "near_training" else "",
            }
            for i in np.flatnonzero(hit)
        ]  # fmt: skip
    return pa.Table.from_pylist(rows, SCHEMA)
