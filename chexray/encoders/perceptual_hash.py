"""Weight-free encoder for duplicates: 256 signs of low frequencies that survive editing, and a digest that does not.

Measured on 602 radiographs of ChestX-ray14 (512 x 512), in bits of 256, after bringing the copy back to size:

| copy against its original | median | 99 % | within 40 bits |
|---|---|---|---|
| crop of 2 / 4 / 5 % a side | 14 / 31 / 38 | 26 / 47 / 56 | 100 / 95 / 64 % |
| the same, mirrored (times `mirror_signs()`) | 14 / 31 / 38 | 26 / 47 / 56 | 100 / 95 / 64 % |
| contrast +-20 %; noise of 5 greys; JPEG quality 50 | 0; 2; 2 | 3; 7; 8 | 100 % |
| rotation of 2 degrees | 15 | 24 | 100 % |
| rotation of 1 degree, crop of 3 %, contrast +20 %, JPEG | 25 | 37 | 99 % |
| crop of 4 % at two sides only: the centre moves | 59 | 88 | 5 %: not found |

Another patient, as is or mirrored, whichever is nearer: the nearest of 380 training images is 69 bits from a test image
(median; at least 44). Of 180,446 such pairs none is within 40 bits, 2 within 44, 40 within 54: ten times rarer for
every 8 bits. Of 455 pairs of one patient's studies one is within 40. Phantoms resemble each other far more: of 200,
27 % have one of another 200 within 40 bits, 4 % within 32, 0.5 % within 24.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

import numpy as np

from chexray.encoders.base import HASH, EncoderSpec
from chexray.encoders.pixels import cell_sums
from chexray.encoders.resize import grey
from chexray.encoders.weight_free import WeightFreeEncoder

SIDE = 64
FREQUENCIES = np.arange(1, 17)
"""In half waves an image, down and across. 0 is left out: mean rows and columns are the silhouette all chests share."""

BITS = len(FREQUENCIES) ** 2
WINDOW_POWER = 4
"""Of the sine that fades the image out towards its border: a crop changes the border first, and a plain cosine
transform would hand that change to every coefficient (a crop of 4 % then turns over 100 bits at worst, not 50)."""

NEAR_BITS = 40
"""Recommended threshold: at most so many differing bits is a near duplicate (table above), for some thousand training
images. Beside 100,000 look-alikes come within 40 bits by chance: compare with held-out images, or use 24 to 32."""

DIGEST_WORDS = 8
"""Words of 16 bits, so that each is a whole number float32 holds exactly."""

_SILENT = 1e-12
"""Coefficients below this share of the image's sum are rounding: the image has nothing of that frequency."""


class PerceptualHash(WeightFreeEncoder):
    """Signs of 256 low frequencies for near duplicates, a digest of the pixels for exact ones; no weights, no torch.

    features: +1 or -1, the signs of a windowed cosine transform of the image averaged over 64 x 64 cells, frequencies 1
    to 16 down (slowest) and across. Squared distance = 4 * differing bits. Robust to crop, contrast, brightness, noise,
    small rotation and JPEG. An image with exactly nothing of a frequency (constant, or symmetric) has 0 there: constant
    images are 0 bits from each other and 64 from all others.
    `features * mirror_signs()` is exactly the hash of the horizontally mirrored image.
    digest: 8 whole numbers below 65536, a 128-bit BLAKE2b of (height, width, pixels) as decoded. Equal digest = equal
    pixels, so a picture stored again in another lossless file is an exact duplicate.
    `precision` is accepted and has no meaning: the arithmetic is float64.
    """

    name: ClassVar[str] = "perceptual_hash"
    roles: ClassVar[frozenset[str]] = frozenset({HASH})
    near_bits: ClassVar[int] = NEAR_BITS

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        return self._describe(
            f"area-{SIDE}/sine^{WINDOW_POWER}/dct-signs-1..16x1..16",
            {"features": BITS, "digest": DIGEST_WORDS},
            (BITS + DIGEST_WORDS,),
        )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to (264,) float32: the hash, then the digest. Needs the pixels, so it is done here."""
        image = grey(image)
        return np.concatenate([_signs(image), _digest(image)])

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The two parts of what `prepare` computed."""
        parts = {"features": batch[:, :BITS], "digest": batch[:, BITS:]}
        return {name: np.array(part, np.float32, order="C", copy=True) for name, part in parts.items()}

    @staticmethod
    def mirror_signs() -> np.ndarray:
        """(256,) float32, +1 or -1: times a hash, this is the hash of the horizontally mirrored image, exactly."""
        return np.tile(np.where(FREQUENCIES % 2, -1, 1).astype(np.float32), len(FREQUENCIES))


def _half_waves(frequencies: np.ndarray) -> np.ndarray:
    """(frequencies, SIDE) windowed cosines, the rows of a DCT-II."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    return np.cos(np.pi * frequencies[:, None] * place) * np.sin(np.pi * place) ** WINDOW_POWER


def _signs(image: np.ndarray) -> np.ndarray:
    """(256,) float32 of -1, 0 and 1.

    The sums are exact and the two halves are folded before anything is rounded: mirroring the image changes the sign
    of the odd half and nothing else, so the law of the mirror holds to the last bit.
    """
    cells = cell_sums(cell_sums(image, SIDE).T, SIDE).T
    left, right = cells[:, : SIDE // 2], cells[:, : SIDE // 2 - 1 : -1]
    even, odd = np.ascontiguousarray(left + right), np.ascontiguousarray(left - right)
    waves, window = _half_waves(FREQUENCIES), _half_waves(np.zeros(1))[0]
    half_waves, half_window = waves[:, : SIDE // 2], window[: SIDE // 2]
    # Brightness would leak through the window into the lowest frequencies: the mean under the window goes first.
    mean = window @ even @ half_window / (window.sum() * half_window.sum())
    values = np.empty((len(FREQUENCIES), len(FREQUENCIES)))
    values[:, 0::2] = waves @ odd @ half_waves[0::2].T
    values[:, 1::2] = waves @ (even - mean) @ half_waves[1::2].T
    values[np.abs(values) <= _SILENT * even.sum()] = 0
    return np.sign(values).astype(np.float32).ravel()


def _digest(image: np.ndarray) -> np.ndarray:
    """(8,) float32 of whole numbers below 65536."""
    code = hashlib.blake2b(f"{image.shape[0]} {image.shape[1]} ".encode(), digest_size=2 * DIGEST_WORDS)
    code.update(image.tobytes())
    return np.frombuffer(code.digest(), "<u2").astype(np.float32)
