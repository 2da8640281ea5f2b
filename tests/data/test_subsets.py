"""Subsets cut both sets by one rule; what the synthetic table lacks comes from the real images of the same prompt."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from chexray.data import labels, manifest, schema
from chexray.data.prompts import deduplicate_prompts, inherit_by_prompt
from chexray.data.sources.table import Table
from chexray.data.subsets import Subset, expand, members
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.storage import Storage

STORAGE = Storage()
EDEMA, FRACTURE = FINDINGS.index("Edema"), FINDINGS.index("Fracture")


def make(name, origin, roles=None, **columns):
    """A manifest without files: rows are given in file order and sorted by id, as `build` does."""
    n = len(next(iter(columns.values())))
    columns = {"sample_id": [f"{name}{k:03d}" for k in range(n)], **columns, "row": range(n)}
    table = pa.table({key: pa.array(value, schema.COLUMNS.get(key)) for key, value in columns.items()})
    for key, kind in schema.COLUMNS.items():
        if key not in table.column_names:
            table = table.append_column(key, pa.nulls(n, kind))
    table = table.sort_by("sample_id")
    return manifest.Manifest(name, origin, table, schema.REJECT_SCHEMA.empty_table(), n, roles=roles or {})


def label(**findings):
    return [findings.get(name) for name in FINDINGS]


@pytest.fixture
def real():
    return make(
        "r",
        "real",
        roles={"sample_id": "id", "uri": "path"},
        prompt=["one", "two", "two", "three", "three", None],
        labels=[label(Edema=1), label(Edema=1, Fracture=0), label(Edema=1, Fracture=1), None, None, label(Edema=0)],
        sex=["F", "M", "M", "F", "M", None],
        age=[30, 40, 41, 59, 60, None],
        patientID=["1", "2", "3", "4", "5", "6"],
        id=list("abcdef"),
        path=list("abcdef"),
    )


@pytest.fixture
def synthetic():
    return make("s", "synthetic", prompt=["two", "one", "three", "four", None])


def names(subsets):
    return [subset.name for subset in subsets]


def test_expand_names_each_group_once_and_in_order(real, synthetic):
    got = expand(["sex", "all", {"column": "age", "bins": [40, 60]}, "sex:F", "finding:Edema"], real, [synthetic])
    assert names(got) == ["sex:F", "sex:M", "all", "age:<40", "age:40-60", "age:>=60", "finding:Edema"]
    findings = expand(["findings"], real, [synthetic])
    assert names(findings) == [f"finding:{name}" for name in FINDINGS]
    assert names(expand([{"column": "sex"}], real, [])) == ["sex:F", "sex:M"]


def test_every_row_with_a_value_is_in_exactly_one_bin(real):
    bins = expand([{"column": "age", "bins": [40, 60]}], real, [])
    masks = np.array([members(real, subset) for subset in bins])
    assert masks.sum(axis=0).tolist() == [1, 1, 1, 1, 1, 0]
    assert masks[1].tolist() == [False, True, True, True, False, False]


def test_numbers_and_text_of_one_value_are_one_group():
    real = make("r", "real", grade=[1, 2, None])
    synthetic = make("s", "synthetic", grade=["1", "10", "2"])
    floats = make("t", "synthetic", grade=[1.0, 2.0, float("nan")])
    got = expand(["grade"], real, [synthetic, floats])
    assert names(got) == ["grade:1", "grade:2", "grade:10"]
    assert [members(each, got[0]).tolist() for each in (real, synthetic, floats)] == [[True, False, False]] * 3
    flags = make("f", "real", flag=[True, False, None])
    assert names(expand(["flag"], flags, [])) == ["flag:false", "flag:true"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("sx", "unknown subset or column 'sx'. Did you mean 'sex'"),
        ("finding", "Did you mean 'findings'"),
        ("uri", "unknown subset or column 'uri'. Known: all, findings"),
        ("sex:X", "there is no 'sex:X'"),
        ("finding:Edemma", "Did you mean 'finding:Edema'"),
        ("patientID", "holds identifiers"),
        ({"column": "agee", "bins": [1]}, "unknown column 'agee'. Did you mean 'age'"),
        ({"column": "age", "bins": [60, 40]}, "expected ascending numbers"),
        ({"column": "age", "bins": ["x"]}, "expected ascending numbers"),
        ({"column": "sex", "bins": [40]}, "not numeric"),
        ({"columns": "sex"}, r"expected \{column: NAME"),
    ],
)
def test_what_is_said_of_a_wrong_request(real, synthetic, asked, message):
    with pytest.raises(ConfigError, match=message):
        expand([asked], real, [synthetic])


def test_many_values_need_bins_or_another_column():
    real = make("r", "real", age=list(range(60)), note=[f"text {k}" for k in range(60)])
    with pytest.raises(ConfigError, match=r"60 distinct numbers.*\{column: age, bins: \[15, 30, 44\]\}"):
        expand(["age"], real, [])
    assert names(expand(["age:7"], real, [])) == ["age:7"]
    many = make("r", "real", note=[f"text {k}" for k in range(101)], blank=[None] * 101)
    with pytest.raises(ConfigError, match=r"101 distinct values, more than 100"):
        expand(["note"], many, [])
    with pytest.raises(ConfigError, match="empty in every set"):
        expand(["blank"], many, [])


def test_members_say_why_they_are_unknown(real, synthetic):
    assert members(synthetic, Subset("all")).all()
    assert members(synthetic, Subset("sex:F", "sex", "F")) == "synthetic set 's' has no column 'sex'"
    assert members(synthetic, Subset("finding:Edema", "labels", "Edema")) == "synthetic set 's' has no labels"
    empty = make("e", "real", sex=pa.nulls(2, pa.string()), age=["078Y", "1"])
    assert members(empty, Subset("sex:F", "sex", "F")) == "real set 'e' has no value in column 'sex'"
    assert members(empty, Subset("age:<4", "age", bins=(None, 4))) == "column 'age' of real set 'e' is not numeric"
    assert members(real, Subset("sex:F", "sex", "F")).tolist() == [True, False, False, True, False, False]


def test_findings_follow_the_label_policy():
    real = make("r", "real", labels=[label(Edema=1), label(Edema=-1), label(), None])
    edema = Subset("finding:Edema", "labels", "Edema")
    assert members(real, edema, "u_zeros").tolist() == [True, False, False, False]
    assert members(real, edema, "u_ones").tolist() == [True, True, False, False]
    assert members(real, edema, "u_ignore").tolist() == [True, False, False, False]


def test_agree_takes_only_what_all_real_images_of_the_prompt_share(real, synthetic):
    got = inherit_by_prompt(synthetic, real)
    codes = labels.to_codes(got.table["labels"])
    assert codes[0, [EDEMA, FRACTURE]].tolist() == [1, labels.NOT_MENTIONED]
    assert codes[1, EDEMA] == 1
    assert (codes[2:] == labels.UNLABELLED).all()
    assert got.table["sex"].to_pylist() == ["M", "F", None, None, None]
    assert got.table["age"].to_pylist() == [None, 30, None, None, None]
    assert got.table["age"].type == real.table["age"].type
    assert set(got.table.column_names) - set(synthetic.table.column_names) == {"sex", "age"}
    assert got.notes == (
        "labels of 2 images come from r by prompt (agree), 1 of them ambiguous in some finding, which then counts as "
        "unmentioned",
        "sex (1 ambiguous), age (2 ambiguous) come from r by prompt (agree)",
    )
    assert len(got) == len(synthetic)
    assert got.fingerprint != synthetic.fingerprint


def test_first_takes_the_first_row_of_the_table_not_of_the_ids(synthetic):
    real = make(
        "r",
        "real",
        sample_id=["z", "a"],
        prompt=["two", "two"],
        labels=[label(Edema=1), label(Edema=0)],
        sex=["F", "M"],
    )
    got = inherit_by_prompt(synthetic, real, mode="first")
    assert labels.to_codes(got.table["labels"])[0, EDEMA] == 1
    assert got.table["sex"].to_pylist() == ["F", None, None, None, None]
    agreed = inherit_by_prompt(synthetic, real)
    assert labels.to_codes(agreed.table["labels"])[0, EDEMA] == labels.NOT_MENTIONED


def test_own_labels_and_columns_are_kept(real):
    own = make("s", "synthetic", prompt=["one", "one"], labels=[label(Edema=0), None], sex=["M", None])
    got = inherit_by_prompt(own, real)
    assert labels.to_codes(got.table["labels"])[:, EDEMA].tolist() == [0, 1]
    assert got.table["sex"].to_pylist() == ["M", None]


def test_nothing_to_inherit_changes_nothing(real, synthetic):
    silent = make("s", "synthetic", sex=["F"])
    assert inherit_by_prompt(silent, real) is silent
    assert inherit_by_prompt(synthetic, make("r", "real", sex=["F"])) is synthetic
    with pytest.raises(ConfigError, match="agree, first"):
        inherit_by_prompt(synthetic, real, mode="last")


def test_a_real_set_without_a_common_prompt_takes_no_column_from_the_next():
    strangers = make("t", "real", prompt=["other"], sex=["M"])
    training = make("l", "real", prompt=["mine"], sex=["F"])
    synthetic = make("s", "synthetic", prompt=["mine", "mine"])
    got = inherit_by_prompt(inherit_by_prompt(synthetic, strangers), training)
    assert got.table["sex"].to_pylist() == ["F", "F"]
    assert [note.split(" come")[0] for note in got.notes] == ["sex"]


def test_the_first_image_of_each_prompt_in_file_order():
    real = make("r", "real", sample_id=list("zyxabc"), prompt=["p", "p", "q", None, None, "q"])
    got = deduplicate_prompts(real)
    assert got.table["sample_id"].to_pylist() == ["a", "x", "z"]
    assert got.excluded == {"duplicate_prompt": 3}
    assert len(got) + sum(got.excluded.values()) == got.n_rows
    unique = make("r", "real", prompt=["p", "q"])
    assert deduplicate_prompts(unique) is unique
    silent = make("r", "real", sex=["F", "F"])
    assert deduplicate_prompts(silent) is silent


def test_upstream_sets(shared):
    folder = shared / "data" / "cxr"
    real = manifest.load("real_test", "real", Table(str(folder / "real_test.csv")), STORAGE)
    bare = manifest.load("synthetic_test", "synthetic", Table(str(folder / "synthetic_test.csv")), STORAGE)
    got = inherit_by_prompt(bare, real)
    wanted = expand(["all", "findings", "sex", "view", {"column": "age", "bins": [40, 60, 80]}], real, [got])
    assert names(wanted)[15:] == [
        "sex:F",
        "sex:M",
        "view:AP",
        "view:PA",
        "age:<40",
        "age:40-60",
        "age:60-80",
        "age:>=80",
    ]
    # One synthetic image a test prompt, and each test prompt is one study: the groups are of one size.
    for subset in wanted:
        assert members(real, subset).sum() == members(got, subset).sum()
    assert members(got, Subset("finding:Edema", "labels", "Edema")).sum() == 20
    assert not {"patientID", "id", "path", "annotated_prompt", "chexpert_labels"} & set(got.table.column_names)

    train = manifest.load("real_train", "real", Table(str(folder / "real_train.csv")), STORAGE)
    seeds = manifest.load("seeds", "synthetic", Table(str(folder / "synthetic_seeds.csv")), STORAGE)
    assert inherit_by_prompt(seeds, train).table["labels"].null_count == 0
    assert len(deduplicate_prompts(seeds)) == 16
    own = manifest.load(
        "g", "synthetic", Table(str(folder / "generations_with_metadata.csv"), str(folder / "synthetic_train")), STORAGE
    )
    assert own.table["labels"].null_count == 0
