"""No message repeats more than 200 characters of a value, whichever column it stands in; pixels are no paths."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.config import parse_config
from chexray.data.sources.table import Table
from chexray.errors import ChexrayError, ManifestError
from chexray.plan import make_plan
from chexray.storage import Storage

LONG = "q0 " * 2000
PIXELS = pa.array(np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3).tolist(), pa.list_(pa.list_(pa.list_(pa.uint8()))))


def said(action):
    """All that is said of a set: the error, or the plan and its notes."""
    try:
        plan = action()
    except ChexrayError as error:
        return [*error.lines, *getattr(error, "__notes__", [])]
    return [*plan.describe(), *plan.notes]


@pytest.mark.parametrize(
    "value", [LONG, LONG.replace(" ", ""), LONG.strip() + ".png", f"['{LONG}']", f"{{'{LONG}': 1}}"]
)
@pytest.mark.parametrize("role", ["path", "id", "patientID", "prompt", "labels", "Finding Labels", "site", "header"])
def test_no_value_is_repeated_at_length(tmp_path, value, role):
    rows = {"path": ["0.png", "1.png", "2.png"], role: [value, "a", "1.png"]}
    if role == "header":
        rows = {"path": rows["path"], value: ["a", "b", "c"]}
    for name in range(3):
        Image.new("L", (16, 16), 50 * name).save(tmp_path / f"{name}.png")
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    subsets = ["all", *(["site"] if role == "site" else [])]
    given = {"real": str(tmp_path / "t.parquet"), "synthetic": str(tmp_path / "t.parquet"), "encoders": "pixels"}
    config = parse_config({**given, "subsets": subsets, "metrics": "kid", "output": str(tmp_path / "out")})
    for line in said(lambda: make_plan(config)):
        repeated = max(map(len, re.findall(r"(?:q0 ?)+", line)), default=0)
        assert repeated <= 200, line[:400]


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (PIXELS, r"holds pixels \(list of numbers\), not paths"),
        (pa.array([[1.0, 2.0]]), r"holds pixels \(list of numbers\), not paths"),
        (pa.array([b"\x89PNG"]), "holds image bytes, not paths"),
        (pa.array([{"bytes": b"\x89PNG", "path": None}]), "holds image bytes, not paths"),
    ],
)
def test_images_are_no_paths(tmp_path, column, what):
    """A Parquet of pixels once printed them as a path, 64 kB an image."""
    pq.write_table(pa.table({"image": column, "label": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(
        ManifestError, match=rf"column 'image' {what}\. Set synthetic\.source: parquet_images"
    ) as caught:
        Table(str(tmp_path / "t.parquet")).read("synthetic", Storage())
    assert len(str(caught.value)) < 300


def test_prompts_and_patients_are_looked_for_in_columns_of_text(tmp_path):
    Image.new("L", (16, 16), 50).save(tmp_path / "0.png")
    table = pa.table({"path": ["0.png"], "prompt": [["a", "b"]], "caption": ["c"], "patientID": [{"a": 1}]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = Table(str(tmp_path / "t.parquet")).read("real", Storage())
    assert found["prompt"].to_pylist() == ["c"]
    assert "subject_id" not in found.column_names


@pytest.mark.parametrize(
    "given",
    [
        {"path": LONG}, {"path": f"{LONG}.csv"}, {"path": f"{LONG}*.parquet"}, {"path": f"{LONG}.zip"},
        {"path": f"{LONG}.parquet", "source": "parquet_images"}, {"path": f"{LONG}.zip", "source": "synthchex"},
        {"path": ".", "pattern": LONG}, {"path": ".", "split": LONG}, {"path": ".", "columns": {"image": LONG}},
        {"path": ".", "columns": {LONG: "x"}}, {"path": ".", "source": LONG}, {"path": ".", LONG: 1},
    ],
    ids=str,
)  # fmt: skip
def test_no_setting_of_a_set_is_repeated_at_length(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("path\n0.png\n")
    for line in said(lambda: make_plan(parse_config({"real": given, "synthetic": "t.csv", "encoders": "pixels"}))):
        assert max(map(len, re.findall(r"(?:q0 ?)+", line)), default=0) <= 200, line[:400]
