"""Phantom radiographs: reproducible, showing what their labels say, and from generators of known rank."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.findings import FINDINGS
from chexray.phantom import GENERATORS, draw, patient_of
from chexray.phantom.words import OPACITIES

NOISE_LEVELS = GENERATORS["real"].noise
"""Standard deviation of the film noise in grey levels."""

WORDS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Enlarged Cardiomediastinum": "widening of the mediastinum",
    "Fracture": "rib fracture",
    "Lung Lesion": ("nodule", "mass"),
    "Lung Opacity": "hazy opacity",
    "Pleural Effusion": "pleural effusion",
    "Pleural Other": "pleural thickening",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "Support Devices": "in place",
    "No Finding": "no acute finding",
}


@pytest.fixture(scope="module")
def studies():
    return [draw(index, seed=7, size=32) for index in range(240)]


@pytest.fixture(scope="module")
def features():
    """(n, 64) greys averaged over 8 x 8 cells, for each generator and for the reference world drawn again."""

    def cells(generator: str, seed: int, n: int = 120) -> np.ndarray:
        images = np.stack([draw(index, seed=seed, generator=generator, size=64).image for index in range(n)]) / 255.0
        return images.reshape(n, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(n, 64)

    sets = {"real": ("real", 1), "again": ("real", 4), "good": ("good", 2), "poor": ("poor", 3)}
    return {name: cells(*key) for name, key in sets.items()}


def test_an_image_is_a_pure_function_of_its_arguments():
    first = draw(5, seed=3)
    draw(6, seed=3, generator="poor")
    np.random.default_rng().random()
    second = draw(5, seed=3)
    assert first.image.dtype == np.uint8
    assert first.image.shape == (256, 256)
    assert np.array_equal(first.image, second.image)
    assert (first.labels, first.prompt, first.subject_id) == (second.labels, second.prompt, second.subject_id)


@pytest.mark.parametrize("size", [32, 64, 96, 250, 512])
def test_any_size_shows_the_same_chest(size):
    small = draw(4, seed=1, size=size).image.astype(float)
    large = draw(4, seed=1, size=256).image.astype(float)
    assert small.shape == (size, size)
    assert abs(small.mean() - large.mean()) < 8


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_film_is_exposed_like_a_radiograph(generator):
    image = draw(8, seed=2, generator=generator, findings=[]).image.astype(float)
    assert 90 < image.mean() < 190
    assert image.std() > 35
    lungs = np.median(image[90:140, 70:95])
    spine = np.median(image[150:200, 122:134])
    assert spine > lungs + 40


def test_seeds_share_no_patient_and_no_picture():
    one, two = (draw(3, seed=seed) for seed in (1, 2))
    assert one.subject_id != two.subject_id
    assert np.abs(one.image.astype(float) - two.image).mean() > 10


def test_patients_have_several_studies(studies):
    by_patient: dict[str, list] = {}
    for index, study in enumerate(studies):
        by_patient.setdefault(study.subject_id, []).append(study)
        assert study.subject_id.endswith(f"{patient_of(index)[0]:05d}")
    assert {len(visits) for visits in by_patient.values()} == {1, 2, 3, 4}
    for visits in by_patient.values():
        assert len({visit.sex for visit in visits}) == 1
        assert [visit.age for visit in visits] == list(range(visits[0].age, visits[0].age + len(visits)))
    assert {study.sex for study in studies} == {"F", "M"}
    assert {study.view for study in studies} == {"PA", "AP"}


def test_every_finding_occurs_often_enough_to_be_a_subset(studies):
    for finding in FINDINGS:
        positive = sum(study.labels[finding] == 1 for study in studies)
        assert 0.015 * len(studies) < positive < 0.6 * len(studies), finding
    values = {label for study in studies for label in study.labels.values()}
    assert values == {1, 0, -1, None}


def test_labels_follow_the_hierarchy(studies):
    for study in studies:
        ill = [f for f in FINDINGS if f not in ("No Finding", "Support Devices") and study.labels[f] == 1]
        assert (study.labels["No Finding"] == 1) <= (not ill)
        if any(study.labels[finding] == 1 for finding in OPACITIES):
            assert study.labels["Lung Opacity"] == 1


def test_prompts_are_unique_and_say_what_the_labels_say(studies):
    assert len({study.prompt for study in studies}) == len(studies)
    for study in studies:
        stated, _, denied = study.prompt.partition(". No ")
        person = "woman" if study.sex == "F" else "man"
        assert f"{study.view} chest radiograph" in stated
        assert f"{study.age}-year-old {person}:" in stated
        for finding, label in study.labels.items():
            words = WORDS[finding] if isinstance(WORDS[finding], tuple) else (WORDS[finding],)
            said = any(word in stated for word in words)
            implied = finding == "Lung Opacity" and any(study.labels[other] == 1 for other in OPACITIES)
            if label == 1:
                assert said or implied, (finding, study.prompt)
            elif label in (0, None):
                assert not said, (finding, study.prompt)
            if label in (1, -1):
                assert not any(word in denied for word in words), (finding, study.prompt)


def difference(finding: str, index: int, generator: str = "real") -> np.ndarray:
    """Grey levels that a finding adds, the rest of the image unchanged."""
    without, shown = (
        draw(index, seed=11, generator=generator, size=128, findings=findings).image.astype(float)
        for findings in ([], [finding])
    )
    return shown - without


@pytest.mark.parametrize("finding", [finding for finding in FINDINGS if finding != "No Finding"])
def test_each_finding_shows(finding):
    """The 50 pixels of 128 x 128 that a finding changes most stand well above the noise, on every patient."""
    for index in range(5):
        changed = np.sort(np.abs(difference(finding, index)), axis=None)[-50:]
        assert changed.mean() > 5 * NOISE_LEVELS, index


@pytest.mark.parametrize("finding", ["Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Pneumothorax"])
def test_findings_fade_in_the_poor_generator(finding):
    strength = {
        name: np.mean([np.abs(difference(finding, index, name)).mean() for index in range(4)])
        for name in ("real", "poor")
    }
    assert strength["poor"] < 0.7 * strength["real"]


def test_findings_lie_where_they_belong():
    effusion = np.mean([difference("Pleural Effusion", index) for index in range(6)], axis=0)
    assert effusion[70:110].mean() > 10 * max(0.1, abs(effusion[:45].mean()))
    collapse = np.mean([difference("Pneumothorax", index) for index in range(6)], axis=0)
    assert collapse[20:60].mean() < -0.5
    edema = np.mean([difference("Edema", index) for index in range(6)], axis=0)
    assert min(edema[40:90, :60].mean(), edema[40:90, 68:].mean()) > 3
    heart = np.mean([difference("Cardiomegaly", index) for index in range(6)], axis=0)
    assert heart[60:95, 45:105].mean() > 5
    assert abs(heart[:25].mean()) < 0.5


def test_an_ap_film_magnifies_the_heart():
    """The share of bright pixels between the lungs is larger on AP films, as it is in life."""
    widths = {"AP": [], "PA": []}
    for index in range(80):
        study = draw(index, seed=5, size=64, findings=[])
        widths[study.view].append((study.image[38:43, 14:54] > np.median(study.image[20:45])).mean())
    assert np.mean(widths["AP"]) > np.mean(widths["PA"])


def test_overrides_are_checked():
    with pytest.raises(ValueError, match="no finding is called 'Effusion'"):
        draw(0, seed=0, findings=["Effusion"])
    with pytest.raises(ValueError, match="contradicts 'Edema'"):
        draw(0, seed=0, findings=["No Finding", "Edema"])
    with pytest.raises(ValueError, match="there are real, good, poor"):
        draw(0, seed=0, generator="excellent")
    with pytest.raises(ValueError, match="at least"):
        draw(-1, seed=0)
    assert draw(0, seed=0, size=32, findings=[]).labels["No Finding"] == 1


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Gram form: tr sqrt(Ca Cb) is the nuclear norm of the product of the centred sets."""
    x, y = ((s - s.mean(axis=0)) / np.sqrt(len(s) - 1) for s in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    def mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
        k = (x @ y.T / x.shape[1] + 1) ** 3
        return (k.sum() - np.trace(k)) / (k.size - len(k)) if x is y else k.mean()

    return float(mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))


def coverage(real: np.ndarray, synthetic: np.ndarray, k: int = 5) -> float:
    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x[:, None] - y[None], axis=2)

    radii = np.sort(distances(real, real), axis=1)[:, k]
    return float((distances(real, synthetic) < radii[:, None]).any(axis=1).mean())


def test_generators_rank_rightly(features):
    real = features["real"]
    fid, kid, covered = (
        {name: score(real, features[name]) for name in ("again", "good", "poor")}
        for score in (frechet, kernel_distance, coverage)
    )
    assert fid["again"] < fid["good"] < 0.5 * fid["poor"]
    assert kid["again"] < kid["good"] < 0.4 * kid["poor"]
    assert covered["again"] > covered["good"] - 0.05
    assert covered["good"] > covered["poor"] + 0.2
