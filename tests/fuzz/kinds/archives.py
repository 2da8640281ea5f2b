"""Archives of images: zip and tar, damaged, with directories that lie, bombs, hostile names and sidecars.

Parquet of pixel arrays is one of them."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.attempt import Attempt, Seen, Wrong
from fuzz.mutation import LENGTHS, mutated
from fuzz.pictures import pictures, radiograph
from fuzz.values import CANARY, text

SHARE = 14
SHOWN = 12
"""Images of an archive that are read."""
OBJECTS = (b"{", b'{"a": 1}', b'{"a": 2}', b"[]", b'{"a": {"b": [1]}}', b'{"image": "x", "labels": {}}', b"1" * 5000)
FIELDS = (
    (b"PK\1\2", ((8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (30, "<H"), (42, "<I"))),
    (b"PK\5\6", ((4, "<H"), (8, "<H"), (10, "<H"), (12, "<I"), (16, "<I"), (20, "<H"))),
    (b"PK\3\4", ((6, "<H"), (8, "<H"), (18, "<I"), (22, "<I"), (26, "<H"), (28, "<H"))),
)
"""Fields of a directory, of its end and of a local header that are given another value."""


def prepare(folder: Path) -> dict[str, Any]:
    """Encoded pictures, and a folder of a few as the real set of a command."""
    files = {name: data for name, data in pictures().items() if not name.startswith("odd")}
    (folder / "real").mkdir()
    for i in range(4):
        (folder / "real" / f"{i}.png").write_bytes(files["png"] if "png" in files else next(iter(files.values())))
    return {"files": files, "real": str(folder / "real")}


def attempt(seeds: dict[str, Any], rng: random.Random, folder: Path) -> Attempt:
    members = _members(seeds["files"], rng)
    kind = rng.choice(["zip", "zip", "zip", "tar", "tar", "pixels"])
    data, how = {"zip": _zip, "tar": _tar, "pixels": _pixels}[kind](members, rng)
    if rng.random() < 0.4:
        data, how = mutated(data, rng), f"{how}, damaged"
    path = folder / f"a.{'parquet' if kind == 'pixels' else kind}"
    path.write_bytes(data)
    config = {
        "real": seeds["real"], "synthetic": [str(path)], "encoders": ["pixels"], "metrics": ["kid"],
        "output": str(folder / "out"),
    }  # fmt: skip
    written = folder / "run.yaml"
    written.write_text(json.dumps(config))
    return Attempt(how, lambda: read(path), ["validate", str(written)])


def read(path: Path) -> Seen:
    """The manifest of an archive, and its first images as a worker reads them."""
    from chexray.data import manifest
    from chexray.data.images import Reject, load_images
    from chexray.data.sources.archive import Archive
    from chexray.data.sources.parquet_images import ParquetImages
    from chexray.storage import Storage

    storage = Storage(retries=0)
    source = (ParquetImages if path.suffix == ".parquet" else Archive)(str(path))
    found = manifest.load("a", "synthetic", source, storage, on_duplicate="first")
    uris = found.table["uri"].to_pylist()[:SHOWN]
    if any(not uri.startswith(f"{path}#") for uri in uris):
        raise Wrong("an image of an archive lies outside of it")
    lines, n_read = list(found.notes), 0
    for image in load_images(uris, storage, threads=4, max_pixels=4_000_000):
        if isinstance(image, Reject):
            lines.append(image.detail)
        elif image.ndim != 2 or image.dtype != np.uint8 or not image.size:
            raise Wrong(f"an image of {image.shape} {image.dtype}")
        else:
            n_read += 1
    return Seen("ok" if n_read else "rejected", lines)


def _members(files: dict[str, bytes], rng: random.Random) -> list[tuple[str, bytes]]:
    members: list[tuple[str, bytes]] = []
    for i in range(rng.choice([0, 1, 2, 3, 4, 5, 6])):
        name = f"images/{i}" if rng.random() < 0.8 else _name(rng)
        members.append((f"{name}.{rng.choice(['png', 'jpg', 'dcm'])}", files[rng.choice(list(files))]))
        if rng.random() < 0.5:
            members.append((f"{name}.txt", rng.choice([CANARY.encode(), b"", b"\xff" * 9, _name(rng).encode()])))
        if rng.random() < 0.15:
            rng.choice([b"{", b'{"a": 1}', b"[]", b'{"a": {"b": [1]}}', b'{"image": "x", "labels": {}}', b"1" * 5000])
            members.append((f"{name}.json", rng.choice(OBJECTS)))
        if rng.random() < 0.2:
            members.append((f"{name}.cls", rng.choice([b"1", b"x", b"", b"9" * 30])))
    return members


def _name(rng: random.Random) -> str:
    return text(rng).encode("utf-8", "replace").decode()[: rng.choice([20, 300, 2000])].replace("\0", "_") or "x"


def _zip(members: list[tuple[str, bytes]], rng: random.Random) -> tuple[bytes, str]:
    sink = io.BytesIO()
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(), zipfile.ZipFile(sink, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            if rng.random() < 0.1:
                info.create_system, info.external_attr = 3, rng.choice([0o120777, 0o040755, 0o010644]) << 16
            archive.writestr(info, data)
        if rng.random() < 0.15:
            archive.writestr("bomb.png", bytes(30_000_000), zipfile.ZIP_DEFLATED)
        archive.comment = rng.choice([b"", b"PK\5\6" + bytes(18), b"x" * 500])
    data = bytearray(sink.getvalue())
    if rng.random() < 0.4:
        return bytes(_lying(data, rng)), "zip whose directory lies"
    return bytes(data), "zip"


def _lying(data: bytearray, rng: random.Random) -> bytearray:
    """Another number in a field of the directory, of its end or of a local header."""
    signature, fields = rng.choice(FIELDS)
    places = [at for at in range(len(data) - 46) if data[at : at + 4] == signature] or [0]
    for _ in range(rng.choice([1, 1, 2])):
        at, (offset, form) = rng.choice(places), rng.choice(fields)
        (old,) = struct.unpack_from(form, data, at + offset) if at + offset + 4 <= len(data) else (0,)
        value = rng.choice([*LENGTHS, old + 1, max(0, old - 1), rng.randrange(len(data) + 1)])
        if at + offset + 4 <= len(data):
            struct.pack_into(form, data, at + offset, value & (0xFFFF if form == "<H" else 0xFFFFFFFF))
    return data


def _tar(members: list[tuple[str, bytes]], rng: random.Random) -> tuple[bytes, str]:
    sink = io.BytesIO()
    form = rng.choice([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(
                name if form != tarfile.USTAR_FORMAT else name.encode("ascii", "replace").decode()[:90]
            )
            info.size = len(data)
            if rng.random() < 0.1:
                info.type, info.linkname, info.size = rng.choice([b"1", b"2", b"5", b"S", b"3", b"7", b"x"]), "a.png", 0
            archive.addfile(info, io.BytesIO(data))
    data = sink.getvalue()
    draw = rng.random()
    if draw < 0.2:
        return data.rstrip(b"\0"), "tar without its end"
    if draw < 0.5:
        at = 512 * rng.randrange(max(1, len(data) // 512)) + rng.choice([124, 148, 156, 257, 345])
        other = rng.choice([b"\x80" + b"\xff" * 11, b"77777777777\0", b"x", b"g"])
        return data[:at] + other + data[at + 1 :], "tar that lies"
    return data, "tar"


def _pixels(members: list[tuple[str, bytes]], rng: random.Random) -> tuple[bytes, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = np.stack([radiograph(1)] * rng.choice([1, 3, 3, 3, 4]), -1)[:20, :20]
    cells: list[Any] = [picture.tolist() for _ in range(4)]
    if rng.random() < 0.5:
        cells[rng.randrange(4)] = rng.choice([None, [], [[]], [[[]]], [[[1], [2]], [[3]]], [[[None]]], [[[300]]]])
    leaf = rng.choice([pa.uint8(), pa.int16(), pa.int32(), pa.int64(), pa.float32()])
    try:
        column = pa.array(cells, pa.list_(pa.list_(pa.list_(leaf))))
    except pa.ArrowException:  # 300 in 8 bits
        column = pa.array([picture.tolist()] * 4, pa.list_(pa.list_(pa.list_(leaf))))
    shape = rng.choice([[20, 20, 3], [None, 20, 3], [20, 20, 4], [10**30], "x", None])
    info = {"info": {"features": {"image": {"_type": "Array3D", "shape": shape, "dtype": "uint8"}}}}
    table = pa.table({"image": column, "text": [CANARY] * 4})
    table = table.replace_schema_metadata({b"huggingface": rng.choice([json.dumps(info).encode(), b"{", b"[]"])})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2)
    return sink.getvalue(), "pixel arrays"
