"""Results of version 0.1 are read as what they were: with params, and without a declaration."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results.privacy_rows import everything as of_privacy
from results.test_results_rows import row
from results.utility_rows import everything as of_utility

from chexray.outputs import output_of
from chexray.results.decisions import method_params
from chexray.results.reading import read_results
from chexray.results.rows import SCHEMA, params_of, to_records

NEW = ("method", "about", "declared")
ROWS = [row(real_floor_std_error=None), *of_privacy(), *of_utility()]


def old(each: dict) -> dict:
    absent = {"suite": "fidelity", "real_floor_std_error": None, "beyond_floor": ""}
    return {**absent, **each, "params": json.dumps(each["params"], sort_keys=True)}


def written(folder: Path, suffix: str) -> Path:
    """Results as 0.1 wrote them."""
    rows = [old(each) for each in ROWS]
    path = folder / f"results.{suffix}"
    if suffix == "parquet":
        fields = [field for field in SCHEMA if field.name not in NEW]
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([*fields, pa.field("params", pa.string())])), path)
    elif suffix == "json":
        path.write_text(json.dumps({"format": "chexray.results/1", "rows": rows}))
    else:
        with path.open("w", newline="") as file:
            lines = csv.DictWriter(file, list(rows[0]))
            lines.writeheader()
            lines.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "json", "csv"])
def test_files_of_0_1_are_read_with_nothing_lost(tmp_path, suffix):
    frame = read_results(written(tmp_path, suffix))
    assert list(frame.columns) == SCHEMA.names
    for before, after in zip(ROWS, to_records(frame), strict=True):
        said = {"budget": "images"} if after["suite"] == "utility" else {}  # which the first results did not write down
        assert params_of(after) == {**said, **before["params"]}
        assert not set(json.loads(after["method"])) & set(json.loads(after["about"]))
        assert output_of(after).says
    pd.testing.assert_frame_equal(frame, read_results(written(tmp_path, "parquet")))


def test_params_are_split_by_what_two_numbers_must_share():
    found = {each["metric"]: each for each in to_records(ROWS)}
    assert method_params(found["memorised_share"]) == '{"alpha": 0.01, "null": "held-out"}'
    assert json.loads(method_params(found["reid_count_0.95"])) == {"threshold": 0.95}
    assert json.loads(method_params(found["reid_count_calibrated"])) == {}
    assert set(json.loads(method_params(found["auroc_macro"]))) == {
        "budget", "recipe", "setting", "training_set", "uncertain", "unmentioned",
    }  # fmt: skip


def test_numbers_of_one_name_in_two_suites_are_told_apart():
    fidelity, utility = (to_records([{**row(metric="recall"), "suite": suite}])[0] for suite in ("fidelity", "utility"))
    assert output_of(fidelity).moves_with == ("n_synthetic",)
    assert output_of(utility).moves_with == ()
    plugged = to_records([row(metric="mine")])[0]
    assert (plugged["declared"], output_of(plugged).better) == ("{}", "lower")
