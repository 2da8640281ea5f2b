"""Parquet files that hold the images themselves; only the other columns are read for a manifest."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import manifest
from chexray.data.images import load_images, split_embedded
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
    with pytest.raises(ManifestError, match=r"column 'text' is string, expected binary, \{bytes, path\} or nested"):
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


def pixel_file(path, image, described=None, **more):
    table = pa.table({"image": image, **more})
    if described is not None:
        info = {"info": {"features": {"image": described}}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    pq.write_table(table, path)
    return path


def test_pixel_arrays_are_images(tmp_path):
    image = pa.array([[[[1, 2, 3]] * 2] * 2] * 3, pa.list_(pa.list_(pa.list_(pa.uint8()))))
    names = [f"SyntheticImg_{i}.png" for i in range(3)]
    path = pixel_file(tmp_path / "a.parquet", image, image_filename=names, view=["x"] * 3)
    assert infer(str(path), STORAGE) == "parquet_images"
    table = read(path)
    assert table["sample_id"].to_pylist() == names
    assert split_embedded(table["uri"][1].as_py()) == (str(path), "image", 1)
    assert "image" not in table.column_names


@pytest.mark.parametrize("registered", [False, True])
def test_extension_types_of_datasets_are_their_storage(tmp_path, registered):
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    image = pa.array([[[[7], [9]]]], kind)
    mark = {b"ARROW:extension:name": b"datasets.features.features.Array3DExtensionType",
            b"ARROW:extension:metadata": b'[[1, 2, 1], "uint8"]'}  # fmt: skip

    class Array3D(pa.ExtensionType):
        def __init__(self):
            super().__init__(kind, "datasets.features.features.Array3DExtensionType")

        def __arrow_ext_serialize__(self):
            return b'[[1, 2, 1], "uint8"]'

        @classmethod
        def __arrow_ext_deserialize__(cls, storage, serialized):
            return cls()

    schema = pa.schema([pa.field("image", kind, metadata=mark)])
    pq.write_table(pa.Table.from_arrays([image], schema=schema), tmp_path / "a.parquet")
    if registered:
        pa.register_extension_type(Array3D())
    try:
        (pixels,) = load_images(read(tmp_path / "a.parquet")["uri"].to_pylist(), STORAGE)
    finally:
        if registered:
            pa.unregister_extension_type("datasets.features.features.Array3DExtensionType")
    assert pixels.tolist() == [[7, 9]]


@pytest.mark.parametrize(
    ("leaf", "depth", "described", "words"),
    [
        (pa.float32(), 3, None, "holds lists of float inside each other, expected whole numbers from 0 to 255"),
        (pa.uint8(), 4, None, "holds 4 lists inside each other, expected .height, width."),
        (pa.uint8(), 3, {"_type": "Array3D", "shape": [8, 8, 4], "dtype": "uint8"}, "pixel arrays of 8 x 8 x 4, exp"),
        (pa.uint8(), 3, {"_type": "Array3D", "shape": [3, 8, 8], "dtype": "uint8"}, "with 1 or 3 channels last"),
    ],
)
def test_arrays_that_are_no_images_are_one_line(tmp_path, leaf, depth, described, words):
    kind, cell = leaf, 1
    for _ in range(depth):
        kind, cell = pa.list_(kind), [cell]
    path = pixel_file(tmp_path / "a.parquet", pa.array([cell] * 3, kind), described)
    with pytest.raises(ManifestError, match=words) as error:
        read(path)
    assert "column 'image'" in str(error.value)
    assert len(str(error.value)) < 400


def test_a_table_of_paths_with_lists_of_numbers_stays_a_table(tmp_path):
    boxes = pa.array([[[1.0, 2.0]], [[3.0]]])
    pq.write_table(pa.table({"path": ["a.png", "b.png"], "boxes": boxes}), tmp_path / "a.parquet")
    assert infer(str(tmp_path / "a.parquet"), STORAGE) == "table"


def test_large_row_groups_are_said(tmp_path):
    cells = pa.array([b"x"] * 1_500)
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    (note,) = json.loads(read(tmp_path / "a.parquet").schema.metadata[b"chexray"])["notes"]
    assert note.startswith("row groups of up to 1,500 images, of which each is read as a whole for every 256 images")
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet", row_group_size=100)
    assert json.loads(read(tmp_path / "a.parquet").schema.metadata[b"chexray"])["notes"] == []
