"""Published tables as they are: each is recognised by its columns, and every row ends as one image."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.curation.writing import write_filtered
from chexray.data import labels, manifest
from chexray.data.sources._peers import PEERS, recognise
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.findings import FINDINGS
from chexray.storage import Storage

STORAGE = Storage()
FOURTEEN = ",".join(FINDINGS)


def images(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def read(path, origin="real", **options):
    return manifest.load("s", origin, Table(str(path), **options), STORAGE)


def positive(built, row=0):
    codes = labels.to_codes(built.table["labels"])[row]
    return [FINDINGS[place] for place, code in enumerate(codes) if code == 1]


def column(built, name):
    return built.table[name].to_pylist()


def survives_filtering(built, place):
    """A filtered set is the same set, less what was dropped, when its table is read back."""
    dropped = built.table["sample_id"][0].as_py()
    done = write_filtered(built, {dropped: "a reason"}, str(place / "filtered" / "kept.parquet"), STORAGE)
    after = manifest.load("s", built.origin, Table(**done.options), STORAGE)
    for name in (
        "sample_id",
        "uri",
        "subject_id",
        "prompt",
        "labels",
        *{"sex", "age", "view"} & {*built.table.column_names},
    ):
        assert column(after, name) == column(built, name)[1:], name
    assert (after.card, after.pairs) == (built.card, built.pairs)


class TestNIH:
    HEADER = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )

    @pytest.fixture
    def table(self, tmp_path):
        images(tmp_path, "images_001/images/00000001_000.png", "images_002/images/00000002_000.png")
        path = tmp_path / "Data_Entry_2017_v2020.csv"
        path.write_text(
            f"{self.HEADER}\n00000001_000.png,Effusion|Hernia,0,1,58,M,PA,2682,2749,0.143,0.143\n"
            "00000002_000.png,No Finding,0,2,080Y,F,AP,2682,2749,0.143,0.143\n"
        )
        return path

    def test_spread_folders_and_findings(self, table, tmp_path):
        built = read(table, image_root=str(tmp_path))
        assert column(built, "uri") == [
            f"{tmp_path}/images_001/images/00000001_000.png", f"{tmp_path}/images_002/images/00000002_000.png",
        ]  # fmt: skip
        assert column(built, "subject_id") == ["1", "2"]
        assert [positive(built, row) for row in (0, 1)] == [["Pleural Effusion"], ["No Finding"]]
        assert (column(built, "sex"), column(built, "age"), column(built, "view")) == (
            ["M", "F"],
            [58, 80],
            ["PA", "AP"],
        )
        assert column(built, "Patient Gender") == ["M", "F"]
        survives_filtering(built, tmp_path)
        assert "1 words of column 'Finding Labels', 1 times in all, are none of the 14 findings" in built.notes[0]
        assert "Hernia (1)" in built.notes[0]
        assert built.read_as == (
            "NIH ChestX-ray14 table: Image Index -> image, Patient ID -> subject_id, Finding Labels -> findings, "
            "Patient Gender -> sex, Patient Age -> age, View Position -> view"
        )

    def test_the_config_comes_first(self, table, tmp_path):
        columns = {"labels": None, "subject_id": "Follow-up #"}
        built = read(table, image_root=str(tmp_path), columns=columns)
        assert built.table["labels"].null_count == 2
        assert column(built, "subject_id") == ["0", "0"]


class TestCheXpert:
    PATHS = ("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
             "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg")  # fmt: skip

    @pytest.fixture
    def root(self, tmp_path):
        root = tmp_path / "CheXpert-v1.0-small"
        images(tmp_path, *self.PATHS)
        (root / "train.csv").write_text(
            f"Path,Sex,Age,Frontal/Lateral,AP/PA,{FOURTEEN}\n{self.PATHS[0]},Female,68,Frontal,AP,1.0{',' * 13}1.0\n"
            f"{self.PATHS[1]},Male,87,Frontal,AP,,,-1.0,0.0{',' * 10}\n"
        )
        return root

    @pytest.mark.parametrize("image_root", [None, ".", ".."])
    def test_the_first_folder_of_paths_is_resolved(self, root, image_root):
        built = read(root / "train.csv", image_root=image_root and str((root / image_root).resolve()))
        assert column(built, "uri") == [str(root.parent / path) for path in self.PATHS]
        assert column(built, "subject_id") == ["patient00001", "patient00002"]
        assert positive(built) == [FINDINGS[0], FINDINGS[13]]
        codes = labels.to_codes(built.table["labels"])[1].tolist()
        assert (codes[:4], codes[4]) == ([labels.NOT_MENTIONED, labels.NOT_MENTIONED, -1, 0], labels.NOT_MENTIONED)
        assert column(built, "sex") == ["F", "M"]
        assert "CheXpert table: Path -> image, patient -> subject_id, Sex -> sex" in built.read_as
        assert "14 columns -> findings" in built.read_as
        survives_filtering(built, root)


class TestMIMIC:
    A, B, C = ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", "174413ec-4ec4c1f7", "0b1c2d3e")

    @pytest.fixture
    def root(self, tmp_path):
        stem = tmp_path / "mimic-cxr-2.0.0"
        texts = {
            "split": f"dicom_id,study_id,subject_id,split\n{self.A},50414267,10000032,train\n"
            f"{self.B},53189527,10000032,test\n{self.C},53189527,10000032,test\n",
            "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns\n"
            f"{self.B},10000032,53189527,CHEST,PA,3056,2544\n{self.A},10000032,50414267,CHEST,AP,3056,2544\n",
            "chexpert": f"subject_id,study_id,{FOURTEEN}\n10000032,53189527,{',' * 12}1.0,\n"
            f"10000032,50414267,1.0{',' * 13}\n",
        }
        for name, text in texts.items():
            with gzip.open(f"{stem}-{name}.csv.gz", "wt") as file:
                file.write(text)
        images(
            tmp_path, f"files/p10/p10000032/s50414267/{self.A}.jpg",
            *(f"files/p10/p10000032/s53189527/{each}.jpg" for each in (self.B, self.C)),
        )  # fmt: skip
        return tmp_path

    @pytest.mark.parametrize(
        "given", ["", *(f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("split", "metadata", "chexpert"))]
    )
    def test_three_tables_are_one(self, root, given):
        built = read(root / given, split="test")
        assert column(built, "sample_id") == [self.C, self.B]
        assert column(built, "uri")[1] == f"{root}/files/p10/p10000032/s53189527/{self.B}.jpg"
        assert column(built, "subject_id") == ["10000032"] * 2
        assert column(built, "view") == [None, "PA"]
        assert positive(built) == positive(built, 1) == [FINDINGS[12]]
        assert "1 of 3 images have no row in mimic-cxr-2.0.0-metadata.csv.gz" in built.notes
        assert "1 rows of other splits are left out (split test)" in built.notes
        survives_filtering(built, root)
        assert built.read_as.startswith("MIMIC-CXR-JPG tables: dicom_id -> sample_id, subject_id -> subject_id")

    def test_a_split_must_be_named(self, root):
        with pytest.raises(ManifestError, match=r"2 splits, test, train\. Name one in real\.split, or set it to all"):
            read(root)
        assert len(read(root, split="all")) == 3
        with pytest.raises(ManifestError, match=r"has no split 'validate', named in real\.split\. Found: test, train"):
            read(root, split="validate")

    def test_images_below_another_folder(self, root, tmp_path_factory):
        other = tmp_path_factory.mktemp("jpg")
        (root / "files").rename(other / "files")
        for place in (other, other / "files"):
            built = read(root, split="train", image_root=str(place))
            assert column(built, "uri") == [f"{other}/files/p10/p10000032/s50414267/{self.A}.jpg"]

    def test_findings_alone_name_no_image(self, root):
        for name in ("split", "metadata"):
            (root / f"mimic-cxr-2.0.0-{name}.csv.gz").unlink()
        with pytest.raises(ManifestError, match=r"no column names an image"):
            read(root)

    def test_the_folder_is_known(self, root):
        assert infer(str(root), STORAGE) == "table"
        assert infer(str(root / "files"), STORAGE) == "folder"

    def test_a_study_twice_is_refused(self, root):
        path = root / "mimic-cxr-2.0.0-chexpert.csv.gz"
        text = gzip.decompress(path.read_bytes()).decode()
        path.write_bytes(gzip.compress(f"{text}{text.splitlines()[1]}\n".encode()))
        with pytest.raises(ManifestError, match="two rows have one subject_id, study_id"):
            read(root, split="all")


class TestOthers:
    def test_padchest(self, tmp_path):
        images(tmp_path, "0/1_a.png", "13/2_b.png")
        path = tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
        path.write_text(
            ",ImageID,ImageDir,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels\n"
            "0,1_a.png,0,s1,p01,1940,M,PA,\"['pleural effusion', 'unchanged', 'COPD signs']\"\n"
            "1,2_b.png,13,s2,p02,1950,F,L,\"['normal']\"\n"
        )
        built = read(path)
        assert column(built, "sample_id") == ["1_a.png", "2_b.png"]
        assert column(built, "uri") == [f"{tmp_path}/0/1_a.png", f"{tmp_path}/13/2_b.png"]
        assert (positive(built), positive(built, 1)) == (["Pleural Effusion"], ["No Finding"])
        assert "2 words of column 'Labels', 2 times in all" in built.notes[0]
        assert column(built, "Labels")[1] == "['normal']"
        survives_filtering(built, tmp_path)
        assert (column(built, "sex"), column(built, "view")) == (["M", "F"], ["PA", "L"])

    def test_vindr_has_a_row_for_each_box(self, tmp_path):
        images(tmp_path, "train/aa.png", "train/bb.png")
        (tmp_path / "train.csv").write_text(
            "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\naa,Cardiomegaly,3,R8,1,2,3,4\n"
            "bb,No finding,14,R1,,,,\naa,No finding,14,R9,,,,\naa,Nodule/Mass,8,R10,5,6,7,8\n"
            "aa,Pleural effusion,10,R8,1,2,3,5\n"
        )
        built = read(tmp_path / "train.csv")
        assert column(built, "sample_id") == ["aa", "bb"]
        assert (positive(built), positive(built, 1)) == (
            ["Cardiomegaly", "Lung Lesion", "Pleural Effusion"],
            ["No Finding"],
        )
        assert column(built, "class_name") == ["Cardiomegaly|Nodule/Mass|Pleural effusion", "No finding"]
        assert built.notes[0].startswith(
            "5 rows are about 2 images: each image has the findings of all its rows, which differ in 1 images; class_id"
        )
        assert "rad_id" not in built.table.column_names
        survives_filtering(built, tmp_path)

    def test_roentgen_v2_as_a_table_and_with_embedded_images(self, tmp_path):
        images(tmp_path, "a.png")
        cells = {
            "image": ["a.png"],
            "text": ["A prompt."],
            "gender": ["F"],
            "age": [61],
            "race": ["WHITE"],
            "view": ["PA"],
        }
        cells |= {name: [float(name == "Edema")] for name in FINDINGS}
        pq.write_table(pa.table(cells), tmp_path / "t.parquet")
        pq.write_table(pa.table(cells | {"image": [b"\x89PNG"]}), tmp_path / "b.parquet")
        embedded = ParquetImages(str(tmp_path / "b.parquet"))
        for built in (
            read(tmp_path / "t.parquet", "synthetic"), manifest.load("s", "synthetic", embedded, STORAGE),
        ):  # fmt: skip
            assert (column(built, "prompt"), column(built, "sex"), positive(built)) == (["A prompt."], ["F"], ["Edema"])
            assert built.title == "RoentGen-v2 table"
            assert "gender -> sex" in built.read_as

    def test_chexgen(self, tmp_path):
        images(tmp_path, "chest_001.png")
        path = tmp_path / "t.csv"
        path.write_text('name,Finding Labels,impression\nchest_001.png,Airspace Opacity|Pneumonia,"Mild, left."\n')
        built = read(path, "synthetic")
        assert (column(built, "prompt"), positive(built)) == (["Mild, left."], ["Pneumonia"])
        assert "Airspace Opacity (1)" in built.notes[0]
        survives_filtering(read(two_of(path), "synthetic"), tmp_path)


NIH = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender"


def test_words_of_published_tables_and_no_other_text_in_notes(tmp_path):
    """ "No Finding" gives way to a finding, an empty list is no label, and a note repeats no patient's text."""
    cells = ["No Finding|Pneumonia", "No Finding|Hernia", "Rib fracture|Normal", "[]", "John Doe; MRN 4711"]
    images(tmp_path, *(f"{n}.png" for n in range(len(cells))))
    path = tmp_path / "t.csv"
    path.write_text(f"{NIH}\n" + "".join(f"{n}.png,{cell},{n},5,F\n" for n, cell in enumerate(cells)))
    built = read(path)
    assert [positive(built, row) for row in range(5)] == [["Pneumonia"], [], ["Fracture"], [], []]
    assert (labels.to_codes(built.table["labels"])[3] == labels.UNLABELLED).all()
    assert "3 words of column" in built.notes[0]
    assert "Hernia (1)" in built.notes[0]
    assert not any("Doe" in note or "4711" in note for note in built.notes)


