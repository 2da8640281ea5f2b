"""The search for copies of training images: in each space, for each synthetic set, numbers and flagged images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.engine.search import Search
from chexray.errors import MetricError
from chexray.metrics.base import Score
from chexray.privacy.distances import MatchedReferences
from chexray.privacy.memorisation import memorisation_nulls, memorisation_scores
from chexray.privacy.outputs import AUTHENTICITY, SHARE
from chexray.privacy.ratio import RatioTest, neighbour_ratio, ratio_test
from chexray.suites.common import Context, own_codes
from chexray.suites.privacy.evidence import Evidence, baseline_of, dimensions_of, repeats_of
from chexray.suites.privacy.failures import FailureCollector
from chexray.suites.privacy.other_tools import peer_nulls, peer_scores, spacing_searches
from chexray.suites.privacy.searches import (
    HELDOUT,
    MATCHED_SIZES,
    NULL,
    SYNTHETIC,
    TRAINING,
    EncodedSets,
    Key,
    distance,
    matched_sample,
    own_or_patient,
    run_searches,
    set_aside,
)
from chexray.suites.privacy.sets import ImageSet, Sets
from chexray.suites.privacy.views import among_views, own_views, search_views, viewed_of

IMAGES_SCHEMA = pa.schema(
    [
        ("synthetic_set", pa.string()), ("encoder", pa.string()), ("sample_id", pa.string()),
        ("nearest_training_id", pa.string()), ("distance_training", pa.float64()),
        ("distance_stranger", pa.float64()), ("ratio", pa.float64()), ("p_value", pa.float64()),
        ("flagged", pa.bool_()),
    ]
)  # fmt: skip
"""One row a synthetic image and encoder. distance_stranger: to the nearest held-out image, or, without a held-out set,
to the nearest training image of another patient than the nearest one's. Sort by ratio for the worst cases."""


@dataclass
class Copies:
    """What one space says of one synthetic set; `test` is None where nothing could be tested."""

    label: str
    synthetic: ImageSet
    scores: list[Score]
    test: RatioTest | None = None
    images: pa.Table = field(default_factory=IMAGES_SCHEMA.empty_table)


def search_copies(context: Context, sets: Sets, guard: FailureCollector) -> list[Copies]:
    """A `Copies` for each search encoder and synthetic set of the run."""
    labels = context.plan.roles.search
    if not labels:
        return []
    with_heldout = sets.heldout is not None and len(sets.heldout) > 0
    search = _against_heldout if with_heldout else _against_own_patients
    return search(context, sets, {label: EncodedSets(context, label) for label in labels}, guard)


def prompt_codes(images: ImageSet) -> np.ndarray | None:
    """(n,) codes, equal for images of one prompt; None without prompts, or where each has its own."""
    found = own_codes(images.table["prompt"])
    return found if found is not None and len(np.unique(found)) < len(found) else None


def _against_heldout(
    context: Context, sets: Sets, spaces: dict[str, EncodedSets], guard: FailureCollector
) -> list[Copies]:
    training, heldout, seed = sets.training, sets.heldout, context.plan.config.seed
    assert heldout is not None
    size = min(len(training), len(heldout))
    samples = {images.name: matched_sample(len(images), size, seed) for images in (training, heldout)}
    searches: dict[Key, Search] = {}
    for label, space in spaces.items():
        t, h = space.of(training), space.of(heldout)
        own = own_or_patient(heldout)
        searches[label, NULL, TRAINING] = Search(h, t)
        searches[label, NULL, HELDOUT] = Search(h, h, own, own)
        for side, real, codes in ((TRAINING, training, None), (HELDOUT, heldout, own)):
            sample = samples[real.name]
            if sample is not None:
                ours = (None, None) if codes is None else (codes, codes[sample])
                searches[label, NULL, MATCHED_SIZES, side] = Search(h, space.of(real, sample), *ours)
        for images in sets.synthetic:
            s = space.of(images)
            searches[label, SYNTHETIC, TRAINING, images.name] = Search(s, t)
            searches[label, SYNTHETIC, HELDOUT, images.name] = Search(s, h)
            for side, real in ((TRAINING, training), (HELDOUT, heldout)):
                sample = samples[real.name]
                if sample is not None:
                    searches[label, MATCHED_SIZES, side, images.name] = Search(s, space.of(real, sample))
    found = run_searches(context, searches)
    views = search_views(context, among_views(sets, spaces))
    names = [(NULL, TRAINING), *((SYNTHETIC, TRAINING, images.name) for images in sets.synthetic)]
    spacing = spacing_searches(context, sets, spaces, found, names)

    baselines = {label: baseline_of(found, label, samples, heldout) for label in spaces}
    dimensions = dimensions_of(spaces, sets, heldout, training, seed)

    def evidence(label: str, images: ImageSet) -> Evidence:
        near, far = (found[label, SYNTHETIC, side, images.name] for side in (TRAINING, HELDOUT))
        near_matched, far_matched = (
            found.get((label, MATCHED_SIZES, side, images.name), whole)
            for side, whole in ((TRAINING, near), (HELDOUT, far))
        )
        return Evidence(
            near, far, found[label, NULL, TRAINING], found[label, NULL, HELDOUT], heldout.patients,
            MatchedReferences(
                distance(near_matched), distance(far_matched), size, size, near_matched.row, far_matched.row
            ),
            baselines[label],
            dimensions.get((label, images.name)),
            viewed_of(views, label, images),
        )  # fmt: skip

    return [
        _judge(context, sets, space, images, guard, ratio_test, evidence(label, images), spacing.get(label))
        for label, space in spaces.items()
        for images in sets.synthetic
    ]


