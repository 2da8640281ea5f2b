"""Pairs: every synthetic image is in a pair or among the unpaired with a reason, and names are cut, never stripped."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from chexray.data import manifest, pairing, pairs, schema, strangers
from chexray.data.matching import resolve
from chexray.data.sources.table import Table
from chexray.errors import ConfigError, ManifestError
from chexray.storage import Storage

STORAGE = Storage()


def make(name, origin, roles=None, **columns):
    """A manifest without files, rows given in file order; images lie in a folder of the set's name."""
    n = len(next(iter(columns.values())))
    columns = {"sample_id": [f"{name}{k:03d}" for k in range(n)], **columns, "row": range(n)}
    columns.setdefault("uri", [f"/{name}/{sample_id}.png" for sample_id in columns["sample_id"]])
    table = pa.table({key: pa.array(value, schema.COLUMNS.get(key)) for key, value in columns.items()})
    for key, kind in schema.COLUMNS.items():
        if key not in table.column_names:
            table = table.append_column(key, pa.nulls(n, kind))
    table = table.sort_by("sample_id")
    return manifest.Manifest(name, origin, table, schema.REJECT_SCHEMA.empty_table(), n, roles=roles or {})


def rows(found):
    return [tuple(row.values()) for row in found.table.to_pylist()]


@pytest.fixture
def real():
    return make(
        "r",
        "real",
        sample_id=["c", "b", "a", "d", "e"],
        prompt=["one", "two", "two", "three", None],
        subject_id=["1", "2", "2", "3", None],
    )


@pytest.fixture
def synthetic():
    prompts = ["one", "one", "two", "four", None, "two", "two"]
    return make("s", "synthetic", prompt=prompts)


# same_prompt


def test_same_prompt_takes_the_first_row_of_the_real_table(real, synthetic):
    found = pairing.same_prompt(real, synthetic)
    # "two" is in rows b and a of the file: b comes first there, though a sorts first.
    assert rows(found) == [
        ("b", "s002", "b", "0"),
        ("b", "s005", "b", "1"),
        ("b", "s006", "b", "2"),
        ("c", "s000", "c", "0"),
        ("c", "s001", "c", "1"),
    ]
    assert found.unpaired.to_pylist() == [
        {"synthetic_id": "s003", "reason": "no real image has its prompt"},
        {"synthetic_id": "s004", "reason": "it has no prompt"},
    ]
    notes = "\n".join(found.notes)
    assert "1 of 2 prompts belong to several real images; the first row of r is used for each" in notes
    assert "1 of 7 synthetic images are in no pair: no real image has its prompt; first s003" in notes
    assert "1 of 2 prompts lack seeds: 3 expected, 2 found first at 'c'" in notes
    assert not any(prompt in str(row) for row in rows(found) for prompt in ("one", "two"))


def test_blank_prompts_are_not_shared():
    found = pairing.same_prompt(make("r", "real", prompt=["", "x"]), make("s", "synthetic", prompt=["", " ", "x"]))
    assert rows(found) == [("r001", "s002", "r001", "0")]


def test_seeds_come_from_the_column_then_the_name_then_the_order():
    real = make("r", "real", prompt=["x"])
    names = ["/s/p_gen_10.png", "/s/p_gen_2.png"]
    by_name = pairing.same_prompt(real, make("s", "synthetic", prompt=["x", "x"], uri=names))
    assert by_name.table["seed"].to_pylist() == ["10", "2"]
    by_column = pairing.same_prompt(real, make("s", "synthetic", prompt=["x", "x"], uri=names, seed=[7, 7]))
    assert by_column.table["seed"].to_pylist() == ["7", "7"]
    assert any("1 prompts name a seed more than once" in note for note in by_column.notes)
    mixed = make("s", "synthetic", prompt=["x", "x"], uri=["/s/p_gen_1.png", "/s/p.png"], seed=[None, None])
    assert pairing.same_prompt(real, mixed).table["seed"].to_pylist() == ["0", "1"]


