"""Defects of upstream's downstream task by their number in facts/upstream-bugs.md, each tested to be gone from ours.

Those that are not here have their test beside the code they concern: 41 test_classifier.py, 45 test_scores.py,
47 of cells tests/data/test_labels.py, 48 of pixels test_augmentation.py, 51 of intervals test_score_coverage.py.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from fixtures.classroom import N_TEST, Classroom, labels_in, make_classroom, read_rows
from fixtures.fits import Images, a_fit
from PIL import Image

from chexray import parse_config
from chexray.encoders.base import EncoderSpec
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import TrainPool
from chexray.engine.train_task import Task
from chexray.findings import FINDINGS
from chexray.plan import make_plan
from chexray.plan.utility import IMAGES, UtilityPlan
from chexray.storage import Storage
from chexray.suites.utility.planned_fits import Trained, TrainedSetting, trained_settings
from chexray.suites.utility.side_tables import tables_of
from chexray.utility.classification.classifier import build, find_weights
from chexray.utility.classification.estimates import Predictions, evaluate, to_scores
from chexray.utility.loop.epoch import Optimisation
from chexray.utility.loop.fit_all import run_fits
from chexray.utility.loop.images import ResizedImages
from chexray.utility.loop.network import Network, mean_std, normalise
from chexray.utility.loop.recipe import Recipe


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    return make_classroom(tmp_path_factory.mktemp("classroom"))


def planned(classroom: Classroom, **more: object) -> tuple[UtilityPlan, EncoderSpec]:
    """The utility plan of a run, and the spec of its image cache."""
    plan = make_plan(classroom.config(classroom.folder / "out", **more))
    assert plan.utility is not None
    return plan.utility, plan.encoders[IMAGES][1]


def fits_of(classroom: Classroom, **more: object) -> list[TrainedSetting]:
    plan, spec = planned(classroom, **more)
    return trained_settings(plan, plan.planned, spec, "cpu")


def test_42_a_plateau_lowers_the_learning_rate() -> None:
    recipe = Recipe(model="test_resnet", image_size=32, learning_rate=1e-2, schedule="plateau", plateau_patience=1)
    network = Network.of(a_fit(Images(), recipe=recipe), None, "cpu", Storage())
    optimisation = Optimisation(recipe, network, steps=60)
    rates = []
    for loss in (1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.7):
        optimisation.prepare(0)
        rates.append(optimisation.learning_rate)
        optimisation.end_epoch(loss)
    assert rates == pytest.approx([1e-2] * 4 + [1e-3] * 2 + [1e-4])


def test_43_each_area_keeps_the_name_of_its_finding_after_one_without_positives() -> None:
    """Upstream numbers areas anew after it skips a class: a perfect class 9 is reported as 8."""
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 14)) < 0.4).astype(np.int8)
    labels[:, 3] = 0
    said = rng.random((60, 14))
    said[:, 9] = 0.1 + 0.8 * labels[:, 9]
    table = evaluate(Predictions(labels, said[None], np.full((1, 14), 0.5)), {}, resamples=5)
    areas = {subset: score.value for subset, score in to_scores(table) if score.metric == "auroc"}
    assert areas == {
        f"finding:{name}": None if k == 3 else pytest.approx(sk.roc_auc_score(labels[:, k], said[:, k]), abs=1e-12)
        for k, name in enumerate(FINDINGS)
    }
    assert [subset for subset, area in areas.items() if area == 1.0] == [f"finding:{FINDINGS[9]}"]


def test_44_validation_meets_no_patient_and_no_twin_of_training(classroom: Classroom) -> None:
    """Upstream splits rows: 43 % of its validation images share a patient with training, and of `augmented` 95 % their
    twin or original."""
    cohorts = planned(classroom)[0].planned
    patients = np.concatenate([cohorts.training.subjects, cohorts.validation.subjects])
    by_row = np.random.default_rng(0).permutation(len(patients)) < 0.2 * len(patients)
    assert np.isin(patients[by_row].astype(str), patients[~by_row].astype(str)).mean() > 0.4
    assert not set(cohorts.training.subjects) & set(cohorts.validation.subjects)
    held = set(cohorts.validation.sample.ids)
    (augmented,) = (each for each in cohorts.trainings if each.setting == "augmented")
    shown = [
        identity.removeprefix("drawn-").removesuffix(".png")
        for phase in augmented.mixture.phases
        for identity in phase.sample.ids
    ]
    assert len(shown) == 2 * len(set(shown)) == 2 * len(cohorts.training)
    assert not set(shown) & held


@pytest.mark.parametrize(
    ("policy", "uncertain", "unmentioned"),
    [
        ({}, 0, 0),
        ({"label_policy": "u_ones"}, 1, 0),
        ({"label_policy": "u_ignore"}, -1, -1),
        ({"uncertain": "ignore"}, -1, 0),
        ({"label_policy": "u_ones", "unmentioned": "ignore"}, 1, -1),
    ],
)
def test_46_uncertain_and_unmentioned_count_as_the_policy_says(
    classroom: Classroom, policy: dict[str, str], uncertain: int, unmentioned: int
) -> None:
    """In every role: the images trained on, those that validate, those of the test set, and the synthetic ones."""
    plan, _ = planned(classroom, **policy)
    cohorts = plan.planned
    value = {1.0: 1, 0.0: 0, -1.0: uncertain, None: unmentioned}
    asked = {row["id"]: labels_in(row) for table in (classroom.training, classroom.test) for row in read_rows(table)}
    for examples in (cohorts.training, cohorts.validation, cohorts.test, cohorts.synthetic["drawn"]):
        ids = [identity.removeprefix("drawn-").removesuffix(".png") for identity in examples.sample.ids]
        wanted = [[value[asked[identity][name]] for name in FINDINGS] for identity in ids]
        assert examples.sample.labels.tolist() == wanted
    words = {0: "zeros", 1: "ones", -1: "ignore"}
    assert plan.policy == (words[uncertain], words[unmentioned])


def test_47_the_order_of_the_findings_in_a_cell_changes_nothing(classroom: Classroom) -> None:
    """Upstream reads the values of a dict in the order they are written in."""

    def shuffled(row: Mapping[str, str]) -> dict[str, str]:
        items = list(labels_in(row).items())
        random.Random(row["id"]).shuffle(items)
        return {**row, "chexpert_labels": str(dict(items))}

    turned = [classroom.table(f"{at.stem}-turned", [shuffled(row) for row in read_rows(at)])
              for at in (classroom.training, classroom.test)]  # fmt: skip
    sets = {"training": str(turned[0]), "real": str(turned[1])}
    names = [[fit.name for each in fits_of(classroom, **more) for fit in each.fits] for more in ({}, sets)]
    assert names[0] == names[1]  # a name covers images and labels
    there, here = (planned(classroom, **more)[0].planned.test.sample for more in (sets, {}))
    assert there.ids.tolist() == here.ids.tolist()
    assert (there.labels == here.labels).all()


def test_48_no_image_is_mirrored_unless_upstreams_protocol_is_asked_for(classroom: Classroom) -> None:
    data = classroom.data(classroom.folder / "out")
    data["utility"] = {"model": {"name": "test_resnet", "weights": "none"}, "settings": ["real"]}
    for protocol in ("standard", "chexgenbench"):
        plan = make_plan(parse_config({**data, "protocol": protocol}))
        assert plan.utility is not None
        assert plan.utility.recipe("fp32").augment == protocol


def test_50_an_image_that_is_lost_shifts_no_prediction_against_its_row(classroom: Classroom) -> None:
    """Each row holds its own image's labels, columns, and what the classifier says of that image alone."""
    plan, spec = planned(classroom, settings=["real"], epochs=1, faithfulness=False)
    encoder = ResizedImages(plan.config.image_size, plan.config.resize)
    images = {
        key: encoder.prepare(np.array(Image.open(uri)))
        for manifest in plan.sets
        for key, uri in zip(*(manifest.table[name].to_pylist() for name in ("image_key", "uri")), strict=True)
    }
    key_of = dict(zip(*(plan.test.table[name].to_pylist() for name in ("sample_id", "image_key")), strict=True))
    del images[key_of["u005"]], images[key_of["u041"]]
    cohorts = plan.cohorts(images.keys())
    (asked,) = trained_settings(plan, cohorts, spec, "cpu")
    root = str(classroom.folder / "fits-50")
    store = FeatureStore(str(classroom.folder), Storage())
    task = Task(asked.fits, store, spec, StoreIndex(), None, TrainPool(1, "cpu", 1, 1.0), root, run_id="run-50")
    run_fits(
        asked.fits,
        lambda keys: np.stack([images[key] for key in keys]),
        task.folder_of,
        Storage(),
        device="cpu",
        threads=1,
        weights=None,
        say=lambda _: None,
    )
    table = tables_of(plan, cohorts, [Trained.read(asked, cohorts, task)])["predictions"].to_pandas()

    rows = {row["id"]: row for row in read_rows(classroom.test)}
    assert table["sample_id"].tolist() == [name for name in rows if name not in ("u005", "u041")]
    assert len(table) == N_TEST - 2
    network = build("test_resnet", find_weights("test_resnet", task.folder_of(asked.fits[0])), seed=0, image_size=32)
    network.eval()
    for found in table.to_dict(orient="records"):
        row = rows[found["sample_id"]]
        assert (found["sex"], found["view"]) == (row["sex"], row["view"])
        assert [found[f"y_{name}"] for name in FINDINGS] == [labels_in(row)[name] == 1.0 for name in FINDINGS]
        image = torch.tensor(images[key_of[found["sample_id"]]])[None]
        with torch.inference_mode():
            alone = network(normalise(image, *mean_std(network))).sigmoid()[0]
        np.testing.assert_allclose([found[f"p_{name}"] for name in FINDINGS], alone.numpy(), atol=1e-5)
    assert table[[f"p_{name}" for name in FINDINGS]].drop_duplicates().shape[0] == len(table)


@pytest.mark.slow
def test_51_every_seed_asked_for_is_a_training_of_its_own(classroom: Classroom) -> None:
    for each in fits_of(classroom, settings=["real", "synthetic"], seeds=3):
        assert [fit.seed for fit in each.fits] == [0, 1, 2]
        assert len({fit.name for fit in each.fits}) == 3
        assert len({fit.validation.keys.tobytes() for fit in each.fits}) == 1
