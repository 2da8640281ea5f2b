"""What cannot succeed is refused by the plan, all of it at once; what only a part of the sets cannot give is noted."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from chexray.config import parse_config
from chexray.errors import ChexrayError, ConfigError, ConfigProblems, ManifestError, WeightsError
from chexray.plan import make_plan

LABELS = {"positive": "{'Edema': 1.0}", "negative": "{'Edema': 0.0}", "none": ""}


@pytest.fixture
def images(tmp_path: Path):
    """A folder of n different images and a table of them with the columns given, {name: value of each row}."""

    def write(name: str, n: int, *, seed: int = 0, folder: str = "", **columns) -> Path:
        place = tmp_path / (folder or name)
        place.mkdir(exist_ok=True)
        table = tmp_path / f"{name}.csv"
        rng = np.random.default_rng(seed)
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *columns])
            for i in range(n):
                Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(place / f"{name}{i}.png")
                writer.writerow([f"{place.name}/{name}{i}.png", *(value(i) for value in columns.values())])
        return table

    return write


def planned(tmp_path: Path, real: Path, synthetic: Path | list, **more):
    given = {"real": str(real), "synthetic": str(synthetic) if isinstance(synthetic, Path) else synthetic}
    return make_plan(
        parse_config({"encoders": "pixels", "metrics": "kid", "output": str(tmp_path / "out"), **given, **more})
    )


def refused(tmp_path: Path, *sets, error: type[ChexrayError] = ConfigError, **more) -> str:
    with pytest.raises(error) as found:
        planned(tmp_path, *sets, **more)
    return "\n".join(found.value.lines)


def flag(what: str):
    return lambda i: LABELS[what]


def both(i: int) -> str:
    return LABELS["positive" if i % 2 else "negative"]


def test_findings_of_images_without_labels(images, tmp_path) -> None:
    labelled, bare = images("real", 6, labels=both), images("made", 6, seed=1)
    line = refused(tmp_path, labelled, tmp_path / "made", subsets="all,findings")
    assert "subsets by finding cannot be computed: synthetic set 'made' has no labels. Give synthetic.0 a table" in line
    line = refused(tmp_path, bare, labelled, subsets="findings")
    assert "real set 'made' has no labels" in line
    assert planned(tmp_path, labelled, tmp_path / "made", subsets="all").remarks == ()


def test_a_table_says_which_columns_it_has_and_what_to_name(images, tmp_path) -> None:
    labelled = images("real", 6, labels=both, prompt=lambda i: f"prompt {i}")
    made = images("made", 6, seed=1, wording=lambda i: f"prompt {i}")
    line = refused(tmp_path, labelled, made, subsets="findings")
    assert "Name their column in synthetic.0.columns.labels (its columns: path, wording)" in line
    assert "of prompts which real images have too, in synthetic.0.columns.prompt" in line
    named = {"path": str(made), "columns": {"prompt": "wording"}}
    assert "CANNOT" not in " ".join(planned(tmp_path, labelled, [named], subsets="all,findings").remarks)


def test_prompts_that_are_asked_for_and_not_recognised(images, tmp_path) -> None:
    real = images("real", 6, prompt=lambda i: f"prompt {i}")
    made = images("made", 6, seed=1, wording=lambda i: f"prompt {i}")
    asked = {"suite": "privacy", "privacy": {"pairs": "same_prompt"}}
    line = refused(tmp_path, real, made, **asked)
    assert "no prompts were recognised in synthetic.0 (made). Name their column in synthetic.0.columns.prompt" in line
    assert "(its columns: path, wording)" in line
    assert "Give a table of its images with a column of prompts" in refused(tmp_path, real, tmp_path / "made", **asked)
    named = {"path": str(made), "columns": {"prompt": "wording"}}
    assert len(planned(tmp_path, real, [named], **asked).pairs["made"]) == 6
    note = "made: no column of prompts was recognised among path, wording; if one holds them, name it in synthetic.0"
    assert any(each.startswith(note) for each in planned(tmp_path, real, made, suite="privacy").remarks)


def test_a_column_that_one_of_the_sets_lacks(images, tmp_path) -> None:
    real, made = images("real", 6, sex=lambda i: "FM"[i % 2]), images("made", 6, seed=1)
    assert "subsets by 'sex' cannot be computed: synthetic set 'made' has no column 'sex'. Give synthetic.0" in refused(
        tmp_path, real, made, subsets="all,sex"
    )
    other = images("other", 6, seed=2, sex=lambda i: "FM"[i % 2])
    plan = planned(tmp_path, real, [str(made), str(other)], subsets="all,sex")
    first = "CANNOT BE COMPUTED: subsets by 'sex' for 1 of 2 synthetic sets (made): synthetic set 'made' has no column"
    assert plan.remarks[0] == f"{first} 'sex'"
    assert plan.notes[0] == plan.remarks[0]


def test_too_few_images_are_said_by_metric_and_by_subset(images, tmp_path) -> None:
    real = images("real", 12, view=lambda i: "AP" if i == 0 else "PA")
    made = images("made", 12, seed=1, view=lambda i: "AP" if i == 0 else "PA")
    plan = planned(tmp_path, real, made, metrics="kid,fid_infinity", subsets="all,view")
    assert plan.remarks == (
        "TOO FEW IMAGES for fid_infinity: 12 real and 12 synthetic in made, and it needs at least 30 of each; it will "
        "give no number",
        "TOO FEW IMAGES in 1 of 3 subsets (view:AP): fewer than 2 real or synthetic ones; they will have no number",
    )
    line = refused(tmp_path, real, made, metrics="fid_infinity")
    assert "would compute no number: the largest subset, all, has 12 real and 12 synthetic images" in line
    assert "fid_infinity need at least 30 of each" in line


@pytest.mark.parametrize("how", ["same files", "copies elsewhere", "same patients"])
def test_a_held_out_set_that_is_the_training_set(images, tmp_path, how) -> None:
    real = images("real", 6, patientID=lambda i: f"p{i}")
    made = images("made", 6, seed=1)
    held = real
    if how == "copies elsewhere":
        shutil.copytree(tmp_path / "real", tmp_path / "copied")
        held = tmp_path / "copied"
    elif how == "same patients":
        held = images("held", 6, seed=5, patientID=lambda i: f"p{i % 2}")
    line = refused(tmp_path, real, made, suite="privacy", heldout={"path": str(held), "name": "held"})
    assert line.startswith("heldout (held): all 6 held-out images")
    assert "Name real images of other patients" in line
    others = images("others", 6, seed=7, patientID=lambda i: f"p{i + 5}")
    assert planned(tmp_path, real, made, suite="privacy", heldout=str(others)).heldout is not None


def test_more_missing_images_than_a_run_may_lose(images, tmp_path) -> None:
    real, made = images("real", 10), images("made", 10, seed=1)
    (tmp_path / "made" / "made3.png").unlink()
    line = refused(tmp_path, real, made, error=ManifestError)
    assert "synthetic.0 (made): 1 of 10 images are missing, over encode.max_reject_fraction=0.01, first" in line
    assert "made3.png: there is no such file" in line
    assert len(planned(tmp_path, real, made, encode={"max_reject_fraction": 0.2}).synthetic[0].rejects) == 1


def test_images_of_which_none_can_be_read(images, tmp_path) -> None:
    real, made = images("real", 4), images("made", 4, seed=1)
    for path in (tmp_path / "made").iterdir():
        path.write_text("hello")
    line = refused(tmp_path, real, made, error=ManifestError)
    assert "synthetic.0 (made): none of 4 sampled images can be read" in line
    assert "not_an_image" in line


def test_a_training_of_one_class_or_a_test_of_one(images, tmp_path) -> None:
    real, training = images("real", 8, labels=both), images("training", 20, seed=1, labels=flag("positive"))
    made = images("made", 8, seed=2, labels=both)
    utility = {"suite": "utility", "utility": {"settings": ["real"], "model": {"name": "resnet18", "weights": "none"}}}
    line = refused(tmp_path, real, made, training=str(training), label_policy="u_ignore", **utility)
    assert (
        "labelled images to train on show no finding both present and absent: all labels that count are positive"
        in line
    )
    line = refused(tmp_path, training, made, training=str(real), label_policy="u_ignore", **utility)
    assert "labelled images to test on show no finding" in line


def test_weights_of_another_architecture_name_the_flag(images, tmp_path) -> None:
    real, made = images("real", 4), images("made", 4, seed=1)
    file = tmp_path / "w.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, file)
    encoders = [{"name": "pixels"}, {"name": "siamese_reid", "weights": str(file)}]
    line = refused(tmp_path, real, made, suite="privacy", encoders=encoders, error=WeightsError)
    assert line.startswith("encoder siamese_reid: ")
    assert "On the command line: --set encoders.1.weights=/path/to/it" in line


@pytest.mark.parametrize("where", ["a file", "below a file"])
def test_an_output_that_is_a_file(images, tmp_path, where) -> None:
    real, made = images("real", 4), images("made", 4, seed=1)
    file = tmp_path / "taken"
    file.write_text("x")
    output = file if where == "a file" else file / "out"
    with pytest.raises(
        ChexrayError, match=rf"cannot write below {output}: {file} is not a folder\. Name another output"
    ):
        planned(tmp_path, real, made, output=str(output))
    assert file.read_text() == "x"


def test_everything_that_is_wrong_is_said_at_once(images, tmp_path) -> None:
    real = images("real", 4)
    with pytest.raises(ConfigProblems) as found:
        planned(
            tmp_path, tmp_path / "gone", [str(tmp_path / "lost.csv"), str(real)], encoders="pixel,rad_dyno",
            metrics="kdi,fid,prdcc", protocol="standart",
        )  # fmt: skip
    lines = found.value.lines
    assert lines[0] == "7 problems in the config:"
    for word in ("standart", "kdi", "prdcc", "pixel", "rad_dyno", "gone", "lost.csv"):
        assert sum(word in line for line in lines[1:]) == 1, word
    assert len(str(found.value).splitlines()) == 1
    both = refused(tmp_path, real, images("made", 4, seed=1), subsets="all,findings", suite="fidelity,privacy",
                   heldout={"path": str(tmp_path / "real"), "name": "held"})  # fmt: skip
    assert both.splitlines()[0] == "2 problems in the config:"
    assert "heldout (held): all 4" in both
    assert "subsets by finding cannot be computed" in both
