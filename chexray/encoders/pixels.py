"""Weight-free encoder: the image on a coarse grid. For demos, tests and as the floor any learned encoder must beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from chexray.encoders.base import MIRROR, SPACE, EncoderSpec
from chexray.encoders.options import Option
from chexray.encoders.resize import grey
from chexray.encoders.weight_free import WeightFreeEncoder
from chexray.errors import ConfigError


class Pixels(WeightFreeEncoder):
    """Area-averaged greys on a coarse grid; no weights, no download, no torch.

    features: side * side values in [0, 1], row by row from the top left. Each is the mean of the image over its cell;
    a pixel on a border counts by the share that lies inside. An image smaller than the grid repeats its pixels.
    The aspect ratio is not kept. What a cell averages away is not seen: Gaussian blur of 4 pixels of 512 leaves FID and
    KID of 8 x 8 cells as they are; `wavelets` sees it. `precision` is accepted and has no meaning: the arithmetic is
    float64.
    """

    name: ClassVar[str] = "pixels"
    roles: ClassVar[frozenset[str]] = frozenset({SPACE, MIRROR})
    allowed: ClassVar[dict[str, Option]] = {"side": Option(16, int, about="cells on each side of the grid, 1 to 256")}
    cannot_see: ClassVar[str] = "what is finer than a cell of its grid: blur, noise, texture"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.side: int = self.options["side"]
        if not 1 <= self.side <= 256:
            raise ConfigError(f"pixels: side is {self.side}; expected 1 to 256 cells.")

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        return self._describe(f"area-{self.side}", {"features": self.side**2}, (self.side, self.side))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to the (side, side) float32 cell means in [0, 1]."""
        return (cell_means(image, self.side) / 255).astype(np.float32)

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The cells of each image in one row."""
        return {"features": np.array(batch, np.float32, order="C", copy=True).reshape(len(batch), self.side**2)}

    def mirror_order(self) -> np.ndarray:
        """(side * side,) int64: features in this order are those of the mirrored image (left and right), but for
        rounding."""
        return np.arange(self.side**2).reshape(self.side, self.side)[:, ::-1].reshape(-1)


def cell_means(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float64 in 0..255: the mean of a (height, width) uint8 image over each cell of an even grid."""
    height, width = grey(image).shape
    rows = cell_sums(image, side) * (side / height)
    return cell_sums(rows.T, side).T * (side / width)


def cell_sums(values: np.ndarray, cells: int) -> np.ndarray:
    """(cells, width) float64: sums over equal stretches of the first axis, by differences of its running integral.

    Sums of bytes are exact in float64, so the result depends neither on a BLAS nor on the number of threads. When
    `cells` is a power of two so are all shares of border pixels: sums of bytes over both axes are then exact too.
    """
    length = len(values)
    edges = np.arange(cells + 1) * length / cells
    whole = np.minimum(edges.astype(np.int64), length - 1)
    integral = np.zeros((length + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=integral[1:])
    at_edges = integral[whole] + (edges - whole)[:, None] * values[whole]
    return np.diff(at_edges, axis=0)
