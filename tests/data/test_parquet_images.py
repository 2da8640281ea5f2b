"""Parquet files that hold the images themselves; only the other columns are read for a manifest."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import manifest
from chexray.data.images import split_embedded
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.errors import ManifestError
from chexray.storage import Storage

STORAGE = Storage()


def read(path, origin="synthetic", **options):
    return ParquetImages(str(path), **options).read(origin, STORAGE)


def write(path, n=3, start=0, **more):
    ids = [f"{i:03d}" for i in range(start, start + n)]
    columns = {"image": pa.array([b"png" + i.encode() for i in ids]), "text": [f"prompt {i}" for i in ids], **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_rows_become_addresses_inside_the_file(tmp_path):
    path = write(tmp_path / "a.parquet", image_id=["007", "008", "009"], sex=["F", "M", "F"])
    table = read(path)
    assert table["sample_id"].to_pylist() == ["007", "008", "009"]
    assert table["uri"][2].as_py() == f"{path}#column=image&row=2"
    assert split_embedded(table["uri"][2].as_py()) == (str(path), "image", 2)
    assert table["prompt"][0].as_py() == "prompt 000"
    assert table["sex"].to_pylist() == ["F", "M", "F"]
    assert "image" not in table.column_names


def test_without_ids_a_row_is_its_file_and_number(tmp_path):
    assert read(write(tmp_path / "a.parquet"))["sample_id"].to_pylist() == ["a.parquet:0", "a.parquet:1", "a.parquet:2"]


def test_the_struct_of_datasets_lends_its_path(tmp_path):
    cells = [{"bytes": b"x", "path": "one.png"}, {"bytes": b"y", "path": "two.png"}]
    pq.write_table(pa.table({"image": cells, "age": [1, 2]}), tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert table["sample_id"].to_pylist() == ["one.png", "two.png"]
    assert table.column_names == ["sample_id", "uri", "age"]
    cells[0]["path"] = None
    pq.write_table(pa.table({"image": cells, "age": [1, 2]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")["sample_id"].to_pylist() == ["a.parquet:0", "a.parquet:1"]


def test_a_file_of_images_alone(tmp_path):
    pq.write_table(pa.table({"photo data": pa.array([b"x", b"y"], pa.large_binary())}), tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert split_embedded(table["uri"][1].as_py()) == (f"{tmp_path}/a.parquet", "photo data", 1)


@pytest.mark.parametrize("where", ["shards", "shards/*.parquet", "shards/part-?.parquet"])
def test_folders_and_patterns(tmp_path, where):
    write(tmp_path / "shards" / "part-1.parquet", start=3)
    write(tmp_path / "shards" / "part-0.parquet")
    if "*" in where:
        write(tmp_path / "shards" / "deeper" / "part-2.parquet")
    assert infer(str(tmp_path / where), STORAGE) == "parquet_images"
    table = read(tmp_path / where)
    assert table["prompt"].to_pylist() == [f"prompt 00{i}" for i in range(6)]
    assert len(set(table["uri"].to_pylist())) == 6


def test_the_key_follows_the_file_and_the_row(tmp_path):
    path = write(tmp_path / "a.parquet")
    before = manifest.load("p", "synthetic", ParquetImages(str(path)), STORAGE)
    assert len(set(before.table["image_key"].to_pylist())) == 3
    write(path, n=3, start=100)
    pq.write_table(pq.read_table(path).append_column("more", pa.array([1, 2, 3])), path)
    after = manifest.load("p", "synthetic", ParquetImages(str(path)), STORAGE)
    assert not set(before.table["image_key"].to_pylist()) & set(after.table["image_key"].to_pylist())


def test_what_is_said_when_it_does_not_fit(tmp_path):
    path = write(tmp_path / "a.parquet")
    with pytest.raises(
        ManifestError, match=r"no column 'imag', named in synthetic\.image_column\. Did you mean 'image'"
    ):
        read(path, image_column="imag")
    with pytest.raises(ManifestError, match=r"column 'text' is string, expected binary or \{bytes, path\}"):
        read(path, image_column="text")
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "paths.parquet")
    with pytest.raises(ManifestError, match=r"holds image bytes.*set synthetic\.source: table"):
        read(tmp_path / "paths.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(ManifestError, match="not a readable Parquet"):
        read(tmp_path / "text.parquet")
    with pytest.raises(ManifestError, match="no Parquet file"):
        read(tmp_path / "nowhere.parquet")
    with pytest.raises(ManifestError, match="no Parquet file matches"):
        infer(str(tmp_path / "*.pq"), STORAGE)
    (tmp_path / "none").mkdir()
    pq.write_table(pq.read_table(path).slice(0, 0), tmp_path / "none" / "a.parquet")
    with pytest.raises(ManifestError, match="have no rows"):
        read(tmp_path / "none")
    write(tmp_path / "mixed" / "a.parquet", sex=["F", "M", "F"])
    write(tmp_path / "mixed" / "b.parquet", sex=[1, 2, 3])
    with pytest.raises(ManifestError, match="differ in columns"):
        read(tmp_path / "mixed")
