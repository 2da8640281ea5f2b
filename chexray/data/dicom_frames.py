"""Whether a DICOM file's pixel data hold what its header says, decided before a decoder sees them.

Decoders take sizes from the compressed stream, not from Rows and Columns: a header of 10 x 10 may carry a stream of
46,000 x 46,000. Each encoding names its size somewhere; it is read here and must agree.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from chexray.data.dicom_syntax import JPEG, JPEG_2000, JPEG_LS, NATIVE, RLE, syntax_of
from chexray.data.headers import MAX_SCANS, jpeg_frame
from chexray.data.jpeg2000 import read_codestream
from chexray.data.rejects import Reject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_ITEMS = 65_536
"""Items of sequences and fragments of pixel data; pydicom makes each an object of 1 kB."""
MAX_VALUE = 1 << 16
"""Bytes of an element that describes pixels; a window has 16 bytes at most."""
MAX_TABLE = 1 << 18
"""Bytes of a lookup table and its item: 65,536 entries of 16 bits are 131,072."""
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


def check_bytes(data: bytes) -> Reject | None:
    """The Reject of a file with more items than pydicom can hold cheaply, by its bytes."""
    if any(data.count(item) > MAX_ITEMS for item in _ITEMS):
        return Reject("corrupt", f"DICOM of more than {MAX_ITEMS} items")
    return None


def check_elements(dataset: Dataset) -> Reject | None:
    """The Reject of elements too long to be parsed: one text of 100 MB becomes 50 million Python numbers."""
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        size = len(raw.value) if raw is not None and isinstance(raw.value, bytes) else 0
        limit = MAX_TABLE if tag in (0x00283000, 0x00283010) else MAX_VALUE
        if tag >> 16 != 0x7FE0 and size > limit:
            return Reject("corrupt", f"DICOM element {int(tag):08x} of {size} bytes")
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        items = dataset.get(name)
        if items is not None and (len(items) > 64 or any(_long_table(item) for item in items)):
            return Reject("corrupt", f"DICOM {name} beyond 64 items or {MAX_TABLE} bytes")
    return None


def _long_table(item: Dataset) -> bool:
    found = (item.get_item(tag) for tag in list(item.keys()))
    return any(isinstance(raw.value, bytes) and len(raw.value) > MAX_TABLE for raw in found if raw is not None)


def check_frame(dataset: Dataset) -> Reject | None:
    """The Reject of pixel data that hold another size, more frames or fewer pixels than the header says."""
    syntax = syntax_of(dataset)
    known = syntax in JPEG or syntax in JPEG_LS or syntax in JPEG_2000 or syntax == RLE
    if known:
        frame = only_frame(dataset)
        if isinstance(frame, Reject):
            return frame
        return _check_rle(frame, dataset) if syntax == RLE else _check_stream(frame, syntax, dataset)
    return _check_native(dataset) if syntax in NATIVE else None


def only_frame(dataset: Dataset) -> bytes | Reject:
    """The bytes of the single frame, its fragments joined."""
    from pydicom.encaps import generate_frames

    offsets = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    try:
        frames = generate_frames(dataset.PixelData, number_of_frames=1, extended_offsets=offsets)
        found = list(itertools.islice(frames, 2))
    except (ValueError, EOFError, OSError):
        return Reject("corrupt", "DICOM whose compressed pixel data have no readable fragments")
    if not found:
        return Reject("truncated", "DICOM with fewer pixels than its header announces")
    if len(found) > 1:
        return Reject("corrupt", "DICOM with more pixel data than the one frame its header announces")
    return found[0]


def _check_stream(frame: bytes, syntax: str, dataset: Dataset) -> Reject | None:
    """JPEG, JPEG-LS and JPEG 2000: the stream's own size, components and bits."""
    if syntax in JPEG_2000:
        name, stream = "JPEG 2000", read_codestream(frame)
        found = stream and (stream.width, stream.height, stream.components, stream.bits)
        if stream and stream.excess:
            return Reject("corrupt", f"DICOM with a JPEG 2000 stream of {stream.excess}")
        if stream and not stream.even:
            return Reject("corrupt", "DICOM with a JPEG 2000 stream whose components differ in size")
    else:
        name, found = "JPEG" if syntax in JPEG else "JPEG-LS", None
        found = jpeg_frame(frame) if frame.startswith(b"\xff\xd8") else None
        if frame.count(b"\xff\xda") > MAX_SCANS:
            return Reject("corrupt", f"DICOM with a JPEG of more than {MAX_SCANS} scans")
    if not found:
        return Reject("corrupt", f"DICOM whose pixel data do not begin as {name}")
    width, height, components, bits = found
    columns, rows, samples = int(dataset.Columns), int(dataset.Rows), int(dataset.get("SamplesPerPixel") or 1)
    if (width, height) != (columns, rows):
        return Reject("corrupt", f"DICOM of {columns} x {rows} pixels whose {name} stream is {width} x {height}")
    if components != samples:
        return Reject("corrupt", f"DICOM of {samples} samples a pixel whose {name} stream has {components}")
    # Fewer bits than BitsStored are common, and pydicom takes the stream's; more than are allocated would be cut off.
    if bits > int(dataset.BitsAllocated):
        return Reject("corrupt", f"DICOM of {int(dataset.BitsAllocated)} bits whose {name} stream has {bits}")
    return None


def _check_rle(frame: bytes, dataset: Dataset) -> Reject | None:
    """Each segment must expand to one byte of every pixel. One more is padding; pydicom would expand all and cut."""
    pixels = int(dataset.Rows) * int(dataset.Columns)
    segments = int.from_bytes(frame[:4], "little")
    wanted = int(dataset.get("SamplesPerPixel") or 1) * int(dataset.BitsAllocated) // 8
    if len(frame) < 64 or segments != wanted or segments > 15:
        return Reject("corrupt", f"DICOM with {min(segments, 99)} RLE segments where {wanted} are expected")
    starts = [int.from_bytes(frame[at : at + 4], "little") for at in range(4, 4 + 4 * segments, 4)]
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        size = expanded(frame[start:end], pixels + 1)
        if size < pixels:
            return Reject("truncated", "DICOM with fewer pixels than its header announces")
        if size > pixels + 1:
            return Reject("corrupt", "DICOM whose RLE data hold more pixels than its header announces")
    return None


def expanded(segment: bytes, limit: int) -> int:
    """Bytes that an RLE segment (PackBits, PS3.5 G.3) expands to, counted no further than just past `limit`."""
    position = total = 0
    length = len(segment)
    while position < length and total <= limit:
        head = segment[position]
        if head < 128:
            total += min(head + 1, length - position - 1)
            position += head + 2
        elif head > 128:
            total += 257 - head if position + 1 < length else 0
            position += 2
        else:
            position += 1
    return total


def _check_native(dataset: Dataset) -> Reject | None:
    """Uncompressed pixels: neither fewer bytes than the header says nor a row or a column more."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    sample = int(dataset.get("SamplesPerPixel") or 1) * (int(dataset.BitsAllocated) // 8)
    wanted = rows * columns * sample
    if str(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422":
        wanted = wanted // 3 * 2
    found = len(dataset.PixelData)
    if found < wanted:
        return Reject("truncated", "DICOM with fewer pixels than its header announces")
    if found - wanted > max(1, min(rows, columns) * sample - 1):
        return Reject("corrupt", f"DICOM with {found} bytes of pixel data where its header announces {wanted}")
    return None
