"""Curves and predictions as tables: parity with scikit-learn, masked cells left out, no prompt and no path."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from chexray.figures import figure_files
from chexray.findings import FINDINGS
from chexray.utility.classification.curves import CURVES, curves_table, describes, predictions_table
from chexray.utility.classification.estimates import Predictions

EMPTY, POSITIVE_ONLY = FINDINGS.index("Pleural Other"), FINDINGS.index("Fracture")


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """90 images of 45 patients and two trainings; a finding without positive, one without negative, masked cells."""
    rng = np.random.default_rng(0)
    labels = (rng.random((90, 14)) < 0.3).astype(np.int8)
    labels[:, EMPTY], labels[:, POSITIVE_ONLY] = 0, 1
    labels[rng.random(labels.shape) < 0.1] = -1
    probabilities = 1 / (1 + np.exp(1.0 - 1.5 * (labels == 1) - rng.normal(size=(2, 90, 14))))
    return Predictions(labels, probabilities, np.full((2, 14), 0.4), np.arange(90) // 2)


def rows_of(table: pa.Table, **wanted) -> dict[str, list]:
    rows = [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]
    return {name: [row[name] for row in rows] for name in table.column_names}


def test_each_curve_carries_its_exact_number_and_the_points_give_it(predictions) -> None:
    table = curves_table("synthetic", "good@1", predictions, seeds=[7, 8])
    assert table.schema == CURVES
    assert set(table["seed"].to_pylist()) == {7, 8}
    for column, finding in enumerate(FINDINGS):
        known = predictions.labels[:, column] >= 0
        y, p = predictions.labels[known, column], predictions.probabilities[1][known, column]
        roc = rows_of(table, kind="roc", subset=f"finding:{finding}", seed=8)
        pr = rows_of(table, kind="precision_recall", subset=f"finding:{finding}", seed=8)
        if column in (EMPTY, POSITIVE_ONLY):
            assert roc["x"] == []
            assert bool(pr["x"]) == (column == POSITIVE_ONLY)
            continue
        assert roc["value"][0] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
        assert auc(roc["x"], roc["y"]) == pytest.approx(roc["value"][0], abs=1e-9)
        assert pr["value"][0] == pytest.approx(average_precision_score(y, p), abs=1e-9)
        assert set(roc["n"]) == {len(y)}
        assert set(roc["n_positive"]) == {int(y.sum())}


def test_micro_pools_the_label_cells_that_are_not_masked(predictions) -> None:
    table = curves_table("synthetic", "good@1", predictions)
    known = predictions.labels >= 0
    y, p = predictions.labels[known], predictions.probabilities[0][known]
    roc = rows_of(table, kind="roc", subset="all", seed=0)
    assert roc["value"][0] == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    bins = rows_of(table, kind="reliability", subset="all", seed=0)
    assert sum(bins["n"]) == len(y)
    assert sum(n * share for n, share in zip(bins["n"], bins["y"], strict=True)) == pytest.approx(int(y.sum()))
    assert all(low <= y <= high for low, y, high in zip(bins["low"], bins["y"], bins["high"], strict=True))
    assert bins["threshold"] == [None] * len(bins["x"])


def test_figures_take_the_table(predictions) -> None:
    table = pa.concat_tables([curves_table("real", "", predictions), curves_table("synthetic", "good@1", predictions)])
    stems = {name.split(".")[0] for name in figure_files(table)}
    assert stems == {"roc-good-1", "precision_recall-good-1", "reliability-good-1"}


def test_an_empty_test_set_has_no_curve() -> None:
    nothing = Predictions(np.empty((0, 14), np.int8), np.empty((1, 0, 14)), np.full((1, 14), 0.5))
    assert curves_table("real", "", nothing).num_rows == 0
    assert predictions_table("real", "", np.array([], str), nothing).num_rows == 0


def test_predictions_table_holds_every_training_image_and_label(predictions) -> None:
    ids = np.array([f"image-{i:02}" for i in range(90)])
    further = pa.table(
        {
            "sample_id": ids.tolist(),
            "sex": ["F", "M"] * 45,
            "age": pa.array([None, *range(89)], pa.int64()),
            "seed": [1] * 90,
            "annotated_prompt": ["edema"] * 90,
            "uri": ["x"] * 90,
            "note": ["There is a small left effusion."] * 90,
            "file": ["files/p10/s1/a.jpg"] * 90,
            "labels": [[1, 0]] * 90,
        }
    )
    table = predictions_table("real", "", ids, predictions, further, seeds=[3, 5])
    names = [f"{head}_{finding}" for head in "py" for finding in FINDINGS]
    assert table.column_names == [
        "setting", "synthetic_set", "seed", "sample_id", *names, "sex", "age", "manifest_seed",
    ]  # fmt: skip
    assert table.num_rows == 180
    assert table["sample_id"].to_pylist() == [*ids, *ids]
    assert table["seed"].to_pylist() == [3] * 90 + [5] * 90
    np.testing.assert_array_equal(table["p_Pleural Effusion"].to_numpy()[90:], predictions.probabilities[1][:, 9])
    edema = predictions.labels[:, 3]
    assert table["y_Edema"].to_pylist()[:90] == [None if label < 0 else int(label) for label in edema]
    assert table["age"].to_pylist()[90:92] == [None, 0]
    with pytest.raises(ValueError, match="12 ids and 90 further rows for 90"):
        predictions_table("real", "", ids[:12], predictions, further)
    with pytest.raises(ValueError, match="1 seeds for 2 trainings"):
        predictions_table("real", "", ids, predictions, seeds=[1])


@pytest.mark.parametrize(
    ("name", "values", "kept"),
    [
        ("view", ["AP", "PA", None], True),
        ("race", ["WHITE - OTHER EUROPEAN"], True),
        ("study", ["2.25.131"], True),
        ("taken", ["2020/01/31"], True),
        ("Prompt", ["AP"], False),
        ("source", ["s3://bucket/x"], False),
        ("impression", ["no acute cardiopulmonary process is seen"], False),
        ("long", ["x" * 101], False),
    ],
)
def test_only_columns_that_describe_stand_beside_predictions(name: str, values: list, kept: bool) -> None:
    column = pa.chunked_array([values])
    assert describes(name, column) == kept
    assert describes(name, pa.chunked_array([column.combine_chunks().dictionary_encode()])) == kept
