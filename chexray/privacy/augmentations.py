"""What a copy may look like when it comes back: small named changes after which a radiograph still shows its patient.

Each takes an image, (h, w) uint8, and a generator of random numbers, and returns a new image of that shape and type.
Copies planted with them measure what a search or a filter finds (arXiv 2510.01793): a filter that sees only identical
images is none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]

CROP_SHARE = 0.04
"""Of each side that a crop takes away."""
GAINS = (0.8, 1.2)
GAMMAS = (0.85, 1.15)
NOISE_SD = 5.0
"""Grey levels, about the quantum noise of a portable film."""
DEGREES = (2.0, 3.0)
JPEG_QUALITY = 50


def identity(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image itself: what even a search for equal pixels must find."""
    return _checked(image).copy()


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Left and right exchanged, as most training pipelines do at random."""
    return _checked(image)[:, ::-1].copy()


def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """4 % less at each side, resized back."""
    return _crop(_checked(image), CROP_SHARE)


def contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gain 0.8 or 1.2 about the mean, then gamma 0.85 or 1.15: another window of the same film."""
    return _contrast(_checked(image), float(rng.choice(GAINS)), float(rng.choice(GAMMAS)))


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise of 5 grey levels."""
    return _noise(_checked(image), NOISE_SD, rng)


def rotation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """2 to 3 degrees either way about the centre; the border is repeated, so no black wedge gives it away."""
    degrees = float(rng.uniform(*DEGREES) * rng.choice([-1, 1]))
    return _rotate(_checked(image), degrees)


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through JPEG of quality 50 and back."""
    packed = io.BytesIO()
    Image.fromarray(_checked(image)).save(packed, format="JPEG", quality=JPEG_QUALITY)
    with Image.open(packed) as back:
        return np.array(back)


def combined(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A little of several at once, at about half strength: crop of 2 %, 1 degree, gain 0.9 or 1.1, noise of 2.5."""
    turned = _rotate(_crop(_checked(image), CROP_SHARE / 2), float(rng.choice([-1, 1])))
    return _noise(_contrast(turned, float(rng.choice([0.9, 1.1])), 1.0), NOISE_SD / 2, rng)


AUGMENTATIONS: dict[str, Augmentation] = {
    "identity": identity, "flip": flip, "crop": crop, "contrast": contrast, "noise": noise, "rotation": rotation,
    "jpeg": jpeg, "combined": combined,
}  # fmt: skip
"""By name, in the order in which an audit shows them; a new one is a new entry."""

EXACT = "exact"
ALTERATIONS: dict[str, Augmentation] = {
    EXACT: identity,
    "mirrored": flip,
    "turned_3": lambda image, rng: _either_way(image, 3, rng),
    "turned_6": lambda image, rng: _either_way(image, 6, rng),
    "turned_9": lambda image, rng: _either_way(image, 9, rng),
    "cropped_90": lambda image, rng: _crop(_checked(image), 0.05),
    "cropped_85": lambda image, rng: _crop(_checked(image), 0.075),
    "turned_9_cropped_85": lambda image, rng: _crop(_either_way(image, 9, rng), 0.075),
    "contrast": contrast,
    "blurred": lambda image, rng: _blurred(_checked(image), 2 / 512),
    "moved_5": lambda image, rng: _moved(_checked(image), 0.05, rng),
}
"""What a run plants to say which altered copies its own search finds, beyond what an audit plants: turns and crops in
steps, up to those at which a plain search goes blind. Turns are about the centre, crops leave the centre, `moved_5`
keeps 95 % of each side at one corner. Blur: a Gaussian of 2 pixels in 512."""

ALTERED = {
    EXACT: "exact", "mirrored": "mirrored", "turned_3": "turned 3 degrees", "turned_6": "turned 6 degrees",
    "turned_9": "turned 9 degrees", "cropped_90": "cropped to 90 %", "cropped_85": "cropped to 85 %",
    "turned_9_cropped_85": "turned 9 degrees and cropped to 85 %", "contrast": "contrast changed by 20 %",
    "blurred": "blurred", "moved_5": "cut by 5 % at two sides",
}  # fmt: skip
"""The same in words."""


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"an augmentation takes (h, w) uint8 images, found {image.shape} {image.dtype}")
    return np.ascontiguousarray(image)


def _to_uint8(grey: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _crop(image: np.ndarray, share: float) -> np.ndarray:
    height, width = image.shape
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _either_way(image: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    return _rotate(_checked(image), degrees * float(rng.choice([-1, 1])))


def _blurred(image: np.ndarray, share: float) -> np.ndarray:
    """A Gaussian of `share` of the shorter side."""
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(share * min(image.shape))))


def _moved(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A crop that leaves one of the four corners and moves the centre."""
    height, width = image.shape
    down, right = share * height * rng.integers(2), share * width * rng.integers(2)
    box = (right, down, right + (1 - share) * width, down + (1 - share) * height)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


def _contrast(image: np.ndarray, gain: float, gamma: float) -> np.ndarray:
    mean = float(image.mean())
    level = np.clip(mean + gain * (np.arange(256) - mean), 0, 255)
    return _to_uint8(255 * (level / 255) ** gamma)[image]


def _noise(image: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(image + np.float32(sd) * rng.standard_normal(image.shape, dtype=np.float32))


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    height, width = image.shape
    margin = math.ceil(math.hypot(height, width) / 2 * math.sin(math.radians(abs(degrees)))) + 2
    padded = Image.fromarray(np.pad(image, margin, mode="edge"))
    turned = np.asarray(padded.rotate(degrees, Image.Resampling.BICUBIC))
    return np.ascontiguousarray(turned[margin : margin + height, margin : margin + width])
