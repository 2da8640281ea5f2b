"""Named resizes of greyscale images: a resize is part of an encoder's definition and is never inherited from a library.

Those that FID implementations use differ by up to 9 % of the feature norm (parity oracle, formula-filled Inception):

| name | as in | result |
|---|---|---|
| `bicubic_antialias` | clean-fid "clean" (Parmar et al. 2022): Pillow on floats, clipped, not rounded | float32 |
| `bilinear_antialias` | torchmetrics' default, `F.interpolate(..., antialias=True)` | float32 |
| `tf1_bilinear` | TensorFlow 1 and torch-fidelity: no half-pixel shift, no antialiasing | float32 |
| `pil_bicubic` | Pillow on bytes, rounded | uint8 |
| `pil_bilinear` | Pillow on bytes, rounded; what CheXGenBench does | uint8 |

Everything here is numpy and Pillow: it runs in decoding workers, which never import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import Image

from chexray.errors import ConfigError

PILLOW = f"pillow-{PIL.__version__.split('.')[0]}"
"""Part of every preprocessing id: resampling may change with a major release of Pillow."""

MAX_ASPECT = 16
"""Above long:short = 16:1 the shorter-side resize first drops what its centre crop would drop anyway: see `cover`."""

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def grey(image: np.ndarray) -> np.ndarray:
    """The image itself, C order, if it is what `prepare` accepts: (height, width) uint8 with at least one pixel."""
    if image.ndim != 2 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"prepare takes a (height, width) uint8 image with pixels; found {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)


def pil_resize(image: np.ndarray, height: int, width: int, resample: str) -> np.ndarray:
    """(height, width) uint8: Pillow's resampling of bytes, rounded, aspect ratio not kept."""
    if image.shape == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), FILTERS[resample]))


def pil_resize_float(image: np.ndarray, height: int, width: int, resample: str) -> np.ndarray:
    """(height, width) float32 in 0..255: Pillow's resampling of floats, not rounded; bicubic overshoot is clipped."""
    picture = Image.fromarray(image.astype(np.float32)).resize((width, height), FILTERS[resample])
    return np.clip(np.asarray(picture), 0, 255)


def tf1_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) float32 in 0..255: TensorFlow 1, where output pixel i reads input position i * in / out.

    Positions are float32 because TensorFlow's are: in float64 some would round to the other neighbour.
    """
    low_y, high_y, y = _tf1_positions(image.shape[0], height)
    low_x, high_x, x = _tf1_positions(image.shape[1], width)

    def row(index: np.ndarray) -> np.ndarray:
        left, right = (image[np.ix_(index, columns)].astype(np.float32) for columns in (low_x, high_x))
        return left + (right - left) * x

    top, bottom = row(low_y), row(high_y)
    return top + (bottom - top) * y[:, None]


def _tf1_positions(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = np.arange(target, dtype=np.float32) * np.float32(size / target)
    low = np.minimum(position.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), position - low.astype(np.float32)


def cover(image: np.ndarray, shorter: int, resample: str) -> np.ndarray:
    """The image with its shorter side at `shorter` pixels and the other in proportion, rounded down; uint8.

    A strip longer than 16:1 is first cut to its central 16:1, so that one odd image (1 x 30,000 pixels) cannot ask for
    gigabytes: what is cut lies far outside any centre crop.
    """
    height, width = image.shape
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        image = centre_crop(image, min(height, longest), min(width, longest))
        height, width = image.shape
    longer = int(shorter * max(height, width) / min(height, width))
    size = (longer, shorter) if height > width else (shorter, longer)
    return pil_resize(image, *size, resample)


def centre_crop(image: np.ndarray, height: int, width: int, *, half_to_even: bool = False) -> np.ndarray:
    """The central (height, width) of an image at least that large.

    An odd margin is halved downwards, as transformers does, or with `half_to_even` as torchvision's round() does.
    """
    margins = (image.shape[0] - height, image.shape[1] - width)
    if min(margins) < 0:
        raise ValueError(f"cannot crop {height}x{width} from an image of {image.shape[0]}x{image.shape[1]}")
    top, left = (round(m / 2) if half_to_even else m // 2 for m in margins)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


@dataclass(frozen=True)
class NamedResize:
    """A resize to exactly (height, width) that does not keep the aspect ratio."""

    name: str
    dtype: str
    apply: Callable[[np.ndarray, int, int], np.ndarray]


RESIZES: dict[str, NamedResize] = {
    resize.name: resize
    for resize in (
        NamedResize("bicubic_antialias", "float32", lambda image, h, w: pil_resize_float(image, h, w, "bicubic")),
        NamedResize("bilinear_antialias", "float32", lambda image, h, w: pil_resize_float(image, h, w, "bilinear")),
        NamedResize("tf1_bilinear", "float32", tf1_bilinear),
        NamedResize("pil_bicubic", "uint8", lambda image, h, w: pil_resize(image, h, w, "bicubic")),
        NamedResize("pil_bilinear", "uint8", lambda image, h, w: pil_resize(image, h, w, "bilinear")),
    )
}


def resize(image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """A greyscale uint8 image at (height, width), by the resize of that name, in the dtype of that resize."""
    if name not in RESIZES:
        raise ConfigError(f"unknown resize {name!r}. Known: {', '.join(RESIZES)}.")
    return RESIZES[name].apply(grey(image), height, width)
