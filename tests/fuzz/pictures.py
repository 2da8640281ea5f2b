"""Valid small pictures of every format that is read, and headers that promise other pixels than follow."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from fuzz.values import CANARY


def radiograph(seed: int = 0, height: int = 48, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).normal(0, 4, (height, width))
    return np.clip(110 + 60 * np.sin(x / 7) * np.cos(y / 9) + noise, 0, 255).astype(np.uint8)


@cache
def pictures() -> dict[str, bytes]:
    from PIL import Image

    grey = radiograph()
    image = Image.fromarray(grey)
    colour = Image.merge("RGB", [image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image])
    deep = Image.fromarray(grey.astype(np.uint16) * 16)
    ways: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "png grey": (image, "PNG", {}), "png rgb": (colour, "PNG", {}), "png palette": (image.convert("P"), "PNG", {}),
        "png 16": (deep, "PNG", {}), "png 1": (image.convert("1"), "PNG", {}),
        "png alpha": (image.convert("LA"), "PNG", {}),
        "jpeg": (image, "JPEG", {}), "jpeg progressive": (colour, "JPEG", {"progressive": True}),
        "jpeg cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "gif": (image, "GIF", {}), "bmp": (image, "BMP", {}), "bmp rgb": (colour, "BMP", {}),
        "tiff": (image, "TIFF", {}), "tiff 16": (deep, "TIFF", {}),
        "tiff float": (Image.fromarray(grey / np.float32(255)), "TIFF", {}),
        "tiff lzw": (colour, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (image, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff packbits": (image, "TIFF", {"compression": "packbits"}),
        "tiff jpeg": (colour, "TIFF", {"compression": "jpeg"}),
        "tiff g4": (image.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff zstd": (image, "TIFF", {"compression": "zstd"}),
        "webp": (colour, "WEBP", {}), "webp lossless": (colour, "WEBP", {"lossless": True}),
        "odd apng": (image, "PNG", {"save_all": True, "append_images": [deep.convert("L")]}),
        "odd gif": (image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
        "odd webp": (colour, "WEBP", {"save_all": True, "append_images": [colour.rotate(90)]}),
    }  # fmt: skip
    return {name: saved(*way) for name, way in ways.items()}


def saved(image: Any, kind: str, options: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def lying_picture(seeds: dict[str, bytes], rng: random.Random) -> tuple[bytes, str]:
    """A header that promises other pixels than follow, with its checksums right."""
    side = rng.choice([0, 1, 7_999, 8_001, 20_000, 65_535, 2**31 - 1])
    other = rng.choice([1, 3, 8_000, side])
    way = rng.choice(["png", "png bomb", "gif", "bmp", "tiff", "webp", "jpeg", "png text", "nothing"])
    if way in ("png", "png text"):
        header = struct.pack(
            ">IIBBBBB", side, other, rng.choice([1, 2, 8, 16, 3]), rng.choice([0, 2, 3, 4, 6, 7]), 0, 0,
            rng.choice([0, 1, 9]),
        )  # fmt: skip
        body = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(rng.choice([0, 100, 100_000])), 9))]
        if way == "png text":
            body.insert(
                1, (rng.choice([b"zTXt", b"iCCP", b"iTXt", b"eXIf"]), b"a\x00\x00" + zlib.compress(bytes(5_000_000), 9))
            )
        return _png(body), way
    if way == "png bomb":
        width, height = rng.choice([(8_000, 8_000), (1, 4_000_000), (4_000_000, 1), (100_000, 600), (8_001, 8_000)])
        row = b"\x00" + bytes(width)
        packer = zlib.compressobj(9)
        data = b"".join(packer.compress(row) for _ in range(min(height, 8_000))) + packer.flush()
        return _png([(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", data)]), way
    data = bytearray(seeds[rng.choice([name for name in seeds if name.startswith(way)] or ["bmp"])])
    if way == "gif":
        struct.pack_into("<HH", data, 6, side & 0xFFFF, other & 0xFFFF)
    elif way == "bmp":
        struct.pack_into("<ii", data, 18, min(side, 2**31 - 1) * rng.choice([1, -1]), other)
    elif way == "webp":
        struct.pack_into("<I", data, rng.choice([4, 16, 20, 24, 26]), side)
    elif way == "jpeg":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
        struct.pack_into(">HH", data, at, side & 0xFFFF, other & 0xFFFF)
    elif way == "tiff":
        _lie_in_tiff(data, side, rng)
    else:
        return rng.choice(
            [b"", b"\x00", b"II*\x00", b"DICM", bytes(128) + b"DICM", b"%PDF-1.4", CANARY.encode(), rng.randbytes(300)]
        ), way
    return bytes(data), f"{way} header"


def _lie_in_tiff(data: bytearray, side: int, rng: random.Random) -> None:
    """Some entries of the first directory get another value."""
    at = struct.unpack_from("<I", data, 4)[0]
    if at + 2 > len(data):
        return
    for entry in range(struct.unpack_from("<H", data, at)[0]):
        place = at + 2 + 12 * entry
        if place + 12 <= len(data) and rng.random() < 0.25:
            struct.pack_into(
                "<I", data, place + rng.choice([4, 8, 8]), rng.choice([side, 1, 0, 0xFFFFFFFF]) & 0xFFFFFFFF
            )


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in [*chunks, (b"IEND", b"")]:
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)
