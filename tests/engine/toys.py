"""A toy encoder for engine tests: four statistics of an image, with faults on demand. Sent to workers by value."""

from __future__ import annotations

import os
import sys

import numpy as np
from ray import cloudpickle

from chexray.encoders.base import EncoderSpec

cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEADLY, UNDEFINED = 7, 9
"""A constant image of this grey level kills the process, or yields NaN."""


class Toy:
    def __init__(self, revision: str = "1", kill_once: str = ""):
        self.revision = revision
        self.kill_once = kill_once
        self.seen = 0

    def resolve(self) -> EncoderSpec:
        return EncoderSpec(
            "toy", "", "", self.revision, "corner8", "fp32", {"features": 4}, (8, 8), "uint8", 1, {"toy": True}
        )

    def load(self, device: str) -> None:
        self.loaded = True

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image[:8, :8]

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        self.seen += len(batch)
        if self.kill_once and self.seen > 20:
            try:
                os.close(os.open(self.kill_once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(1)
        rows = []
        for image in batch.astype(np.float64):
            if image.min() == image.max() == DEADLY:
                os._exit(1)
            top = np.nan if image.max() == UNDEFINED else image.max()
            rows.append([image.mean(), image.std(), image[0].mean(), top])
        return {"features": np.array(rows, np.float32).reshape(-1, 4)}
