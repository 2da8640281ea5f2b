"""Pixel distances of pairs: the real image of a prompt is decoded once, whatever the number of its seeds."""

from __future__ import annotations

import numpy as np

from chexray.data.pairs import Pairs
from chexray.engine.pixel_pairs import PixelDistances, pixel_distances
from chexray.suites.common import Context
from chexray.suites.privacy.sets import ImageSet


def pixel_values(
    context: Context, pairs: Pairs, real: ImageSet, other: ImageSet, *, wrapped: bool, stage: str = "pixels"
) -> PixelDistances:
    """The distances of all pairs, in their order; NaN where an image could not be read again. stage: for progress."""
    left, right = pairs.table["real_id"].to_pylist(), pairs.table["synthetic_id"].to_pylist()
    order = np.argsort(np.array(left, dtype=str), kind="stable")
    images = [_images(real), _images(other)]
    groups: list[tuple[tuple[str, str], list[tuple[str, str]]]] = []
    last = None
    for i in order:
        if left[i] != last:
            groups.append((images[0][left[i]], []))
            last = left[i]
        groups[-1][1].append(images[1][right[i]])
    encode = context.plan.config.encode
    found = pixel_distances(
        groups,
        root=context.plan.store_uri,
        storage=context.plan.storage,
        workers=context.workers,
        max_pixels=encode.max_pixels,
        io_threads=encode.io_threads,
        wrapped=wrapped,
        progress=context.progress(stage, "images", 0),
        depths=context.plan.depths,
    )
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    rejects = {int(order[i]): reject for i, reject in found.rejects.items()}
    return PixelDistances(found.distance[back], None if found.wrapped is None else found.wrapped[back], rejects)


def _images(images: ImageSet) -> dict[str, tuple[str, str]]:
    """{sample_id: (image_key, uri)}"""
    uris = images.table["uri"].to_pylist()
    return {each: (key, uri) for each, key, uri in zip(images.ids, images.keys.to_pylist(), uris, strict=True)}
