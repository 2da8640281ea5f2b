"""Labels are read by name, kept as given, and grouped only by a named policy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from chexray.data import labels
from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS

EDEMA, FRACTURE, OTHER = (FINDINGS.index(name) for name in ("Edema", "Fracture", "Pleural Other"))


def read(*cells):
    return labels.to_codes(labels.from_column(pa.chunked_array([pa.array(cells)]), "t.csv"))


def test_upstream_dict_text_is_read_by_name_whatever_its_order():
    forward = "{'Edema': 1.0, 'Fracture': 0.0, 'Pleural Other': -1.0, 'Pneumonia': None, 'Lung Lesion': nan}"
    backward = "{'Lung Lesion': nan, 'Pneumonia': None, 'Pleural Other': -1.0, 'Fracture': 0.0, 'Edema': 1.0}"
    codes = read(forward, backward)
    assert (codes[0] == codes[1]).all()
    assert codes[0, [EDEMA, FRACTURE, OTHER]].tolist() == [1, 0, -1]
    assert (np.delete(codes[0], [EDEMA, FRACTURE, OTHER]) == labels.NOT_MENTIONED).all()


@pytest.mark.parametrize(
    "cell",
    [
        '{"Edema": 1, "Fracture": null, "Pleural Other": NaN}',
        "{'edema': 1.0, 'FRACTURE': nan, 'pleural_other': None}",
        "{'Edema': '1.0', 'Fracture': ''}",
        "{'Edema': True}",
        "{\"Edema\": 1, 'Fracture': None, }",
    ],
)
def test_json_and_other_spellings(cell):
    codes = read(cell)[0]
    assert codes[EDEMA] == 1
    assert codes[FRACTURE] == labels.NOT_MENTIONED


def test_structs_are_read_by_name_too():
    column = pa.chunked_array([pa.array([{"Fracture": 0, "Edema": 1}, None])])
    codes = labels.to_codes(labels.from_column(column, "t.jsonl"))
    assert codes[0, [EDEMA, FRACTURE]].tolist() == [1, 0]
    assert (codes[1] == labels.UNLABELLED).all()


def test_missing_cells_are_images_without_labels():
    codes = read("{'Edema': 1}", None, "nan", " ")
    assert (codes[1:] == labels.UNLABELLED).all()
    assert labels.from_codes(codes).null_count == 3
    for policy in labels.POLICIES:
        assert (labels.apply(labels.from_codes(codes), policy)[1:] == -1).all()


def test_an_unknown_finding_is_suggested_not_dropped():
    with pytest.raises(ManifestError, match=r"t\.csv.*data row 2.*'Edemma'.*Did you mean 'Edema'"):
        read("{'Edema': 1}", "{'Edemma': 1}")


@pytest.mark.parametrize(
    "cell", ["Edema|Fracture", "[1, 0, 1]", "{'Edema': 2}", "{'Edema': [1]}", "{" * 5000, "(" * 300]
)
def test_what_is_no_label_mapping_is_an_error_that_names_the_row(cell):
    with pytest.raises(ManifestError, match="data row 2") as caught:
        read("{'Edema': 1}", cell)
    assert len(str(caught.value)) < 400


def test_text_cells_are_data_not_code(tmp_path):
    target = tmp_path / "written"
    with pytest.raises(ManifestError):
        read(f"open({str(target)!r}, 'w')")
    assert not target.exists()


def test_one_column_a_finding():
    table = pa.table({"edema": [1.0, None, float("nan")], "Pleural Other": ["-1", "0.0", None], "x": [1, 2, 3]})
    names = {"Edema": "edema", "Pleural Other": "Pleural Other"}
    codes = labels.to_codes(labels.from_finding_columns(table, names, "t.csv"))
    assert codes[0, [EDEMA, OTHER]].tolist() == [1, -1]
    assert codes[1, [EDEMA, OTHER]].tolist() == [labels.NOT_MENTIONED, 0]
    assert (codes[2] == labels.UNLABELLED).all()
    bad = pa.table({"edema": ["1", "mild"]})
    with pytest.raises(ManifestError, match=r"column 'edema' of data row 2 is a text of 4 characters"):
        labels.from_finding_columns(bad, {"Edema": "edema"}, "t.csv")


@pytest.mark.parametrize(
    ("policy", "expected"), [("u_zeros", [1, 0, 0, 0]), ("u_ones", [1, 0, 1, 0]), ("u_ignore", [1, 0, -1, -1])]
)
def test_policies(policy, expected):
    column = labels.from_column(pa.chunked_array([["{'Edema': 1, 'Fracture': 0, 'Pleural Other': -1}"]]), "t.csv")
    groups = labels.apply(column, policy)
    assert groups.dtype == np.int8
    assert groups.shape == (1, 14)
    assert groups[0, [EDEMA, FRACTURE, OTHER, FINDINGS.index("Pneumonia")]].tolist() == expected


def test_an_unknown_policy_is_a_config_error():
    with pytest.raises(ConfigError, match="u_zeros, u_ones, u_ignore"):
        labels.apply(pa.nulls(1, labels.LABELS_TYPE), "zeros")


def test_codes_survive_slices_chunks_and_back():
    rng = np.random.default_rng(0)
    codes = rng.integers(-2, 2, (40, 14)).astype(np.int8)
    codes[::7] = labels.UNLABELLED
    column = labels.from_codes(codes)
    assert column.type == labels.LABELS_TYPE
    chunked = pa.chunked_array([column.slice(0, 11), column.slice(11)])
    assert (labels.to_codes(chunked) == codes).all()
    assert (labels.to_codes(column.slice(5, 20)) == codes[5:25]).all()


@pytest.mark.parametrize("cell", [
    "{'Edema': np.float64(1.0), 'Fracture': np.float64(nan), 'Pleural Other': np.int64(-1)}",
    "{'Edema': numpy.float32(1.0), 'Fracture': np.nan, 'Pleural Other': np.float16(-1.0)}",
    "{'Edema': np.True_, 'Fracture': None, 'Pleural Other': -1}",
    "{np.str_('Edema'): np.str_('1'), np.str_('Pleural Other'): np.float64(-1.0)}",
    "OrderedDict([('Edema', 1.0), ('Fracture', nan), ('Pleural Other', -1.0)])",
    "OrderedDict({'Edema': np.float64(1.0), 'Pleural Other': np.float64(-1.0)})",
    "{'Edema': tensor(1.), 'Fracture': tensor(nan), 'Pleural Other': tensor(-1, dtype=torch.int8)}",
    "{'Edema': tensor([1.], device='cuda:0'), 'Pleural Other': tensor([[-1.]])}",
    "{'Edema': array(1.0), 'Fracture': array(nan), 'Pleural Other': array([-1.], dtype=float32)}",
])  # fmt: skip
def test_numbers_and_mappings_inside_the_names_of_their_types(cell):
    expected = read("{'Edema': 1.0, 'Fracture': nan, 'Pleural Other': -1.0}")
    assert (read(cell) == expected).all()


@pytest.mark.parametrize("cell", [
    "{'Edema': __import__('os').system('true')}",
    "{'Edema': open('x')}",
    "{'Edema': np.float64(__import__)}",
    "{'Edema': np.float64(1.0, 2.0)}",
    "{'Edema': [x for x in (1,)]}",
    "{'Edema': (lambda: 1)()}",
    "{'Edema': 1 + 0}",
    "{**{'Edema': 1}}",
    "OrderedDict([('Edema', 1)]).pop('Edema')",
    "np.float64(" * 500 + "1" + ")" * 500,
])  # fmt: skip
def test_nothing_else_is_evaluated(cell):
    with pytest.raises(ManifestError, match=r"data row 1"):
        read(cell)


def test_the_two_tables_of_the_cases_hold_the_same_labels(shared):
    import csv

    found = []
    for name in ("labels_json_equal.csv", "labels_numpy2.csv"):
        with open(shared / "cases" / "decode" / name, newline="") as file:
            found.append(read(*(row["chexpert_labels"] for row in csv.DictReader(file))))
    assert (found[0] == found[1]).all()
    assert found[0][0, EDEMA] == 1


@pytest.mark.parametrize(
    "cell",
    [
        {"Edema": 1.0, "edema": 0.0},
        '{"Edema": 1, "Edema": 0}',
        "{'Edema': 1, 'Edema': 0}",
        "{'Edema': 1, 'EDEMA ': -1}",
        "{'Edema': np.float64(1.0), 'Edema': np.float64(0.0)}",
        "OrderedDict([('Edema', 1), ('Edema', 0)])",
        '{"Edema": 1, "Fracture": null, "edema": 1, "EDEMA": 0}',
    ],
)
def test_a_finding_with_two_values_is_refused(cell):
    cells = pa.array([cell])
    with pytest.raises(ManifestError, match=r"data row 1 say two things of Edema: 1 and (0|-1)\. Keep one, or set"):
        labels.from_column(pa.chunked_array([cells]), "t.csv")


@pytest.mark.parametrize(
    "cell", ['{"Edema": 1, "edema": 1.0}', "{'Edema': 1, 'Edema': None}", '{"Edema":NaN,"Edema":1}']
)
def test_a_finding_named_twice_with_one_value_has_it(cell):
    codes = labels.to_codes(labels.from_column(pa.chunked_array([[cell]]), "t.csv"))
    assert codes[0, FINDINGS.index("Edema")] == 1


def test_columns_of_one_finding_must_agree():
    table = pa.table({"Edema": [1.0, None, 0.0], "edema ": [1, 0, None], "EDEMA": ["1.0", "", None]})
    codes = labels.to_codes(labels.from_finding_columns(table, {"Edema": "Edema"}, "t.csv"))
    assert codes[:, FINDINGS.index("Edema")].tolist() == [1, 0, 0]
    other = table.set_column(2, "EDEMA", pa.array([1, 1, None]))
    with pytest.raises(
        ManifestError, match=r"'Edema' and 'EDEMA' are both Edema and differ in 1 rows, first in data row 2"
    ):
        labels.from_finding_columns(other, {"Edema": "Edema"}, "t.csv")