def test_a_column_that_names_the_real_image_is_preferred(real):
    synthetic = make("s", "synthetic", prompt=["two", "two", "one"], id=["a", "b", None])
    found = pairing.same_prompt(real, synthetic)
    assert [row[:3] for row in rows(found)] == [("a", "s000", "a"), ("b", "s001", "b"), ("c", "s002", "c")]
    assert "column id of s names the real image of 2 synthetic images" in found.notes
    assert not any("several" in note for note in found.notes)


def test_a_column_that_contradicts_the_prompts_is_not_used():
    """Row numbers look like ids."""
    real = make("r", "real", sample_id=["0", "1"], prompt=["x", "y"])
    found = pairing.same_prompt(real, make("s", "synthetic", prompt=["y", "x"], id=[0, 1]))
    assert [row[:2] for row in rows(found)] == [("0", "s001"), ("1", "s000")]
    assert "column id is not used: its real images have other prompts in 2 rows" in found.notes


def test_a_column_that_holds_the_synthetic_paths_names_no_real_image():
    real = make("r", "real", prompt=["x", "x"], path=["p/0.png", "p/1.png"])
    synthetic = make("s", "synthetic", roles={"uri": "path"}, prompt=["x", "x"], path=["p/1.png", "p/0.png"])
    assert pairing.same_prompt(real, synthetic).table["real_id"].to_pylist() == ["r000", "r000"]
    synthetic = make("s", "synthetic", prompt=["x", "x"], path=["p/1.png", "p/0.png"])
    assert pairing.same_prompt(real, synthetic).table["synthetic_id"].to_pylist() == ["s001", "s000"]


def test_file_names_tell_real_images_of_one_prompt_apart():
    """SynthCheX-75K: thousands of real images share "No acute process.", and the file names their id."""
    real = make("r", "real", sample_id=["aa-1", "bb-2"], prompt=["x", "x"])
    uri = ["/s/SyntheticImg_bb-2.png", "/s/SyntheticImg_aa-1.png"]
    found = pairing.same_prompt(real, make("s", "synthetic", prompt=["x", "x"], uri=uri))
    assert [row[:2] for row in rows(found)] == [("aa-1", "s001"), ("bb-2", "s000")]
    assert "the file name of s names the real image of 2 synthetic images" in found.notes


# same_id


def test_same_id_by_sample_id_or_by_file_name():
    real = make(
        "r",
        "real",
        sample_id=["page_12", "x", "y", "z"],
        uri=[f"/r/{n}" for n in ("a", "00000001_000.png", "pjg7.jpg", "b")],
    )
    uri = ["/s/SyntheticImg_page_12.jpg", "/s/SyntheticImg_00000001_000.png", "/s/pjg7.jpg", "/s/other.png"]
    found = pairing.same_id(real, make("s", "synthetic", uri=uri))
    assert rows(found) == [
        ("page_12", "s000", "page_12", None),
        ("x", "s001", "x", None),
        ("y", "s002", "y", None),
    ]
    assert found.unpaired["synthetic_id"].to_pylist() == ["s003"]


def test_same_id_with_another_expression(real):
    synthetic = make("s", "synthetic", uri=["/s/gen-a_gen_3.png", "/s/gen-b_gen_0.png", "/s/c.png"])
    found = pairing.same_id(real, synthetic, r"gen-(.+)_gen_\d+")
    assert rows(found) == [("a", "s000", "a", "3"), ("b", "s001", "b", "0")]
    for wrong in ("(", "SyntheticImg_"):
        with pytest.raises(ConfigError, match="pairs"):
            pairing.same_id(real, synthetic, wrong)


def test_a_file_name_of_two_real_images_names_neither():
    real = make(
        "r", "real", sample_id=["a", "b"], uri=["/r/1/view.png", "/r/2/view.png"], path=["1/view.png", "2/view.png"]
    )
    assert resolve(pa.array(["view", "1/view.png", None]), real).tolist() == [-1, -1, -1]
    assert resolve(pa.array(["view", "2/view.png", "a"]), real, "path").tolist() == [-1, 1, 0]


