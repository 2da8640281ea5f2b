"""Published tables as they are: by which columns each is known, and what its columns mean.

A further one is an entry of PEERS. Nothing here reads a file; the config's `columns` come before what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from chexray.spelling import fold


@dataclass(frozen=True)
class Peer:
    """A published table. title: what the plan calls it. needs: columns by which it is known, any case and spelling.

    roles: {role: column}, of those that the usual names do not tell. groups: {standard name: column} of sex, age, view
    and race. paths: templates of an image's path, each tried in turn; by default the image column.
    prefix: a pattern of first folders that a path may have and the disk may lack. subject: a pattern whose first group
    is the patient, in the path of an image. one_row_of: a column that several rows share, which are about one image.
    words: whether labels are words of which some are no finding of the 14. split: the column that names the split.
    files: stems of the files that make one table, the first with a row an image. on: the columns that join them.
    named: a pattern of images' names, without which a table is not the peer's. ids: one whose first group is the id.
    cells: a pattern of all names, and others: columns that the table does not have, where its columns alone say little.
    card, pairs: as of a manifest.
    """

    title: str
    needs: tuple[str, ...]
    roles: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    prefix: str = ""
    subject: str = ""
    one_row_of: str = ""
    words: bool = False
    split: str = ""
    files: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    named: str = ""
    ids: str = ""
    cells: str = ""
    others: tuple[str, ...] = ()
    card: str = ""
    pairs: str = ""


SYNTHCHEX_NAME = r"(?i)(?:.*/)?SyntheticImg_([^/]+)\.(?:png|jpe?g)"
SYNTHCHEX_CARD = (
    "SynthCheX-75K: images of Sana after 50 epochs, for prompts of the TRAIN split, filtered for quality; not the "
    "model that CheXGenBench benchmarks, so that no number of it stands beside the paper's Sana"
)
"""Upstream's scripts/generate_synthchex.sh names the model and the split, the data card the filter."""

