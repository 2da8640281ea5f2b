"""A small picture of each image, and its views: turned and cropped as copies of it may be.

A search for copies that knows every training image as it is only overlooks one that was turned by 9 degrees. So the
references of a search, training and held-out images alike, are also shown turned and cropped; the queries stay as they
are, since no crop of a cropped image brings back what was cut. Mirrored copies need no views: the queries are mirrored.

Each image is decoded once, for all encoders, and reduced to 64 x 64. All views are made of that picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import numpy as np
from PIL import Image

from chexray.encoders.base import HASH, MIRROR, Encoder, EncoderSpec
from chexray.encoders.resize import PILLOW, grey
from chexray.encoders.weight_free import WeightFreeEncoder

SIDE = 64
"""Of the small picture: four times the finest half wave of `perceptual_hash`, twice the grid of `patches`."""

VIEWS_VERSION = 1
"""Raised whenever a view of the same small picture changes."""

DEGREES = (-8.0, -4.0, 0.0, 4.0, 8.0)
KEPT = (1.0, 0.93, 0.86)
"""Share of each side that a crop about the centre leaves. With 4 degrees and 7 % between the views, any turn up to 10
degrees with any crop down to 82 % lies within 2 degrees and 4 % of one: 24 bits of the hash (median 15, 99 % of 80
radiographs), where unrelated radiographs are 38 bits apart or more."""


@dataclass(frozen=True)
class View:
    """Turned by `degrees` about the centre, then all but the central `kept` of each side cut off."""

    degrees: float
    kept: float

    def __str__(self) -> str:
        parts = [f"turned by {abs(self.degrees):g} degrees"] if self.degrees else []
        parts += [f"cropped to {100 * self.kept:g} %"] if self.kept < 1 else []
        return " and ".join(parts)


VIEWS = tuple(
    sorted((View(degrees, kept) for degrees in DEGREES for kept in KEPT), key=lambda v: (v.degrees != 0, v.kept != 1))
)
"""The image as it is comes first: where two views are equally near, it is the one that is named."""


class SmallImages(WeightFreeEncoder):
    """The image averaged over 64 x 64 cells, its only output "image": 4,096 greys in 0..255 as uint8, row by row.

    The aspect ratio is not kept. Being an encoder gives it what features have: it is made of the same decoded pixels as
    they are, and stored by content, so that a run goes on where it stopped.
    """

    name: ClassVar[str] = "small_images"

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        spec = self._describe(f"box-{SIDE}/{PILLOW}", {"image": SIDE**2}, (SIDE, SIDE))
        return replace(spec, input_dtype="uint8", output_dtype="uint8")

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to (64, 64) uint8."""
        # Pillow's box filter: the means of `pixels` within one grey level, in a tenth of the time.
        return np.asarray(Image.fromarray(grey(image)).resize((SIDE, SIDE), Image.Resampling.BOX))

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """{"image": (n, 4096) uint8}: each small picture in one row, copied."""
        return {"image": np.array(batch, np.uint8, order="C", copy=True).reshape(len(batch), SIDE**2)}


def has_views(spec: EncoderSpec) -> bool:
    """Whether a search can use views: the encoder has no weights, and knows the features of the mirror image.

    A grid finer than the small picture would compare what the views do not hold.
    """
    return bool(spec.roles & {HASH, MIRROR}) and spec.weights == "none" and spec.options.get("side", 1) <= SIDE


def views_of(picture: np.ndarray) -> np.ndarray:
    """(views, 64, 64) uint8 of one small picture, (64, 64) uint8. The border is repeated where a turn looks past it.

    Bilinear, with weights in whole 256ths: sums of whole numbers, equal on every machine.
    """
    place, weight = _taps()
    greys = picture.reshape(-1).astype(np.int32)[place]
    greys *= weight
    return ((greys.sum(1) + (1 << 15)) >> 16).astype(np.uint8).reshape(len(VIEWS), SIDE, SIDE)


def view_features(encoder: Encoder, plain: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """(n, views * width) float32: what the encoder makes of each view, view after view, the first being `plain`.

    plain: (n, width) float32 features of the images themselves; pictures: (n, 4096) uint8, their small pictures.
    """
    found = np.empty((len(plain), len(VIEWS), plain.shape[1]), np.float32)
    found[:, 0] = plain
    for row, picture in enumerate(pictures):
        prepared = np.stack([encoder.prepare(view) for view in views_of(picture)[1:]])
        found[row, 1:] = encoder.encode(prepared)["features"]
    return found.reshape(len(plain), -1)


@cache
def _taps() -> tuple[np.ndarray, np.ndarray]:
    """(place, weight), (views, 4, 4096) int32: the four pixels that each pixel of each view is mixed of."""
    middle = (SIDE - 1) / 2
    down, across = np.meshgrid(np.arange(SIDE) - middle, np.arange(SIDE) - middle, indexing="ij")
    place = np.empty((len(VIEWS), 4, SIDE**2), np.int32)
    weight = np.empty_like(place)
    for i, view in enumerate(VIEWS):
        turn = math.radians(view.degrees)
        x = view.kept * (math.cos(turn) * across - math.sin(turn) * down) + middle
        y = view.kept * (math.sin(turn) * across + math.cos(turn) * down) + middle
        # In 256ths of a pixel; rounding first makes the place and the weights agree.
        fine = [np.rint(256 * np.clip(each, 0, SIDE - 1)).astype(np.int32).ravel() for each in (y, x)]
        low = [np.minimum(each >> 8, SIDE - 2) for each in fine]
        part = [each - (start << 8) for each, start in zip(fine, low, strict=True)]
        for tap, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            place[i, tap] = (low[0] + dy) * SIDE + low[1] + dx
            weight[i, tap] = (part[0] if dy else 256 - part[0]) * (part[1] if dx else 256 - part[1])
    return place, weight