def test_images_inside_a_larger_file_are_named_by_their_id():
    uri = [f"/r/part.parquet#column=image&row={row}" for row in range(2)]
    real = make("r", "real", sample_id=["a.png", "b.png"], uri=uri)
    found = pairing.same_id(real, make("s", "synthetic", uri=["/s/SyntheticImg_b.jpg", "/s/part.parquet"]))
    assert [row[:2] for row in rows(found)] == [("b.png", "s000")]


# given


def test_given_pairs(real, synthetic):
    table = pa.table({"real_id": ["b", "a"], "synthetic_id": ["s001", "s001"], "seed": [5, None]})
    found = pairing.given(table, real, synthetic, "t.csv")
    assert rows(found) == [("a", "s001", "a", None), ("b", "s001", "b", "5")]
    assert len(found.unpaired) == 6


def test_given_refuses_what_it_cannot_place(real, synthetic):
    def table(real_id, synthetic_id):
        return pa.table({"real_id": pa.array(real_id, pa.string()), "synthetic_id": synthetic_id})

    with pytest.raises(
        ManifestError,
        match=r"t.csv: 1 of 2 pairs name a synthetic_id that is not in 's', first 's01' .data row 2.*s001",
    ):
        pairing.given(table(["a", "a"], ["s000", "s01"]), real, synthetic, "t.csv")
    with pytest.raises(ManifestError, match="1 of 2 rows have no real_id, first data row 1"):
        pairing.given(table([None, "a"], ["s000", "s001"]), real, synthetic, "t.csv")
    with pytest.raises(ManifestError, match=r"1 of 3 pairs repeat, first 'a' with 's000' .data rows 1 and 3"):
        pairing.given(table(["a", "b", "a"], ["s000", "s000", "s000"]), real, synthetic, "t.csv")
    with pytest.raises(ManifestError, match=r"has no column 'real_id'\. Did you mean 'realid'"):
        pairing.given(pa.table({"realid": ["a"], "synthetic_id": ["s000"]}), real, synthetic, "t.csv")


def test_given_pairs_of_rejected_or_left_out_images_are_counted(real, synthetic):
    table = pa.table({"real_id": ["a", "gone"], "synthetic_id": ["s000", "s001"]})
    rejects = pa.Table.from_pylist([{"sample_id": "gone"}], schema=schema.REJECT_SCHEMA)
    for fewer in (replace(real, rejects=rejects), replace(real, excluded={"limit": 9})):
        found = pairing.given(table, fewer, synthetic, "t.csv")
        assert [row[:2] for row in rows(found)] == [("a", "s000")]
        assert "1 of 2 pairs name an image that was rejected or left out" in found.notes


def test_prompts_never_become_prompt_ids(real, synthetic):
    table = pa.table({"real_id": ["a", "b"], "synthetic_id": ["s005", "s006"], "prompt_id": ["two", "two"]})
    found = pairing.given(table, real, synthetic, "t.csv")
    assert found.table["prompt_id"].to_pylist() == ["a", "a"]
    assert any("prompt_id of t.csv holds prompts" in note for note in found.notes)


# build


def test_auto_chooses_and_says_why_not(tmp_path, real, synthetic):
    assert pairing.build("auto", real, synthetic, STORAGE).how == "same_prompt"
    named = make("s", "synthetic", uri=["/s/SyntheticImg_a.png"])
    assert pairing.build("auto", real, named, STORAGE).how == "same_id"
    nothing = pairing.build("auto", real, make("s", "synthetic", uri=["/s/q.png"]), STORAGE)
    assert nothing.how == "none"
    assert len(nothing) == 0
    assert "no prompt and no id of s is one of r" in nothing.notes[0]
    assert len(nothing.unpaired) == 1
    path = tmp_path / "pairs.csv"
    path.write_text("real_id,synthetic_id,seed\na,s000,01\n")
    assert rows(pairing.build("auto", real, synthetic, STORAGE, str(path))) == [("a", "s000", "a", "01")]
    assert pairing.build("none", real, synthetic, STORAGE).how == "none"


