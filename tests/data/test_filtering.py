"""Filtered sets: read back as they were less the flagged images, wherever images, ids, labels and prompts came from."""

from __future__ import annotations

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.curation.writing import dropped_table, filtered_manifest, write_filtered
from chexray.data import manifest as manifests
from chexray.data import schema
from chexray.data.prompts import inherit_by_prompt
from chexray.data.sources.archive import Archive
from chexray.data.sources.folder import Folder
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.phantom import Phantom
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.findings import FINDINGS
from chexray.registry import find
from chexray.storage import Storage, join

STORAGE = Storage()
SAME = ("sample_id", "image_key", "uri", "subject_id", "prompt", "labels")


def load(source, origin="synthetic", storage=STORAGE):
    return manifests.load("set", origin, source, storage)


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def read_back(options, origin="synthetic", storage=STORAGE):
    options = dict(options)
    kind = options.pop("source", "") or infer(options["path"], storage)
    return load(find("sources", kind)(**options), origin, storage)


def check(before, drop, path, *, origin="synthetic", renamed=None, storage=STORAGE):
    """Writes, reads back and compares every row and column; returns what was written and the set read from it."""
    done = write_filtered(before, drop, str(path), storage)
    after = read_back(done.options, origin, storage)
    dropped = storage.read_parquet(done.dropped_path)
    assert (done.n_kept, done.n_dropped) == (len(after), len(dropped))
    assert len(before) == len(after) + len(dropped)
    assert sorted([*after.table["sample_id"].to_pylist(), *dropped["sample_id"].to_pylist()]) == (
        before.table["sample_id"].to_pylist()
    )
    kept = before.table.filter(pa.array([name not in drop for name in before.table["sample_id"].to_pylist()]))
    for name in SAME:
        assert after.table[name].to_pylist() == kept[name].to_pylist(), name
    image = before.roles.get("uri")
    for name in kept.column_names:
        if name not in schema.RESERVED and name != image:
            found = (renamed or {}).get(name, name)
            assert after.table[found].to_pylist() == kept[name].to_pylist(), name
    return done, after


LABELS = ["{'Edema': 1.0, 'Fracture': None}", "{'Edema': -1.0}", None, "{'Pneumonia': 0.0}"]


@pytest.fixture
def upstream(tmp_path):
    """A generated set as upstream writes it: `id` and `path` speak of the real image."""
    files(tmp_path / "syn", *(f"{i}_gen.png" for i in range(4)))
    table = pa.table(
        {
            "id": ["007", "007", "8", "9"],
            "path": [f"real/{i}.jpg" for i in range(4)],
            "annotated_prompt": ["p, q", "p, q", None, "line\nbreak"],
            "chexpert_labels": LABELS,
            "seed": [0, 1, 0, None],
            "img_savename": [f"{i}_gen.png" for i in (3, 1, 2, 0)],
        }
    )
    pq.write_table(table, tmp_path / "seeds.parquet")
    return load(Table(str(tmp_path / "seeds.parquet"), image_root=str(tmp_path / "syn")))


def test_a_table_comes_back(tmp_path, upstream):
    done, after = check(
        upstream, {"1_gen.png": "memorised", "0_gen.png": ("near copy", "re-identified")}, tmp_path / "f.parquet"
    )
    assert done.options == {"path": str(tmp_path / "f.parquet")}
    assert done.image_root == str(tmp_path)
    dropped = pq.read_table(done.dropped_path).to_pylist()
    assert dropped == [
        {"sample_id": "1_gen.png", "uri": f"{tmp_path}/syn/1_gen.png", "reasons": ["memorised"]},
        {"sample_id": "0_gen.png", "uri": f"{tmp_path}/syn/0_gen.png", "reasons": ["near copy", "re-identified"]},
    ]
    written = pq.read_table(done.path)
    assert written["img_savename"].to_pylist() == ["syn/3_gen.png", "syn/2_gen.png"]
    assert written["chexpert_labels"].to_pylist() == [LABELS[0], None]
    assert written.schema.field("seed").type == pa.int64()
    again, _ = check(after, {"3_gen.png": "second thoughts"}, tmp_path / "again.parquet")
    assert again.n_kept == 1


def test_a_table_elsewhere_needs_its_root(tmp_path, upstream):
    done, _ = check(upstream, {"1_gen.png": "memorised"}, tmp_path / "runs" / "r1" / "kept.parquet")
    assert done.options == {"path": str(tmp_path / "runs/r1/kept.parquet"), "image_root": str(tmp_path / "syn")}
    with pytest.raises(ManifestError, match="image_root"):
        read_back({"path": done.path})