def _against_own_patients(
    context: Context, sets: Sets, spaces: dict[str, EncodedSets], guard: FailureCollector
) -> list[Copies]:
    """Without held-out images: a fifth of the training patients take their place, against all others."""
    training = sets.training
    patients = own_or_patient(training)
    aside, others = set_aside(training, context.plan.config.seed)
    if not len(aside) or not len(others):
        why = f"{len(training)} training images of {len(np.unique(patients))} patients give no baseline: give --heldout"
        nulls = [*memorisation_nulls("too_few", why), *peer_nulls(context, "too_few", why)]
        return [Copies(label, images, list(nulls)) for label in spaces for images in sets.synthetic]
    first: dict[Key, Search] = {}
    for label, space in spaces.items():
        first[label, NULL] = Search(space.of(training, aside), space.of(training, others))
        for images in sets.synthetic:
            first[label, SYNTHETIC, images.name] = Search(space.of(images), space.of(training))
    found = run_searches(context, first)
    views = own_views(context, sets, first, others)
    second: dict[Key, Search] = {}
    for label, space in spaces.items():
        met = patients[others][found[label, NULL].row]
        second[label, NULL] = Search(space.of(training, aside), space.of(training, others), met, patients[others])
        for images in sets.synthetic:
            met = patients[found[label, SYNTHETIC, images.name].row]
            second[label, SYNTHETIC, images.name] = Search(space.of(images), space.of(training), met, patients)
    other = run_searches(context, second)
    spacing = spacing_searches(context, sets, spaces, found, [(SYNTHETIC, images.name) for images in sets.synthetic])
    dimensions = dimensions_of(spaces, sets, training, training, context.plan.config.seed, aside, others)

    def evidence(label: str, images: ImageSet) -> Evidence:
        name = (label, SYNTHETIC, images.name)
        return Evidence(
            found[name], other[name], found[label, NULL], other[label, NULL], patients[aside],
            dimensions=dimensions.get((label, images.name)), viewed=viewed_of(views, label, images),
        )  # fmt: skip

    return [
        _judge(context, sets, space, images, guard, neighbour_ratio, evidence(label, images), spacing.get(label))
        for label, space in spaces.items()
        for images in sets.synthetic
    ]


def _judge(
    context: Context,
    sets: Sets,
    space: EncodedSets,
    images: ImageSet,
    guard: FailureCollector,
    test: Callable[..., RatioTest],
    found: Evidence,
    spacing: np.ndarray | None,
) -> Copies:
    one = Copies(space.label, images, [])
    to_training, null_to_training = distance(found.near), distance(found.null_near)
    with guard(f"{space.label} {images.name}", SHARE, one.scores):
        try:
            judged = test(
                *map(distance, found.judged), alpha=context.plan.config.privacy.alpha, subjects=found.null_patients
            )
        except MetricError as error:
            one.scores += memorisation_nulls("undefined", str(error))
        else:
            usable = found.baseline is None or not found.baseline.problem
            one.images = _images(one, judged, sets.training, found, usable)
            one.test = judged if usable else None
            lowest = images.ids[int(np.argmin(judged.ratio))]
            scores = memorisation_scores(
                judged, to_training, null_to_training, matched=found.matched, null_subjects=found.null_patients,
                prompts=prompt_codes(images), n_searches=len(context.plan.roles.search) * len(sets.synthetic),
                groups=repeats_of(space, images, sets.training, judged, found), dimensions=found.dimensions,
                baseline=found.baseline,
            )  # fmt: skip
            one.scores += [replace(each, about={**each.about, "note_lowest_id": lowest}) for each in scores]
    if spacing is not None:
        heldout_near = None if sets.heldout is None or not len(sets.heldout) else found.null_near
        with guard(f"{space.label} {images.name}", AUTHENTICITY, one.scores):
            one.scores += peer_scores(
                context, sets, space, images, found.near, heldout_near, spacing,
                prompts=prompt_codes(images), baseline=found.baseline,
            )  # fmt: skip
    return one


def null_rows(copies: Sequence[Copies]) -> list[pa.Table]:
    """The ratios that each space's verdicts were measured against, a row a real image of the null."""
    tests = {each.label: each.test for each in copies if each.test is not None}
    return [
        pa.table(
            {
                "encoder": pa.array([label] * len(test.null_ratio), pa.string()),
                "null": pa.array([test.null] * len(test.null_ratio), pa.string()),
                "ratio": test.null_ratio,
            }
        )
        for label, test in tests.items()
    ]


def _images(copies: Copies, test: RatioTest, training: ImageSet, found: Evidence, usable: bool) -> pa.Table:
    """Distances and ratios; p-values and flags are null where the null is no baseline."""
    n = len(copies.synthetic)
    columns: dict[str, Any] = {
        "synthetic_set": [copies.synthetic.name] * n,
        "encoder": [copies.label] * n,
        "sample_id": copies.synthetic.ids,
        "nearest_training_id": training.table["sample_id"].take(pa.array(found.judged[0].row)),
        "distance_training": distance(found.judged[0]),
        "distance_stranger": distance(found.judged[1]),
        "ratio": test.ratio,
        "p_value": test.p_value if usable else [None] * n,
        "flagged": test.flagged if usable else [None] * n,
    }
    return pa.table(columns, schema=IMAGES_SCHEMA)
