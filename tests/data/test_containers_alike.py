"""The same pictures in every container give the same features, and remote containers are read once, by ranges."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_containers_array3d import nested
from data.test_containers_tar import write as write_tar
from data.test_containers_zip import write as write_zip
from PIL import Image

from chexray.data.containers.order import container_order, portions
from chexray.data.images import Groups, Reject, load_and
from chexray.data.sources.archive import Archive
from chexray.data.sources.folder import Folder
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.encoders.pixels import Pixels
from chexray.storage import Storage, join
from chexray.storage.traffic import taken

STORAGE = Storage()
SOURCES = {"archive": Archive, "parquet_images": ParquetImages, "folder": Folder}


def pictures(n=20, side=48, seed=0):
    rng = np.random.default_rng(seed)
    return {f"{i:03d}.png": rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(n)}


def png_of(pixels):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def containers(folder, found, group=7):
    """{what it is: where}: the pictures in every form."""
    files = {name: png_of(pixels) for name, pixels in found.items()}
    (folder / "files").mkdir()
    for name, data in files.items():
        (folder / "files" / name).write_bytes(data)
    cells = [{"bytes": data, "path": name} for name, data in files.items()]
    pq.write_table(pa.table({"image": cells}), folder / "hf.parquet", row_group_size=group)
    image = nested(list(found.values()))
    arrays = pa.table({"file_name": list(found), "note": ["x"] * len(found), "image": image})
    pq.write_table(arrays, folder / "array3d.parquet", row_group_size=group)
    return {
        "folder": folder / "files",
        "stored": write_zip(folder / "stored.zip", files),
        "deflated": write_zip(folder / "deflated.zip", files, zipfile.ZIP_DEFLATED),
        "tar": write_tar(folder / "a.tar", files),
        "gnu": write_tar(folder / "b.tar", files, tarfile.GNU_FORMAT),
        "hf": folder / "hf.parquet",
        "array3d": folder / "array3d.parquet",
    }


def features(path, storage=STORAGE, batch=8):
    """{id: feature} as a worker makes them, batch after batch."""
    table = SOURCES[infer(str(path), storage)](str(path)).read("synthetic", storage)
    taken()
    encoder, groups = Pixels(), Groups()
    table = table.take(container_order(table["uri"].to_pylist()))
    ids, uris, rows = table["sample_id"].to_pylist(), table["uri"].to_pylist(), []
    for start in range(0, len(uris), batch):
        rows += load_and(lambda _, pixels: encoder.prepare(pixels), uris[start : start + batch], storage, groups=groups)
    groups.close()
    assert not [row for row in rows if isinstance(row, Reject)]
    return dict(zip(ids, encoder.encode(np.stack(rows))["features"], strict=True))


def test_features_are_equal_to_the_last_bit(tmp_path):
    found = {what: features(path) for what, path in containers(tmp_path, pictures()).items()}
    for what, ours in found.items():
        assert list(ours) == sorted(found["folder"]), what
        assert all(np.array_equal(ours[name], theirs) for name, theirs in found["folder"].items()), what


@pytest.mark.parametrize("what", ["stored", "deflated", "array3d", "hf"])
def test_a_remote_container_is_read_once(tmp_path, s3, what):
    path = containers(tmp_path, pictures(42, 96), group=14)[what]
    uri = join(s3.bucket, path.name)
    s3.storage.write(uri, path.read_bytes())
    local = features(path)
    remote = features(uri, s3.storage)
    n_bytes, _ = taken()
    assert all(np.array_equal(remote[name], theirs) for name, theirs in local.items())
    # Headers of Parquet's three row groups are looked at in pieces of 64 KiB.
    assert n_bytes <= path.stat().st_size + (4 * 65_536 if what in ("hf", "array3d") else 0)


def test_a_remote_tar_costs_its_headers(tmp_path, s3):
    path = write_tar(tmp_path / "a.tar", {f"{i}.png": bytes(400_000) for i in range(5)})
    uri = join(s3.bucket, "a.tar")
    s3.storage.write(uri, path.read_bytes())
    taken()
    assert len(Archive(uri).read("real", s3.storage)) == 5
    n_bytes, n_reads = taken()
    assert n_reads <= 7
    assert n_bytes <= 1 << 20 + 7 * 4096


def test_portions_keep_row_groups_whole(tmp_path):
    pq.write_table(pa.table({"image": pa.array([b"x"] * 100)}), tmp_path / "a.parquet", row_group_size=30)
    uris = ParquetImages(str(tmp_path / "a.parquet")).read("real", STORAGE)["uri"].to_pylist()

    def cut(names, size, total=100_000):
        return [(part.start, part.stop) for part in portions(names, size, STORAGE, total)]

    assert cut(uris, 20) == [(0, 30), (30, 60), (60, 90), (90, 100)]
    assert cut(uris, 45) == [(0, 60), (60, 100)]
    # What is left when portions are done is cut as before, and files of their own are cut by number.
    assert cut(uris[:30] + uris[60:], 20) == [(0, 30), (30, 60), (60, 70)]
    assert cut([f"/{i}.png" for i in range(50)], 20) == [(0, 20), (20, 40), (40, 50)]
    # Few images are cut small, for there are workers to keep busy, and a group of very many is cut.
    assert cut(uris, 20, total=100)[:2] == [(0, 20), (20, 40)]
    pq.write_table(pa.table({"image": pa.array([b"x"] * 1000)}), tmp_path / "b.parquet")
    uris = ParquetImages(str(tmp_path / "b.parquet")).read("real", STORAGE)["uri"].to_pylist()
    assert cut(uris, 100)[:2] == [(0, 256), (256, 512)]


def test_a_row_group_is_read_once_for_all_batches(tmp_path, s3):
    path = containers(tmp_path, pictures(42, 96))["array3d"]
    uri = join(s3.bucket, path.name)
    s3.storage.write(uri, path.read_bytes())
    uris = ParquetImages(uri).read("real", s3.storage)["uri"].to_pylist()

    def read(groups, batch):
        taken()
        for start in range(0, len(uris), batch):
            load_and(lambda _, pixels: 0, uris[start : start + batch], s3.storage, groups=groups)
        return taken()[0] / path.stat().st_size

    groups = Groups()
    assert read(groups, 2) < 1.2
    groups.close()
    assert read(None, 2) > 3
