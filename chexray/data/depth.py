"""What black and white are in an image of more than 8 bits: declared by its file, or one depth for its whole set.

A scanner stores 10 to 14 bits in 16-bit files, so a shift by 8 leaves its images black. A scale taken from each image
hides what sets differ in: a generator at half brightness looked perfect. A depth of `bits` means that 0 is black and
2^bits - 1 is white. It may be negative: -12 is two's complement, -2048 to 2047. Floats in [0, 1] have 1 bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chexray.data.rejects import Reject

DEPTHS = (8, 10, 12, 14, 16, 24, 32)
"""Depths that are looked for where none is declared: 8 to 16 as detectors have them, and what 32-bit files hold."""


@dataclass(frozen=True)
class Depth:
    """The depth of a set. given: by the user, and then it counts before what files declare; else found in a sample.

    bits 0: no image of the sample needed one, so that an image which does need it is rejected.
    """

    bits: int = 0
    given: bool = False

    def __str__(self) -> str:
        return f"{'given' if self.given else 'found'} {self.bits}"

    @classmethod
    def parse(cls, text: str | None) -> Depth | None:
        """The inverse of `str`, and None of None: an image without a set."""
        if text is None:
            return None
        how, _, bits = text.partition(" ")
        return cls(int(bits), how == "given")


@dataclass
class Facts:
    """What decoding one image found out about its file, filled in on the way.

    container: PNG, JPEG, DICOM and so on. mode: such as "grey, 16 bits". deep: whether its depth decides its grey
    levels, which a window of DICOM and 8 bits leave none to decide. declared: whether the file says by itself what it
    is. needs: the smallest depth that holds an image which does not say. clipped: whether values beyond the depth were
    cut off. contradicts: whether a DICOM file names both ends as white.
    """

    container: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    deep: bool = False
    declared: bool = True
    needs: int = 0
    clipped: bool = False
    contradicts: bool = False


def full_range(bits: int) -> tuple[float, float]:
    """(black, white) of a depth."""
    if bits < 0:
        return -(2.0 ** (-bits - 1)), 2.0 ** (-bits - 1) - 1
    return 0.0, 2.0**bits - 1


def holding(lowest: float, highest: float, *, of_floats: bool = False) -> int:
    """The smallest depth whose range holds both values; 0 when none does."""
    if of_floats and lowest >= 0 and highest <= 1:
        return 1
    for bits in DEPTHS:
        low, high = full_range(-bits if lowest < 0 else bits)
        if low <= lowest and highest <= high:
            return -bits if lowest < 0 else bits
    return 0


def holding_all(needs: Sequence[int]) -> int:
    """The smallest depth that holds every image of a set, from what each of them needs; 0 for none."""
    ends = [full_range(bits) for bits in needs]
    if not ends:
        return 0
    return holding(min(low for low, _ in ends), max(high for _, high in ends), of_floats=True)


def chosen(
    lowest: float, highest: float, facts: Facts, *, depth: Depth | None, declared: int = 0, of_floats: bool = False
) -> int | Reject:
    """The depth of one image whose values run from `lowest` to `highest`, in bits.

    depth: of its set, None for an image that stands alone. declared: by the file, or 0.
    """
    facts.deep, facts.declared = True, declared != 0
    if not declared:
        facts.needs = holding(lowest, highest, of_floats=of_floats)
        if not facts.needs:
            return Reject("unsupported", "pixel values beyond 32 bits")
    bits = depth.bits if depth and depth.given else declared or (depth.bits if depth else facts.needs)
    if not bits:
        return Reject(
            "unsupported",
            f"a file that does not say how many bits it uses (at least {abs(facts.needs)}), and the sample of its set "
            "has none like it. Give the set `bits`, such as 12 or 16",
        )
    black, white = full_range(bits)
    facts.clipped = lowest < black or highest > white
    return bits


def levels(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values of any type to uint8, `black` to 0 and `white` to 255, rounded; what lies beyond is cut off.

    Scales from black to white have an odd number of steps, so that no value lies half way between two levels.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2 and values.size > 1 << 16:
        table = _levels(np.arange(1 << 16, dtype=np.uint16).view(values.dtype), black, white)
        return table[values.view(np.uint16)]
    return _levels(values, black, white)


def _levels(values: np.ndarray, black: float, white: float) -> np.ndarray:
    level = values.astype(np.float64)
    level -= black
    level *= 255 / (white - black)
    np.clip(level, 0, 255, out=level)
    return np.rint(level, out=level).astype(np.uint8)
