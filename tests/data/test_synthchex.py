"""SynthCheX-75K in both published forms: recognised, read in place, with ids that pair it and nothing guessed."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import pyarrow as pa
import pytest
from fixtures.synthchex import dicom_id, name_of, study, v1_table, write_training, write_v1, write_v2

from chexray.curation.writing import write_filtered
from chexray.data import labels, manifest, pairing
from chexray.data.images import load_images
from chexray.data.prompts import inherit_by_id
from chexray.data.sources._peers import SYNTHCHEX_CARD as CARD
from chexray.data.sources.infer import infer
from chexray.data.sources.synthchex import N_IMAGES, SynthCheX
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.findings import FINDINGS
from chexray.plan import inherit_labels
from chexray.protocols import protocol
from chexray.storage import Storage

STORAGE = Storage()
IDS = [0, 1, 2, 3, 5, 8]


def read(path, **options):
    assert infer(str(path), STORAGE) == "synthchex"
    return manifest.load("s", "synthetic", SynthCheX(str(path), **options), STORAGE)


def positive(built, row=0):
    codes = labels.to_codes(built.table["labels"])[row]
    return {FINDINGS[place] for place, code in enumerate(codes) if code == 1}


@pytest.mark.parametrize("table", ["inside", "beside"])
def test_v1_has_ids_prompts_and_labels(tmp_path, table):
    built = read(write_v1(tmp_path / "ALL_FILES.zip", IDS, table=table))
    by_id = dict(zip(built.table["sample_id"].to_pylist(), range(len(built)), strict=True))
    assert set(by_id) == {dicom_id(index) for index in IDS}
    for index in IDS:
        row = by_id[dicom_id(index)]
        assert built.table["prompt"][row].as_py() == study(index).prompt
        assert positive(built, row) == {name for name, value in study(index).labels.items() if value == 1}
        assert built.table["filename"][row].as_py() == name_of(index)
    assert (built.title, built.card, built.pairs) == ("SynthCheX-75K v1", CARD, "same_id")
    assert f"6 images, of {N_IMAGES:,} that the published set has" in built.notes
    assert any(note.endswith("describes 6 of 6 images") for note in built.notes)
    assert "filename -> image" in built.read_as
    pixels = load_images(built.table["uri"].to_pylist(), STORAGE)
    assert all(
        (image == study(index, "good").image).all()
        for image, index in zip(pixels, sorted(IDS, key=dicom_id), strict=True)
    )


def test_v1_without_a_table(tmp_path):
    built = read(write_v1(tmp_path / "ALL_FILES.zip", IDS, table=""))
    assert built.table["prompt"].null_count == built.table["labels"].null_count == len(IDS)
    assert "no table of prompts and labels is in the archive or beside it" in built.notes


def test_the_table_and_the_archive_differ(tmp_path):
    """Both sides are counted: rows without an image, and images without a row."""
    built = read(write_v1(tmp_path / "ALL_FILES.zip", IDS, named=[0, 1, 2, 2, 40, 41, 42]))
    assert built.table["prompt"].null_count == 3
    assert (
        "ALL_FILES/metadata.csv describes 3 of 6 images; 3 of its rows name images that are not in the archive; 1 of "
        "its rows name an image again and are left out"
    ) in built.notes


def test_of_several_tables_the_one_that_names_most_images_counts(tmp_path):
    path = write_v1(tmp_path / "ALL_FILES.zip", IDS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("few.csv", v1_table([0]))
        archive.writestr("other.csv", "a,b\n1,2\n")
        archive.writestr("README.md", "x")
    write_training(tmp_path, IDS, images=False)  # beside it lies what pairs it, and names no image of it
    built = read(path)
    assert built.table["prompt"].null_count == 0
    assert "1 other files of the archive are not in the set" in built.notes
    assert not any("LLAVARAD" in note for note in built.notes)
    assert read(path, table_path=str(tmp_path / "LLAVARAD_ANNOTATIONS_TRAIN.csv")).table["prompt"].null_count == len(
        IDS
    )


def test_v2_keeps_its_label_as_text_and_guesses_no_finding(tmp_path):
    built = read(write_v2(tmp_path / "train-00000-of-00001.parquet", IDS))
    assert built.table["sample_id"].to_pylist() == sorted(map(dicom_id, IDS))
    assert built.table["label"].to_pylist() == ["Pneumonia"] * len(IDS)
    assert built.table["labels"].null_count == len(IDS)
    assert (built.title, built.card, built.pairs) == ("SynthCheX-75K v2", CARD, "same_id")
    pixels = load_images(built.table["uri"].to_pylist(), STORAGE)
    assert all(
        (image == study(index, "good").image).all()
        for image, index in zip(pixels, sorted(IDS, key=dicom_id), strict=True)
    )


def test_v2_may_be_a_folder_or_a_pattern(tmp_path):
    for place in range(2):
        write_v2(tmp_path / f"train-0000{place}-of-00002.parquet", IDS[3 * place : 3 * place + 3])
    assert len(read(tmp_path)) == len(read(f"{tmp_path}/train-*.parquet")) == len(IDS)


def test_the_folder_of_the_download_is_its_archive(tmp_path):
    write_v1(tmp_path / "ALL_FILES.zip", IDS)
    (tmp_path / "figure.png").write_bytes(b"x")
    assert len(read(tmp_path)) == len(IDS)


@pytest.mark.parametrize("form", ["v1", "v2"])
def test_a_filtered_set_stays_what_it_is(tmp_path, form):
    made = read(write_v2(tmp_path / "v2.parquet", IDS) if form == "v2" else write_v1(tmp_path / "ALL_FILES.zip", IDS))
    first = made.table["sample_id"][0].as_py()
    done = write_filtered(made, {first: "a copy"}, str(tmp_path / "kept.parquet"), STORAGE)
    after = manifest.load("s", "synthetic", Table(**done.options), STORAGE)
    for name in ("sample_id", "uri", "prompt", "labels", "image_key"):
        assert after.table[name].to_pylist() == made.table[name].to_pylist()[1:], name
    assert (after.card, after.pairs) == (CARD, "same_id")


def test_unpacked_it_is_known_by_its_table(tmp_path):
    """Most people have unpacked version 1 before they look for a tool."""
    with zipfile.ZipFile(write_v1(tmp_path / "ALL_FILES.zip", IDS, folder="")) as archive:
        archive.extractall(tmp_path / "files")
    built = manifest.load("s", "synthetic", Table(str(tmp_path / "files" / "metadata.csv")), STORAGE)
    assert built.table["sample_id"].to_pylist() == sorted(map(dicom_id, IDS))
    assert (built.card, built.pairs, built.title) == (CARD, "same_id", "SynthCheX-75K v1, unpacked")
    renamed = (tmp_path / "files" / "metadata.csv").read_text().replace("SyntheticImg_", "mine_")
    (tmp_path / "files" / "metadata.csv").write_text(renamed)
    for path in (tmp_path / "files").glob("*.png"):
        path.rename(path.with_name(path.name.replace("SyntheticImg_", "mine_")))
    assert manifest.load("s", "synthetic", Table(str(tmp_path / "files" / "metadata.csv")), STORAGE).card == ""


def test_an_archive_of_ones_own_is_not_taken_for_it(tmp_path):
    """Upstream's script names every generator's images so, and writes other columns."""
    path = write_v1(tmp_path / "mine.zip", IDS, table="")
    (tmp_path / "generations_with_metadata.csv").write_text(f"synthetic_filename,annotated_prompt\n{name_of(0)},p\n")
    assert infer_or_none(path) != "synthchex"
    (tmp_path / "generations_with_metadata.csv").write_bytes(v1_table(IDS))
    assert infer_or_none(path) == "synthchex"


def infer_or_none(path):
    try:
        return infer(str(path), STORAGE)
    except ManifestError:
        return None


def test_an_archive_without_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "ALL_FILES.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ManifestError, match=r"holds no image: found 1 other files, such as a\.txt"):
        SynthCheX(str(tmp_path / "ALL_FILES.zip")).read("synthetic", STORAGE)


def test_names_that_are_no_dicom_ids_stay_ids(tmp_path):
    with zipfile.ZipFile(tmp_path / "ALL_FILES.zip", "w") as archive:
        archive.writestr("x/strange.png", b"x")
        archive.writestr(f"x/{name_of(1)}", b"x")
    built = read(tmp_path / "ALL_FILES.zip")
    assert set(built.table["sample_id"].to_pylist()) == {"strange", dicom_id(1)}
    assert "1 images are not called SyntheticImg_<DICOM id>: their names are their ids" in built.notes


class TestWithTraining:
    """What the training table adds: `--training` alone is enough."""

    @pytest.fixture
    def training(self, tmp_path):
        table = write_training(tmp_path / "mimic", list(range(9)))
        return manifest.load("t", "real", Table(str(table)), STORAGE)

    @pytest.mark.parametrize("form", ["v1", "v1 without a table", "v2"])
    def test_pairs_prompts_and_labels(self, tmp_path, training, form):
        if form == "v2":
            made = read(write_v2(tmp_path / "v2.parquet", IDS))
        else:
            made = read(write_v1(tmp_path / "ALL_FILES.zip", IDS, table="inside" if form == "v1" else ""))
        (item,) = inherit_labels([made], {"training": training}, protocol("standard"))
        of_study = {dicom_id(index): study(index) for index in IDS}
        assert item.table["prompt"].to_pylist() == [
            of_study[name].prompt for name in item.table["sample_id"].to_pylist()
        ]
        assert item.table["view"].to_pylist() == [of_study[name].view for name in item.table["sample_id"].to_pylist()]
        for row, name in enumerate(item.table["sample_id"].to_pylist()):
            assert positive(item, row) == {finding for finding, value in of_study[name].labels.items() if value == 1}
        taken = "view" if form == "v1" else "prompt (6), labels (6), view"
        assert f"6 of 6 images are named after images of t; {taken} come from them" in item.notes
        pairs = pairing.build("auto", training, item, STORAGE)
        assert pairs.how == "same_id"
        assert training.title == "CheXGenBench table"
        by_id = dict(zip(*(training.table[name].to_pylist() for name in ("sample_id", "uri")), strict=True))
        assert {made: by_id[real].rsplit("/", 1)[1] for real, made in zip(
            pairs.table["real_id"].to_pylist(), pairs.table["synthetic_id"].to_pylist(), strict=True
        )} == {name: f"{name}.jpg" for name in of_study}  # fmt: skip

    def test_shared_prompts_pair_by_id_all_the_same(self, tmp_path, training):
        same = training.table.set_column(4, "prompt", pa.array(["No acute process."] * len(training)))
        assert training.table.column_names[4] == "prompt"
        made = read(write_v1(tmp_path / "ALL_FILES.zip", IDS))
        pairs = pairing.build("auto", replace(training, table=same), made, STORAGE)
        assert (pairs.how, len(pairs)) == ("same_id", len(IDS))

    def test_another_training_table_is_noticed(self, tmp_path, training):
        """Ids meet, and prompts do not: this is not the table that the set was made from."""
        prompts = [*training.table["prompt"].to_pylist()]
        prompts[4] = "Another."
        other = training.table.set_column(4, "prompt", pa.array(prompts))
        assert training.table["sample_id"][4].as_py() in set(map(dicom_id, IDS))
        item = inherit_by_id(read(write_v1(tmp_path / "ALL_FILES.zip", IDS)), replace(training, table=other))
        assert "1 have another prompt than these: check that the two belong together" in item.notes[-1]

    def test_the_plan_of_one_flag(self, tmp_path, command):
        """Nothing but the two paths: privacy, pairs by id, the card, and what was read as what."""
        write_v1(tmp_path / "ALL_FILES.zip", IDS)
        table = write_training(tmp_path / "mimic", list(range(9)))
        code, out, said = command(
            "run", "--synthetic", "ALL_FILES.zip", "--training", table, "--encoders", "pixels", "--dry-run", at=tmp_path
        )
        assert (code, said) == (0, "")
        assert CARD in out
        assert "pairs      ALL_FILES: 6 (same_id)" in out
        assert "(privacy; protocol standard" in out
        assert "SynthCheX-75K v1: filename -> image" in out
        assert "training   LLAVARAD_ANNOTATIONS_TRAIN: 9 images" in out

    def test_missing_training_images_are_said(self, tmp_path, command):
        write_v1(tmp_path / "ALL_FILES.zip", IDS)
        table = write_training(tmp_path / "mimic", list(range(9)), images=False)
        code, _, said = command(
            "run", "--synthetic", "ALL_FILES.zip", "--training", table, "--encoders", "pixels", "--dry-run", at=tmp_path
        )
        assert code == 2
        assert "Set training.image_root" in said


@pytest.mark.parametrize("damage", ["cut", "encrypted"])
def test_a_table_in_the_archive_that_cannot_be_read_is_one_line(tmp_path, damage):
    path = write_v1(tmp_path / "ALL_FILES.zip", IDS)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("ALL_FILES/metadata.csv")
    at = member.header_offset
    if damage == "cut":
        data[at + 60] ^= 0xFF
    else:
        data[at + 6] |= 1
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"ALL_FILES\.zip: ALL_FILES/metadata\.csv cannot be read: .*table_path"):
        SynthCheX(str(path)).read("synthetic", STORAGE)


def test_a_broken_table_beside_it_is_no_obstacle(tmp_path):
    path = write_v1(tmp_path / "ALL_FILES.zip", IDS, table="beside")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    built = read(path)
    assert built.table["prompt"].null_count == 0
    assert any(note.startswith("a.csv beside the archive is not used: ") for note in built.notes)
