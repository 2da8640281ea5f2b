"""What a utility run refuses before anything starts, each in one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.classroom import N_TEST_PROMPTS, Classroom, read_rows

from chexray import evaluate
from chexray.errors import ChexrayError, ConfigError, ManifestError, ResourceError, WeightsError
from chexray.plan import make_plan
from chexray.run.evaluation import Run

Change = Callable[[Classroom], dict[str, object]]


def settings(**more: object) -> Change:
    return lambda classroom: more


def training(change: Callable[[list[dict[str, str]]], object]) -> Change:
    """The training set with its rows changed."""

    def changed(classroom: Classroom) -> dict[str, object]:
        rows = read_rows(classroom.training)
        change(rows)
        return {"training": str(classroom.table("training-changed", rows))}

    return changed


def exam(change: Callable[[list[dict[str, str]]], object]) -> Change:
    """The test set with its rows changed."""

    def changed(classroom: Classroom) -> dict[str, object]:
        rows = read_rows(classroom.test)
        change(rows)
        return {"real": str(classroom.table("test-changed", rows))}

    return changed


def generated(change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> Change:
    """A synthetic set of the rows that `change` makes of `drawn`."""

    def changed(classroom: Classroom) -> dict[str, object]:
        table = classroom.table("drawn-changed", change(read_rows(classroom.drawn)))
        return {"synthetic": [classroom.generated(table)]}

    return changed


def weights(content: str) -> Change:
    """test_resnet with a file that is not its checkpoint."""

    def change(classroom: Classroom) -> dict[str, object]:
        import torch

        path = classroom.folder / f"{content}.pth"
        if content == "other-network":
            torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.bias": torch.zeros(9)}, path)
        elif content == "pickled-module":
            torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path)
        elif content == "text":
            path.write_text("hello")
        return {"model": {"name": "test_resnet", "weights": str(path)}}

    return change


def every(**values: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    """These values in all rows."""

    def change(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        for row in rows:
            row.update(values)
        return rows

    return change


BAD: dict[str, tuple[Change, type[ChexrayError], str]] = {
    "no training set": (settings(training=None), ConfigError, r"give `training` \(or --training\)"),
    "a test image among the training images": (
        training(lambda rows: rows[4].update(path="test/u007.png")),
        ManifestError,
        r"share 1 images and 0 patients, which touches 1 of 80 test images: 't004' is in training and its file is in",
    ),
    "a test patient among the training patients": (
        training(lambda rows: rows[4].update(subject_id="u-001")),
        ManifestError,
        r"share 0 images and 1 patients, which touches 2 of 80 test images: 't004' .* its patient is in the test set",
    ),
    "one training patient": (
        training(every(subject_id="t-000")),
        ConfigError,
        r"holds 120 images of 1 patients, and validation needs patients of its own",
    ),
    "an unknown setting": (settings(settings=["augmentd"]), ConfigError, r"'augmentd'\. Did you mean 'augmented'"),
    "a share of nothing": (settings(settings=["mixed_0"]), ConfigError, r"'mixed_0': .* from mixed_1 to mixed_100"),
    "an unknown key": (settings(utility={"epoch": 3}), ConfigError, r"'utility\.epoch'\. Did you mean 'epochs'"),
    "an unknown model": (
        settings(model={"name": "test_resnt", "weights": "none"}),
        ConfigError,
        r"no model 'test_resnt'\. Did you mean 'test_resnet",
    ),
    "weights that are not there": (weights("missing"), WeightsError, r"missing\.pth' cannot be used: no such file"),
    "another network's checkpoint": (
        weights("other-network"),
        WeightsError,
        r"not those of timm's test_resnet.*75 missing, first conv1\.0\.weight.*1 unexpected, first conv1\.weight",
    ),
    "a pickled module": (
        weights("pickled-module"),
        WeightsError,
        r"pickled-module\.pth is refused: it holds",
    ),
    "a checkpoint of text": (weights("text"), WeightsError, r"text\.pth is not a readable checkpoint"),
    "nothing to test as it is": (
        settings(settings=["as_is"]),
        ConfigError,
        r"as_is tests test_resnet .* this checkpoint has no 14-finding classification head",
    ),
    "an image too small for the model": (
        settings(model={"name": "test_vit", "weights": "none"}, image_size=50),
        ConfigError,
        r"utility\.image_size is 50, which timm's test_vit does not take",
    ),
    "training images without labels": (
        training(every(chexpert_labels="")),
        ConfigError,
        r"training-changed: no image has a label, so no classifier can be trained on it",
    ),
    "test images without labels": (
        exam(every(chexpert_labels="")),
        ConfigError,
        r"test-changed: no image has a label, so nothing can be tested on it",
    ),
    "synthetic images without labels": (
        generated(every(annotated_prompt="nobody's report", id="")),
        ConfigError,
        r"drawn-changed: no image has a label.*synthetic\.0\.columns\.labels\. Or give prompts that are those of",
    ),
    "synthetic images of test prompts alone": (
        generated(lambda rows: rows[-N_TEST_PROMPTS:]),
        ConfigError,
        r"none of 5 images is left to train on: 0 have no label, 5 were made for test images and 0 for validation",
    ),
    "more to replace than there is": (
        generated(lambda rows: rows[:40]),
        ConfigError,
        r"setting mixed replaces 48 of 95 real training images, but only \d+ have a synthetic image .* Ask for mixed",
    ),
    "no set for the suite": (
        lambda classroom: {"synthetic": [classroom.generated(classroom.drawn, suites="fidelity")]},
        ConfigError,
        r"no synthetic set is for suite utility",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_one_line_before_anything_starts(classroom: Classroom, tmp_path: Path, case: str) -> None:
    change, kind, words = BAD[case]
    with pytest.raises(kind, match=words) as error:
        make_plan(classroom.config(tmp_path / "out", **change(classroom)))
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 1
    assert "report" not in str(error.value).replace("nobody's report", "")  # a prompt may be a patient's report
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"device": "cuda"}, r"utility\.device is cuda, but .* has no GPU\. Use utility\.device=cpu"),
        ({"workers": 3}, r"utility\.workers is 3, one CPU each, but .*2 CPU.* Set it from 1 to 2, or auto"),
    ],
)
def test_a_cluster_without_room_is_one_line(lesson: Run, classroom: Classroom, tmp_path, wrong, words) -> None:
    with pytest.raises(ResourceError, match=words) as error:
        evaluate(classroom.config(tmp_path, **wrong))
    assert len(str(error.value).splitlines()) == 1


def test_a_batch_larger_than_an_epoch_and_a_class_that_validation_lacks_are_said(classroom: Classroom) -> None:
    notes = "\n".join(make_plan(classroom.config("out", batch_size=500)).notes)
    assert (
        "utility.batch_size is 500, and an epoch of real shows 95 images, a single step (in 5 of 5 settings)" in notes
    )
    assert any(
        note.startswith("Consolidation, ")
        and note.endswith("have only one class; not used for early stopping or thresholds")
        for note in notes.splitlines()
    )
    assert f"drawn: {N_TEST_PROMPTS} of 125 images were made for test images and are not used for training" in notes
    assert "25 images were made for validation images and are not used for training" in notes


def test_images_of_test_prompts_may_be_judged_where_nothing_trains_on_them(
    classroom: Classroom, tmp_path: Path
) -> None:
    change, _, _ = BAD["synthetic images of test prompts alone"]
    plan = make_plan(classroom.config(tmp_path / "out", **change(classroom), settings=["real"])).utility
    assert plan is not None
    assert [each.title for each in plan.planned.trainings] == ["real"]
    assert [len(examples) for examples in plan.planned.synthetic.values()] == [N_TEST_PROMPTS]
    assert "no setting trains on synthetic images" in plan.notes


def test_no_subgroups_are_none_and_the_usual_ones_are_found(classroom: Classroom, tmp_path: Path) -> None:
    def groups(**asked: object) -> set[str]:
        plan = make_plan(classroom.config(tmp_path / "out", **asked)).utility
        assert plan is not None
        return {subset.column for subset in plan.groups}

    assert groups(subgroups=[]) == set()
    assert groups(subgroups=["sex"]) == {"sex"}
    assert groups() == {"sex", "view", "age"}
