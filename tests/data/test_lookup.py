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


CHEXPERT = "Path,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum"
VIEW = "view1_frontal.jpg"


def test_no_patient_gets_the_file_of_another(tmp_path):
    """Only two of three patients were copied; the file of the third is missing, whatever others are called."""
    disk = images(tmp_path / "disk", f"patient1/study1/{VIEW}", f"patient3/study2/{VIEW}")
    path = tmp_path / "train.csv"
    rows = [f"CheXpert-v1.0/train/patient{n}/study{m}/{VIEW}" for n, m in ((1, 1), (2, 2), (3, 2))]
    for header, more in ((CHEXPERT, ",Frontal,AP,1,0"), ("path,Sex", ",F")):
        path.write_text(f"{header}\n" + "".join(f"{row}{more}\n" for row in rows))
        built = manifest.load("s", "real", Table(str(path), image_root=str(disk)), STORAGE)
        uris = [f"{disk}/patient1/study1/{VIEW}", f"{disk}/patient3/study2/{VIEW}"]
        assert sorted(built.table["uri"].to_pylist()) == uris
        assert len(built.rejects) == 1
        assert any("1 images are not found where the table says" in note for note in built.notes)


@pytest.mark.parametrize("origin", ["real", "synthetic"])
@pytest.mark.parametrize(
    ("cells", "files", "found"),
    [
        (["p9/c.png", "p1/a.png"], ["p3/c.png", "x/p1/a.png"], [None, "x/p1/a.png"]),
        (["patient2/study2/x.jpg", "a.jpg"], ["patient3/study2/x.jpg", "y/a.jpg"], [None, "y/a.jpg"]),
        # Folders of another machine before those of the root, and further folders on the way.
        (["old/set/p1/a.png", "old/set/p2/a.png"], ["p1/a.png", "p2/a.png"], ["p1/a.png", "p2/a.png"]),
        (["images_001/a.png", "images_002/b.png"], [f"images_00{n}/images/{c}.png" for n, c in ((1, "a"), (2, "b"))],
         [f"images_00{n}/images/{c}.png" for n, c in ((1, "a"), (2, "b"))]),
        (["out/a.png", "out/b.png"], ["a.png", "b.png"], ["a.png", "b.png"]),
        # One file for two paths: for neither, unless it lies where one of them says.
        (["out/a.png", "p1/x.png", "p2/x.png"], ["a.png", "x.png"], ["a.png", None, None]),
        (["p1/x.png", "x.png", "q/b.png"], ["x.png", "q/b.png"], [None, "x.png", "q/b.png"]),
        (["new/p1/x.png", "p1/x.png", "a.png"], ["p1/x.png", "p3/a.png"], [None, "p1/x.png", None]),
    ],
)  # fmt: skip
def test_a_folder_in_a_cell_must_agree_with_the_disk(tmp_path, origin, cells, files, found):
    root = images(tmp_path / "imgs", *files)
    path = tmp_path / "t.csv"
    path.write_text("path,view\n" + "".join(f"{cell},PA\n" for cell in cells))
    uris = below(root, path, origin, image_root=str(root))
    assert [uri if (root / uri).is_file() else None for uri in uris] == found


def test_names_that_belong_to_one_image_of_the_world_lie_anywhere(tmp_path):
    """MIMIC-CXR's ids, in folders of one's own; what was generated from them is called the same in each set."""
    ids = [f"0{n}aa804e-bde0afdd-112c0b34-7bc16630-4e384014" for n in range(2)]
    root = images(tmp_path / "imgs", *(f"part{n}/{name}.jpg" for n, name in enumerate(ids)))
    path = tmp_path / "t.csv"
    path.write_text("path,view\n" + "".join(f"p10/s{n}/{name}.jpg,PA\n" for n, name in enumerate(ids)))
    assert below(root, path, image_root=str(root)) == [f"part{n}/{name}.jpg" for n, name in enumerate(ids)]
    with pytest.raises(ManifestError):
        manifest.load("s", "synthetic", Table(str(path), image_root=str(root)), STORAGE)


def test_names_alone_where_the_config_asks_for_them(tmp_path):
    root = images(tmp_path / "imgs", "p3/c.png", "patient3/study2/v.png")
    path = tmp_path / "t.csv"
    path.write_text("path,view\n/old/c.png,PA\npatient1/study1/v.png,PA\npatient2/study2/v.png,PA\n")
    uris = below(root, path, image_root=str(root), image_lookup=True)
    assert uris == ["p3/c.png", "patient1/study1/v.png", "patient2/study2/v.png"]
