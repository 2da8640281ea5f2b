"""Valid small DICOM files, and those whose header lies about their pixels or their compressed stream."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from fuzz.mutation import LENGTHS
from fuzz.pictures import pictures, radiograph, saved
from fuzz.values import CANARY


def _dataset(pixels: np.ndarray, syntax: Any, bits: int, **more: Any) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    dataset.PatientName, dataset.PatientID, dataset.StudyDescription = "Mustermann^Erika", "MRN 4711", CANARY
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in more.items():
        setattr(dataset, name, value)
    return dataset


def _written(dataset: Any) -> bytes:
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


@cache
def dicoms() -> dict[str, bytes]:
    from pydicom import uid

    grey = radiograph()
    deep, colour = grey.astype(np.uint16) * 16, np.stack([grey] * 3, axis=-1)
    found = {
        "dicom 8": _written(_dataset(grey, uid.ExplicitVRLittleEndian, 8)),
        "dicom 12": _written(_dataset(deep, uid.ExplicitVRLittleEndian, 12, WindowCenter=2000, WindowWidth=900)),
        "dicom implicit": _written(
            _dataset(deep, uid.ImplicitVRLittleEndian, 12, RescaleSlope=2, RescaleIntercept=-10)
        ),
        "dicom rgb": _written(_dataset(colour, uid.ExplicitVRLittleEndian, 8)),
        "dicom 32": _written(_dataset(deep.astype(np.uint32), uid.ExplicitVRLittleEndian, 16)),
    }
    found["odd bare"] = found["dicom 12"][132:]
    for name, syntax in (("rle", uid.RLELossless), ("j2k", uid.JPEG2000Lossless)):
        dataset = _dataset(deep, uid.ExplicitVRLittleEndian, 12)
        dataset.compress(syntax, generate_instance_uid=False)
        found[f"dicom {name}"] = _written(dataset)
    found["dicom jpeg"] = _encapsulated(pictures()["jpeg"], grey, "1.2.840.10008.1.2.4.50")
    return found


def _encapsulated(stream: bytes, pixels: np.ndarray, syntax: str, **more: Any) -> bytes:
    from pydicom.encaps import encapsulate

    dataset = _dataset(pixels, syntax, 8 * pixels.dtype.itemsize, **more)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return _written(dataset)


def hostile_dicom(rng: random.Random) -> tuple[bytes, str]:
    """A DICOM whose header lies about its pixels, or whose compressed stream is not what the header says."""
    from pydicom import uid

    grey = radiograph(rng.randrange(9))
    deep = grey.astype(np.uint16) * 16
    way = rng.choice(["fields", "fields", "fields", "j2k size", "rle", "jpeg size", "jpeg-ls", "deflated", "syntax"])
    if way == "fields":
        dataset = _dataset(rng.choice([grey, deep]), uid.ExplicitVRLittleEndian, rng.choice([8, 12]))
        for _ in range(rng.choice([1, 1, 2, 3])):
            _set(dataset, rng)
        return _try(dataset), f"dicom {way}"
    if way == "syntax":
        syntaxes = [
            each
            for each in dir(uid)
            if isinstance(getattr(uid, each), uid.UID)
            and getattr(uid, each).type == "Transfer Syntax"
            and each != "ExplicitVRBigEndian"  # pydicom writes no little-endian data set as one
        ]
        return _encapsulated(
            rng.choice(list(pictures().values())), grey, str(getattr(uid, rng.choice(syntaxes)))
        ), f"dicom {way}"
    if way == "deflated":
        n = rng.choice([10_000, 3_000_000])
        header = _written(_dataset(grey, uid.ExplicitVRLittleEndian, 8)).replace(
            b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.1.99"
        )
        return header[:400] + zlib.compress(bytes(n), 9), "dicom deflated"
    if way == "rle":
        segments = rng.choice([1, 2, 4, 15, 255, 2**31])
        size = rng.choice([40, 4_000, 200_000])
        body = b"\x81\x00" * (size // 2) if rng.random() < 0.7 else rng.randbytes(size)
        offsets = [64 if rng.random() < 0.7 else rng.choice(LENGTHS) for _ in range(15)]
        return _encapsulated(
            struct.pack("<16I", segments & 0xFFFFFFFF, *offsets) + body, rng.choice([grey, deep]), str(uid.RLELossless)
        ), "dicom rle"
    stream = bytearray(_j2k() if way == "j2k size" else pictures()["jpeg"])
    side = rng.choice([1, 47, 5_000, 46_000, 2**16 - 1, 2**31 - 1, 2**32 - 1])
    if way == "j2k size":  # SIZ: Xsiz, Ysiz, offsets, tile sizes from byte 8 after its marker
        at = stream.find(b"\xff\x51") + 6
        for field in range(8):
            if rng.random() < 0.5:
                struct.pack_into(">I", stream, at + 4 * field, side)
        struct.pack_into(">II", stream, at, side, side)
        return _encapsulated(bytes(stream), deep, str(uid.JPEG2000Lossless)), f"dicom {way}"
    if way == "jpeg-ls":
        sof = b"\xff\xf7" + struct.pack(">HBHHB", 11, 8, side & 0xFFFF, side & 0xFFFF, 1) + b"\x01\x11\x00"
        return _encapsulated(
            b"\xff\xd8" + sof + rng.randbytes(500) + b"\xff\xd9", grey, "1.2.840.10008.1.2.4.80"
        ), f"dicom {way}"
    at = stream.find(b"\xff\xc0") + 5
    struct.pack_into(">HH", stream, at, side & 0xFFFF, side & 0xFFFF)
    return _encapsulated(bytes(stream), grey, "1.2.840.10008.1.2.4.50"), f"dicom {way}"


@cache
def _j2k() -> bytes:
    from PIL import Image

    return saved(Image.fromarray(radiograph()), "JPEG2000", {"no_jp2": True})


FIELDS = {
    "Rows": (0, 1, 47, 60_000, 65_535), "Columns": (0, 1, 41, 60_000, 65_535), "NumberOfFrames": (0, -1, 2, 10**9, "x"),
    "BitsAllocated": (0, 1, 7, 8, 16, 32, 64, 65_535), "BitsStored": (0, 1, 12, 17, 65_535), "HighBit": (0, 40, 65_535),
    "SamplesPerPixel": (0, 2, 3, 4, 65_535), "PixelRepresentation": (1, 2, 65_535), "PlanarConfiguration": (0, 1, 2),
    "PhotometricInterpretation": ("", "RGB", "PALETTE COLOR", "YBR_FULL_422", "MONOCHROME1", "\x1b[2J", "X" * 16),
    "WindowCenter": ("nan", "1e400", "0", [1, 2], ""), "WindowWidth": ("0", "-1", "nan", "1e308", ["1", "2"], ""),
    "RescaleSlope": ("nan", "0", "1e308", "-1", ""), "RescaleIntercept": ("inf", "1e308", "-1e308"),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "x"), "PixelData": (b"", b"\x00", bytes(48 * 40 * 8), bytes(3)),
}  # fmt: skip


def _set(dataset: Any, rng: random.Random) -> None:
    name = rng.choice(list(FIELDS))
    try:
        if rng.random() < 0.1 and name in dataset:
            delattr(dataset, name)
        elif rng.random() < 0.1:
            from pydicom.dataset import Dataset
            from pydicom.sequence import Sequence

            item = Dataset()
            item.LUTDescriptor = [rng.choice([0, 1, 256, 65_535]), rng.choice([0, 65_535]), rng.choice([0, 8, 16, 99])]
            item.add_new("LUTData", "OW", bytes(rng.choice([0, 1, 2, 512])))
            setattr(dataset, rng.choice(["VOILUTSequence", "ModalityLUTSequence"]), Sequence([item]))
        else:
            setattr(dataset, name, rng.choice(FIELDS[name]))
    except Exception:  # pydicom refuses some values itself
        return


def _try(dataset: Any) -> bytes:
    try:
        return _written(dataset)
    except Exception:
        return dicoms()["dicom 12"][:600]
