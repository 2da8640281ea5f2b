"""Columns called labels that are no mapping: lists of findings are read, anything else is kept and never in the way."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import labels, manifest
from chexray.data.finding_lists import read_lists
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.findings import FINDINGS
from chexray.storage import Storage

STORAGE = Storage()


def named(codes):
    """The findings that are positive, and whether anything is negative."""
    return [FINDINGS[place] for place, code in enumerate(codes) if code == 1]


def read(tmp_path, column, name="labels", **options):
    for place in range(len(column)):
        (tmp_path / f"{place}.png").write_bytes(b"x")
    table = pa.table({"path": [f"{place}.png" for place in range(len(column))], name: column})
    pq.write_table(table, tmp_path / "t.parquet")
    return manifest.load("s", "real", Table(str(tmp_path / "t.parquet"), **options), STORAGE)


@pytest.mark.parametrize(
    "cells",
    [
        ["Edema|Pleural Effusion", "No Finding"],
        ["edema; pleural_effusion", "no finding"],
        ["Edema, Pleural Effusion", "No Finding"],
        ["['Edema', 'Pleural Effusion']", "['No Finding']"],
        ['["Edema", "Pleural Effusion"]', '["No Finding"]'],
        ["{'Edema', 'Pleural Effusion'}", "('No Finding',)"],
        [["Edema", "Pleural Effusion"], ["No Finding"]],
        ["Effusion|Edema", "No Finding"],
    ],
)
@pytest.mark.parametrize("name", ["labels", "Finding Labels"])
def test_lists_of_findings_are_labels(tmp_path, cells, name):
    built = read(tmp_path, [*cells, None], name)
    codes = labels.to_codes(built.table["labels"])
    assert named(codes[0]) == ["Edema", "Pleural Effusion"]
    assert named(codes[1]) == ["No Finding"]
    assert (codes[0][codes[0] != 1] == labels.NOT_MENTIONED).all()
    assert (codes[2] == labels.UNLABELLED).all()
    assert not built.unread_labels


def test_the_words_of_chest_x_ray14():
    """As the phrases of the CheXpert labeller sort them; three have no place among the 14."""
    cells = ["Infiltration|Mass|Nodule|Pleural_Thickening", "Emphysema|Fibrosis|Hernia", "Hernia|Cardiomegaly", ""]
    found = read_lists(cells)
    assert found is not None
    assert [None if each is None else [FINDINGS[place] for place in each] for each in found] == [
        ["Lung Lesion", "Lung Opacity", "Pleural Other"], [], ["Cardiomegaly"], None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "column",
    [
        ["['pleural effusion', 'unchanged']", "['normal']"],  # PadChest
        [["normal"], ["pleural effusion", "COPD signs"]],
        [0, 1],  # ClassLabel of datasets
        ["COVID|Edema", "Edema"],
        ["normal", "abnormal"],
        [True, False],
        [0.5, None],
        ["a report that speaks of edema and no effusion", "Edema"],
        ["Hernia", "Fibrosis"],
        ["[1, 0]", "[0, 1]"],
    ],
)
@pytest.mark.parametrize("name", ["labels", "Finding Labels"])
def test_other_columns_of_labels_are_kept_and_never_in_the_way(tmp_path, column, name):
    built = read(tmp_path, column, name)
    assert built.table["labels"].null_count == 2
    kept = "labels_original" if name == "labels" else name
    assert built.table[kept].to_pylist() == column
    assert f"column '{name}' is kept as it is and not read as labels" in built.notes[0]
    assert built.unread_labels in built.name_labels
    assert "real.columns.labels" in built.name_labels
    # Where the config calls it labels, they are wanted.
    with pytest.raises(ManifestError, match=r"real\.columns\.labels, or set it to null"):
        read(tmp_path, column, name, columns={"labels": name})


def test_a_spoiled_cell_among_mappings_is_an_error(tmp_path):
    """Else a typo in one row would silently take the labels of a whole set away."""
    with pytest.raises(ManifestError, match="the labels of data row 2 "):
        read(tmp_path, ["{'Edema': 1}", "{'Edema': 1"])
    with pytest.raises(ManifestError, match="the labels of data row 1 "):
        read(tmp_path, ["Edema", "OrderedDict([('Edema', 1)])"])


def test_a_column_of_each_finding_counts_beside_words(tmp_path):
    table = pa.table({"path": ["0.png"], "Edema": [0.0], "Finding Labels": ["Edema"], "labels": [3]})
    (tmp_path / "0.png").write_bytes(b"x")
    pq.write_table(table, tmp_path / "t.parquet")
    built = manifest.load("s", "real", Table(str(tmp_path / "t.parquet")), STORAGE)
    assert labels.to_codes(built.table["labels"])[0, FINDINGS.index("Edema")] == 0
    assert built.table["labels_original"].to_pylist() == [3]


def test_prompts_that_differ_in_line_ends_and_blanks_are_one(tmp_path):
    (tmp_path / "0.png").write_bytes(b"x")
    prompts = ["Two  lines\r\nof text. ", "\tTwo lines \n of text.", "Two lines\rof text.", None, ""]
    rows = [{"id": str(n), "path": "0.png", "prompt": prompt} for n, prompt in enumerate(prompts)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = manifest.load("s", "real", Table(str(tmp_path / "t.jsonl")), STORAGE)
    assert built.table["prompt"].to_pylist() == ["Two lines\nof text."] * 3 + [None, ""]