PEERS = (
    # nihcc.app.box.com/v/ChestXray-NIHCC, Data_Entry_2017_v2020.csv; its images lie in images_001/images and so on.
    Peer(
        "NIH ChestX-ray14 table",
        needs=("Image Index", "Finding Labels"),
        roles={"image": "Image Index", "labels": "Finding Labels", "subject_id": "Patient ID"},
        groups={"sex": "Patient Gender", "age": "Patient Age", "view": "View Position"},
        words=True,
    ),
    # Irvin et al. 2019, train.csv and valid.csv; paths begin with the folder of the download.
    Peer(
        "CheXpert table",
        needs=("Path", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum"),
        roles={"image": "Path", "subject_id": "patient"},
        groups={"sex": "Sex", "age": "Age", "view": "AP/PA"},
        prefix=r"^CheXpert-v\d+\.\d+[^/]*/",
        subject=r"(?:^|/)(patient\d+)/",
    ),
    # physionet.org/content/mimic-cxr-jpg/2.1.0: three tables, and files/p10/p10000032/s50414267/<dicom_id>.jpg.
    Peer(
        "MIMIC-CXR-JPG tables",
        needs=("dicom_id", "study_id", "subject_id"),
        roles={"sample_id": "dicom_id", "subject_id": "subject_id"},
        groups={"view": "ViewPosition"},
        paths=("files/p{subject_id:.2}/p{subject_id}/s{study_id}/{dicom_id}.jpg",),
        prefix=r"^files/",
        split="split",
        files=("mimic-cxr-2.0.0-split", "mimic-cxr-2.0.0-metadata", "mimic-cxr-2.0.0-chexpert"),
        on=("dicom_id", "subject_id", "study_id"),
    ),
    # bimcv.cipf.es/bimcv-projects/padchest; ImageDir is the number of the archive that an image came in.
    Peer(
        "PadChest table",
        needs=("ImageID", "ImageDir", "PatientID", "Labels"),
        roles={"image": "ImageID", "subject_id": "PatientID", "labels": "Labels"},
        groups={"sex": "PatientSex_DICOM", "view": "Projection"},
        paths=("{ImageDir}/{ImageID}", "{ImageID}"),
        words=True,
    ),
    # kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection, train.csv; physionet.org/content/vindr-cxr,
    # annotations_train.csv: a row for each box of each radiologist.
    Peer(
        "VinDr-CXR table",
        needs=("image_id", "class_name", "rad_id"),
        roles={"sample_id": "image_id", "labels": "class_name"},
        one_row_of="image_id",
        words=True,
    ),
    # arXiv 2508.16783, RoentGen-v2's synthetic set.
    Peer(
        "RoentGen-v2 table",
        needs=("image", "text", "gender", "age", "race", "view"),
        roles={"image": "image", "prompt": "text"},
        groups={"sex": "gender"},
    ),
    # github.com/era-ai-biomed/ChexGen, data/mimic_val_p19_impression_example.csv.
    Peer(
        "ChexGen table",
        needs=("name", "impression"),
        roles={"image": "name", "prompt": "impression", "labels": "Finding Labels"},
        cells=r"(?i)[\w./+-]*\d[\w./+-]*|[\w./+-]+\.(?:png|jpe?g|dcm)",  # a patient may be called so, with no digit
        others=(
            "path",
            "image",
            "image_path",
            "uri",
            "filename",
            "file_name",
            "image_filename",
            "file",
            "img_savename",
        ),
        words=True,
    ),
    # huggingface.co/datasets/raman07/SynthCheX-75K, the table of ALL_FILES.zip, for images that were unpacked.
    Peer(
        "SynthCheX-75K v1, unpacked",
        needs=("filename", "prompt", "labels_dict"),
        roles={"image": "filename", "prompt": "prompt", "labels": "labels_dict"},
        named=SYNTHCHEX_NAME,
        ids=SYNTHCHEX_NAME,
        card=SYNTHCHEX_CARD,
        pairs="same_id",
    ),
    # github.com/Raman1121/CheXGenBench, LLAVARAD_ANNOTATIONS_*.csv and what its tools write from them.
    Peer(
        "CheXGenBench table",
        needs=("annotated_prompt", "chexpert_labels"),
        ids=r"(?:.*/)?([0-9a-f]{8}(?:-[0-9a-f]{8}){4})\.(?:jpe?g|png|dcm)",
    ),
)


def recognise(names: Sequence[str], table: pa.Table | None = None) -> Peer | None:
    """The peer whose columns are all among the names, and whose images are called as those of the table."""
    known = {fold(name) for name in names}
    fitting = (peer for peer in PEERS if all(fold(need) in known for need in peer.needs))
    fitting = (peer for peer in fitting if not any(fold(other) in known for other in peer.others))
    fitting = (peer for peer in fitting if not peer.cells or _has_cells(peer, table))
    return next((peer for peer in fitting if not peer.named or _is_named(peer, table)), None)


def _has_cells(peer: Peer, table: pa.Table | None) -> bool:
    """Whether no image of the table is called as the peer's are not; True where they are no text."""
    column = table and actual(peer.roles["image"], table.column_names)
    if not table or not column or not pa.types.is_string(table[column].type):
        return True
    return all(re.fullmatch(peer.cells, name) for name in table[column].slice(0, 1000).to_pylist() if name)


def _is_named(peer: Peer, table: pa.Table | None) -> bool:
    """Whether the first image of the table is called as the peer's are."""
    column = table and actual(peer.roles["image"], table.column_names)
    if not table or not column or not pa.types.is_string(table[column].type):
        return False
    first = next((name for name in table[column].slice(0, 100).to_pylist() if name), "")
    return re.fullmatch(peer.named, first) is not None


def of_file(name: str) -> Peer | None:
    """The peer of which a file, by its name without folder, is one of several tables."""
    stem = re.sub(r"\.csv(\.gz)?$", "", name.lower())
    return next((peer for peer in PEERS if stem in peer.files), None)


def actual(wanted: str, names: Sequence[str]) -> str | None:
    """The column of that name in its own spelling, None where there is none."""
    return next((name for name in names if name == wanted), None) or next(
        (name for name in names if fold(name) == fold(wanted)), None
    )
