"""What a utility run writes and trains: every row with its counts, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.classroom import (
    INVISIBLE,
    N_TEST,
    N_TRAINING,
    NEVER_IN_TEST,
    SETTINGS,
    UNMENTIONED,
    VISIBLE,
    Classroom,
    fits,
    labels_in,
    read_rows,
    tables,
)
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from chexray.findings import FINDINGS
from chexray.plan import make_plan
from chexray.plan.utility import IMAGES
from chexray.results.rows import params_of
from chexray.run.evaluation import Run
from chexray.suites.utility.planned_fits import trained_settings

ALL = (*SETTINGS, "mixed_25")
WITH_SYNTHETIC = ALL[1:]
N_VALIDATION = 25
N_REAL = N_TRAINING - N_VALIDATION
GROUPS = {
    "sex": {"sex:F", "sex:M"},
    "view": {"view:PA", "view:AP", "view:LATERAL"},
    "age": {"age:<40", "age:40-60", "age:60-80", "age:>=80"},
}
PER_FINDING = {"auroc", "average_precision", "brier", "calibration_error"}
AT_THRESHOLDS = {"f1", "precision", "recall", "specificity", "balanced_accuracy"}


@pytest.fixture(scope="module")
def results(lesson: Run) -> pd.DataFrame:
    found = tables(lesson)["results"]
    params = pd.DataFrame([params_of(one) for one in found.to_dict("records")])
    return found.join(params.drop(columns="setting"))


def value(results: pd.DataFrame, metric: str, subset: str, setting: str) -> float:
    rows = results.query("metric == @metric and subset == @subset and setting == @setting")
    assert len(rows) == 1
    return float(rows["value"].iloc[0])


def test_every_promised_file(lesson: Run) -> None:
    folder = Path(lesson.uri)
    assert lesson.exit_code == 0
    figures = {f"figures/{kind}-drawn.{end}" for kind in ("roc", "precision_recall", "reliability", "loss")
               for end in ("png", "svg")}  # fmt: skip
    titles = [f"{setting}-drawn" if setting != "real" else setting for setting in ALL]
    events = {path.relative_to(folder).as_posix() for path in folder.glob("tensorboard/*/*tfevents*")}
    assert len(events) == len(titles)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == figures | events | {
        "run.json", "config.yaml", "status.json", "log.txt", "rejects.parquet", "results.parquet",
        "results.csv", "results.json",
        "predictions.parquet", "curves.parquet", "history.parquet", "contradictions.parquet",
        "comparison.parquet",
    }  # fmt: skip
    for name in figures:
        assert (folder / name).read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_a_fit_keeps_its_classifier_and_nothing_that_only_a_resume_needs(lesson: Run, classroom: Classroom) -> None:
    for title, fit in fits(classroom.store).items():
        names = {path.name for path in fit.iterdir() if not path.name.startswith("predictions-")}
        assert names == {"fit.json", "history.json", "model.safetensors"}, title
    folders = fits(classroom.store)
    sizes = {
        title: {len(pd.read_parquet(path)) for path in folders[title].glob("predictions-*.parquet")}
        for title in ("real", "synthetic (drawn)")
    }
    assert sizes["real"] >= {N_VALIDATION, N_TEST, 125}
    assert sizes["synthetic (drawn)"] == {N_VALIDATION, N_TEST}


def test_rows_of_every_kind_with_their_counts_and_sets(results: pd.DataFrame) -> None:
    assert (results["suite"] == "utility").all()
    assert set(results["encoder"]) == {"test_resnet"}
    assert set(results["weights"]) == {"none"}
    assert results["real_set"].str.startswith("test@").all()
    assert results["training_set"].str.startswith("training@").all()
    of_drawn = results["synthetic_set"].str.startswith("drawn@")
    assert (results.loc[~of_drawn, "synthetic_set"] == "").all()
    judged = results["metric"].str.startswith("faithfulness")
    assert (of_drawn == (results["setting"].isin(WITH_SYNTHETIC) | judged)).all()
    assert (results["n_validation"] == N_VALIDATION).all()
    assert (results["n_rejected"] == 0).all()

    trained = results.groupby("setting")[["n_train_real", "n_train_synthetic"]].agg(lambda n: sorted(set(n)))
    half, quarter = round(N_REAL / 2 + 0.1), round(N_REAL / 4)
    assert trained["n_train_real"].to_dict() == {
        "real": [N_REAL], "synthetic": [0], "mixed": [N_REAL - half], "mixed_25": [N_REAL - quarter],
        "augmented": [N_REAL], "pretrain_synthetic_finetune_real": [N_REAL],
    }  # fmt: skip
    assert trained["n_train_synthetic"].to_dict() == {
        "real": [0], "synthetic": [N_REAL], "mixed": [half], "mixed_25": [quarter],
        "augmented": [N_REAL], "pretrain_synthetic_finetune_real": [N_REAL],
    }  # fmt: skip
    tested = results[~judged]
    assert (tested["n_synthetic"] == tested["n_train_synthetic"]).all()
    whole = tested["subset"].str.startswith(("all", "finding:")) | tested["metric"].eq("auroc_macro_gap")
    assert (tested.loc[whole, "n_real"] == N_TEST).all()
    for names in GROUPS.values():
        sizes = tested[tested["subset"].isin(names)].groupby("subset")["n_real"].unique()
        assert sum(int(size[0]) for size in sizes) == N_TEST
        assert sizes.map(len).eq(1).all()
    assert results.loc[judged, "n_real"].eq(0).all()
    assert set(results.loc[judged, "setting"]) == {"real"}


def test_each_setting_has_the_metrics_of_each_kind_of_subset(results: pd.DataFrame) -> None:
    macro = {"auroc_macro", "average_precision_macro", "brier_macro"} | {f"{name}_macro" for name in AT_THRESHOLDS}
    micro = {"auroc_micro", "average_precision_micro", "calibration_error_micro"}
    micro |= {f"{name}_micro" for name in AT_THRESHOLDS}
    group = {"auroc_macro", "average_precision_macro", "brier_macro", "f1_macro", "recall_macro"}
    for setting in ALL:
        mine = results[results["setting"] == setting]
        found = mine.groupby("subset")["metric"].agg(set).to_dict()
        compared = set() if setting == "real" else {"auroc_macro", "average_precision_macro", "brier_macro"}
        judged = {"faithfulness_auroc"} if setting == "real" else set()
        whole = macro | micro | {"accuracy"} | {f"{name}_difference" for name in compared}
        assert found.pop("all") == whole | {f"{name}_macro" for name in judged}
        for finding in FINDINGS:
            own = PER_FINDING | AT_THRESHOLDS | judged | ({"auroc_difference"} if compared else set())
            assert found.pop(f"finding:{finding}") == own
        for column, names in GROUPS.items():
            assert found.pop(column) == {"auroc_macro_gap"}
            for name in names:
                assert found.pop(name) == group
        assert not found
    paired = results[results["metric"].str.endswith("_difference")]
    assert (paired["against"] == "real").all()
    assert set(results.loc[results["metric"] == "f1", "threshold"]) == {0.5, "tuned"}


def test_what_cannot_be_measured_is_a_null_with_its_reason(results: pd.DataFrame) -> None:
    nulls = results[results["value"].isna()]
    assert set(nulls["status"]) == {"too_few"}
    assert (results.loc[results["value"].notna(), "status"] == "ok").all()
    reasons = nulls[~nulls["metric"].str.startswith("faithfulness")].groupby("subset")["reason"].agg(set)
    assert {name.removeprefix("finding:") for name in reasons.index} == {NEVER_IN_TEST, *UNMENTIONED}
    for reason in reasons:
        assert "no positive among 80 test images" in reason
    # Fracture was asked for, so its place in synthetic images is judged, though the test set has none of it.
    asked = nulls[nulls["metric"] == "faithfulness_auroc"].set_index("subset")["reason"]
    assert set(asked.index) == {f"finding:{name}" for name in UNMENTIONED}
    assert asked.str.contains("asked for in none of 125 synthetic images").all()


def test_predictions_hold_the_test_set_and_give_the_results(lesson: Run, results, classroom: Classroom) -> None:
    predictions = tables(lesson)["predictions"]
    rows = read_rows(classroom.test)
    assert set(predictions["setting"]) == set(ALL)
    for setting, mine in predictions.groupby("setting"):
        assert mine["sample_id"].tolist() == [row["id"] for row in rows]
        assert mine["sex"].tolist() == [row["sex"] for row in rows]
        for finding in FINDINGS:
            wanted = [float(labels_in(row)[finding] == 1.0) for row in rows]  # -1 and None are negative here
            assert mine[f"y_{finding}"].tolist() == wanted
        areas = []
        for finding in (*VISIBLE, INVISIBLE):
            truth, said = mine[f"y_{finding}"], mine[f"p_{finding}"]
            areas.append(roc_auc_score(truth, said))
            for metric, expected in (
                ("auroc", areas[-1]),
                ("average_precision", average_precision_score(truth, said)),
                ("brier", brier_score_loss(truth, said)),
            ):
                assert value(results, metric, f"finding:{finding}", str(setting)) == pytest.approx(expected, abs=1e-9)
        assert value(results, "auroc_macro", "all", str(setting)) == pytest.approx(np.mean(areas), abs=1e-9)
        women = mine[mine["sex"] == "F"]
        of_women = [roc_auc_score(women[f"y_{name}"], women[f"p_{name}"]) for name in (*VISIBLE, INVISIBLE)]
        assert value(results, "auroc_macro", "sex:F", str(setting)) == pytest.approx(np.mean(of_women), abs=1e-9)
    accuracy = results.query("metric == 'accuracy' and setting == 'real'").iloc[0]
    labels = np.array([[labels_in(row)[name] == 1.0 for name in FINDINGS] for row in rows])
    assert accuracy["all_negative"] == pytest.approx(1 - labels.mean(), abs=1e-12)


def test_what_is_visible_is_learnt_and_what_is_not_is_not(results: pd.DataFrame) -> None:
    for setting in ALL:
        for finding in VISIBLE:
            assert value(results, "auroc", f"finding:{finding}", setting) > 0.8
        assert 0.35 < value(results, "auroc", f"finding:{INVISIBLE}", setting) < 0.65
    for finding in VISIBLE:
        row = results.query("metric == 'faithfulness_auroc' and subset == @name", local_dict={
            "name": f"finding:{finding}"}).iloc[0]  # fmt: skip
        assert row["value"] > 0.8
        assert row["real_floor"] == value(results, "auroc", f"finding:{finding}", "real")


def test_curves_histories_and_contradictions_belong_to_their_settings(lesson: Run, classroom: Classroom) -> None:
    found = tables(lesson)
    epochs = found["history"].groupby("setting")
    assert epochs["epoch"].agg(list).map(tuple).to_dict() == dict.fromkeys(ALL, (1, 2, 3))
    assert (found["history"]["images"] == N_REAL).all()  # one budget, whatever is trained on
    phases = epochs["phase"].agg(list)
    assert phases["pretrain_synthetic_finetune_real"] == [0, 0, 1]
    drawn = found["curves"].groupby(["setting", "kind"])["subset"].agg(set)
    for setting in ALL:
        scored = {f"finding:{name}" for name in (*VISIBLE, INVISIBLE)} | {"all"}
        assert drawn[setting, "roc"] == drawn[setting, "precision_recall"] == scored
    assert set(found["contradictions"]["synthetic_set"].str.partition("@")[0]) == {"drawn"}
    assert found["contradictions"]["surprise"].is_monotonic_decreasing
    assert set(found["contradictions"]["sample_id"]) <= {row["img_savename"] for row in read_rows(classroom.drawn)}


def test_no_twin_of_a_validation_image_and_none_of_a_test_image_trains(lesson: Run, classroom: Classroom) -> None:
    """By the images that the committed fits are named after, and the patients of the tables."""
    whole = make_plan(classroom.config(classroom.folder / "lesson", fractions=[0.25, 0.5]))
    plan = whole.utility
    assert plan is not None
    patient = {row["id"]: row["subject_id"] for row in read_rows(classroom.training)}
    made_for = {row["img_savename"]: row["id"] for row in read_rows(classroom.drawn)}
    cohorts = plan.cohorts()
    watched = {patient[identity] for identity in cohorts.validation.sample.ids.tolist()}
    assert len(cohorts.validation) == N_VALIDATION
    settings = trained_settings(plan, cohorts, whole.encoders[IMAGES][1], "cpu")
    assert {each.training.setting for each in settings} == set(ALL)
    for each in settings:
        for fit in each.fits:
            assert (classroom.store / "fits" / fit.name / "model.safetensors").exists()
            for phase in fit.phases:
                of = {made_for.get(name, name) for name in phase.sample.ids.tolist()}
                assert of <= set(patient)  # a test prompt's image would be none of these
                assert not {patient[name] for name in of} & watched
                if each.training.setting.startswith("mixed"):
                    assert len(of) == len(phase.sample)  # nobody stands beside his own twin


def test_the_comparison_is_a_line_a_setting_with_the_numbers_of_the_results(lesson: Run) -> None:
    table = tables(lesson)["comparison"].set_index("setting")
    assert list(table.index) == list(ALL)
    overall = lesson.results[lesson.results["subset"] == "all"]
    for row in overall.itertuples():
        params = params_of(row._asdict())
        if row.metric in ("auroc_macro", "brier_macro", "accuracy"):
            found = table.loc[params["setting"]]
            assert (found[row.metric], found[f"{row.metric}_ci_low"]) == (row.value, row.ci_low)
            assert found["n_train_synthetic"] == row.n_synthetic
    assert table["auroc_macro_difference_to_real"].isna().to_dict() == {name: name == "real" for name in ALL}
    assert (table["accuracy_of_all_negative"] > 0.5).all()
