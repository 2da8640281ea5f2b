"""The search for copies of training images: in each space, for each synthetic set, numbers and flagged images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.engine.search import Search
from chexray.errors import MetricError
from chexray.metrics.base import Score
from chexray.privacy.memorisation import (
    MatchedReferences,
    RatioTest,
    memorisation_nulls,
    memorisation_scores,
    neighbour_ratio,
    ratio_test,
)
from chexray.stats.nearest import Found
from chexray.suites.common import Context, own_codes
from chexray.suites.privacy.guard import Guard
from chexray.suites.privacy.peers import peer_nulls, peer_scores, spacing_searches
from chexray.suites.privacy.searches import (
    HELDOUT,
    MATCHED_SIZES,
    NULL,
    SYNTHETIC,
    TRAINING,
    Key,
    Space,
    distance,
    matched_sample,
    own_or_patient,
    run_searches,
    set_aside,
)
from chexray.suites.privacy.sets import ImageSet, Sets

IMAGES_SCHEMA = pa.schema(
    [
        ("synthetic_set", pa.string()),
        ("encoder", pa.string()),
        ("sample_id", pa.string()),
        ("nearest_training_id", pa.string()),
        ("distance_training", pa.float64()),
        ("distance_stranger", pa.float64()),
        ("ratio", pa.float64()),
        ("p_value", pa.float64()),
        ("flagged", pa.bool_()),
    ]
)
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


def search_copies(context: Context, sets: Sets, guard: Guard) -> list[Copies]:
    """A `Copies` for each search encoder and synthetic set of the run."""
    labels = context.plan.roles.search
    if not labels:
        return []
    with_heldout = sets.heldout is not None and len(sets.heldout) > 0
    search = _against_heldout if with_heldout else _against_own_patients
    return search(context, sets, {label: Space(context, label) for label in labels}, guard)


def prompt_codes(images: ImageSet) -> np.ndarray | None:
    """(n,) codes, equal for images of one prompt; None without prompts, or where each has its own."""
    found = own_codes(images.table["prompt"])
    return found if found is not None and len(np.unique(found)) < len(found) else None


def _against_heldout(context: Context, sets: Sets, spaces: dict[str, Space], guard: Guard) -> list[Copies]:
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
        for images in sets.synthetic:
            s = space.of(images)
            searches[label, SYNTHETIC, TRAINING, images.name] = Search(s, t)
            searches[label, SYNTHETIC, HELDOUT, images.name] = Search(s, h)
            for side, real in ((TRAINING, training), (HELDOUT, heldout)):
                sample = samples[real.name]
                if sample is not None:
                    searches[label, MATCHED_SIZES, side, images.name] = Search(s, space.of(real, sample))
    found = run_searches(context, searches)
    names = [(NULL, TRAINING), *((SYNTHETIC, TRAINING, images.name) for images in sets.synthetic)]
    spacing = spacing_searches(context, sets, spaces, found, names)
    copies = []
    for label, space in spaces.items():
        for images in sets.synthetic:
            near, far = (found[label, SYNTHETIC, side, images.name] for side in (TRAINING, HELDOUT))
            null_near, null_far = (found[label, NULL, side] for side in (TRAINING, HELDOUT))
            one = Copies(label, images, [])
            with guard(f"{label} {images.name}", "memorised_share", one.scores):
                try:
                    one.test = ratio_test(
                        distance(near), distance(far), distance(null_near), distance(null_far),
                        alpha=context.plan.config.privacy.alpha,
                    )  # fmt: skip
                except MetricError as error:
                    one.scores = memorisation_nulls("undefined", str(error))
                else:
                    matched = [
                        found.get((label, MATCHED_SIZES, side, images.name), whole)
                        for side, whole in ((TRAINING, near), (HELDOUT, far))
                    ]
                    one.scores += memorisation_scores(
                        one.test, distance(near), distance(null_near),
                        matched=_matched(matched[0], matched[1], size),
                        null_subjects=heldout.patients, prompts=prompt_codes(images),
                        n_searches=len(spaces) * len(sets.synthetic),
                    )  # fmt: skip
                    one.images = _images(one, sets.training, near, distance(far))
            if spacing:
                with guard(f"{label} {images.name}", "authenticity", one.scores):
                    one.scores += peer_scores(context, sets, space, images, near, null_near, spacing[label])
            copies.append(one)
    return copies


def _matched(near: Found, far: Found, size: int) -> MatchedReferences:
    return MatchedReferences(distance(near), distance(far), size, size, near.row, far.row)


def _against_own_patients(context: Context, sets: Sets, spaces: dict[str, Space], guard: Guard) -> list[Copies]:
    """Without strangers: a fifth of the training patients play them, against all others."""
    training = sets.training
    patients = own_or_patient(training)
    aside, others = set_aside(training, context.plan.config.seed)
    if not len(aside) or not len(others):
        why = f"{len(training)} training images of {len(np.unique(patients))} patients give no null: give --heldout"
        nulls = [*memorisation_nulls("too_few", why), *peer_nulls(context, "too_few", why)]
        return [Copies(label, images, list(nulls)) for label in spaces for images in sets.synthetic]
    first: dict[Key, Search] = {}
    for label, space in spaces.items():
        first[label, NULL] = Search(space.of(training, aside), space.of(training, others))
        for images in sets.synthetic:
            first[label, SYNTHETIC, images.name] = Search(space.of(images), space.of(training))
    found = run_searches(context, first)
    second: dict[Key, Search] = {}
    for label, space in spaces.items():
        met = patients[others][found[label, NULL].row]
        second[label, NULL] = Search(space.of(training, aside), space.of(training, others), met, patients[others])
        for images in sets.synthetic:
            met = patients[found[label, SYNTHETIC, images.name].row]
            second[label, SYNTHETIC, images.name] = Search(space.of(images), space.of(training), met, patients)
    other = run_searches(context, second)
    spacing = spacing_searches(context, sets, spaces, found, [(SYNTHETIC, images.name) for images in sets.synthetic])
    copies = []
    for label, space in spaces.items():
        for images in sets.synthetic:
            near, far = (each[label, SYNTHETIC, images.name] for each in (found, other))
            null_near, null_far = (each[label, NULL] for each in (found, other))
            one = Copies(label, images, [])
            with guard(f"{label} {images.name}", "memorised_share", one.scores):
                try:
                    one.test = neighbour_ratio(
                        distance(near), distance(far), distance(null_near), distance(null_far),
                        alpha=context.plan.config.privacy.alpha,
                    )  # fmt: skip
                except MetricError as error:
                    one.scores = memorisation_nulls("undefined", str(error))
                else:
                    one.scores += memorisation_scores(
                        one.test, distance(near), distance(null_near),
                        null_subjects=patients[aside], prompts=prompt_codes(images),
                        n_searches=len(spaces) * len(sets.synthetic),
                    )  # fmt: skip
                    one.images = _images(one, training, near, distance(far))
            if spacing:
                with guard(f"{label} {images.name}", "authenticity", one.scores):
                    one.scores += peer_scores(context, sets, space, images, near, None, spacing[label])
            copies.append(one)
    return copies


def _images(copies: Copies, training: ImageSet, near: Found, stranger: np.ndarray) -> pa.Table:
    assert copies.test is not None
    n = len(copies.synthetic)
    columns: dict[str, Any] = {
        "synthetic_set": [copies.synthetic.name] * n,
        "encoder": [copies.label] * n,
        "sample_id": copies.synthetic.ids,
        "nearest_training_id": training.table["sample_id"].take(pa.array(near.row)),
        "distance_training": distance(near),
        "distance_stranger": stranger,
        "ratio": copies.test.ratio,
        "p_value": copies.test.p_value,
        "flagged": copies.test.flagged,
    }
    return pa.table(columns, schema=IMAGES_SCHEMA)
