"""Which suites need which sets: `training` alone is of privacy, fidelity needs `real`, utility needs both."""

from __future__ import annotations

import pytest
import yaml
from PIL import Image

from chexray.config import parse_config
from chexray.errors import ConfigError, ConfigProblems
from chexray.plan import make_plan

WHY = "'real' is required: fidelity compares with it and utility tests on it. Privacy alone may have `training` in its"
BASE = {"synthetic": "s", "encoders": "pixels"}


@pytest.mark.parametrize(
    ("given", "suite"),
    [
        ({"real": "r"}, ["fidelity"]),
        ({"real": "r", "training": "t"}, ["fidelity"]),
        ({"training": "t"}, ["privacy"]),
        ({"training": "t", "heldout": "h"}, ["privacy"]),
        ({"training": "t", "real": None, "suite": "privacy"}, ["privacy"]),
    ],
)
def test_the_default_suite(given, suite):
    config = parse_config({**BASE, **given})
    assert config.suite == suite
    assert (config.real is None) == (given.get("real") is None)
    assert parse_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"heldout": "h"},
        {"heldout": "h", "suite": "privacy"},
        {"suite": "privacy"},
        {"training": "t", "suite": "fidelity"},
        {"training": "t", "suite": "utility"},
        {"training": "t", "suite": "privacy,utility"},
        {"training": "t", "real": None, "suite": ["fidelity", "privacy"]},
    ],
)
def test_a_suite_without_its_set_is_one_line(given):
    with pytest.raises(ConfigProblems) as caught:
        parse_config({**BASE, **given})
    assert [line.startswith(WHY) for line in caught.value.problems] == [True]


def folder(place, n=8, grey=40):
    place.mkdir()
    for index in range(n):
        Image.new("L", (16, 16), grey + 3 * index).save(place / f"{index}.png")
    return place


def test_the_plan_of_training_alone(tmp_path):
    given = {"training": str(folder(tmp_path / "t")), "synthetic": str(folder(tmp_path / "s", grey=90))}
    plan = make_plan(parse_config({**given, "encoders": "pixels", "output": str(tmp_path / "out")}))
    lines = plan.describe()
    assert any(line.startswith("training   t: 8 images") for line in lines)
    assert not any(line.startswith("real ") for line in lines)
    assert plan.heldout is None
    assert any("no held-out set: the baseline" in note for note in plan.notes)
    assert [each.name for each in plan.sets] == ["t", "s"]


def test_the_command_line_says_what_may_stand_alone(command, tmp_path):
    code, _, said = command("run", "--synthetic", "x", at=tmp_path)
    assert (code, "--synthetic with --real, or with --training for privacy alone" in said) == (2, True)
    t, s = folder(tmp_path / "t"), folder(tmp_path / "s", grey=90)
    code, out, said = command(
        "run", "--training", t, "--synthetic", s, "--encoders", "pixels", "--dry-run", at=tmp_path
    )
    assert (code, said) == (0, "")
    assert "(privacy; protocol standard" in out
    code, _, said = command("train", "--training", t, "--synthetic", s, at=tmp_path)
    assert (code, WHY in said) == (2, True)


def test_evaluate_takes_training_alone(tmp_path):
    from chexray.run.inputs import as_config

    assert as_config(None, {"training": "t", "synthetic": "s", "encoders": "pixels"}).suite == ["privacy"]
    with pytest.raises(ConfigError):
        as_config(None, {"synthetic": "s", "encoders": "pixels"})
