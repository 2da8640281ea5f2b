"""Archives and files replaced between the plan and the reads: rejects that may pass, never features of other pixels."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_containers_zip import picture
from fixtures.toys import Toy

from chexray.data.containers import tar
from chexray.data.depth import Depth
from chexray.data.images import Reject, load_images
from chexray.data.manifest import deep_key, image_key, load
from chexray.data.sources.archive import Archive
from chexray.data.sources.folder import Folder
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.unchanged import changed
from chexray.engine.features import FeatureStore
from chexray.engine.pixel_pairs import pixel_distances
from chexray.engine.planted import OriginalLost, planted_blocks
from chexray.engine.pools import Pool
from chexray.engine.progress import Progress
from chexray.engine.worker import CHUNK_SCHEMA, Encode, Job, prepare
from chexray.errors import StorageError
from chexray.storage import Storage

STORAGE = Storage(sleep=lambda _: None)
POOL = Pool("cpu", "fused", 1, 0.5, 0.25, 0.0, 1, 4, 64, 4, 10**6)
N = 10


def as_tar(path, first):
    with tarfile.open(path, "w") as archive:
        for i in range(N):
            info, data = tarfile.TarInfo(f"{i}.png"), picture(first + i).ljust(2000, b"\0")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return Archive(str(path))


def as_zip(path, first):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(N):
            archive.writestr(f"{i}.png", picture(first + i))
    return Archive(str(path))


def as_parquet(path, first):
    pq.write_table(pa.table({"image": [picture(first + i) for i in range(N)]}), path)
    return ParquetImages(str(path))


def as_folder(path, first):
    path.mkdir(exist_ok=True)
    for i in range(N):
        (path / f"{i}.png").write_bytes(picture(first + i))
    return Folder(str(path))


def older(path, seconds=10):
    for each in [path, *(path.iterdir() if path.is_dir() else ())]:
        os.utime(each, ns=(0, each.stat().st_mtime_ns - seconds * 10**9))


def chunk_of(manifest):
    table = manifest.table.select(["image_key", "uri"])
    depth = pa.nulls(len(table), pa.string())
    columns = [*table.combine_chunks().columns, pa.array(["toy"] * len(table)), depth]
    return pa.Table.from_arrays(columns, schema=CHUNK_SCHEMA)


def job_at(root):
    encoder = Toy()
    return Job({"toy": (encoder, encoder.resolve())}, FeatureStore(str(root), STORAGE), POOL)


@pytest.mark.parametrize("write", [as_tar, as_zip, as_parquet, as_folder])
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_nothing_is_encoded_under_the_key_of_another_file(tmp_path, write, layout):
    path = tmp_path / {as_tar: "a.tar", as_zip: "a.zip", as_parquet: "a.parquet", as_folder: "a"}[write]
    source = write(path, 0)
    older(path)
    chunk = chunk_of(load("syn", "synthetic", source, STORAGE))
    job = job_at(tmp_path / "store")
    ready = prepare(job, chunk) if layout == "split" else chunk
    answer = Encode(job)(ready).to_pylist()[0]
    assert (answer["n_done"], answer["n_rejected"]) == (N, 0)

    other = job_at(tmp_path / "other")
    write(path, 100)
    ready = prepare(other, chunk) if layout == "split" else chunk
    answer = Encode(other)(ready).to_pylist()[0]
    assert "changed after the run was planned" in answer["message"]
    assert "run the same command again" in answer["message"]
    assert not other.done()["toy"].rows


def test_of_two_archives_the_replaced_one_is_rejected_and_tried_again(tmp_path):
    paths = [tmp_path / "a.tar", tmp_path / "b.tar"]
    sets = [load("syn", "synthetic", as_tar(path, 50 * i), STORAGE) for i, path in enumerate(paths)]
    chunk = pa.concat_tables(map(chunk_of, sets))
    older(paths[1])
    job = job_at(tmp_path / "store")
    answer = Encode(job)(chunk).to_pylist()[0]
    assert (answer["n_done"], answer["n_rejected"]) == (2 * N, N)
    done = job.done()["toy"]
    assert {(each["code"], each["stage"], each["transient"]) for each in done.rejects.values()} == {
        ("changed", "fetch", True)
    }
    keys = [each.table["image_key"].to_pylist() for each in sets]
    assert (done.covered(keys[0]).all(), done.covered(keys[1]).any()) == (True, False)


def test_depths_are_part_of_the_key_and_each_archive_is_asked_for_once(tmp_path, monkeypatch):
    uri = tar.index(str(tmp_path / "a.tar"), STORAGE)["uri"].to_pylist() if as_tar(tmp_path / "a.tar", 0) else []
    stat = STORAGE.stat([str(tmp_path / "a.tar")])[0]
    keys = [image_key(each, stat.size, stat.version) for each in uri]
    depth = Depth(12)
    asked = []
    monkeypatch.setattr(Storage, "stat", lambda self, names: (asked.append(names), [stat] * len(names))[1])
    deep = [deep_key(key, str(depth)) for key in keys]
    assert changed(uri, deep, [depth] * N, STORAGE) == {}
    assert changed(uri, keys, [Depth(0)] * N, STORAGE) == {}
    assert set(changed(uri, keys, [depth] * N, STORAGE)) == set(range(N))
    assert asked == [[stat.uri]] * 3
    # One GET brings a remote file of one image; a HEAD more would cost as much. Keys of others are not judged.
    assert changed(["s3://b/x.png", *uri], ["0" * 32, *["own"] * N], [None] * (N + 1), STORAGE) == {}


def test_an_archive_that_cannot_be_asked_is_tried_again(tmp_path, monkeypatch):
    def fail(*_):
        raise StorageError("no answer")

    monkeypatch.setattr(Storage, "stat", fail)
    found = changed(["/a.tar#member=x&at=512:5:00000000"], ["0" * 32], [None], STORAGE)
    assert found[0].transient


def test_a_tar_with_other_members_at_the_same_places_gives_none_of_them(tmp_path):
    def write(names):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(picture(1))
                archive.addfile(info, io.BytesIO(picture(1)))

    write(["img_12.png", "img_34.png"])
    uris = tar.index(str(tmp_path / "a.tar"), STORAGE)["uri"].to_pylist()
    write(["img_21.png", "img_34.png"])
    first, second = load_images(uris, STORAGE)
    assert isinstance(first, Reject)
    assert "another header" in first.detail
    assert isinstance(second, np.ndarray)


def test_neither_distances_nor_planted_copies_are_made_of_other_files(tmp_path):
    as_folder(tmp_path / "set", 0)
    manifest = load("syn", "synthetic", Folder(str(tmp_path / "set")), STORAGE)
    images = list(zip(manifest.table["image_key"].to_pylist(), manifest.table["uri"].to_pylist(), strict=True))
    older(tmp_path / "set")
    with pytest.raises(StorageError, match="changed after the run was planned"):
        pixel_distances(
            [(images[0], images[1:])], root=str(tmp_path), storage=STORAGE, workers=1, max_pixels=10**6, io_threads=2,
            wrapped=False, progress=Progress("pairs", "images", N, stream=io.StringIO()),
        )  # fmt: skip
    toy = Toy()
    with pytest.raises(OriginalLost, match="changed after the run was planned"):
        planted_blocks(
            [(*images[0], None)], {"same": lambda image, _: image}, {"toy": (toy, toy.resolve())}, root=str(tmp_path),
            storage=STORAGE, seed=0, max_pixels=10**6, io_threads=2,
        )  # fmt: skip