def test_nothing_flagged_is_the_whole_set(tmp_path, upstream):
    done, _ = check(upstream, {}, tmp_path / "kept.parquet")
    assert (done.n_kept, done.n_dropped) == (4, 0)
    assert pq.read_table(done.dropped_path).schema.field("reasons").type == pa.list_(pa.string())


def test_a_phantom_set_comes_back(tmp_path):
    source = Phantom(n=25, generator="copier", seed=2, size=32, path=str(tmp_path / "c"), training_seed=1, training_n=9)
    before = load(source)
    copies = {row["sample_id"]: "copy" for row in before.table.to_pylist() if row["copy_of"]}
    done, after = check(before, copies, tmp_path / "kept.parquet")
    assert done.n_dropped == len(copies) > 0
    assert after.table["copy_of"].null_count == len(after)


def test_real_sets_keep_patients_and_finding_columns(tmp_path):
    files(tmp_path, "img/a.png", "img/b.png", "img/c.png")
    (tmp_path / "cxr.csv").write_text(
        "dicom_id,path,Edema,Pleural Effusion,PatientID,age\n"
        "01,img/a.png,1,,007,40\n02,img/b.png,,,7,50\n03,img/c.png,-1,0,8,\n"
    )
    before = load(Table(str(tmp_path / "cxr.csv")), "real")
    assert before.table["labels"].null_count == 1
    check(before, {"02": "copy"}, tmp_path / "out" / "kept.parquet", origin="real")


def test_a_folder_of_images_comes_back(tmp_path):
    files(tmp_path / "syn", "x/a.png", "x/b.png", "y/a.png", "y/%41 c.png")
    check(load(Folder(str(tmp_path / "syn"))), {"x/a.png": "copy"}, tmp_path / "out" / "kept.parquet")


def test_images_inside_parquet_come_back(tmp_path):
    for shard in range(2):
        cells = [{"bytes": bytes([shard, i]), "path": f"{shard}{i}.png"} for i in range(3)]
        table = pa.table({"image col": cells, "text": [f"p{i}" for i in range(3)], "age": [1, 2, None]})
        (tmp_path / "shards").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "shards" / f"part {shard}.parquet")
    before = load(ParquetImages(str(tmp_path / "shards")))
    assert "#column=image%20col&row=2" in before.table["uri"][2].as_py()
    for path in (tmp_path / "kept.parquet", tmp_path / "elsewhere" / "kept.parquet"):
        done, after = check(before, {"01.png": "copy", "12.png": "copy"}, path)
        assert done.options["image_root"] == done.image_root
        assert after.table["age"].to_pylist() == [1, None, 1, 2]


