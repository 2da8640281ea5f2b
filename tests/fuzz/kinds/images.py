"""Images: PNG, JPEG, GIF, BMP, TIFF, WebP and DICOM, damaged, lying about their size, or larger than they look."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.attempt import Attempt, Seen, Wrong
from fuzz.dicoms import dicoms, hostile_dicom
from fuzz.mutation import mutated
from fuzz.pictures import lying_picture, pictures
from fuzz.values import CANARY, text, with_extension

SHARE = 38
MAX_PIXELS = 64_000_000
ENCODERS = ("pixels", "perceptual_hash", "patches", "rad_dino", "inception_v3", "siamese_reid", "hf_vision")


def prepare(folder: Path) -> dict[str, bytes]:
    """{name: a valid file}."""
    files = {**pictures(), **dicoms()}
    for name, data in files.items():
        from chexray.data.decoding import decode

        if not name.startswith("odd") and not isinstance(decode(data), np.ndarray):
            raise RuntimeError(f"the seed {name} is refused: {decode(data)}")
    return files


def attempt(seeds: dict[str, bytes], rng: random.Random, folder: Path) -> Attempt:
    draw = rng.random()
    if draw < 0.62:
        name = rng.choice(list(seeds))
        data, how = mutated(seeds[name], rng, [seeds[rng.choice(list(seeds))]]), f"damaged {name}"
    elif draw < 0.8:
        data, how = hostile_dicom(rng)
    else:
        data, how = lying_picture(seeds, rng)
    encoder = rng.choice(ENCODERS) if rng.random() < 0.6 else None
    if rng.random() < 0.12:
        return _from_storage(data, how, encoder, rng, folder)
    (folder / "image.bin").write_bytes(data)
    return Attempt(how, lambda: _seen(_decode(data), encoder))


def _decode(data: bytes) -> Any:
    from chexray.data.decoding import decode

    return decode(data)


def _seen(image: Any, encoder: str | None) -> Seen:
    """Checks what decode promises, then prepares the image as a worker does."""
    from chexray.data.decoding import Reject

    if isinstance(image, Reject):
        if not image.code.replace("_", "").isalpha():
            raise Wrong(f"reject code {image.code!r}")
        return Seen("rejected", [image.detail])
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise Wrong(f"decode gave {type(image).__name__} {getattr(image, 'shape', '')} {getattr(image, 'dtype', '')}")
    if image.size > MAX_PIXELS:
        raise Wrong(f"decode gave {image.shape}, more than max_pixels")
    if encoder:
        network, spec = _encoder(encoder)
        try:
            found = network.prepare(image)
        except (ValueError, MemoryError, OverflowError) as error:  # a reject of engine/worker.py
            return Seen("rejected", [" ".join(str(error)[:200].split())])
        if found.shape != spec.input_shape or found.dtype != np.dtype(spec.input_dtype):
            raise Wrong(f"{encoder} prepared {found.dtype} {found.shape}, its spec says {spec.input_shape}")
    return Seen()


@cache
def _encoder(name: str) -> Any:
    from chexray.registry import find

    if name == "hf_vision":  # its preprocessing comes from files: the weights' kind has it
        name = "pixels"
    options: dict[str, Any] = {} if name in ("pixels", "perceptual_hash", "patches") else {"weights": "random:1"}
    network = find("encoders", name)(**options)
    return network, network.resolve()


def _from_storage(data: bytes, how: str, encoder: str | None, rng: random.Random, folder: Path) -> Attempt:
    """The bytes as a file, or inside a Parquet file whose column may be one that runs code."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from chexray.data.images import embedded_uri, load_images
    from chexray.storage import Storage

    path = folder / rng.choice(["a.png", "b.dcm", "c", "d e\n.jpg", "é.png"])
    if rng.random() < 0.4:
        path.write_bytes(data)
        uris = [str(path), str(folder / "missing.png"), str(folder), *([text(rng)] if rng.random() < 0.5 else [])]
        uris = [uri for uri in uris if not uri.startswith(("s3://", "/dev/zero", "/dev/stdin"))]
    else:
        path = folder / "images.parquet"
        column: Any = pa.array([data, None, b"", data], pa.binary())
        if rng.random() < 0.5:
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            column = pa.array(
                [{"bytes": data, "path": CANARY}, None, {"bytes": None, "path": "x"}, {"bytes": b""}], kind
            )
        table = pa.table({"image": column, "id": ["a", "b", "c", "d"]})
        if rng.random() < 0.5:
            table, how = with_extension(table, "image", rng), "extension column"
        if rng.random() < 0.15:
            table, how = pa.table({"image": pa.array([rng.random()] * 4), "id": ["a"] * 4}), "image column of numbers"
        pq.write_table(table, path, row_group_size=2)
        if rng.random() < 0.3:
            path.write_bytes(mutated(path.read_bytes(), rng))
            how = "damaged Parquet of images"
        rows = [0, 1, 2, 3, *([rng.choice([4, 2**31, 2**63])] if rng.random() < 0.3 else [])]
        uris = [embedded_uri(str(path), rng.choice(["image", "image", "image", "id", "none"]), row) for row in rows]

    def act() -> Seen:
        lines, outcome = [], "rejected"
        for image in load_images(uris, Storage(retries=0), threads=4):
            seen = _seen(image, encoder)
            lines += seen.lines
            outcome = "ok" if seen.outcome == "ok" else outcome
        return Seen(outcome, lines)

    return Attempt(f"stored {how}", act)
