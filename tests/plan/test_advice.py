"""Advice in errors about sets works when followed, whatever the role of the set that it is about."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.config import SetConfig, parse_config
from chexray.errors import ChexrayError
from chexray.plan import make_storage, read_manifests
from chexray.plan.names import distinct_names

ROLES = ("real", "training", "heldout", "synthetic.0", "synthetic.1")
KEY = re.compile(r"\b(?:real|training|heldout|synthetic)(?:\.\d+)?\.(?:columns\.)?[a-z_]+\b")


def images(folder, n=3, names="{}.png"):
    for i in range(n):
        path = folder / names.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 40 + len(str(folder)) % 60 + i).save(path)
    return folder


def csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def png(path):
    return images(path.parent, 1, path.name).joinpath(path.name).read_bytes()


def absolute(base):
    images(base / "far")
    return csv(base / "t" / "set.csv", "path", *(f"{base}/far/{i}.png" for i in range(3)))


def above(base):
    images(base / "far")
    return csv(base / "t" / "set.csv", "path", *(f"../far/{i}.png" for i in range(3)))


def neighbour(base):
    images(base / "t" / "other")
    return csv(base / "t" / "set.csv", "path", "0.png", "1.png", "2.png")


def spread(base):
    images(base / "t" / "images_001", 2)
    images(base / "t" / "images_002", 3)
    (base / "t" / "images_002" / "1.png").unlink()
    (base / "t" / "images_002" / "0.png").unlink()
    return csv(base / "t" / "set.csv", "path", "0.png", "1.png", "2.png")


def twice(base):
    images(base / "t" / "a")
    images(base / "t" / "b")
    return csv(base / "t" / "set.csv", "ImageDir,path", "a,0.png", "b,1.png", "a,2.png")


def unnamed(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "scan,age", "0.png,4", "1.png,5", "2.png,6")


def missing(base):
    images(base / "elsewhere")
    images(base / "t" / "x", 1)
    return csv(base / "t" / "set.csv", "path", "x/0.png", "1.png", "2.png", "3.png")


def misnamed(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "scan,age", "0.png,4", "1.png,5", "2.png,6")


def nulls(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "sample_id,path,name", ",0.png,a", "1,1.png,b", "2,2.png,c")


def repeats(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "sample_id,path", "1,0.png", "1,1.png", "2,2.png")


def labelled(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "path,labels", "0.png,{'Edma': 1}", "1.png,{'Edema': 1}", "2.png,")


def graded(base):
    images(base / "t")
    return csv(base / "t" / "set.csv", "path,Edema", "0.png,0.7", "1.png,1", "2.png,")


def described(base):
    images(base / "t")
    csv(base / "t" / "metadata.csv", "scan,age", "0.png,4", "1.png,5", "2.png,6")
    return base / "t"


def two_columns(base):
    cells = [png(base / "0.png"), png(base / "1.png")]
    return parquet(base / "set.parquet", scan=cells, mask=cells, note=["a", "b"])


def splits(base):
    cells = [png(base / "0.png"), png(base / "1.png")]
    parquet(base / "hub" / "data" / "train-00000-of-00001.parquet", image=cells)
    parquet(base / "hub" / "data" / "test-00000-of-00001.parquet", image=cells)
    return base / "hub"


def split_folders(base):
    for split in ("train", "val"):
        images(base / "hub" / split)
    return base / "hub"


def suffixless(base):
    images(base / "t", names="IM{}.png")
    for path in (base / "t").iterdir():
        path.rename(path.with_suffix(""))
    return base / "t"


CASES = {
    # what a set is, {setting that the error advises: the value that a reader of the error gives it}
    "absolute paths": (absolute, {"image_root": "{base}/far"}),
    "paths that begin with ../": (above, {"image_root": "{base}"}),
    "the images of a neighbour": (neighbour, {"image_root": "{base}/t/other"}),
    "images in several folders": (spread, {"image_root": "{base}/t"}),
    "no known column of images": (unnamed, {"columns.image": "scan"}),
    "ids that are empty": (nulls, {"columns.sample_id": "name"}),
    "ids that repeat": (repeats, {"on_duplicate": "first"}),
    "a misspelt finding": (labelled, {"columns.labels": "null"}),
    "probabilities as labels": (graded, {"columns.labels": "null"}),
    "two columns of images": (two_columns, {"image_column": "scan"}),
    "splits in Parquet": (splits, {"split": "test"}),
    "splits in folders": (split_folders, {"split": "all"}),
    "metadata without a known column": (described, {"columns.image": "scan"}),
    "DICOM without suffix": (suffixless, {"pattern": "*"}),
}


def config(tmp_path, role, path, overrides=()):
    """A config of five sets, all good but for that of `role`."""
    paths = {each: str(images(tmp_path / f"good-{each.replace('.', '-')}")) for each in ROLES} | {role: str(path)}
    data = {
        "suite": ["fidelity", "privacy"],
        "encoders": "pixels",
        **{each: paths[each] for each in ("real", "training", "heldout")},
        "synthetic": [paths["synthetic.0"], paths["synthetic.1"]],
    }
    return parse_config(data, list(overrides))


def read(parsed):
    real, synthetic = read_manifests(parsed, make_storage(parsed.storage))
    return {**real, "synthetic.0": synthetic[0], "synthetic.1": synthetic[1]}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", CASES)
def test_advice_works_when_followed(tmp_path, case, role):
    make, moves = CASES[case]
    path = make(tmp_path / "bad")
    with pytest.raises(ChexrayError) as caught:
        read(config(tmp_path, role, path))
    advised = set(KEY.findall(str(caught.value)))
    assert {key.removeprefix(f"{role}.") for key in advised} >= set(moves), str(caught.value)
    assert all(key.startswith(f"{role}.") for key in advised), str(caught.value)
    overrides = [f"{role}.{key}={value.format(base=tmp_path / 'bad')}" for key, value in moves.items()]
    assert len(read(config(tmp_path, role, path, overrides))[role]) >= 2


@pytest.mark.parametrize("role", ROLES)
def test_two_files_of_a_name_are_told_apart_by_a_column(tmp_path, role):
    path = twice(tmp_path / "bad")
    roots = [f"{role}.image_root={path.parent}"]
    with pytest.raises(ChexrayError) as caught:
        read(config(tmp_path, role, path, roots))
    found = re.search(rf"{role}\.image_template, such as (\"[^\"]+\")", str(caught.value))
    assert found, str(caught.value)
    assert json.loads(found[1]) == "{ImageDir}/{path}"
    assert "a/0.png" in str(caught.value)
    assert "b/0.png" in str(caught.value)
    done = read(config(tmp_path, role, path, [*roots, f"{role}.image_template={found[1]}"]))[role]
    assert done.table["uri"].to_pylist() == [f"{path.parent}/{each}" for each in ("a/0.png", "b/1.png", "a/2.png")]


@pytest.mark.parametrize("role", ROLES)
def test_a_wrong_root_is_blamed_on_its_own_set(tmp_path, role):
    path = missing(tmp_path / "bad")
    with pytest.raises(
        ChexrayError, match=rf"3 of 4 rows name an image that does not exist.*{role}\.image_root \(or --"
    ):
        read(config(tmp_path, role, path))


def test_one_set_of_a_list_needs_no_number(tmp_path):
    path = absolute(tmp_path / "bad")
    data = {"real": str(images(tmp_path / "real")), "synthetic": str(path), "encoders": "pixels"}
    parsed = parse_config(data, [f"synthetic.image_root={tmp_path}/bad/far", "encoders.side=16"])
    assert parsed.synthetic[0].options["image_root"] == f"{tmp_path}/bad/far"
    assert parsed.encoders[0].options["side"] == 16
    data["synthetic"] = [str(path), str(tmp_path)]
    with pytest.raises(ChexrayError, match=r"2 synthetic sets are synthetic\.0 to synthetic\.1"):
        parse_config(data, ["synthetic.image_root=/"])


def named(*sets):
    return distinct_names(
        [("real", SetConfig(**(each if isinstance(each, dict) else {"path": each}))) for each in sets]
    )


def test_sets_of_one_name_are_told_apart_by_the_folders_above():
    assert named("a/images", "/b/images/", "c/x.csv") == ["a-images", "b-images", "x"]
    assert named("/p/test/images", "/q/test/images", "/q/train/images") == [
        "p-test-images",
        "q-test-images",
        "train-images",
    ]
    assert named("s3://b/one/set.csv", "s3://b/two/set.parquet") == ["one-set", "two-set"]
    assert named("/p/shards/train-{000..010}.tar", "/p/sana/*.parquet", "/p/b-*.zip") == ["train", "sana", "b"]
    assert named({"path": "a/images", "name": "mine"}, "b/images") == ["mine", "images"]
    assert named({"source": "phantom"}, "b/images") == ["phantom", "images"]
    for twice in (["a/x", "a/x/"], [{"name": "n"}, {"name": "n"}], [{"source": "phantom"}, {"source": "phantom"}]):
        with pytest.raises(ChexrayError, match=r"two sets are called '\w+': give each"):
            named(*twice)