def test_auto_does_not_pair_two_folders_of_numbered_files():
    real, synthetic = make("r", "real", uri=["/r/0000.png"]), make("s", "synthetic", uri=["/s/0000.png"])
    found = pairing.build("auto", real, synthetic, STORAGE)
    assert (found.how, len(found)) == ("none", 0)
    assert "plain numbers; ask for same_id" in found.notes[0]
    assert len(pairing.build("same_id", real, synthetic, STORAGE)) == 1
    prefixed = make("s", "synthetic", uri=["/s/SyntheticImg_0000.png"])
    assert len(pairing.build("auto", real, prefixed, STORAGE)) == 1


def test_build_refuses_contradictions_and_empty_answers(real, synthetic):
    with pytest.raises(ConfigError, match="Did you mean 'same_prompt'"):
        pairing.build("sameprompt", real, synthetic, STORAGE)
    with pytest.raises(ConfigError, match="exclude each other"):
        pairing.build("same_id", real, synthetic, STORAGE, "p.csv")
    with pytest.raises(ConfigError, match="Name its path"):
        pairing.build("given", real, synthetic, STORAGE)
    with pytest.raises(ManifestError, match="same_id finds none: no file name of 7 images of 's'"):
        pairing.build("same_id", real, synthetic, STORAGE)


# restrict


def test_restrict_counts_what_is_lost(real, synthetic):
    found = pairing.same_prompt(real, synthetic)
    assert pairs.restrict(found, {"b", "c"}, synthetic.table["sample_id"].to_pylist()) is found
    fewer = pairs.restrict(found, np.array(["b"]), ["s000", "s001", "s002", "s005"])
    assert [row[:2] for row in rows(fewer)] == [("b", "s002"), ("b", "s005")]
    assert any(
        note == "3 of 5 pairs lost with 1 real and 1 synthetic images rejected; 1 prompts lost all their pairs"
        for note in fewer.notes
    )
    assert [note for note in fewer.notes if "lack seeds" in note] == [
        "1 of 1 prompts lack seeds: 3 expected, 2 found first at 'b'"
    ]
    reasons = dict(zip(*(fewer.unpaired[name].to_pylist() for name in fewer.unpaired.column_names), strict=True))
    assert set(reasons) == {"s000", "s001", "s003", "s004", "s006"}
    assert reasons["s006"] == "it was rejected"
    assert reasons["s000"] == "the real image of its pair was rejected"
    assert len(pairs.restrict(found, [], [])) == 0


# other_patients


