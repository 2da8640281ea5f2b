"""Validation is made of whole patients whatever the table looks like, and no patient of the test set was trained on."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.errors import ConfigError, ManifestError
from chexray.utility.splits import Named, check_disjoint, findings_without_both, hash_order, validation_patients

subject = st.none() | st.integers(0, 12).map(str)
tables = st.lists(subject, min_size=2, max_size=60).filter(lambda s: s.count(None) + len(set(s) - {None}) >= 2)
fractions = st.floats(0.02, 0.98)


def texts(values) -> np.ndarray:
    return np.array([str(value) for value in values])


def objects(values) -> np.ndarray:
    return np.array([*values, None], object)[:-1]


def patients_of(subjects) -> list[str]:
    return [f"alone {i}" if subject is None else subject for i, subject in enumerate(subjects)]


def image_level_split(n: int, fraction: float) -> np.ndarray:
    """What upstream does: a random tenth of the rows."""
    mask = np.zeros(n, bool)
    mask[np.random.default_rng(0).permutation(n)[: int(fraction * n)]] = True
    return mask


def share_met(validation: np.ndarray, patients: np.ndarray) -> float:
    """The part of the validation images whose patient is in training too."""
    return float(np.isin(patients[validation], patients[~validation]).mean())


@given(subjects=tables, fraction=fractions, seed=st.integers(0, 99))
def test_no_patient_is_on_both_sides_and_both_have_one(subjects, fraction, seed):
    mask = validation_patients(texts(range(len(subjects))), objects(subjects), fraction, seed)
    patients = np.array(patients_of(subjects))
    assert mask.dtype == bool
    assert not set(patients[mask]) & set(patients[~mask])
    assert 0 < mask.sum() < len(subjects)


@given(subjects=tables, fraction=fractions, seed=st.integers(0, 99))
def test_no_other_number_of_patients_in_that_order_comes_closer(subjects, fraction, seed):
    patients = patients_of(subjects)
    mask = validation_patients(texts(range(len(subjects))), objects(subjects), fraction, seed)
    names = sorted({f"image {p[6:]}" if p.startswith("alone ") else f"subject {p}" for p in patients})
    order = [names[i].removeprefix("subject ").replace("image ", "alone ") for i in hash_order(names, seed)]
    sums = np.cumsum([patients.count(patient) for patient in order])[:-1]
    assert abs(mask.sum() - fraction * len(subjects)) == np.abs(sums - fraction * len(subjects)).min()
    n_held_out = int((sums == mask.sum()).argmax()) + 1
    assert set(np.array(patients)[mask]) == set(order[:n_held_out])


@given(subjects=tables, fraction=fractions, data=st.data())
def test_rows_in_another_order_change_nothing(subjects, fraction, data):
    ids, subjects = texts(range(len(subjects))), objects(subjects)
    order = np.array(data.draw(st.permutations(range(len(ids)))))
    mask = validation_patients(ids, subjects, fraction, 3)
    np.testing.assert_array_equal(validation_patients(ids[order], subjects[order], fraction, 3), mask[order])


@given(subjects=tables, new=st.lists(subject, max_size=10), fraction=fractions)
def test_new_images_move_the_line_between_patients_but_never_their_order(subjects, new, fraction):
    ids = texts(range(len(subjects) + len(new)))
    before = validation_patients(ids[: len(subjects)], objects(subjects), fraction, 0)
    after = validation_patients(ids, objects([*subjects, *new]), fraction, 0)[: len(subjects)]
    assert (before <= after).all() or (after <= before).all()


def test_validation_images_share_no_patient_with_training_as_43_percent_of_upstreams_do():
    """facts/upstream-bugs.md 44: `random_split` over rows."""
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(800), rng.integers(1, 5, 800))
    rng.shuffle(patients)
    assert share_met(image_level_split(len(patients), 0.1), patients) > 0.4
    ours = validation_patients(texts(range(len(patients))), patients.astype(object), 0.1, 0)
    assert share_met(ours, patients) == 0
    assert abs(ours.mean() - 0.1) < 0.002


def test_radiographs_are_split_by_patient(shared):
    with (shared / "data" / "cxr" / "real_train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = np.array([row["patientID"] for row in rows])
    ids = texts(row["id"] for row in rows)
    assert share_met(image_level_split(len(rows), 0.1), patients) > 0
    for seed in range(3):
        mask = validation_patients(ids, patients.astype(object), 0.1, seed)
        assert share_met(mask, patients) == 0
        assert abs(mask.sum() - 38) <= np.unique(patients, return_counts=True)[1].max() / 2


def test_seeds_give_other_patients():
    ids = texts(range(300))
    masks = [validation_patients(ids, None, 0.2, seed) for seed in (0, 1)]
    assert [mask.sum() for mask in masks] == [60, 60]
    assert (masks[0] != masks[1]).any()


def test_an_image_named_like_a_patient_is_not_of_that_patient():
    """ "7" is an image of nobody known and a patient with nine images: they may fall on two sides."""
    ids, subjects = texts([7, *range(20, 29)]), objects([None, *["7"] * 9])
    for seed in range(5):
        assert validation_patients(ids, subjects, 0.1, seed).sum() in (1, 9)


def test_nan_and_blank_subjects_are_unknown():
    ids = texts(range(4))
    as_none = validation_patients(ids, objects([None] * 4), 0.5, 0)
    np.testing.assert_array_equal(validation_patients(ids, objects([float("nan"), "", None, ""]), 0.5, 0), as_none)
    np.testing.assert_array_equal(validation_patients(ids, None, 0.5, 0), as_none)


@pytest.mark.parametrize(("subjects", "n"), [(["a"] * 5, 5), ([None], 1), ([], 0)])
def test_one_patient_cannot_be_divided(subjects, n):
    with pytest.raises(ConfigError, match=rf"{n} images of {min(n, 1)} patients.*training.columns.subject_id"):
        validation_patients(texts(range(n)), objects(subjects), 0.1, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_without_two_parts_is_refused(fraction):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        validation_patients(texts(range(4)), None, fraction, 0)


def named(name: str, keys, subjects=None) -> Named:
    ids = texts(f"{name}-{i}" for i in range(len(keys)))
    return Named(name, ids, texts(keys), None if subjects is None else objects(subjects))


@pytest.mark.parametrize("subjects", [None, [None, "", float("nan")], ["a", "b", None]])
def test_sets_apart_pass_and_the_unknown_match_nobody(subjects):
    check_disjoint(named("mimic", "abc", subjects), named("nih", "xyz", [None, "", float("nan")]))
    check_disjoint(named("mimic", "abc", ["a", "a", "b"]), named("nih", "xyz", None))


def test_a_patient_of_both_sets_is_an_error_with_counts_and_an_example():
    with pytest.raises(ManifestError) as error:
        check_disjoint(named("mimic", "abc", ["1", "2", 3]), named("nih", "vwxyz", ["4", 3, "3", None, "2"]))
    text = str(error.value)
    assert "share 0 images and 2 patients, which touches 3 of 5 test images" in text
    assert "'mimic-1' is in training and its patient" in text
    assert "\n" not in text


def test_a_file_of_both_sets_is_an_error_even_without_patients():
    with pytest.raises(ManifestError, match=r"1 images and 0 patients, which touches 1 of 3.*'mimic-2'.*its file"):
        check_disjoint(named("mimic", "abc"), named("nih", "cde"))


def test_findings_without_both_are_named_by_place():
    labels = np.zeros((6, 14), np.int8)
    labels[0] = 1
    labels[:, 3] = 0  # no positive
    labels[:, 5] = 1  # no negative
    labels[1:, 8] = -1  # a positive and nothing else
    labels[:, 9] = -1
    assert findings_without_both(labels) == [3, 5, 8, 9]
    assert findings_without_both(labels[:0]) == list(range(14))
