"""A feature store that somebody else could write to: parts, rejects, blocks, stripes of a search, pixel distances.

Either the very numbers that were stored come back, or one line; other numbers without a word are the worst answer. A
part that is valid in itself and holds other values under the right keys cannot be told from the right one, and is not
tried: whoever can write to a store decides the numbers.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.attempt import Attempt, Seen, Wrong
from fuzz.mutation import mutated
from fuzz.values import text, with_extension

SHARE = 8
WIDTH, N_KEYS, N_PARTS = 6, 12, 3


@dataclass
class Stored:
    """A valid store: its folder, and for each type of features what was put in."""

    folder: Path
    keys: list[str]
    features: dict[str, np.ndarray]


def prepare(folder: Path) -> Stored:
    from chexray.engine.blocks import blocks_of_array

    rng = np.random.default_rng(0)
    keys = [f"{i:032x}" for i in range(N_KEYS)]
    features = {
        "float32": rng.normal(size=(N_KEYS, WIDTH)).astype(np.float32),
        "uint8": rng.integers(0, 255, (N_KEYS, WIDTH), np.uint8),
    }
    for dtype, values in features.items():
        store, spec = _store(folder / dtype), _spec(dtype)
        store.describe(spec)
        for part in range(N_PARTS):
            own = [i for i in range(N_KEYS) if i % N_PARTS == part]
            lost = [
                {"image_key": f"lost{part}", "stage": "decode", "code": "corrupt", "detail": "x", "transient": False}
            ]
            names = [keys[i] for i in own]
            store.commit(spec, names, {"features": values[own]}, lost)
    blocks_of_array(features["float32"], str(folder / "blocks"), store.storage, block_rows=5)
    _search(folder, folder / "found")
    _pixel_distances(folder)
    return Stored(folder, keys, features)


def attempt(seeds: Stored, rng: random.Random, folder: Path) -> Attempt:
    return rng.choice([_part, _part, _part, _part, _block, _stripe, _pixels])(seeds, rng, folder)


@cache
def _spec(dtype: str) -> Any:
    from chexray.encoders.base import EncoderSpec

    return EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": WIDTH}, (8, 8), "uint8", 1, {}, dtype)


def _store(root: Path) -> Any:
    from chexray.engine.features import FeatureStore
    from chexray.storage import Storage

    return FeatureStore(str(root), Storage(retries=0))


def _part(seeds: Stored, rng: random.Random, folder: Path) -> Attempt:
    dtype = rng.choice(["float32", "float32", "uint8"])
    shutil.copytree(seeds.folder / dtype, folder / "store")
    store, spec = _store(folder / "store"), _spec(dtype)
    place = Path(store.folder(spec))
    how = _tamper(sorted(place.glob("part-*"), key=lambda path: path.name), sorted(place.glob("rejects-*")), rng)

    def act() -> Seen:
        done = store.done(spec)
        strange = [key for key in done.rows if key not in seeds.keys]
        known = [key for key in seeds.keys if key in done.rows]
        found = store.read(spec, "features", known, done)
        expected = seeds.features[dtype][[seeds.keys.index(key) for key in known]]
        if found.dtype != expected.dtype or found.shape != expected.shape or not np.array_equal(found, expected):
            raise Wrong(f"{how}: other features than were stored")
        if strange:
            store.read(spec, "features", strange, done)
        for reject in done.rejects.values():
            if not isinstance(reject["transient"], bool) or not isinstance(reject["image_key"], str):
                raise Wrong(f"{how}: a reject without its fields")
        return Seen()

    return Attempt(how, act)


def _tamper(parts: list[Path], rejects: list[Path], rng: random.Random) -> str:
    """One attack on the files of a store; its name."""
    path = rng.choice([*parts, rng.choice(rejects)])
    draw = rng.random()
    if draw < 0.35:
        path.write_bytes(mutated(path.read_bytes(), rng, [rng.choice(parts).read_bytes()]))
        return f"damaged {path.name.split('-')[0]}"
    if draw < 0.7:
        return rewritten(path, rng)
    way = rng.choice(
        ["swap", "rename", "additional", "subfolder", "link", "folder", "empty", "fifo", "subset", "names"]
    )
    other = rng.choice(parts)
    zeros = path.with_name(f"{path.name.split('-')[0]}-{'0' * 16}.parquet")
    if way == "swap":
        first, second = parts[0].read_bytes(), parts[1].read_bytes()
        parts[0].write_bytes(second)
        parts[1].write_bytes(first)
    elif way == "rename":
        path.rename(zeros)
    elif way in ("additional", "subfolder", "subset"):
        _forge(parts, zeros, way, rng)
    elif way == "link":
        path.unlink()
        path.symlink_to(rng.choice([other, Path("/dev/null"), path, Path("/etc/hostname")]))
    elif way == "folder":
        path.unlink()
        path.mkdir()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "fifo":
        path.unlink()
        os.mkfifo(path)
    else:
        copy = path.with_name(
            rng.choice(["part-\x1b[2J.parquet", "part-.parquet", "part-\n.parquet", "part-..parquet", "part-é.parquet"])
        )
        copy.write_bytes(other.read_bytes())
    return f"{way} of {path.name.split('-')[0]}"


def _forge(parts: list[Path], zeros: Path, way: str, rng: random.Random) -> None:
    """An additional part with known keys and other values: unnamed by its digest, in a subfolder, or digest-valid."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from chexray.engine.features import chunk_name

    table = pq.read_table(io.BytesIO(rng.choice(parts).read_bytes()))
    table = table.slice(0, rng.choice([1, len(table)]))
    column = table["features"].combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        changed = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(table) * WIDTH, np.float32)), WIDTH)
    else:
        changed = pa.array([bytes(WIDTH)] * len(table), pa.binary(WIDTH))
    table = table.set_column(1, "features", changed)
    target = zeros.with_name(zeros.name.replace("rejects", "part"))
    if way == "subset":
        target = target.with_name(f"part-{chunk_name(table['image_key'].to_pylist())}.parquet")
    if way == "subfolder":
        target = target.parent / rng.choice(["a", "0"]) / target.name
        target.parent.mkdir()
    pq.write_table(table, target)


