"""A folder of images, with or without a metadata table in it."""

from __future__ import annotations

import errno
import json
import os

import pytest

from chexray.data import labels, manifest, schema
from chexray.data.sources.folder import Folder, expand_braces
from chexray.data.sources.infer import infer
from chexray.errors import ManifestError
from chexray.storage import Storage

STORAGE = Storage()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for name in ("b.PNG", "a.jpg", "sub/c.dcm", ".hidden.png", "sub/.DS_Store", "notes.txt", "__MACOSX/._a.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def read(path, origin="synthetic", **options):
    return Folder(str(path), **options).read(origin, STORAGE)


def notes(table):
    return json.loads(table.schema.metadata[schema.METADATA_KEY])["notes"]


def test_the_id_is_the_path_below_the_folder(folder):
    table = read(folder)
    assert table["sample_id"].to_pylist() == ["a.jpg", "b.PNG", "sub/c.dcm"]
    assert table["uri"].to_pylist() == [f"{folder}/a.jpg", f"{folder}/b.PNG", f"{folder}/sub/c.dcm"]
    assert notes(table) == [
        "1 files of the folder are not in the set (pattern *.{png,jpg,jpeg,dcm,dicom,bmp,tif,tiff,webp})"
    ]
    assert infer(str(folder), STORAGE) == "folder"


def test_pattern_and_recursion(folder):
    assert read(folder, recursive=False)["sample_id"].to_pylist() == ["a.jpg", "b.PNG"]
    assert read(folder, pattern="sub/*")["sample_id"].to_pylist() == ["sub/c.dcm"]
    assert read(f"{folder}/", pattern="*.{jpg,dcm}")["sample_id"].to_pylist() == ["a.jpg", "sub/c.dcm"]
    assert expand_braces("{a,b}-{1,2}") == ["a-1", "a-2", "b-1", "b-2"]


def test_nothing_to_read(folder, tmp_path):
    with pytest.raises(ManifestError, match=r"no file matches '\*\.tiff': found 4 other files.*synthetic\.pattern"):
        read(folder, pattern="*.tiff")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="the folder is empty"):
        read(tmp_path / "empty")
    with pytest.raises(ManifestError, match="is not a folder"):
        read(tmp_path / "nowhere")


def test_file_names_that_look_like_addresses(tmp_path):
    for name in ("pic#column=a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    built = manifest.load("s", "real", Folder(str(tmp_path)), STORAGE)
    assert built.table["sample_id"].to_pylist() == ["b.png", "pic#column=a.png"]


def test_a_subfolder_that_cannot_be_read_is_named(folder, monkeypatch):
    def scandir(path, whole=os.scandir):
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ManifestError, match=r"cannot be listed \(.*/images/sub: permission denied"):
        read(folder)


def test_patterns_name_parquet_only(folder):
    for pattern in ("*.jpg", "*.csv", "sub/*"):
        with pytest.raises(ManifestError, match=r"a folder with heldout\.pattern"):
            infer(f"{folder}/{pattern}", STORAGE, "heldout")


def test_one_image_is_a_set(tmp_path):
    (tmp_path / "only.png").write_bytes(b"x")
    assert len(manifest.load("one", "real", Folder(str(tmp_path)), STORAGE)) == 1


def test_metadata_joins_by_file_name_and_nothing_disappears(folder):
    (folder / "metadata.csv").write_text(
        "file_name,prompt,patient_id,Edema,sex\nsub/c.dcm,see c,003,1,F\n"
        "a.jpg,see a,004,0,M\ngone.png,see gone,005,,F\n"
    )
    table = read(folder, "real")
    assert table["sample_id"].to_pylist() == ["a.jpg", "b.PNG", "sub/c.dcm", "gone.png"]
    assert table["prompt"].to_pylist() == ["see a", None, "see c", "see gone"]
    assert table["subject_id"].to_pylist() == ["004", None, "003", "005"]
    assert table["sex"].to_pylist() == ["M", None, "F", "F"]
    assert labels.to_codes(table["labels"])[[0, 2], 3].tolist() == [0, 1]
    assert "1 of 3 files have no row in metadata.csv" in notes(table)
    built = manifest.build("f", "real", table, STORAGE)
    assert built.rejects["sample_id"].to_pylist() == ["gone.png"]


def test_metadata_of_files_that_are_not_there(folder):
    rows = "".join(f"gone{i}.png,{i}\n" for i in range(9))
    (folder / "metadata.csv").write_text(f"file_name,age\n{rows}")
    with pytest.raises(ManifestError, match=r"9 of 12 rows name an image .*Copy them, or remove these rows\.$"):
        manifest.load("f", "real", Folder(str(folder)), STORAGE)


def test_metadata_as_json_lines(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "see a"}\n')
    assert read(folder)["prompt"].to_pylist() == ["see a", None, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file_name,x\n../a.jpg,1\n", "data row 1 names '../a.jpg', which leaves the image root"),
        ("file_name,x\na.jpg,1\n./a.jpg,2\n", "data rows 1 and 2 both describe 'a.jpg'"),
        ("file_name,x\n,1\n", "data row 1 has no file_name"),
        ("name,x\na.jpg,1\n", "no column names an image"),
    ],
)
def test_bad_metadata(folder, rows, message):
    (folder / "metadata.csv").write_text(rows)
    with pytest.raises(ManifestError, match=message):
        read(folder)


def test_real_folder(shared):
    table = read(shared / "data" / "cxr" / "synthetic_test")
    assert len(table) == 222


def test_dicom_files_without_a_suffix_are_read(tmp_path):
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    names = ["1.2.840.113", "1.2.840.114", "series/IM0001"]
    for name in names:
        (folder / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "notes.txt").write_text("x")
    table = Folder(str(folder)).read("real", STORAGE)
    assert sorted(table["sample_id"].to_pylist()) == names
    notes = json.loads(table.schema.metadata[b"chexray"])["notes"]
    assert notes[0] == "3 files without a suffix are read as DICOM"
    assert Folder(str(folder), recursive=False).read("real", STORAGE).num_rows == 2
    (folder / "1.2.840.115").write_bytes(b"no DICOM" * 40)
    with pytest.raises(ManifestError, match="no file matches"):
        Folder(str(folder)).read("real", STORAGE)