def test_images_inside_archives_come_back(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/1.png", "./2 ö#&.png", "../3.png", "4.png"):
            archive.writestr(name, name)
    before = load(Archive(str(tmp_path / "a.zip")))
    for path in (tmp_path / "kept.parquet", tmp_path / "elsewhere" / "kept.parquet"):
        done, after = check(before, {"4.png": "copy"}, path)
        assert done.options["image_root"] == done.image_root
        assert after.table["uri"].to_pylist() == [uri for uri in before.table["uri"].to_pylist() if "4.png" not in uri]


@pytest.mark.parametrize("name", ["kept.parquet", "runs/kept.parquet"])
def test_a_set_on_s3_comes_back(s3, name):
    for image in ("a.png", "deep/b.png", "c d.png"):
        s3.storage.write(join(s3.bucket, "syn", image), image.encode())
    before = load(Folder(join(s3.bucket, "syn")), storage=s3.storage)
    done, _ = check(before, {"deep/b.png": "copy"}, join(s3.bucket, name), storage=s3.storage)
    assert ("image_root" in done.options) == (name != "kept.parquet")


def test_roles_under_reserved_names_keep_them(tmp_path):
    files(tmp_path, "a.png", "b.png")
    columns = {"sample_id": ["1", "2"], "uri": ["a.png", "b.png"], "prompt": ["p", "q"], "labels": LABELS[:2]}
    pq.write_table(pa.table({**columns, "row": [7, 8]}), tmp_path / "t.parquet")
    before = load(Table(str(tmp_path / "t.parquet")))
    done, after = check(before, {"2": "copy"}, tmp_path / "kept.parquet", renamed={"uri_original": "uri_original_"})
    assert after.table.column_names.count("row_original") == 1
    assert {"sample_id", "uri", "prompt", "labels"} < set(pq.read_table(done.path).column_names)


def test_columns_that_would_be_mistaken_are_renamed(tmp_path):
    """The config named other columns than those a table is searched for."""
    files(tmp_path, "a.png", "b.png")
    pq.write_table(
        pa.table(
            {
                "img_savename": ["no", "image"],
                "shot": ["a.png", "b.png"],
                "sample_id": ["same", "same"],
                "key": [1, 2],
                "patientID": ["P", "Q"],
                "prompt": ["machine", "made"],
                "words": ["said", "so"],
                "Edema": [1, 0],
                "thumb": [b"x", b"y"],
            }
        ),
        tmp_path / "t.parquet",
    )
    roles = {"image": "shot", "sample_id": "key", "subject_id": None, "prompt": "words", "labels": None}
    before = load(Table(str(tmp_path / "t.parquet"), columns=roles))
    assert before.table["subject_id"].null_count == before.table["labels"].null_count == 2
    renamed = {"img_savename": "img_savename_original", "patientID": "patientID_original", "Edema": "Edema_original"}
    done, after = check(before, {"2": "copy"}, tmp_path / "kept.parquet", renamed=renamed)
    assert done.options["source"] == "table"
    assert (after.table["prompt"][0].as_py(), after.table["prompt_original"][0].as_py()) == ("said", "machine")


def test_labels_taken_by_prompt_are_written(tmp_path, upstream):
    files(tmp_path, "real/0.jpg")
    (tmp_path / "real.csv").write_text("id,path,prompt,labels,sex\nr,real/0.jpg,,\"{'Edema': 1}\",F\n")
    real = pa.table({"id": ["r"], "path": ["real/0.jpg"], "prompt": ["p, q"], "labels": [LABELS[3]], "sex": ["F"]})
    pq.write_table(real, tmp_path / "real.parquet")
    bare = upstream.table.drop_columns(["chexpert_labels"])
    bare = bare.set_column(5, "labels", pa.nulls(4, upstream.table["labels"].type))
    before = manifests.Manifest("s", "synthetic", bare, upstream.rejects, 4, roles=upstream.roles)
    before = inherit_by_prompt(before, load(Table(str(tmp_path / "real.parquet")), "real"))
    assert before.table["labels"].null_count == 2
    _, after = check(before, {"0_gen.png": "copy"}, tmp_path / "kept.parquet")
    labelled = [dict(zip(FINDINGS, row, strict=True)) for row in after.table["labels"].to_pylist() if row]
    assert [row["Pneumonia"] for row in labelled] == [0, 0]
    assert after.table["sex"].to_pylist().count("F") == 2


def test_wrong_verdicts_are_refused(tmp_path, upstream):
    with pytest.raises(ManifestError, match=r"1 of 2 flagged ids are not in the set, first 'x'"):
        filtered_manifest(upstream, {"1_gen.png": "copy", "x": "copy"})
    with pytest.raises(ManifestError, match="without a reason"):
        dropped_table(upstream, {"1_gen.png": ()})
    with pytest.raises(ManifestError, match="all 4 images are flagged"):
        write_filtered(
            upstream, dict.fromkeys(upstream.table["sample_id"].to_pylist(), "x"), str(tmp_path / "f.parquet"), STORAGE
        )
    with pytest.raises(ManifestError, match=r"ends in \.parquet"):
        write_filtered(upstream, {}, str(tmp_path / "f.csv"), STORAGE)
    assert not list(tmp_path.glob("f*"))


def test_what_a_table_cannot_name_is_refused(upstream):
    def moved(*uris):
        table = upstream.table.set_column(2, "uri", pa.array([*uris, *upstream.table["uri"].to_pylist()[len(uris) :]]))
        return manifests.Manifest("s", "synthetic", table, upstream.rejects, 4, roles=upstream.roles)

    with pytest.raises(ManifestError, match="one image root"):
        filtered_manifest(moved("s3://bucket/a.png"), {})
    with pytest.raises(ManifestError, match="a table cannot name the image"):
        filtered_manifest(moved("/data/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fa.png"), {})
    wide = filtered_manifest(moved("/elsewhere/a.png"), {})
    assert wide["img_savename"].to_pylist().count("elsewhere/a.png") == 1