def test_the_floor_never_shows_a_patient_to_himself():
    rng = np.random.default_rng(0)
    n = 60
    real = make("r", "real", subject_id=[str(k // 4) for k in range(n)], prompt=[f"p{k}" for k in range(n)])
    synthetic = make("s", "synthetic", prompt=[f"p{k % 20}" for k in range(100)])
    found = pairing.same_prompt(real, synthetic)
    floor, reason = strangers.other_patients(found, real, rng)
    assert reason == ""
    assert floor is not None
    assert len(floor) == len(found)
    for column in ("real_id", "prompt_id", "seed"):
        assert floor.table[column].equals(found.table[column])
    patient = dict(zip(real.table["sample_id"].to_pylist(), real.table["subject_id"].to_pylist(), strict=True))
    drawn = rows(floor)
    assert all(patient[left] != patient[right] for left, right, *_ in drawn)
    assert max(Counter((prompt, other) for _, other, prompt, _ in drawn).values()) == 1
    again, _ = strangers.other_patients(found, real, np.random.default_rng(0))
    assert again is not None
    assert again.table.equals(floor.table)
    among = real.table["sample_id"].to_pylist()[40:]
    some, _ = strangers.other_patients(found, real, rng, among)
    assert some is not None
    assert set(some.table["synthetic_id"].to_pylist()) <= set(among)


def test_no_floor_without_patients(real, synthetic):
    found = pairing.same_prompt(real, synthetic)
    nobody = make("r", "real", sample_id=["c", "b"], prompt=["one", "two"])
    assert strangers.other_patients(found, nobody, np.random.default_rng(0)) == (
        None,
        "the real set 'r' names no patients",
    )
    one = make("r", "real", sample_id=["c", "b"], prompt=["one", "two"], subject_id=["1", "1"])
    floor, reason = strangers.other_patients(found, one, np.random.default_rng(0))
    assert floor is None
    assert "no image of another patient" in reason
    unknown = make("r", "real", sample_id=["c", "b", "d"], prompt=["one", "two", "x"], subject_id=["1", None, "2"])
    floor, _ = strangers.other_patients(found, unknown, np.random.default_rng(0))
    assert floor is not None
    assert [row[:2] for row in rows(floor)] == [("c", "d"), ("c", "d")]
    assert "3 of 5 pairs have no floor" in floor.notes[0]


# The real radiographs


def test_seeds_of_the_real_radiographs(shared):
    cxr = shared / "data" / "cxr"
    real = manifest.load("real", "real", Table(str(cxr / "real_train.csv")), STORAGE)
    synthetic = manifest.load("seeds", "synthetic", Table(str(cxr / "synthetic_seeds.csv")), STORAGE)
    found = pairing.build("auto", real, synthetic, STORAGE)
    assert (found.how, len(found), len(found.unpaired)) == ("same_prompt", 80, 0)
    with open(cxr / "synthetic_seeds.csv") as file:
        expected = {(row["id"], row["img_savename"], row["id"], row["seed"]) for row in csv.DictReader(file)}
    ids = {uri.rpartition("/")[2] for uri in synthetic.table["uri"].to_pylist()}
    assert {row[1].rpartition("/")[2] for row in rows(found)} == ids
    assert {(a, b.rpartition("/")[2], c, d) for a, b, c, d in rows(found)} == expected
    assert set(Counter(found.table["prompt_id"].to_pylist()).values()) == {5}
    assert not any("lack" in note for note in found.notes)
    bare = Table(str(cxr / "synthetic_seeds.csv"))
    without = bare.read("synthetic", STORAGE).drop_columns(["id", "path", "seed"])
    by_prompt = pairing.same_prompt(real, manifest.build("seeds", "synthetic", without, STORAGE))
    assert by_prompt.table.equals(found.table)
    fewer = pairs.restrict(found, real.table["sample_id"].to_pylist(), found.table["synthetic_id"].to_pylist()[1:])
    assert any("1 of 16 prompts lack seeds: 5 expected, 4 found first at 'train-00000'" in note for note in fewer.notes)
    floor, _ = strangers.other_patients(found, real, np.random.default_rng(0))
    assert floor is not None
    assert len(floor) == 80


@pytest.mark.parametrize("says", ["", "same_id"])
@pytest.mark.parametrize(("n_ids", "n_prompts", "how"), [(1, 6, "same_prompt"), (6, 1, "same_id")])
def test_auto_pairs_by_what_pairs_more_images(says, n_ids, n_prompts, how):
    ids = [f"id-{k}" for k in range(6)]
    uris = [f"/s/SyntheticImg_{ids[k] if k < n_ids else f'other-{k}'}.png" for k in range(6)]
    prompts = [f"p{k}" for k in range(6)]
    real = make("r", "real", sample_id=ids, prompt=prompts)
    made = make("s", "synthetic", uri=uris, prompt=[p if k < n_prompts else f"q{k}" for k, p in enumerate(prompts)])
    found = pairing.build("auto", real, replace(made, pairs=says), STORAGE)
    # Without the word of the source, names that pair what prompts do not are part of same_prompt.
    assert (found.how, len(found)) == (how if says else "same_prompt", 6)
