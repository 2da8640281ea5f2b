"""How far two greyscale images are apart pixel by pixel, in grey levels: truly, and as it was published."""

from __future__ import annotations

import numpy as np


def pixel_rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean squared difference of two images of the same shape, in their grey levels: 0..255 for uint8.

    Differences are taken in float64. 0 for equal images; symmetric; rises with every pixel that moves further away.
    """
    _check(a, b)
    difference = a.astype(np.float64)
    difference -= b
    return float(np.sqrt(np.mean(np.square(difference, out=difference))))


def wrapped_pixel_rms(real: np.ndarray, generated: np.ndarray) -> float:
    """What CheXGenBench computes in place of `pixel_rms`: the difference is taken in uint8, where it wraps modulo 256.

    Wrong, and here only to stand beside its published numbers. An image brighter by one grey level scores 255, one
    darker by one grey level scores 1, so it is not symmetric; any two images whose difference has either sign at random
    score near 147, which is the value of uniform noise; and over blended pairs it falls as the true distance rises.
    """
    _check(real, generated)
    if real.dtype != np.uint8 or generated.dtype != np.uint8:
        raise ValueError(f"only uint8 wraps as upstream's images do; found {real.dtype} and {generated.dtype}")
    difference = np.subtract(real, generated).astype(np.float64)
    return float(np.sqrt(np.mean(np.square(difference, out=difference))))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"images of one shape, with pixels; found {a.shape} and {b.shape}")