def test_a_child_of_two_months_leaves_the_ages_numbers(tmp_path):
    images(tmp_path, *(f"{n}.png" for n in range(4)))
    path = tmp_path / "t.csv"
    ages = ["058Y", "002M", "030M", "010D"]
    path.write_text(f"{NIH}\n" + "".join(f"{n}.png,Edema,{n},{age},F\n" for n, age in enumerate(ages)))
    assert column(read(path), "age") == [58, 0, 2, 0]


def test_mimic_tables_join_whatever_the_spelling_of_ids(tmp_path):
    images(tmp_path, "files/p10/p10000032/s50/ab-cd.jpg")
    stem = f"{tmp_path}/mimic-cxr-2.0.0"
    for name, text in {
        "split": "dicom_id,study_id,subject_id,split\nab-cd,50,10000032,test\n",
        "metadata": "dicom_id,subject_id,study_id,ViewPosition\nAB-CD,10000032,50,PA\n",
        "chexpert": f"subject_id,study_id,{FOURTEEN}\n10000032.0,50.0,1.0{',' * 13}\n",
    }.items():
        with open(f"{stem}-{name}.csv", "w") as file:
            file.write(text)
    built = read(f"{stem}-split.csv", split="test")
    assert (column(built, "view"), positive(built)) == (["PA"], [FINDINGS[0]])