def rewritten(path: Path, rng: random.Random) -> str:
    """The file with another type, width, nulls, order or names in one of its columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(path.read_bytes()))
    name = rng.choice(table.column_names)
    forgeries = {"twice one key", *(["numbers"] if name in ("distance", "wrapped", "squared") else [])}
    column, n = table[name].combine_chunks(), len(table)
    options: dict[str, Callable[[], Any]] = {
        "cast to int8 lists": lambda: pa.array([[1] * WIDTH] * n, pa.list_(pa.int8(), WIDTH)),
        "narrow": lambda: pa.array([[1.0]] * n, pa.list_(pa.float32(), 1)),
        "wide": lambda: pa.array([[1.0] * 2 * WIDTH] * n, pa.list_(pa.float32(), 2 * WIDTH)),
        "float64": lambda: pa.array([[0.5] * WIDTH] * n, pa.list_(pa.float64(), WIDTH)),
        "lists of any size": lambda: pa.array([[1.0] * (i % 9) for i in range(n)], pa.list_(pa.float32())),
        "numbers": lambda: pa.array([1.0] * n),
        "null rows": lambda: pa.array([None, *column.to_pylist()[1:]], column.type), "nulls": lambda: pa.nulls(n),
        "all null": lambda: pa.nulls(n, column.type),
        "texts": lambda: pa.array([text(rng).encode("utf-8", "replace").decode() for _ in range(n)]),
        "bytes": lambda: pa.array([b"\xff"] * n, pa.binary()),
        "narrow bytes": lambda: pa.array([b"x"] * n, pa.binary(1)),
        "twice one key": lambda: pa.array([column[0].as_py()] * n, column.type),
        "null inside": lambda: pa.array([[None] * WIDTH] * n, pa.list_(pa.float32(), WIDTH)),
        "dictionary": lambda: pa.array(["a"] * n).dictionary_encode(),
        "structs": lambda: pa.array([{"a": 1}] * n),
        "nan": lambda: pa.array([[float("nan")] * WIDTH] * n,
        pa.list_(pa.float32(), WIDTH)) if column.type == pa.string() else pa.nulls(n),
    }  # fmt: skip
    if name not in ("image_key", "row", "pair"):  # a valid value in place of another
        options = {how: make for how, make in options.items() if how not in forgeries}
    how = rng.choice(
        [
            *options, *["extension"] * 5, "dropped", "renamed", "no rows", "doubled rows", "reversed keys",
            "two of a name",
        ]
    )  # fmt: skip
    try:
        if how in options:
            table = table.set_column(table.column_names.index(name), name, options[how]())
        elif how == "extension":
            table = with_extension(table, rng.choice([name, "extra"]), rng)
        elif how == "dropped":
            table = table.drop_columns([name])
        elif how == "renamed":
            table = table.rename_columns(
                [text(rng).encode("utf-8", "replace").decode() if each == name else each for each in table.column_names]
            )
        elif how == "two of a name":
            table = table.append_column(name, column)
        elif how == "no rows":
            table = table.slice(0, 0)
        elif how == "doubled rows":
            table = pa.concat_tables([table, table])
        else:  # the digest is over sorted keys, so this one is a forgery like that of values: keys of another length
            table = table.set_column(0, table.column_names[0], pa.array([f"{i}x" for i in range(n)]))
    except (pa.ArrowException, UnicodeError, IndexError, ValueError, TypeError):
        how = "no rows"
        table = table.slice(0, 0)
    pq.write_table(table, path)
    return f"{path.name.split('-')[0]} rewritten: {how}"


def _block(seeds: Stored, rng: random.Random, folder: Path) -> Attempt:
    from dataclasses import replace

    from chexray.engine.blocks import blocks_of_array
    from chexray.storage import Storage

    blocks = blocks_of_array(seeds.features["float32"], str(folder / "blocks"), Storage(retries=0), block_rows=5)
    path = rng.choice(sorted((folder / "blocks").glob("block-*")))
    how = _spoilt(path, rng)

    def act() -> Seen:
        found = replace(blocks).take(np.arange(N_KEYS))
        if not np.array_equal(found, seeds.features["float32"]):
            raise Wrong(f"{how}: other features than were stored")
        return Seen()

    return Attempt(f"block {how}", act)


def _spoilt(path: Path, rng: random.Random) -> str:
    if rng.random() < 0.45:
        path.write_bytes(mutated(path.read_bytes(), rng))
        return "damaged"
    return rewritten(path, rng).partition(": ")[2]


def _search(seeds: Path, root: Path) -> Any:
    """The nearest features to each of the stored ones, from `root` as far as it is there."""
    from chexray.engine.blocks import FeatureBlocks
    from chexray.engine.progress import Progress
    from chexray.engine.search import Search, search
    from chexray.storage import Storage

    storage = Storage(retries=0)
    blocks = FeatureBlocks(str(seeds / "blocks"), N_KEYS, WIDTH, 5, storage, "0" * 16)
    codes = np.arange(N_KEYS)
    progress = Progress("search", "queries", 0, stream=io.StringIO())
    asked = {"x": Search(blocks, blocks, codes, codes)}
    return search(asked, root=str(root), storage=storage, workers=1, progress=progress)["x"]


def _stripe(seeds: Stored, rng: random.Random, folder: Path) -> Attempt:
    shutil.copytree(seeds.folder / "found", folder / "found")
    how = _spoilt(next((folder / "found").rglob("stripe-*")), rng)

    def act() -> Seen:
        good, found = _search(seeds.folder, seeds.folder / "found"), _search(seeds.folder, folder / "found")
        if not (np.array_equal(good.squared, found.squared) and np.array_equal(good.row, found.row)):
            raise Wrong(f"stripe {how}: other neighbours than were found")
        return Seen()

    return Attempt(f"stripe {how}", act)


def _pixel_distances(seeds: Path, root: Path | None = None) -> Any:
    """The distance of each of four images to the first one."""
    from PIL import Image

    from chexray.engine.pixel_pairs import pixel_distances
    from chexray.engine.progress import Progress
    from chexray.storage import Storage

    images = [seeds / f"{i}.png" for i in range(4)]
    for i, path in enumerate(images):
        if not path.exists():
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)).save(path)
    first, *others = ((path.name, str(path)) for path in images)
    return pixel_distances(
        [(first, others)], root=str(root or seeds / "pixels"), storage=Storage(retries=0), workers=1,
        max_pixels=10_000, io_threads=1, wrapped=True,
        progress=Progress("pixels", "pairs", 0, stream=io.StringIO()),
    )  # fmt: skip


def _pixels(seeds: Stored, rng: random.Random, folder: Path) -> Attempt:
    shutil.copytree(seeds.folder / "pixels", folder / "pixels")
    how = _spoilt(next((folder / "pixels").rglob("chunk-*")), rng)

    def act() -> Seen:
        good, found = _pixel_distances(seeds.folder), _pixel_distances(seeds.folder, folder / "pixels")
        same = np.array_equal(good.distance, found.distance) and np.array_equal(good.wrapped, found.wrapped)
        if not same and not found.rejects:
            raise Wrong(f"pixel distances {how}: other distances than were found")
        return Seen("ok", [reject.detail or "" for reject in found.rejects.values()])

    return Attempt(f"pixel distances {how}", act)
