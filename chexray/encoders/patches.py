"""Weight-free encoder of local structure: greys of small patches, each brought to its own zero and its own scale."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from chexray.encoders.base import MIRROR, SPACE, EncoderSpec
from chexray.encoders.options import Option
from chexray.encoders.pixels import cell_means
from chexray.encoders.weight_free import WeightFreeEncoder
from chexray.errors import ConfigError

CONTRAST_FLOOR = 0.02
"""Greys on [0, 1], about 5 of 255: a patch that varies less is air or noise and is not blown up to full contrast."""


class Patches(WeightFreeEncoder):
    """Locally normalised greys: small patches of a coarse grid, each centred and scaled; no weights, no torch.

    features: side * side values, patch after patch from the top left, inside a patch row by row. The image is averaged
    over side x side cells (as in `pixels`) on [0, 1] and cut into patches of patch x patch cells; each becomes
    (x - mean) / sqrt(variance + 0.02^2). A copy stays near whatever was done to brightness and contrast, of the whole
    image or smoothly across it, and two chests that merely share a silhouette do not. A mirrored copy is far away.
    `precision` is accepted and has no meaning: the arithmetic is float64.
    """

    name: ClassVar[str] = "patches"
    roles: ClassVar[frozenset[str]] = frozenset({SPACE, MIRROR})
    allowed: ClassVar[dict[str, Option]] = {
        "side": Option(32, int, about="cells on each side of the grid, 1 to 256"),
        "patch": Option(8, int, about="cells on each side of a patch; divides `side`"),
    }
    cannot_see: ClassVar[str] = "brightness, contrast, and what is finer than a cell of its grid: blur, noise, texture"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.side, self.patch = self.options["side"], self.options["patch"]
        if not 1 <= self.side <= 256:
            raise ConfigError(f"patches: side is {self.side}; expected 1 to 256 cells.")
        if self.patch < 2 or self.side % self.patch:
            raise ConfigError(
                f"patches: side {self.side} is not a multiple of patch {self.patch}, or a patch has one cell. "
                "Use patches of at least 2 cells that fill the grid, such as side: 32, patch: 8."
            )

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        return self._describe(
            f"area-{self.side}/255/patch-{self.patch}/floor-{CONTRAST_FLOOR}",
            {"features": self.side**2},
            (self.side, self.side),
        )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to the (side, side) float32 cell means in [0, 1]."""
        return (cell_means(image, self.side) / 255).astype(np.float32)

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The normalised patches of each image in one row."""
        count, across, patch = len(batch), self.side // self.patch, self.patch
        blocks = batch.astype(np.float64).reshape(count, across, patch, across, patch).swapaxes(2, 3)
        cells = np.ascontiguousarray(blocks).reshape(count, across**2, patch**2)
        centred = cells - cells.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + CONTRAST_FLOOR**2)
        return {"features": (centred / scale).astype(np.float32).reshape(count, self.side**2)}

    def mirror_order(self) -> np.ndarray:
        """(side * side,) int64: features in this order are those of the mirrored image (left and right), but for
        rounding."""
        across, patch = self.side // self.patch, self.patch
        places = np.arange(self.side**2).reshape(across, across, patch, patch)
        return places[:, ::-1, :, ::-1].reshape(-1)
