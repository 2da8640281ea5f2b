"""Public data sets whose tables name no path: their images are found by name, or by a template of columns."""

from __future__ import annotations

import json

import pytest

from chexray.data import manifest, schema
from chexray.data.keys import Origin
from chexray.data.sources import _lookup
from chexray.data.sources.table import Table
from chexray.errors import ChexrayError, ManifestError
from chexray.storage import Storage

STORAGE = Storage()


def images(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def below(root, path, origin="real", **options):
    uris = Table(str(path), **options).read(origin, STORAGE)["uri"].to_pylist()
    return [None if uri is None else uri.removeprefix(f"{root}/") for uri in uris]


def refusal(path, **options):
    with pytest.raises(ChexrayError) as caught:
        Table(str(path), **options).read("real", STORAGE)
    return str(caught.value)


def test_nih_images_in_twelve_folders(tmp_path):
    files = [f"images_{i:03d}/images/0000000{i}_000.png" for i in (1, 2, 12)]
    root = images(tmp_path, *files)
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(
        "Image Index,Finding Labels,Patient ID\n00000001_000.png,Cardiomegaly|Effusion,1\n"
        "00000002_000.png,No Finding,2\n000000012_000.png,Hernia,12\n"
    )
    assert f"are below {root}: if they are meant, set real.image_root" in refusal(path)
    assert below(root, path, image_root=str(root)) == files
    assert below(root, path, Origin("real", "real", str(root))) == files
    assert below(root, path, image_lookup=True) == files
    table = Table(str(path), image_root=str(root)).read("real", STORAGE)
    assert json.loads(table.schema.metadata[schema.METADATA_KEY])["images"].endswith("found by name")


@pytest.mark.parametrize(
    ("header", "suffix"),
    [("image_id,class", ".dicom"), ("ImageId,EncodedPixels", ".dcm"), ("dicom_id,ViewPosition", ".jpg")],
)
def test_ids_without_suffix(tmp_path, header, suffix):
    """VinDr-CXR, SIIM-ACR and MIMIC-CXR; VinDr's train.csv lies beside train/."""
    ids = ["50a418190bc3fb1ef1633bf9678929b3", "1.2.276.0.7230010.3.1.4.8323329", "02aa804e-bde0afdd"]
    files = [f"{name[:2]}/{name}{suffix}" for name in ids]
    images(tmp_path / "train", *files)
    path = tmp_path / "train.csv"
    path.write_text(f"{header}\n" + "".join(f"{name},x\n" for name in ids))
    assert below(tmp_path / "train", path) == files
    other = tmp_path / "labels.csv"
    other.write_text(path.read_text())
    assert "no file is called as" in refusal(other)
    assert "real.image_root (or --image-root)" in refusal(other)
    assert below(tmp_path / "train", other, image_root=str(tmp_path)) == files


def test_a_column_that_is_said_to_name_images(tmp_path):
    images(tmp_path / "stage_2_train_images", "0004cfab.dcm", "00313ee0.dcm")
    path = tmp_path / "labels.csv"
    path.write_text("patientId,Target\n0004cfab,0\n00313ee0,1\n")  # RSNA
    root = tmp_path / "stage_2_train_images"
    assert below(root, path, image_root=str(root), columns={"image": "patientId"}) == ["0004cfab.dcm", "00313ee0.dcm"]


def test_folders_in_a_column(tmp_path):
    """PadChest: ImageDir and ImageID."""
    images(tmp_path, "0/a.png", "1/a.png", "1/b.png")
    path = tmp_path / "PADCHEST.csv"
    path.write_text("ImageID,ImageDir\na.png,0\na.png,1\nb.png,1\n")
    assert 'such as "{ImageDir}/{ImageID}"' in refusal(path, image_root=str(tmp_path))
    template = "{ImageDir}/{ImageID}"
    assert below(tmp_path, path, image_template=template, columns={"sample_id": None}) == [
        "0/a.png",
        "1/a.png",
        "1/b.png",
    ]


def test_a_template_of_columns_keeps_zeros_and_cuts(tmp_path):
    """MIMIC-CXR-JPG: files/p10/p10000032/s50414267/02aa804e.jpg."""
    names = ["files/p10/p10000032/s50414267/02aa804e.jpg", "files/p00/p00000007/s00000001/2a2277a9.jpg"]
    images(tmp_path, *names)
    path = tmp_path / "mimic.csv"
    path.write_text("dicom_id,subject_id,study_id\n02aa804e,10000032,50414267\n2a2277a9,00000007,00000001\n,1,2\n")
    template = "files/p{subject_id:.2}/p{subject_id}/s{study_id}/{dicom_id}.jpg"
    assert below(tmp_path, path, image_template=template, image_root=str(tmp_path)) == [*names, None]
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("id,patient\n5,7\n")
    images(tmp_path, "p00000007/5.png")
    assert below(tmp_path, numbers, image_template="p{patient:0>8}/{sample_id}.png") == ["p00000007/5.png"]
    # A template without the suffix, which the lookup then finds.
    assert below(tmp_path, numbers, image_template="p{patient:0>8}/{id}", image_lookup=True) == ["p00000007/5.png"]


@pytest.mark.parametrize(
    "template",
    ["{a.__class__}", "{a[0]}", "{a!r}", "{", "{}", "{0}", "{a:{b}}", "{a:99999999999}", "{a:f}", "x{nothing}"],
)
def test_templates_hold_nothing_but_columns(tmp_path, template):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert "real.image_template" in refusal(tmp_path / "t.csv", image_template=template)


@pytest.mark.parametrize("cell", ["../../secret", "/etc", "..", "%2e%2e/%2e%2e/secret"])
def test_a_template_leads_nowhere_out_of_the_root(tmp_path, cell):
    images(tmp_path, "secret/x.png", "set/a/x.png")
    path = tmp_path / "set" / "t.csv"
    path.write_text(f"folder,id\na,x\n{cell},x\n")
    assert "leaves the image root" in refusal(path, image_template="{folder}/../{folder}/{id}.png")


def test_whole_names_before_stems_and_the_named_folder_before_others(tmp_path):
    root = images(tmp_path, "a/x.png", "a/x.dcm", "b/x.png", "b/y.jpg", ".hidden/y.jpg", "c/._y.jpg")
    index = _lookup.Index.of(str(root), STORAGE)
    assert index.named("x.dcm") == [f"{root}/a/x.dcm"]
    assert index.named("b/x.png") == [f"{root}/b/x.png"]
    assert index.named("b/x") == [f"{root}/b/x.png"]
    assert len(index.named("x")) == 3
    assert index.named("old/y.dcm")[-1] == f"{root}/b/y.jpg"
    assert index.named("z") == ()


def test_a_renamed_folder_and_files_that_are_all_called_alike(tmp_path):
    """CheXpert: CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, unpacked elsewhere."""
    files = [f"train/patient0000{n}/study{n % 2}/view1_frontal.jpg" for n in range(4)]
    root = images(tmp_path / "chexpert", *files)
    path = tmp_path / "train.csv"
    path.write_text("Path,Sex\n" + "".join(f"CheXpert-v1.0-small/{name},F\n" for name in files))
    assert below(root, path, image_root=str(root)) == files


def test_what_is_not_found_by_name_is_a_missing_image(tmp_path):
    images(tmp_path, "a/1.png", "b/2.png", "b/3.png")
    path = tmp_path / "t.csv"
    path.write_text("path\n1.png\n2.png\n3.png\n4.png\n")
    built = manifest.load("s", "real", Table(str(path), image_root=str(tmp_path)), STORAGE)
    assert len(built) == 3
    assert built.rejects["detail"].to_pylist() == ["there is no such file"]
    assert built.images.startswith(f"below {tmp_path} (as real.image_root says)")
    with pytest.raises(ManifestError, match=r"'1\.png' are not below|names are below"):
        Table(str(path), image_lookup=False).read("real", STORAGE)


def test_one_listing_of_a_root(tmp_path, monkeypatch):
    images(tmp_path, "a/1.png", "b/2.png")
    path = tmp_path / "t.csv"
    path.write_text("path\n1.png\n2.png\n")
    listed = []
    monkeypatch.setattr(Storage, "list", lambda self, uri, whole=Storage.list: listed.append(uri) or whole(self, uri))
    assert below(tmp_path, path, image_root=str(tmp_path)) == ["a/1.png", "b/2.png"]
    assert listed == [str(tmp_path)]
