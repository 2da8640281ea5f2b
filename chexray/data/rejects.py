"""Why an image has no pixels: the one record of it, and the check of sizes that every decoder makes first."""

from __future__ import annotations

from dataclasses import dataclass

from chexray.text import one_line

DETAIL_CHARS = 500
"""Characters of a reject's detail."""
CLIPPED = "clipped"
"""Code of what is no reject: the image was encoded, and values beyond its set's depth were cut off."""
MAX_SIDE = 65_535
"""What JPEG and DICOM can hold. Resizing takes memory by side as well as by area: 4,000,000 x 1 pixels took 4 GB."""


@dataclass(frozen=True)
class Reject:
    """Why one image has no pixels. `transient` is true when another try may bring them.

    `code` is one of not_found, denied, unavailable, unreadable, changed (storage); empty, truncated, corrupt,
    not_an_image, unsupported, animated, no_pixels, too_large, out_of_memory (content). `detail` is one visible line
    without patient data: details name sizes and kinds, never bytes of the file.
    """

    code: str
    detail: str
    transient: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail, DETAIL_CHARS))


def check_size(width: int, height: int, max_pixels: int) -> Reject | None:
    """The Reject of an image without pixels or with too many, before any is decoded; None when its size is fine."""
    if width < 1 or height < 1:
        return Reject("no_pixels", f"{width} x {height} pixels")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        return Reject("too_large", f"{width} x {height} pixels, more than {max_pixels} or {MAX_SIDE} a side")
    return None
