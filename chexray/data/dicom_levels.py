"""From stored DICOM values to grey levels: bits, rescale or modality LUT, then VOI LUT or window, then MONOCHROME1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chexray.data.bands import bands
from chexray.data.depth import Depth, Facts, chosen, full_range
from chexray.data.rejects import Reject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def grey_of(pixels: np.ndarray, dataset: Dataset, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """(h, w) of stored values to uint8, a band at a time: float64 of a whole image is 8 bytes a pixel."""
    facts.contradicts = contradicts(dataset)
    stored = stored_range(pixels, dataset, depth, facts)
    if isinstance(stored, Reject):
        return stored
    height, width = pixels.shape
    grey = np.empty((height, width), np.uint8)
    if pixels.dtype.itemsize > 2:
        for rows in bands(height, width):
            grey[rows] = to_grey(shifted(pixels[rows], dataset), dataset, stored)
        return grey
    # A table over all stored values: exact in float64 without a float64 image.
    values = np.arange(np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max + 1, dtype=pixels.dtype)
    table = to_grey(shifted(values, dataset), dataset, stored)
    for rows in bands(height, width):
        grey[rows] = table[pixels[rows].astype(np.int32) - int(values[0])]
    return grey


def shifted(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Values of which HighBit names another bit than the one below BitsStored (PS3.5 8.1.1): theirs moved down."""
    used, high, held = int(dataset.BitsStored), int(dataset.get("HighBit") or 0), stored.dtype.itemsize * 8
    if not is_shifted(dataset):
        return stored
    # Up against the top and down again: the sign of two's complement comes along, other bits are lost.
    return (stored << (held - 1 - high)) >> (held - used)


def is_shifted(dataset: Dataset) -> bool:
    """Whether the values do not begin at the lowest bit."""
    return int(dataset.BitsStored) - 1 < int(dataset.get("HighBit") or 0) < int(dataset.BitsAllocated)


def stored_range(
    pixels: np.ndarray, dataset: Dataset, depth: Depth | None, facts: Facts
) -> tuple[float, float] | Reject:
    """The stored values that are black and white where neither a window nor a LUT says so.

    BitsStored declares them below the bits that are allocated. All 16 bits are also stored by scanners of 10 to 14.
    """
    used, signed = int(dataset.BitsStored), bool(dataset.get("PixelRepresentation"))
    declared = used if used < int(dataset.BitsAllocated) or used == 8 else 0
    declared = -declared if signed else declared
    if has_display_range(dataset):
        return full_range(declared or (-used if signed else used))
    lowest, highest = _extremes(pixels, dataset)
    bits = chosen(lowest, highest, facts, depth=depth, declared=declared)
    return bits if isinstance(bits, Reject) else full_range(bits)