@pytest.mark.parametrize("header", ["name,impression,path", "name,impression"])
def test_a_table_of_patients_is_not_taken_for_a_published_one(tmp_path, header):
    images(tmp_path, "0.png")
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\nDOE^JOHN,No effusion.{',0.png' if 'path' in header else ''}\n")
    if "path" in header:
        built = read(path, "synthetic")
        assert (column(built, "uri"), built.title) == ([f"{tmp_path}/0.png"], "")
        return
    with pytest.raises(ManifestError) as caught:
        read(path, "synthetic")
    assert "DOE" not in str(caught.value)


def test_a_column_of_splits_that_holds_text_is_not_shown(tmp_path):
    images(tmp_path, "0.png", "1.png")
    path = tmp_path / "t.csv"
    path.write_text('path,split\n0.png,"John Doe, 67y, MRN 4711"\n1.png,test2\n')
    with pytest.raises(ManifestError, match=r"Found: 2 values that are no names of splits\.") as caught:
        read(path, split="test")
    assert "Doe" not in str(caught.value)


def test_every_peer_is_known_by_its_columns_and_no_other():
    for peer in PEERS:
        names = [name.upper() for name in peer.needs]
        assert recognise(names, pa.table({name: ["SyntheticImg_a-b.png"] for name in names})) is peer
        assert not peer.named or recognise(names, pa.table({name: ["mine.png"] for name in names})) is None
    assert recognise(["path", "prompt", "labels"]) is None


