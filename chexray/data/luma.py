"""One grey value of three colours at their full depth (ITU-R BT.601), in whole numbers."""

from __future__ import annotations

import numpy as np


def luma(colour: np.ndarray) -> np.ndarray:
    """(h, w, 3 or more) of unsigned whole numbers of at most 16 bits to (h, w) uint16, as Pillow weighs 8 bits."""
    red, green, blue = (colour[..., channel].astype(np.uint32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint16)
