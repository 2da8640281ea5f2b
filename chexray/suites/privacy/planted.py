"""Copies of training images that the run alters and searches for as it searches for synthetic ones.

They answer what a search that found nothing would have found: each space looks at the same planted copies with the
threshold that judged the synthetic images. Their features are made in memory, in spaces that need no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from chexray.encoders.base import MIRROR, mirroring
from chexray.engine.blocks import FeatureBlocks
from chexray.engine.planted import OriginalLost, planted_blocks
from chexray.engine.search import Search
from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.privacy.augmentations import ALTERATIONS, EXACT
from chexray.privacy.outputs import planted_found
from chexray.privacy.planted import drawn, planted_scores
from chexray.privacy.ratio import HELD_OUT, RatioTest, ratios
from chexray.stats.nearest import NearestRows
from chexray.suites.common import Context
from chexray.suites.privacy.copies import Copies
from chexray.suites.privacy.duplicates import DuplicatesOf
from chexray.suites.privacy.failures import FailureCollector
from chexray.suites.privacy.searches import (
    HELDOUT,
    MIRRORED,
    TRAINING,
    EncodedSets,
    Key,
    distance,
    own_or_patient,
    run_searches,
)
from chexray.suites.privacy.sets import Sets
from chexray.suites.privacy.views import AmongViews, search_views

ANY = ""
"""Label of what any of the spaces found."""


def search_planted(
    context: Context, sets: Sets, copies: Sequence[Copies], duplicates: Sequence[DuplicatesOf], guard: FailureCollector
) -> dict[str, list[Score]]:
    """{encoder label: planted_found_* of what its search found}, ANY for all of them together; {} without a search
    that could judge a copy, and with privacy.planted 0.

    Spaces that know what mirrors an image are tried, which are cheap and need no weights. A network would have to be
    loaded in this process: `chexray audit` tries those.
    """
    n, roles, encoders = context.plan.config.privacy.planted, context.plan.roles, context.plan.encoders
    tests = {each.label: each.test for each in copies if each.test is not None and each.test.attained_alpha}
    labels = [label for label in roles.search if label in tests and MIRROR in encoders[label][1].roles]
    hashed = roles.duplicates if any(each.found is not None for each in duplicates) else None
    labels += [hashed] if hashed else []
    if not n or not labels or not len(sets.training):
        return {}
    scores: dict[str, list[Score]] = {ANY: []}
    with guard("planted copies", planted_found(EXACT), scores[ANY]):
        ids = sets.training.ids
        order = sorted(
            range(len(ids)), key=lambda i: hashlib.blake2b(f"{context.plan.config.seed}|{ids[i]}".encode()).digest()
        )
        rows = drawn(np.array(order), sets.training.patients, n)
        keys, uris = sets.training.keys, sets.training.table["uri"]
        depths, encode = context.plan.depths, context.plan.config.encode
        try:
            named = [(keys[int(row)].as_py(), uris[int(row)].as_py()) for row in rows]
            originals = [(key, uri, depths.get(key)) for key, uri in named]
            blocks = planted_blocks(
                originals, ALTERATIONS, {label: encoders[label] for label in labels},
                root=context.store.root, storage=context.plan.storage, seed=context.plan.config.seed,
                max_pixels=encode.max_pixels, io_threads=encode.io_threads,
            )  # fmt: skip
        except OriginalLost:
            why = "a training image could not be read again to plant copies of it: run the same command again"
            return {ANY: nulls([planted_found(EXACT)], "undefined", why)}
        found = _ratios(context, sets, {label: blocks[label] for label in labels if label != hashed}, tests)
        if hashed:
            bits = _nearest_hash(context, sets, hashed, blocks[hashed])
            found[hashed] = bits <= next(each.bits.bits for each in duplicates)
        found[ANY] = np.logical_or.reduce(list(found.values()))
        patients = None if sets.training.patients is None else sets.training.patients[rows]
        for label, hit in found.items():
            table = hit.reshape(len(rows), len(ALTERATIONS))
            by_name = {name: table[:, i] for i, name in enumerate(ALTERATIONS)}
            searched = ", ".join(labels) if label == ANY else label
            scores[label] = planted_scores(by_name, patients, searched)
    return scores


def _ratios(
    context: Context, sets: Sets, blocks: dict[str, FeatureBlocks], tests: dict[str, RatioTest]
) -> dict[str, np.ndarray]:
    """{label: (n,) bool, which planted copies its test flags}, by the ratio that judges synthetic images."""
    training, heldout = sets.training, sets.heldout
    against_heldout = all(tests[label].null == HELD_OUT for label in blocks)
    near = _search(context, {(label, TRAINING): AmongViews(label, each, training) for label, each in blocks.items()})
    if against_heldout and heldout is not None:
        far = _search(context, {(label, HELDOUT): AmongViews(label, each, heldout) for label, each in blocks.items()})
    else:
        patients = own_or_patient(training)
        far = _search(
            context,
            {
                (label, HELDOUT): AmongViews(label, each, training, None, patients[near[label, TRAINING].row], patients)
                for label, each in blocks.items()
            },
        )
    return {
        label: ratios(distance(near[label, TRAINING]), distance(far[label, HELDOUT])) < tests[label].threshold
        for label in blocks
    }


def _nearest_hash(context: Context, sets: Sets, label: str, blocks: FeatureBlocks) -> np.ndarray:
    """(n,) bits to the nearest training image, mirrored or not."""
    name = (label, TRAINING)
    found = _search(context, {name: AmongViews(label, blocks, sets.training)})[name].squared
    if label not in context.plan.roles.views:
        plain = Search(
            blocks, EncodedSets(context, label).of(sets.training), **mirroring(*context.plan.encoders[label])
        )
        found = np.minimum(found, run_searches(context, {(label, MIRRORED): plain})[label, MIRRORED].squared)
    return found / 4


def _search(context: Context, wanted: dict[Key, AmongViews]) -> dict[Key, NearestRows]:
    """Each search as the run makes it in that space: among views where it has them, else among images as they are."""
    viewed = {name: each for name, each in wanted.items() if each.label in context.plan.roles.views}
    plain = {
        name: Search(each.queries, EncodedSets(context, each.label).of(each.real), each.query_codes, each.real_codes)
        for name, each in wanted.items()
        if name not in viewed
    }
    return {**(run_searches(context, plain) if plain else {}), **search_views(context, viewed)}