def has_display_range(dataset: Dataset) -> bool:
    """Whether the file says what black and white are by other means than its bits."""
    return bool(dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence") or first_window(dataset))


def _extremes(pixels: np.ndarray, dataset: Dataset) -> tuple[float, float]:
    """The least and the greatest stored value, but for padding, which may be any value and is no part of the image."""
    padding, end = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    lowest, highest = [], []
    for rows in bands(*pixels.shape[:2]):
        values = shifted(pixels[rows], dataset)
        if isinstance(padding, int):
            first, last = sorted((padding, end if isinstance(end, int) else padding))
            values = values[(values < first) | (values > last)]
        if values.size:
            lowest.append(float(values.min()))
            highest.append(float(values.max()))
    return min(lowest, default=0.0), max(highest, default=0.0)


def to_grey(stored: np.ndarray, dataset: Dataset, ends: tuple[float, float]) -> np.ndarray:
    """Stored values, any shape, to display grey levels 0..255 as uint8. ends: what `stored_range` gave."""
    if dataset.get("ModalityLUTSequence"):
        values, high = _lookup(stored, dataset.ModalityLUTSequence[0], ends)
        low = 0.0
    else:
        slope, intercept = (float(dataset.get(name) or 0) for name in ("RescaleSlope", "RescaleIntercept"))
        slope = slope or 1.0  # absent, or a zero that would erase the image
        values = stored.astype(np.float64) * slope + intercept
        low, high = sorted((ends[0] * slope + intercept, ends[1] * slope + intercept))

    if dataset.get("VOILUTSequence"):
        values, high = _lookup(values, dataset.VOILUTSequence[0], (low, high))
        level = values / high
    elif found := first_window(dataset):
        level = window(values, *found, str(dataset.get("VOILUTFunction") or "LINEAR"))
    else:
        level = (values - low) / (high - low)
    level = np.clip(level, 0, 1)
    return np.rint(255 * (1 - level if white_is_low(dataset) else level)).astype(np.uint8)


def white_is_low(dataset: Dataset) -> bool:
    """Whether the least value is white. PresentationLUTShape says it where it is present (PS3.3 C.11.6), as DCMTK and
    dcm4che read it, and PhotometricInterpretation where it is not. They may agree only; some Fuji DX contradict."""
    shape = dataset.get("PresentationLUTShape")
    return shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else _is_monochrome1(dataset)


def contradicts(dataset: Dataset) -> bool:
    """Whether PresentationLUTShape and PhotometricInterpretation name different ends as white."""
    return white_is_low(dataset) != _is_monochrome1(dataset)


def _is_monochrome1(dataset: Dataset) -> bool:
    return dataset.PhotometricInterpretation == "MONOCHROME1"


def _lookup(values: np.ndarray, item: Dataset, ends: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Values through one LUT item, and the level that is white; beyond its ends the end entries count.

    White is the next power of two above the largest entry, less one. Many radiographs (Agfa, Fuji and GE among them)
    declare entries of 16 bits that stop at 4095, and would be almost black. The first value is often written unsigned
    where it is negative. ends: the least and the greatest value that may come in.
    pydicom's own fails on tables of 10 and 12 bits, which are the common ones ("uint12" is no type).
    """
    entries, first = int(item.LUTDescriptor[0]) & 0xFFFF, int(item.LUTDescriptor[1])
    if first >= 1 << 15 and (ends[0] < 0 or first > ends[1]):
        first -= 1 << 16
    data = item.LUTData
    if isinstance(data, bytes):
        # Entries of 8 bits may be packed two to a word.
        words = ">u2" if item.original_encoding[1] is False else "<u2"
        data = np.frombuffer(data, np.uint8 if len(data) in (entries, entries + entries % 2) else words)
    table = np.atleast_1d(np.asarray(data, np.int64))[: entries or 1 << 16] & 0xFFFF
    white = (1 << int(table.max()).bit_length()) - 1
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    return table[places].astype(np.float64), float(max(1, white))


def first_window(dataset: Dataset) -> tuple[float, float] | None:
    """(center, width) of the first window that is one: a width of 0 or none is written where there is no window."""
    if dataset.get("WindowCenter") in (None, "") or dataset.get("WindowWidth") in (None, ""):
        return None
    pairs = zip(np.ravel(dataset.WindowCenter), np.ravel(dataset.WindowWidth), strict=False)
    numbers = ((_number(center), _number(width)) for center, width in pairs)
    return next(((center, width) for center, width in numbers if width > 0 and np.isfinite(center + width)), None)


def _number(value: object) -> float:
    """NaN for what is empty or no number."""
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return np.nan


def window(values: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Values to display levels, 0 to 1 inside the window and possibly beyond outside (PS3.3 C.11.2.1.2, C.11.2.1.3).

    LINEAR is not defined below a width of 1, which follows a small slope of the rescale; LINEAR_EXACT is, and serves.
    Raises ValueError for a width that is not above 0.
    """
    if width <= 0:
        raise ValueError("window width out of range")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width < 1:
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5
