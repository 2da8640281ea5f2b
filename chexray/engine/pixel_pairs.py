"""Pixel distances between real images and what was generated from their prompts, on Ray tasks.

    <root>/pixel-distances/<key>/chunk-00000.parquet     pair, distance, wrapped, code, detail, transient

The file is the commit. Pixels are compared as radiographs of 512x512: greyscale bytes, resized with Pillow's bicubic if
they are of another size. Each real image is decoded once, whatever the number of its generations.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from chexray.data.containers.order import container_order
from chexray.data.depth import Depth
from chexray.data.images import Groups, Reject, load_and
from chexray.data.unchanged import changed
from chexray.encoders.resize import PILLOW, pil_resize
from chexray.engine.batches import check_available
from chexray.engine.committed import names_in, read_committed
from chexray.engine.progress import Progress
from chexray.engine.tasks import as_they_finish
from chexray.errors import RunFailed, StorageError
from chexray.stats.pixel_distance import pixel_rms, wrapped_pixel_rms
from chexray.storage import Storage, basename, join
from chexray.text import first_line

SIDE = 512
CHUNK_IMAGES = 256
"""Images of a chunk, 2 to 5 s of one core; a prompt with more of them is a chunk of its own."""

BATCH = 32
"""Images fetched and decoded at once; each is let go as soon as it is 512x512."""

SMALL_IMAGES = 64
"""Images below which the work is done in this process: less than a worker needs to start."""

PIXELS_VERSION = 2

Image = tuple[str, str]
"""image_key and uri."""
Group = tuple[Image, Sequence[Image]]
"""A real image and the images generated from its prompt."""

SCHEMA = pa.schema(
    [
        ("pair", pa.int64()), ("distance", pa.float64()), ("wrapped", pa.float64()), ("code", pa.string()),
        ("detail", pa.string()), ("transient", pa.bool_()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class PixelDistances:
    """One entry a pair, in the order of the groups and of the generations within them.

    distance: (n,) float64, RMS in grey levels 0..255, NaN where the pair has a reject. wrapped: upstream's wrong value
    for the same pairs, if it was asked for. rejects: {pair: why}, where either image could not be read.
    """

    distance: np.ndarray
    wrapped: np.ndarray | None
    rejects: dict[int, Reject]


def pixel_distances(
    groups: Sequence[Group],
    *,
    root: str,
    storage: Storage,
    workers: int,
    max_pixels: int,
    io_threads: int,
    wrapped: bool,
    progress: Progress,
    depths: Mapping[str, Depth] | None = None,
) -> PixelDistances:
    """The pixel distance of every pair, from what is committed and from what is decoded now.

    depths: {image_key: the depth of its set}. Progress counts images to decode. Pairs rejected for a passing reason are
    tried again by the next call. Raises StorageError when a whole batch is unavailable or a chunk is broken, RunFailed
    when a pair is missing.
    """
    groups, places = _in_container_order(groups)
    chunks = _chunks(groups, depths or {})
    folder = join(root, "pixel-distances", _key(groups))
    uris = {i: join(folder, f"chunk-{i:05d}.parquet") for i in range(len(chunks))}
    found = _committed(folder, uris, storage)
    pending = [i for i in range(len(chunks)) if i not in found or any(found[i]["transient"].to_pylist())]
    if pending:
        progress.total = sum(chunks[i].n_images for i in pending)
        items = ((chunks[i], uris[i], storage, max_pixels, io_threads) for i in pending)
        here = progress.total < SMALL_IMAGES
        for n_images, n_rejected in as_they_finish(_measure, items, workers=workers, what="pixel distances", here=here):
            progress.advance(n_images, n_rejected)
        progress.close()
        found |= _committed(folder, {i: uris[i] for i in pending}, storage)
    measured = _collect(list(found.values()), len(places), wrapped, folder)
    return _as_given(measured, places)


def _in_container_order(groups: Sequence[Group]) -> tuple[Sequence[Group], np.ndarray]:
    """The groups in the order in which their generations lie in a container, and where each of their pairs was, (n,):
    a Parquet row group is not read again for every pair."""
    firsts = np.cumsum([0, *(len(generated) for _, generated in groups)]).tolist()
    order = container_order([(generated[0] if generated else real)[1] for real, generated in groups]).tolist()
    pairs = [np.arange(firsts[i], firsts[i + 1]) for i in order]
    return [groups[i] for i in order], np.concatenate([np.empty(0, np.int64), *pairs])


def _as_given(measured: PixelDistances, places: np.ndarray) -> PixelDistances:
    """The distances in the order in which the pairs were given. places: where each of them was."""
    back = np.argsort(places)
    rejects = {int(places[pair]): reject for pair, reject in measured.rejects.items()}
    wrapped = None if measured.wrapped is None else measured.wrapped[back]
    return PixelDistances(measured.distance[back], wrapped, rejects)


@dataclass(frozen=True)
class _Chunk:
    """Consecutive groups; `first` is the number of their first pair. depths: {image_key: depth} of their images."""

    first: int
    groups: list[Group]
    depths: dict[str, Depth]

    @property
    def n_images(self) -> int:
        return sum(1 + len(generated) for _, generated in self.groups)

    def images(self) -> Iterator[tuple[str, str, bool, Depth | None]]:
        """Key and uri, whether it is the real image of the generations that follow, and the depth of its set."""
        for real, generated in self.groups:
            yield *real, True, self.depths.get(real[0])
            yield from ((key, uri, False, self.depths.get(key)) for key, uri in generated)


def _chunks(groups: Sequence[Group], depths: Mapping[str, Depth]) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    n_pairs, n_images = 0, CHUNK_IMAGES
    for group in groups:
        size = 1 + len(group[1])
        if size == 1:
            continue
        if n_images + size > CHUNK_IMAGES:
            chunks.append(_Chunk(n_pairs, [], {}))
            n_images = 0
        chunks[-1].groups.append(group)
        chunks[-1].depths.update({key: depths[key] for key, _ in (group[0], *group[1]) if key in depths})
        n_pairs, n_images = n_pairs + size - 1, n_images + size
    return chunks


def _key(groups: Sequence[Group]) -> str:
    """16 hex digits over the images, how they are paired and cut, and what is done to them."""
    digest = hashlib.blake2b(f"{PIXELS_VERSION} {SIDE} {CHUNK_IMAGES} {PILLOW}".encode(), digest_size=8)
    for (key, _), generated in groups:
        digest.update("\0".join(["", key, *(other for other, _ in generated), ""]).encode() + b"\n")
    return digest.hexdigest()


def _committed(folder: str, uris: dict[int, str], storage: Storage) -> dict[int, pa.Table]:
    """{number of the chunk: its table} for those that are committed."""
    there = names_in(folder, storage)
    present = {i: uri for i, uri in uris.items() if basename(uri) in there}
    again = "Delete it and run the same command again; only this part is computed again."
    types = dict(zip(SCHEMA.names, SCHEMA.types, strict=True))
    with ThreadPoolExecutor(8) as pool:
        tables = pool.map(lambda uri: read_committed(storage, uri, types, again), present.values())
        return dict(zip(present, tables, strict=True))


def _collect(tables: list[pa.Table], n: int, wrapped: bool, folder: str) -> PixelDistances:
    distance, upstream = np.full(n, np.nan), np.full(n, np.nan)
    rejects: dict[int, Reject] = {}
    seen = np.zeros(n, np.int64)
    for table in tables:
        known = table["pair"].drop_null().to_numpy()
        values = np.concatenate([table[name].drop_null().to_numpy() for name in ("distance", "wrapped")])
        if len(known) < len(table) or np.any((known < 0) | (known >= n)) or np.any((values < 0) | (values > 255)):
            raise StorageError(
                f"{folder} holds invalid pixel distances. Delete this folder and run the same command again."
            )
        pairs = table["pair"].to_numpy()
        np.add.at(seen, pairs, 1)
        distance[pairs], upstream[pairs] = table["distance"].to_numpy(), table["wrapped"].to_numpy()
        for row in table.select(["pair", "code", "detail", "transient"]).to_pylist():
            if row["code"]:
                rejects[row["pair"]] = Reject(row["code"], row["detail"], row["transient"])
    if np.any(seen != 1):
        raise RunFailed(
            f"{folder} holds {int((seen == 1).sum())} of {n} pixel distances. Run the same command again to resume; "
            "if that fails too, delete this folder."
        )
    return PixelDistances(distance, upstream if wrapped else None, rejects)


def _measure(chunk: _Chunk, uri: str, storage: Storage, max_pixels: int, io_threads: int) -> tuple[int, int]:
    """Commits the distances of a chunk to `uri`; returns how many images it has and how many pairs were rejected."""
    rows = []
    real: np.ndarray | Reject = Reject("not_found", "a group begins with its real image")
    for image, is_real in _prepared(chunk, storage, max_pixels, io_threads):
        if is_real:
            real = replace(image, detail=f"the real image: {image.detail}") if isinstance(image, Reject) else image
            continue
        row: dict[str, object] = {"pair": chunk.first + len(rows), "distance": math.nan, "wrapped": math.nan}
        if isinstance(real, Reject):
            row |= asdict(real)
        elif isinstance(image, Reject):
            row |= asdict(image)
        else:
            row |= {"distance": pixel_rms(real, image), "wrapped": wrapped_pixel_rms(real, image), "transient": False}
        rows.append(row)
    storage.write_parquet(uri, pa.Table.from_pylist(rows, SCHEMA))
    return chunk.n_images, sum("code" in row for row in rows)


def _prepared(
    chunk: _Chunk, storage: Storage, max_pixels: int, io_threads: int
) -> Iterator[tuple[np.ndarray | Reject, bool]]:
    """Each image of a chunk as (SIDE, SIDE) uint8 or a Reject, the next batch decoded while one is compared."""
    images, row_groups = list(chunk.images()), Groups()

    def load(start: int) -> list[np.ndarray | Reject]:
        keys, uris, _, depths = zip(*images[start : start + BATCH], strict=True)
        loaded = load_and(
            _fit, uris, storage, threads=io_threads, max_pixels=max_pixels, depths=depths, groups=row_groups
        )
        for row, reject in changed(uris, keys, depths, storage).items():
            loaded[row] = reject
        check_available(uris, loaded)
        return loaded

    with closing(row_groups), ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, 0)
        for start in range(0, len(images), BATCH):
            batch = ahead.result()
            if start + BATCH < len(images):
                ahead = pool.submit(load, start + BATCH)
            yield from zip(batch, (is_real for _, _, is_real, _ in images[start : start + BATCH]), strict=True)


def _fit(_: int, image: np.ndarray) -> np.ndarray | Reject:
    try:
        return pil_resize(image, SIDE, SIDE, "bicubic")
    except MemoryError:
        return Reject("out_of_memory", f"no memory to resize to {SIDE}x{SIDE}", transient=True)
    except (ValueError, OverflowError) as error:
        return Reject("unpreparable", f"cannot be resized to {SIDE}x{SIDE}: {first_line(error)}")
