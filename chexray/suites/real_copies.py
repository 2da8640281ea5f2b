"""Images of the real set among the synthetic ones: a generator that hands them out wins every fidelity table.

Equal images have equal features, so the features name the few that are looked at, and pixels decide: both images are
decoded again and compared by a digest. Nothing is decoded where no two images have equal features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.data.containers.order import container_order
from chexray.data.depth import Depth
from chexray.data.images import load_and
from chexray.data.manifest import Manifest
from chexray.engine.features import TOLERANCE
from chexray.engine.reduce import FeatureMatrix, Matrices
from chexray.engine.tasks import as_they_finish
from chexray.grouping import grouped
from chexray.stats.equal_rows import equal_rows
from chexray.storage import Storage
from chexray.suite_names import FIDELITY
from chexray.suites.common import Context

EXACT = 1e-6
"""Relative distance up to which features without weights are equal: they are the same arithmetic for every image."""

CHUNK_IMAGES = 256
SMALL_IMAGES = 64
"""Images up to which pixels are compared in this process: less than a worker needs to start."""

MOST_PAIRS = 200_000
"""Pairs of equal features above which an encoder does not tell images apart."""

MOST_DECODED = 50_000
"""Images that are decoded where no encoder does: some minutes of one core."""

FEW = 16
"""Real images that one copy is paired with: the others are equal too."""

FIRST = 3
"""Copies that a row names."""

BLANK = "blank"
"""In place of the digest of an image of one grey level: blank frames equal each other and are copies of nothing."""


@dataclass(frozen=True)
class Copies:
    """Copies in one synthetic set. real_of: {sample_id: the real images it equals}.

    by_features: those of them whose pixels differ while every encoder gives both images the same features, such as a
    copy at twice the size.
    """

    real_of: dict[str, tuple[str, ...]]
    by_features: frozenset[str] = frozenset()

    def params(self, real_ids: Iterable[str], synthetic_ids: Iterable[str]) -> dict[str, Any]:
        """What the rows of a cell of these images say of its copies; nothing where it has none."""
        real = set(real_ids)
        found = [name for name in synthetic_ids if not real.isdisjoint(self.real_of.get(name, ()))]
        if not found:
            return {}
        by_features = len(self.by_features.intersection(found))
        return {
            "n_copies_of_real": len(found),
            "copies_of_real_first": found[:FIRST],
            **({"n_copies_of_real_by_features": by_features} if by_features else {}),
        }

    def table(self, synthetic_set: str) -> pa.Table:
        """One row a copy: the images and how they are known to be equal, "pixels" or "features"."""
        names = sorted(self.real_of)
        columns = {
            "synthetic_set": [synthetic_set] * len(names),
            "sample_id": names,
            "real_id": [self.real_of[name][0] for name in names],
            "by": ["features" if name in self.by_features else "pixels" for name in names],
        }
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def find_copies(context: Context, matrices: dict[str, Matrices]) -> tuple[dict[str, Copies], list[str]]:
    """({synthetic set: the copies of real images in it}, notes) of fidelity's sets, those without a copy left out."""
    plan = context.plan
    specs = {label: spec for label, (_, spec) in plan.encoders_of(FIDELITY).items()}
    found: dict[str, Copies] = {}
    notes: list[str] = []
    for synthetic in plan.synthetic_of(FIDELITY):
        pairs = suspects(
            {label: (sets[plan.real.name], sets[synthetic.name]) for label, sets in matrices.items()}, specs
        )
        if pairs is not None and not pairs:
            continue
        if pairs is None and len(plan.real) + len(synthetic) > MOST_DECODED:
            notes.append(
                f"{synthetic.name}: copies of real images were not looked for, since no encoder tells images apart. "
                "Add pixels to the encoders"
            )
            continue
        # Where features tell nothing every image is a suspect.
        names = [None if pairs is None else {pair[side] for pair in pairs} for side in (0, 1)]
        sides = [_images(manifest, ids) for manifest, ids in zip((plan.real, synthetic), names, strict=True)]
        real, made = _digests(context, sides)
        copies = confirmed(same_digests(real, made) if pairs is None else pairs, real, made)
        if copies.real_of:
            found[synthetic.name] = copies
    return found, notes


def suspects(
    encoded: Mapping[str, tuple[FeatureMatrix, FeatureMatrix]], specs: Mapping[str, Any]
) -> dict[tuple[str, str], bool] | None:
    """{(real id, synthetic id): whether every encoder gives both the same features to the last digit}.

    encoded: {encoder: (real, synthetic)}; specs: {encoder: its EncoderSpec}. The pairs are those whose features are
    equal in one encoder that tells images apart; in none of them does a copy have other features. None where no encoder
    does: a network of random weights may give all images nearly the same features.
    """
    # Without weights first: there equal images have equal features to the last digit, so that few others are suspects.
    labels = sorted(encoded, key=lambda label: (bool(specs[label].weights), encoded[label][0].features.shape[1], label))
    for label in labels:
        real, synthetic = encoded[label]
        spec = specs[label]
        tolerance = TOLERANCE.get(spec.precision, 1e-3) if spec.weights else EXACT
        pairs = equal_rows(real.features, synthetic.features, tolerance, MOST_PAIRS)
        if pairs is not None:
            names = list(zip(real.ids[pairs[0]].tolist(), synthetic.ids[pairs[1]].tolist(), strict=True))
            return dict(zip(names, _alike(names, encoded), strict=True))
    return None


