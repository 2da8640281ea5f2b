"""A manifest accounts for every row it was given, and notices an image changed in place."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest

from chexray.data import manifest, schema
from chexray.data.sources.folder import Folder
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.storage import Storage, join

STORAGE = Storage()


@pytest.fixture
def table(tmp_path):
    """Ten images, in an order that is not that of their ids."""
    ids = [f"i{k}" for k in (3, 1, 0, 2, 9, 8, 7, 6, 5, 4)]
    for sample_id in ids:
        (tmp_path / f"{sample_id}.png").write_bytes(sample_id.encode())
    return pa.table({"sample_id": ids, "uri": [f"{tmp_path}/{i}.png" for i in ids], "sex": ["F", None] * 5})


def build(table, **kw):
    return manifest.build("set", "real", table, STORAGE, **kw)


def test_rows_are_sorted_typed_and_complete(table):
    built = build(table)
    assert built.table.column_names == [*schema.COLUMNS, "sex"]
    assert [built.table.schema.field(name).type for name in schema.COLUMNS] == list(schema.COLUMNS.values())
    assert built.table["sample_id"].to_pylist() == [f"i{k}" for k in range(10)]
    assert built.table["row"].to_pylist()[:4] == [2, 1, 3, 0]
    assert built.table["prompt"].null_count == built.table["labels"].null_count == len(built) == built.n_rows == 10
    assert built.rejects.schema == schema.REJECT_SCHEMA
    assert len(built.rejects) == 0
    keys = built.table["image_key"].to_pylist()
    assert len(set(keys)) == 10
    assert {len(key) for key in keys} == {32}


def test_the_fingerprint_follows_values_not_layout(table, tmp_path):
    first = build(table).fingerprint
    assert len(first) == 16
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    assert build(chunked).fingerprint == first
    sliced = pa.concat_tables([table.slice(9), table]).combine_chunks().slice(1)
    assert build(sliced).fingerprint == first
    other = table.set_column(2, "sex", pa.array(["F", "M"] * 5))
    assert build(other).fingerprint != first
    empty = table.set_column(2, "sex", pa.array(["F", ""] * 5))
    assert build(empty).fingerprint != first
    assert build(table.rename_columns(["sample_id", "uri", "gender"])).fingerprint != first
    # The same text cut elsewhere, and a column that is no plain value.
    assert (
        build(table.append_column("t", [["ab", "c"] * 5])).fingerprint
        != build(table.append_column("t", [["a", "bc"] * 5])).fingerprint
    )
    nested = [build(table.append_column("t", [[[k], [2]] * 5])).fingerprint for k in (1, 1, 3)]
    assert nested[0] == nested[1] != nested[2]


def test_an_image_changed_in_place_is_another_image(table, tmp_path):
    before = build(table)
    (tmp_path / "i4.png").write_bytes(b"other content")
    stat = os.stat(tmp_path / "i5.png")
    os.utime(tmp_path / "i5.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = build(table)
    changed = np.array(before.table["image_key"]) != np.array(after.table["image_key"])
    assert np.flatnonzero(changed).tolist() == [4, 5]
    assert before.fingerprint != after.fingerprint


def test_missing_images_are_rejects_with_a_reason(table, tmp_path):
    (tmp_path / "i3.png").unlink()
    uris = table["uri"].to_pylist()
    uris[1] = None
    built = build(table.set_column(1, "uri", pa.array(uris)))
    assert len(built) == 8
    assert built.rejects.select(["set", "sample_id", "stage", "code", "transient"]).to_pylist() == [
        {"set": "set", "sample_id": "i1", "stage": "manifest", "code": "no_path", "transient": False},
        {"set": "set", "sample_id": "i3", "stage": "manifest", "code": "not_found", "transient": False},
    ]
    assert built.n_rows == len(built) + len(built.rejects) + sum(built.excluded.values())


def test_most_images_missing_is_a_wrong_root(table):
    uris = [uri.replace(".png", ".jpg") if k else uri for k, uri in enumerate(table["uri"].to_pylist())]
    wrong = table.set_column(1, "uri", pa.array(uris))
    with pytest.raises(ManifestError) as caught:
        build(wrong)
    message = str(caught.value)
    assert "9 of 10 rows name an image that does not exist" in message
    assert "/i1.jpg' (data row 2)" in message
    assert "Set real.image_root (or --image-root) to the folder" in message


def test_duplicate_ids_name_the_first_and_both_rows(table):
    doubled = pa.concat_tables([table, table.slice(4, 2), table.slice(0, 1)])
    with pytest.raises(
        ManifestError, match=r"3 of 13 sample_ids repeat, first 'i9' \(data rows 5 and 11\).*on_duplicate"
    ):
        build(doubled)
    built = build(doubled, on_duplicate="first")
    assert built.excluded == {"duplicate_sample_id": 3}
    assert built.n_rows == 13
    assert built.table["row"].to_pylist() == build(table).table["row"].to_pylist()
    with pytest.raises(ManifestError, match="error, first"):
        build(table, on_duplicate="last")


def test_null_ids_and_no_rows(table):
    ids = table["sample_id"].to_pylist()
    ids[6] = None
    with pytest.raises(
        ManifestError, match=r"1 of 10 rows have no sample_id, first data row 7.*real.columns.sample_id"
    ):
        build(table.set_column(0, "sample_id", pa.array(ids)))
    with pytest.raises(ManifestError, match="real set 'set' has no rows"):
        build(table.slice(0, 0))


def test_limit_is_spread_over_the_table_and_does_not_depend_on_order(tmp_path):
    for k in range(200):
        (tmp_path / f"{k // 100}-{k:03d}.png").write_bytes(b"x")
    source = Folder(str(tmp_path))
    some = manifest.load("f", "real", source, STORAGE, limit=40)
    ids = some.table["sample_id"].to_pylist()
    assert len(ids) == 40
    assert ids == sorted(ids)
    assert 10 <= sum(i.startswith("0") for i in ids) <= 30
    assert some.excluded == {"limit": 160}
    backwards = source.read("real", STORAGE)
    backwards = backwards.take(list(range(199, -1, -1)))
    assert manifest.build("f", "real", backwards, STORAGE, limit=40).table["sample_id"].to_pylist() == ids
    assert set(manifest.load("f", "real", source, STORAGE, limit=20).table["sample_id"].to_pylist()) < set(ids)
    assert len(manifest.load("f", "real", source, STORAGE, limit=1000)) == 200


def test_one_image_named_twice_is_noted(table):
    uris = table["uri"].to_pylist()
    built = build(table.set_column(1, "uri", pa.array([uris[0], *uris[:9]])))
    assert built.notes == ("1 rows name an image that another row names too; each row counts",)
    assert len(built) == 10


def test_one_image_only(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    (tmp_path / "s.csv").write_text("path\n1.png\n")
    assert len(manifest.load("s", "real", Table(str(tmp_path / "s.csv")), STORAGE)) == 1


def test_notes_and_roles_come_from_the_source(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    (tmp_path / "2.png").write_bytes(b"x")
    (tmp_path / "s.csv").write_text("id,path,labels\na,1.png,\nb,2.png,{'Edema': 1}\n")
    built = manifest.load("s", "real", Table(str(tmp_path / "s.csv")), STORAGE)
    assert built.notes == ("1 of 2 images have no labels",)
    assert built.roles == {"sample_id": "id", "uri": "path", "labels": "labels"}


def test_real_sets(shared):
    folder = shared / "data" / "cxr"
    built = manifest.load("real_test", "real", Table(str(folder / "real_test.csv")), STORAGE)
    assert (len(built), built.n_rows, len(built.rejects)) == (222, 222, 0)
    assert len(built.table["subject_id"].unique()) < 222
    seeds = manifest.load("seeds", "synthetic", Table(str(folder / "synthetic_seeds.csv")), STORAGE)
    assert len(seeds.table["sample_id"].unique()) == 80


def test_a_bucket_gives_the_same_manifests(s3):
    root = join(s3.bucket, "sets")
    for k in range(3):
        s3.storage.write(join(root, "set", f"{k}.png"), b"x" * k)
    s3.storage.write(join(root, "set.csv"), b"img_savename,sex\n0.png,F\n1.png,M\ngone.png,F\n2.png,F\n")
    s3.storage.write_parquet(
        join(root, "p", "a.parquet"), pa.table({"image": pa.array([b"a", b"b"]), "sex": ["F", "M"]})
    )

    assert infer(join(root, "set.csv"), s3.storage) == "table"
    table = manifest.load("t", "synthetic", Table(join(root, "set.csv")), s3.storage)
    assert table.table["uri"].to_pylist() == [join(root, "set", f"{k}.png") for k in range(3)]
    assert table.rejects["code"].to_pylist() == ["not_found"]

    assert infer(join(root, "set"), s3.storage) == "folder"
    folder = manifest.load("f", "synthetic", Folder(join(root, "set")), s3.storage)
    assert folder.table["image_key"].to_pylist() == table.table["image_key"].to_pylist()

    assert infer(join(root, "p"), s3.storage) == "parquet_images"
    embedded = manifest.load("p", "synthetic", ParquetImages(join(root, "p")), s3.storage)
    assert embedded.table["sex"].to_pylist() == ["F", "M"]
    with pytest.raises(ManifestError, match="no such file or folder"):
        infer(join(root, "nowhere.csv"), s3.storage)
