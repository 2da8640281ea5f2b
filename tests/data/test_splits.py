"""Splits of one data set in one folder: one of them is read, or all where the config says so; metadata of each."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import schema
from chexray.data.sources._splits import of_folders, of_shards
from chexray.data.sources.folder import Folder
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.errors import ManifestError
from chexray.storage import Storage

STORAGE = Storage()


@pytest.fixture
def hub(tmp_path):
    for split, n in (("train", 3), ("test", 2), ("validation", 1)):
        path = tmp_path / "hub" / "data" / f"{split}-00000-of-00001-0a1b2c3d4e5f.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": [b"x"] * n, "text": [split] * n}), path)
    return tmp_path / "hub"


@pytest.fixture
def folders(tmp_path):
    for split, n in (("train", 2), ("test", 1)):
        folder = tmp_path / "set" / split
        folder.mkdir(parents=True)
        rows = [{"file_name": f"{i}.png", "text": f"{split} {i}"} for i in range(n)]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for i in range(n):
            (folder / f"{i}.png").write_bytes(b"x")
    return tmp_path / "set"


def read(kind, path, **options):
    table = kind(str(path), **options).read("real", STORAGE)
    return table, json.loads(table.schema.metadata[schema.METADATA_KEY])["notes"]


def test_parquet(hub):
    assert infer(str(hub), STORAGE) == "parquet_images"
    with pytest.raises(ManifestError, match=r"holds 3 splits, test, train, validation\. Name one in real\.split, or"):
        read(ParquetImages, hub)
    table, notes = read(ParquetImages, hub, split="test")
    assert table["prompt"].to_pylist() == ["test", "test"]
    assert notes == ["2 files of other splits are left out (split test)"]
    assert len(read(ParquetImages, hub, split="val")[0]) == 1
    assert len(read(ParquetImages, hub, split="all")[0]) == 6
    assert len(read(ParquetImages, hub / "data" / "train-*.parquet")[0]) == 3
    assert len(read(ParquetImages, hub / "data" / "train-00000-of-00001-0a1b2c3d4e5f.parquet", split="train")[0]) == 3
    with pytest.raises(ManifestError, match="holds 3 splits"):
        read(ParquetImages, hub / "data" / "*.parquet")
    with pytest.raises(ManifestError, match=r"has no split 'tets', named in real\.split\. Found: test, train"):
        read(ParquetImages, hub, split="tets")


def test_folders_with_metadata_of_their_own(folders):
    with pytest.raises(ManifestError, match=r"holds 2 splits, test, train\. Name one in real\.split"):
        read(Folder, folders)
    table, notes = read(Folder, folders, split="train")
    assert table["sample_id"].to_pylist() == ["train/0.png", "train/1.png"]
    assert table["prompt"].to_pylist() == ["train 0", "train 1"]
    assert notes == ["1 files of other splits are left out (split train)"]
    table, notes = read(Folder, folders, split="all")
    assert table["prompt"].to_pylist() == ["test 0", "train 0", "train 1"]
    assert notes == []
    assert read(Folder, folders / "train")[0]["prompt"].to_pylist() == ["train 0", "train 1"]


def test_one_metadata_for_all_splits(folders):
    for split in ("train", "test"):
        (folders / split / "metadata.jsonl").unlink()
    (folders / "metadata.csv").write_text("file_name,text\ntrain/0.png,a\ntrain/1.png,b\ntest/0.png,c\n")
    assert read(Folder, folders, split="test")[0]["prompt"].to_pylist() == ["c"]
    assert read(Folder, folders, split="all")[0]["prompt"].to_pylist() == ["c", "a", "b"]


def test_metadata_of_subfolders_that_are_no_splits(folders):
    (folders / "train").rename(folders / "siteA")
    (folders / "test").rename(folders / "siteB")
    table, notes = read(Folder, folders)
    assert table["prompt"].to_pylist() == ["train 0", "train 1", "test 0"]
    assert notes == []
    assert read(Folder, folders, split=None, recursive=True)[0].equals(table)
    (folders / "siteA" / "metadata.csv").write_text("file_name,text\n0.png,a\n")
    with pytest.raises(ManifestError, match=r"siteA: holds both metadata\.csv and metadata\.jsonl"):
        read(Folder, folders)
    (folders / "siteA" / "metadata.csv").unlink()
    (folders / "metadata.csv").write_text("file_name,text\nsiteA/0.png,twice\n")
    with pytest.raises(ManifestError, match=r"data row 1 and .*metadata\.csv \(row 1\) both describe 'siteA/0\.png'"):
        read(Folder, folders)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train.parquet", "train"),
        ("val/part-0.parquet", "validation"),
        ("gen_test_0.parquet", "test"),
        ("extra-00000-of-00001.parquet", "extra"),
        ("part-0.parquet", ""),
        ("trained.parquet", ""),
        ("contest.parquet", ""),
    ],
)
def test_names_of_shards(path, split):
    assert of_shards(path) == split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/NORMAL/a.png", "train"),
        ("images/Test/a.png", "test"),
        ("synthetic_train/a.png", ""),
        ("a/test.png", ""),
        ("dev/a.png", "validation"),
    ],
)
def test_names_of_folders(path, split):
    assert of_folders(path) == split
