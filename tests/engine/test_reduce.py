"""The reduce stage: a metric gives the same bits alone, in a task, and spread over tasks; one that breaks is a row."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fixtures.toys import Agreement, Broken

from chexray.engine import reduce as stage
from chexray.engine.progress import Progress
from chexray.engine.reduce import Cell, FeatureMatrix, reduce, score_cell
from chexray.metrics.base import serial
from chexray.registry import find, names


def matrix(seed: int, n: int, shift: float = 0.0, patients: int | None = None) -> FeatureMatrix:
    rng = np.random.default_rng(seed)
    ids = np.array([f"{seed}-{i:05d}" for i in range(n)])
    subjects = None if patients is None else np.arange(n, dtype=np.int64) % patients
    features = (rng.normal(size=(n, 24)) + shift).astype(np.float32)
    return FeatureMatrix(ids, {"features": features, "logits": features}, subjects)


REAL, SYNTHETIC = matrix(1, 420, patients=200), matrix(2, 380, shift=0.2)


def cell(metrics: dict, *, n: int | None = None, unavailable: str = "") -> Cell:
    rows = np.arange(n or len(REAL.ids)), np.arange(n or len(SYNTHETIC.ids))
    return Cell("toy", "synthetic", "all", *rows, metrics, unavailable, per_image=True)


def run(cells: list[Cell]):
    matrices = {"toy": {"real": REAL, "synthetic": SYNTHETIC}}
    progress = Progress("reduce", "cells", 0, stream=io.StringIO())
    return reduce(cells, matrices, "real", seed=3, workers=2, progress=progress)


def plain(results) -> list:
    return [
        (key, score.metric, score.value, score.std_error, score.real_floor)
        for result in results
        for key, score in result.scores
    ]


@pytest.mark.parametrize("where", ["in this process", "one task a cell", "tiles spread over tasks"])
def test_where_a_metric_runs_changes_no_bit(ray_cluster, monkeypatch, where) -> None:
    metrics = {name: find("metrics", name)() for name in names("metrics")}
    cells = [cell(metrics), cell(metrics, n=120)]
    alone = [score_cell(each, REAL, SYNTHETIC, 3, serial) for each in cells]
    monkeypatch.setattr(stage, "HERE_FLOP", 1e30 if where == "in this process" else 0)
    monkeypatch.setattr(stage, "LARGE_CELL_FLOP", 0 if where == "tiles spread over tasks" else 1e30)
    spread = run(cells)
    assert plain(spread) == plain(alone)
    assert {score.status for _, score in spread[0].scores} == {"ok"}
    assert spread[0].images.keys() == alone[0].images.keys()
    for name, column in spread[0].images.items():
        np.testing.assert_array_equal(column, alone[0].images[name])


def test_a_metric_that_breaks_costs_its_own_row_and_says_why(ray_cluster) -> None:
    kid = find("metrics", "kid")()
    (result,) = run([cell({"broken": Broken(), "kid": kid})])
    (_, broken), (_, fine) = result.scores
    assert (broken.status, broken.value) == ("failed", None)
    assert broken.reason == "ZeroDivisionError: made to break"
    assert fine.status == "ok"
    assert "made to break" in result.failures[0]


def test_unknown_membership_is_a_null_with_the_reason(ray_cluster) -> None:
    (result,) = run([cell({"kid": find("metrics", "kid")()}, unavailable="synthetic set has no column 'sex'")])
    assert result.scores[0][1].reason == "synthetic set has no column 'sex'"
    assert result.scores[0][1].value is None


def test_patients_and_prompts_reach_the_metric():
    ids, features = np.array(["a", "b", "c"]), np.eye(3, dtype=np.float32)
    whole = FeatureMatrix(ids, {"features": features}, np.array([4, 4, 5]), np.array([1, -1, 2]))
    for index, subjects, prompts in (([0, 1, 2], [4, 4, 5], [1, -1, 2]), ([2, 0], [5, 4], [2, 1])):
        rows = whole.rows(np.array(index), ("features",))
        np.testing.assert_array_equal(rows.subjects, subjects)
        np.testing.assert_array_equal(rows.prompts, prompts)


def test_a_metric_reads_several_outputs_of_one_encoder(ray_cluster):
    """Features of the real side; features and logits of the synthetic one, in the rows of its subset."""
    rng = np.random.default_rng(5)
    ids, features, logits = SYNTHETIC.ids, rng.normal(size=(380, 3)), rng.normal(size=(380, 2))
    synthetic = FeatureMatrix(ids, {"features": features, "logits": logits}, None)
    rows = np.arange(5, 300)
    progress = Progress("reduce", "cells", 0, stream=io.StringIO())
    cells = [
        Cell("toy", "synthetic", "all", np.arange(10), index, {"agreement": Agreement()}) for index in (rows, rows[:9])
    ]
    matrices = {"toy": {"real": REAL, "synthetic": synthetic}}
    for found, index in zip(
        reduce(cells, matrices, "real", seed=3, workers=2, progress=progress), (rows, rows[:9]), strict=True
    ):
        ((_, score),) = found.scores
        assert score.value == pytest.approx(float((features[index].sum(1) * logits[index].sum(1)).mean()))
