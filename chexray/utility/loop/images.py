"""The image cache of a training, as an encoder: every image is decoded and resized once, then read as bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from chexray.encoders.base import EncoderSpec
from chexray.encoders.options import Option
from chexray.encoders.resize import PILLOW, centre_crop, cover, grey, resize
from chexray.encoders.weight_free import WeightFreeEncoder
from chexray.errors import ConfigError

SIDES = (16, 2048)


class ResizedImages(WeightFreeEncoder):
    """The image at (side, side), its only output "image": side * side greys in 0..255 as uint8, row by row.

    resize: "squash" does not keep the aspect ratio (`pil_bilinear`: what CheXGenBench's Resize((224, 224)) does);
    "cover" scales the shorter side to `side` and keeps the centre. No weights, no torch. Being an encoder gives the
    cache what features have: shards on disk or S3, keys by content, a run that goes on where it stopped.
    Raises ConfigError for a side outside 16..2048 or another resize.
    """

    name: ClassVar[str] = "resized_images"
    allowed: ClassVar[dict[str, Option]] = {
        "side": Option(224, int),
        "resize": Option("squash", str, ("squash", "cover")),
    }

    def __init__(self, side: int = 224, resize: str = "squash", storage: object = None):
        super().__init__(storage=storage, side=side, resize=resize)
        self.side = side
        if not SIDES[0] <= side <= SIDES[1]:
            raise ConfigError(f"utility.image_size is {side}; expected {SIDES[0]} to {SIDES[1]} pixels a side.")

    def resolve(self) -> EncoderSpec:
        """The spec; there is nothing to find."""
        steps = f"squash-{self.side}-pil_bilinear"
        if self.options["resize"] == "cover":
            steps = f"cover-{self.side}-bilinear/crop_even-{self.side}-{self.side}"
        spec = self._describe(f"{steps}/{PILLOW}", {"image": self.side**2}, (self.side, self.side))
        return replace(spec, input_dtype="uint8", output_dtype="uint8")

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to (side, side) uint8."""
        if self.options["resize"] == "cover":
            return centre_crop(cover(grey(image), self.side, "bilinear"), self.side, self.side, half_to_even=True)
        return resize(image, self.side, self.side, "pil_bilinear")

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """{"image": (n, side * side) uint8}: the pixels of each prepared image in one row, copied."""
        return {"image": np.array(batch, np.uint8, order="C", copy=True).reshape(len(batch), self.side**2)}
