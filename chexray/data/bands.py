"""Large images in bands of rows, so that what is computed between two types never exists for the whole image."""

from __future__ import annotations

from collections.abc import Iterator

BAND_PIXELS = 1 << 22
"""4 million pixels: most radiographs are one band, and 32 MB when they are float64."""


def bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that cover an image from top to bottom, each of about BAND_PIXELS pixels."""
    rows = max(1, BAND_PIXELS // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(height, start + rows))
