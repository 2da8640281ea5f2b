"""The results files: what a row may say, and that all three formats give it back unchanged."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from chexray.errors import ConfigError, StorageError
from chexray.results.reading import read_results
from chexray.results.rows import FIELDS, SCHEMA, to_csv, to_json, to_records, to_table, write

FORMATS = ("results.parquet", "results.csv", "results.json")


def row(**changes):
    base = {
        "metric": "kid",
        "value": 0.1 + 0.2,
        "std_error": 0.0031,
        "ci_low": 0.29,
        "ci_high": 0.31,
        "std_error_method": "jackknife",
        "better": "lower",
        "real_floor": -1.25e-7,
        "real_floor_std_error": 3e-8,
        "beyond_floor": "",
        "encoder": "pixels",
        "encoder_revision": "1",
        "weights": "",
        "weights_sha256": "",
        "subset": "all",
        "n_real": 222,
        "n_synthetic": 221,
        "n_rejected": 1,
        "real_set": "nih@0123456789abcdef",
        "synthetic_set": "phantom",
        "protocol": "standard",
        "params": {"k": 5},
        "status": "ok",
        "reason": "",
        "run_id": "r1",
        "seed": 7,
        "chexray_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05Z",
    }
    return base | changes


def null(**changes):
    nothing = dict.fromkeys(("value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error"))
    return row(**nothing, std_error_method="", status="too_few", reason="1 image, and 2 are needed") | changes


class Folder:
    """A storage of two verbs on a dictionary."""

    def __init__(self):
        self.files = {}

    def write(self, uri, data):
        self.files[uri] = data

    def exists(self, uri):
        return uri in self.files

    def read(self, uri):
        return self.files[uri]


ROWS = [
    row(),
    null(subset="finding:Pleural Other"),
    row(metric="vendi", value=-0.0, std_error=None, ci_low=None, ci_high=None, better="", subset="sex:NA"),
    row(reason='says "x", and\na second line', synthetic_set="Röntgen ✓", value=5e-324, n_real=0, params="{}"),
    row(synthetic_set="=cmd|'/c calc'!A0", real_set="'quoted", subset="-1", protocol="@x", run_id="+7", reason="'"),
]


def test_every_field_says_what_it_is():
    assert SCHEMA.names == list(FIELDS)
    assert all(field.metadata[b"description"] for field in SCHEMA)
    assert {field.name for field in SCHEMA if field.nullable} == {
        "value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error",
    }  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_rows_back_to_the_last_bit(name):
    folder = Folder()
    write("s3://bucket/run/", ROWS, folder)
    assert list(folder.files)[-1] == "s3://bucket/run/results.parquet"
    back = to_records(read_results(f"s3://bucket/run/{name}", folder))
    expected = to_table(ROWS).to_pylist()
    assert back == expected
    assert [str(r["value"]) for r in back] == [str(r["value"]) for r in expected]  # the sign of -0.0, too


def test_a_run_folder_on_disk_is_read_whole(tmp_path):
    class Disk:
        def write(self, uri, data):
            Path(uri).write_bytes(data)

    write(str(tmp_path), ROWS, Disk())
    frames = [read_results(tmp_path / name) for name in FORMATS] + [read_results(tmp_path)]
    for frame in frames:
        pd.testing.assert_frame_equal(frame, frames[0])
    assert frames[0]["n_real"].dtype == np.int64
    assert frames[0]["value"].dtype == np.float64
    assert pq.read_schema(tmp_path / "results.parquet").metadata[b"format"] == b"chexray.results/2"


def test_no_rows_are_results_too():
    folder = Folder()
    write("run", [], folder)
    for name in FORMATS:
        assert list(read_results(f"run/{name}", folder).columns) == SCHEMA.names


def test_a_frame_can_be_written_again():
    frame = to_table(ROWS).to_pandas()
    assert to_csv(to_records(frame)) == to_csv(ROWS)


def test_spreadsheets_run_no_formula_and_numbers_stay_numbers():
    lines = list(csv.DictReader(io.StringIO(to_csv(ROWS).decode(), newline="")))
    for line in lines:
        for name, text in line.items():
            if SCHEMA.field(name).type == "string":
                assert text[:1] not in tuple("=+-@\t\r")
    assert lines[4]["synthetic_set"].startswith("'=cmd")
    assert lines[0]["real_floor"] == "-1.25e-07"
    assert lines[0]["value"] == "0.30000000000000004"


def test_a_csv_saved_by_a_spreadsheet_is_still_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(b"\xef\xbb\xbf" + to_csv(ROWS[:2]).replace(b"\n", b"\r\n"))
    assert to_records(read_results(path)) == to_table(ROWS[:2]).to_pylist()


def test_json_is_plain_and_holds_its_own_legend():
    content = json.loads(to_json(ROWS))
    assert content["fields"] == FIELDS
    assert content["rows"][1]["value"] is None


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row(value=None), "null with status 'ok'"),
        (null(status="ok"), "null with status 'ok'"),
        (null(reason="  "), "say why"),
        (row(status="failed", reason="x"), "has a value and status 'failed'"),
        (row(value=float("nan")), "value is nan"),
        (row(std_error=float("inf")), "std_error is inf"),
        (row(ci_low=1.0, ci_high=0.5), "inverted"),
        (row(std_error=-0.1), "below 0"),
        (row(real_floor_std_error=-0.1), "real_floor_std_error is -0.1"),
        (row(beyond_floor="above"), "beyond_floor is 'above'"),
        (row(better="up"), "better is 'up'"),
        (row(suite="charm"), "suite is 'charm'"),
        (row(n_real=2.5), "not a whole number"),
        (row(n_rejected=-1), "n_rejected is -1, below 0"),
        (row(n_real=None), "n_real is None"),
        (row(reason=None), "reason is None"),
        (row(value="0.1"), "value is '0.1'"),
        (row(params="[1]"), "not a JSON object"),
        (row(params={"x": float("nan")}), "method is"),
        (row(created_at="yesterday"), "not an ISO 8601 time in UTC"),
        (row(created_at="2026-01-02T03:04:05"), "not an ISO 8601 time in UTC"),
        (row(colour="red"), "unknown fields ['colour']"),
        ({k: v for k, v in row().items() if k != "seed"}, "missing fields ['seed']"),
    ],
)
def test_a_row_that_says_what_is_not_so_is_refused(bad, says):
    with pytest.raises(ValueError) as caught:
        to_table([row(), bad])
    assert says in str(caught.value)
    assert "row 1" in str(caught.value)


def test_numpy_numbers_and_undecodable_names_are_taken():
    table = to_table([row(value=np.float32(0.5), n_real=np.int64(3), seed=np.int32(1), real_set="a\udcff")])
    assert table.to_pylist()[0]["value"] == 0.5
    assert table.to_pylist()[0]["real_set"] == "a\\udcff"


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_absent_is_a_storage_error_in_one_line(tmp_path):
    for place in (tmp_path / "nowhere", tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(StorageError) as caught:
            read_results(place)
        assert str(place) in one_line(caught)


def test_a_folder_of_runs_names_them(tmp_path):
    (tmp_path / "run-a").mkdir()
    (tmp_path / "run-a" / "results.parquet").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        read_results(tmp_path)
    assert "run-a" in one_line(caught)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("results.parquet", b"not parquet"),
        ("results.csv", b"a,b\n1,2\n"),
        ("results.csv", b""),
        ("results.csv", b"\xff\xfe\x00"),
        ("results.csv", to_csv([row()]).replace(b",222,", b",many,")),
        ("results.csv", to_csv([row()]).replace(b",222,", b",")),
        ("results.json", b"[1, 2"),
        ("results.json", b"[]"),
        ("results.json", b'{"rows": [1]}'),
        ("results.json", b'{"rows": [{"metric": "fid"}]}'),
        ("results.json", to_json([row()]).replace(b'"status": "ok"', b'"status": "fine"')),
        ("notes.txt", b"hello"),
    ],
)
def test_what_is_not_results_is_a_config_error_in_one_line(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_results(path)
    assert str(path) in one_line(caught)


def test_a_later_versions_further_columns_do_not_stop_reading(tmp_path):
    content = json.loads(to_json([row()]))
    content["rows"][0]["invented_later"] = 1
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    assert list(read_results(path).columns) == SCHEMA.names


def test_a_row_without_suite_is_of_the_first_one():
    assert SCHEMA.names[0] == "suite"
    assert to_table([row(), row(suite="privacy")])["suite"].to_pylist() == ["fidelity", "privacy"]


@pytest.mark.parametrize("name", FORMATS)
def test_files_from_before_there_were_suites_are_read_as_fidelity(tmp_path, name):
    rows = to_table(ROWS)
    old = rows.drop_columns(["suite"])
    if name.endswith("parquet"):
        pq.write_table(old, tmp_path / name)
    elif name.endswith("json"):
        (tmp_path / name).write_text(json.dumps({"format": "chexray.results/1", "rows": old.to_pylist()}))
    else:
        lines = list(csv.reader(io.StringIO(to_csv(ROWS).decode(), newline="")))
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows(line[1:] for line in lines)
    assert to_records(read_results(tmp_path)) == rows.to_pylist()
    assert set(read_results(tmp_path)["suite"]) == {"fidelity"}


@pytest.mark.parametrize("name", FORMATS)
def test_files_from_before_floors_had_errors_are_read_without_them(tmp_path, name):
    without = {"real_floor_std_error": None, "beyond_floor": ""}
    rows = to_table([each | without for each in ROWS])
    old = rows.drop_columns(list(without))
    if name.endswith("parquet"):
        pq.write_table(old, tmp_path / name)
    elif name.endswith("json"):
        (tmp_path / name).write_text(json.dumps({"format": "chexray.results/1", "rows": old.to_pylist()}))
    else:
        (tmp_path / name).write_bytes(to_csv(rows.to_pylist()))
        table = pd.read_csv(tmp_path / name, dtype=str, keep_default_na=False)
        table.drop(columns=list(without)).to_csv(tmp_path / name, index=False)
    assert to_records(read_results(tmp_path)) == rows.to_pylist()
