"""Weight-free encoder of fine structure: how strong each wavelet band is, and how sparse, in each part of the image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from chexray.encoders.base import EncoderSpec
from chexray.encoders.options import Option
from chexray.encoders.pixels import cell_sums
from chexray.encoders.resize import grey
from chexray.encoders.weight_free import WeightFreeEncoder

CELLS = 4
"""Cells across and down. Each holds 4 x 4 coefficients of the coarsest band and more of the finer ones."""

COARSEST = 16
"""Coefficients across and down of the coarsest band: what is coarser is in the 16 x 16 means of `pixels`."""

FLOOR = 1 / 12
"""Squared grey levels: the variance of rounding to whole greys. A band below it is not told from a constant image."""

OCTAVES = 8
"""Of an 8-bit grey value: strengths lie between -0.22 (rounding alone) and about 1, as the greys of `pixels` do."""

LOW_PASS = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / (4 * 2**0.5)
"""Daubechies' filter of 4 taps (Daubechies 1988): no answer to constant greys or even ramps, as Haar's would have."""

HIGH_PASS = LOW_PASS[::-1] * (1, -1, 1, -1)


class Wavelets(WeightFreeEncoder):
    """Strength and sparseness of wavelet bands in 4 x 4 cells: sees blur, noise and texture; no weights, no torch.

    features: 2 * 16 * bands values, with log2(side) - 4 bands: 128 at side 256, 160 at 512, 192 at 1024. For each band,
    from the finest (structures of 2 to 4 pixels of the grid) to the coarsest (1/16 to 1/8 of the image), cell by cell
    from the top left: 16 strengths, log2(root mean square of the coefficients in grey levels) / 8, so that half the
    amplitude is 1/8 less; then 16 times mean absolute value / root mean square, which is 0.80 for Gaussian noise and
    less for few strong edges, so that noise in place of detail does not pass. A band pools its three orientations.

    Preprocessing: the whole image on a grid of side x side, aspect ratio not kept. An axis longer than `side` is
    averaged over equal stretches, a shorter one interpolated linearly, so that an image of fewer pixels lacks the
    finest bands. Blur far narrower than a pixel of the grid is averaged away: for images of more than `side` pixels,
    take a larger `side`, which costs four times as much for twice the side. Then an orthonormal, decimated wavelet
    transform with mirrored borders (Mallat 1989); energies of its bands are a classical description of texture, and
    the two numbers stand for the generalised Gaussian of Do and Vetterli (2002).

    It sees neither overall brightness nor shapes: `cannot_see`. `precision` is accepted and has no meaning: the
    arithmetic is float64.
    """

    name: ClassVar[str] = "wavelets"
    allowed: ClassVar[dict[str, Option]] = {
        "side": Option(512, int, (64, 128, 256, 512, 1024, 2048), "pixels on each side of the transformed grid")
    }
    cannot_see: ClassVar[str] = "overall brightness, and which anatomy gives an edge or a texture"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.side: int = self.options["side"]
        self.bands: int = (self.side // COARSEST).bit_length() - 1
        self.width: int = 2 * self.bands * CELLS**2

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        return self._describe(
            f"area-or-linear-{self.side}/daubechies-4-taps/{self.bands}-bands/log2-over-{OCTAVES}-and-evenness/floor-{FLOOR:.4f}",
            {"features": self.width},
            (self.width,),
        )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to the (features,) float32. Done here, in place of sending side * side greys on."""
        low = on_grid(image, self.side)
        found = []
        for _ in range(self.bands):
            low, details = _one_level(low)
            squares, sizes = _cells(np.square(details).mean(0)), _cells(np.abs(details).mean(0))
            # Rounding counts as Gaussian noise: its mean absolute value, squared, is 2 / pi of its mean square.
            energy = squares + FLOOR
            evenness = np.sqrt((np.square(sizes) + FLOOR * 2 / np.pi) / energy)
            found += [np.log2(energy) / (2 * OCTAVES), evenness]
        return np.concatenate(found).astype(np.float32)

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """What `prepare` computed."""
        return {"features": np.array(batch, np.float32, order="C", copy=True).reshape(len(batch), self.width)}


def on_grid(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float64 in 0..255: a (height, width) uint8 image averaged, or interpolated, along each axis."""
    return _along(_along(grey(image), side).T, side).T


def _along(values: np.ndarray, side: int) -> np.ndarray:
    """(side, width) float64: the first axis at `side` samples."""
    length = len(values)
    if length == side:
        return values.astype(np.float64)
    if length > side:
        return cell_sums(values, side) * (side / length)
    place = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
    below = np.minimum(place.astype(np.int64), max(length - 2, 0))
    above = np.minimum(below + 1, length - 1)
    share = (place - below)[:, None]
    return values[below] * (1 - share) + values[above] * share


def _one_level(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low (n / 2, n / 2), details (3, n / 2, n / 2)) of an (n, n) image, n even, float64. But for the border, the
    squares of all four add up to the image's."""
    smooth, rough = _halves(image)
    low, upright = _halves(smooth.T)
    level, diagonal = _halves(rough.T)
    return low.T, np.stack([upright.T, level.T, diagonal.T])


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both filters along the first axis of (n, m), at every second place: two (n / 2, m)."""
    # Two rows beyond the end are enough for 4 taps; they repeat the last ones in reverse order.
    longer = np.concatenate([values, values[:-3:-1]])
    low, high = np.zeros((2, len(values) // 2, values.shape[1]))
    for start in range(4):
        taps = longer[start : start + len(values) : 2]
        low += LOW_PASS[start] * taps
        high += HIGH_PASS[start] * taps
    return low, high


def _cells(values: np.ndarray) -> np.ndarray:
    """(16,) means of an (n, n) array over 4 x 4 equal cells."""
    step = len(values) // CELLS
    return values.reshape(CELLS, step, CELLS, step).mean((1, 3)).ravel()