def same_digests(real: Mapping[str, str], synthetic: Mapping[str, str]) -> dict[tuple[str, str], bool]:
    """The pairs of equal pixels of two whole sets, as `suspects` gives its pairs."""
    at = grouped((digest, name) for name, digest in real.items())
    either = {digest for digest in synthetic.values() if digest not in (BLANK, "")}
    return {
        (a, name): False for name, digest in synthetic.items() if digest in either for a in at.get(digest, [])[:FEW]
    }


def confirmed(pairs: Mapping[tuple[str, str], bool], real: Mapping[str, str], synthetic: Mapping[str, str]) -> Copies:
    """The copies among suspects. real, synthetic: {sample_id: digest of its pixels}, BLANK or "" where it has none."""
    real_of: dict[str, list[str]] = {}
    by_features: dict[str, list[str]] = {}
    for (real_id, name), alike in pairs.items():
        a, b = real[real_id], synthetic[name]
        if not {a, b} & {BLANK, ""}:
            if a == b:
                real_of.setdefault(name, []).append(real_id)
            elif alike:
                by_features.setdefault(name, []).append(real_id)
    only = by_features.keys() - real_of.keys()
    every = real_of | {name: by_features[name] for name in only}
    return Copies({name: tuple(ids) for name, ids in every.items()}, frozenset(only))


def _alike(pairs: Sequence[tuple[str, str]], encoded: Mapping[str, tuple[FeatureMatrix, FeatureMatrix]]) -> np.ndarray:
    """(pairs,) bool: equal to the last digit in every encoder that took both images, relative to how images differ."""
    alike = np.ones(len(pairs), bool)
    for real, synthetic in encoded.values():
        rows = [{name: row for row, name in enumerate(matrix.ids.tolist())} for matrix in (real, synthetic)]
        mean = real.features.mean(axis=0, dtype=np.float64) if len(real.features) else 0.0
        for place, (a, b) in enumerate(pairs):
            if alike[place] and a in rows[0] and b in rows[1]:
                x = real.features[rows[0][a]].astype(np.float64) - mean
                y = synthetic.features[rows[1][b]].astype(np.float64) - mean
                alike[place] = np.linalg.norm(y) > 0 and np.linalg.norm(x - y) <= EXACT * np.linalg.norm(y)
    return alike


Image = tuple[str, Depth | None]
"""An image: its uri and the depth of its set."""


def _images(manifest: Manifest, wanted: set[str] | None) -> dict[str, Image]:
    """{sample_id: image} of the images wanted, None for all."""
    table = manifest.table
    both = zip(table["sample_id"].to_pylist(), table["uri"].to_pylist(), strict=True)
    return {name: (uri, manifest.depth) for name, uri in both if wanted is None or name in wanted}


def _digests(context: Context, sides: Sequence[Mapping[str, Image]]) -> list[dict[str, str]]:
    """{sample_id: digest} for the images of each side, each image decoded once."""
    plan = context.plan
    images = list(dict.fromkeys(image for side in sides for image in side.values()))
    images = [images[place] for place in container_order([uri for uri, _ in images])]
    chunks = [images[start : start + CHUNK_IMAGES] for start in range(0, len(images), CHUNK_IMAGES)]
    how = (plan.storage, plan.config.encode.max_pixels, plan.config.encode.io_threads)
    here = len(images) <= SMALL_IMAGES
    progress = None if here else context.progress("compare", "images", len(images))
    digest_of: dict[Image, str] = {}
    items = ((chunk, *how) for chunk in chunks)
    for answer in as_they_finish(digests, items, workers=context.workers, what="copies of real images", here=here):
        digest_of |= answer
        if progress:
            progress.advance(len(answer))
    if progress:
        progress.close()
    return [{name: digest_of[image] for name, image in side.items()} for side in sides]


def digests(images: Sequence[Image], storage: Storage, max_pixels: int, io_threads: int) -> dict[Image, str]:
    """{image: 32 hex digits over the size and the pixels of the decoded image}, BLANK for one grey level, "" where the
    image cannot be read now."""
    uris, depths = [uri for uri, _ in images], [depth for _, depth in images]
    found = load_and(_digest, uris, storage, threads=io_threads, max_pixels=max_pixels, depths=depths)
    return {image: one if isinstance(one, str) else "" for image, one in zip(images, found, strict=True)}


def _digest(_: int, pixels: np.ndarray) -> str:
    if not pixels.size or (pixels == pixels.flat[0]).all():
        return BLANK
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