def two_of(path):
    """The table with a second row, about another image."""
    images(path.parent, "chest_002.png")
    path.write_text(path.read_text() + "chest_002.png,Edema,Edema.\n")
    return path


def test_a_split_of_an_ordinary_table(tmp_path):
    images(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("path,split\n1.png,train\n2.png,validate\n")
    assert len(read(tmp_path / "t.csv")) == 2
    assert column(read(tmp_path / "t.csv", split="val"), "sample_id") == ["2.png"]
    (tmp_path / "u.csv").write_text("path\n1.png\n")
    with pytest.raises(ManifestError, match=r"has no column split, so real\.split cannot choose one"):
        read(tmp_path / "u.csv", split="test")


ODD = {
    "whole numbers": pa.array([1, 2]),
    "fractions": pa.array([1.5, None]),
    "nothing": pa.nulls(2),
    "lists": pa.array([["a"], None]),
    "structs": pa.array([{"a": 1}, None]),
    "bytes": pa.array([b"\xff", None]),
    "truth": pa.array([True, None]),
    "long": pa.array(["x" * 5000, "{'" * 3000]),
    "brackets": pa.array(["[[[['a']]]]", "('a', {1: 2})"]),
    "dictionary": pa.array(["a", None]).dictionary_encode(),
}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.title)
def test_odd_cells_of_every_column_are_read_or_refused_in_one_line(tmp_path, peer):
    images(tmp_path, "SyntheticImg_1.png", "SyntheticImg_2.png")
    names = dict.fromkeys([*peer.needs, *peer.roles.values(), *peer.groups.values(), peer.split or "split", "Edema"])
    usual = {name: pa.array([f"SyntheticImg_{n}.png" for n in (1, 2)]) for name in names}
    for name in names:
        for cells in ODD.values():
            pq.write_table(pa.table({**usual, name: cells}), tmp_path / "t.parquet")
            for split in (None, "train"):
                try:
                    read(tmp_path / "t.parquet", "synthetic", split=split, image_root=str(tmp_path))
                except ManifestError as error:
                    assert len(str(error)) < 1000  # noqa: PT017 (either is right)


def test_the_plan_says_what_was_read_as_what(tmp_path, command):
    header = "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position"
    for index in range(2):
        Image.new("L", (16, 16), 90 + index).save(tmp_path / f"{index}.png")
    for name in ("real", "made"):
        (tmp_path / f"{name}.csv").write_text(f"{header}\n0.png,Effusion,1,58,M,PA\n1.png,Edema,2,60,F,PA\n")
    code, out, _ = command(
        "run", "--real", "real.csv", "--synthetic", "made.csv", "--encoders", "pixels", "--metrics", "kid",
        "--subsets", "all,findings,sex", "--dry-run", at=tmp_path,
    )  # fmt: skip
    assert code == 0, out
    assert "NIH ChestX-ray14 table: Image Index -> image, Patient ID -> subject_id, Finding Labels -> findings" in out
    assert "Patient Gender -> sex" in out
