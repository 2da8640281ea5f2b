"""Re-identification in a run: each image encoded once, the network's own scorer, calibration on real pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fixtures.counted_reid import CountedReid, FallsWithDistance, encoded
from fixtures.patients import N_PROMPTS, N_SYNTHETIC, World, numbers, read, read_rows, tables
from sklearn.metrics import roc_auc_score

from chexray import evaluate
from chexray.encoders.siamese_reid import SiameseReid
from chexray.engine.features import FeatureStore
from chexray.plan import make_plan
from chexray.results.rows import params_of
from chexray.run.evaluation import Run
from chexray.storage import Storage

N_SEEDS = 10


@pytest.fixture
def counted_reid(monkeypatch) -> None:
    """`counted_reid` is an encoder that configs may name."""
    from chexray.plan import encoders as building

    find = building.find
    monkeypatch.setattr(
        building, "find", lambda kind, name: CountedReid if name == "counted_reid" else find(kind, name)
    )


def toy(world: World, path: str) -> np.ndarray:
    return CountedReid().prepare(read(world.folder / path)).reshape(1, -1)


def rows_of(store: Path, encoder: str) -> int:
    return sum(pq.read_metadata(part).num_rows for part in store.glob(f"{encoder}-*/part-*.parquet"))


def by_metric(run: Run, encoder: str) -> pd.DataFrame:
    return run.results[run.results["encoder"] == encoder].set_index("metric")


def test_twenty_passes_a_prompt_become_eleven(ray_cluster, world, counted_reid, tmp_path) -> None:
    """A prompt of ten seeds: upstream encodes the real image beside each generation, 20 passes of each network
    (privacy_metrics.py:629); here it is 1 + 10."""
    log = tmp_path / "log"
    generated = [{**row, "prompt": "report t0"} for row in read_rows(world.synthetic)[:N_SEEDS]]
    config = world.config(
        tmp_path / "out",
        real=str(world.table("one-training", read_rows(world.training)[:1])),
        heldout=None,
        synthetic=[world.generated(world.table("ten-seeds", generated))],
        encoders=[
            {"name": "siamese_reid", "weights": "random:1"},
            {"name": "counted_reid", "log": str(log)},
            {"name": "pixels", "side": 8},
        ],
        feature_store=str(tmp_path / "features"),
    )
    run = evaluate(config)
    for encoder in ("siamese_reid", "counted_reid", "pixels", "perceptual_hash"):
        assert rows_of(tmp_path / "features", encoder) == 1 + N_SEEDS
    assert encoded(log) == 1 + N_SEEDS < 2 * N_SEEDS
    assert json.loads((Path(run.uri) / "run.json").read_text())["n_encoded_now"] == 1 + N_SEEDS

    pairs = tables(run)["pairs"]
    assert len(pairs) == N_SEEDS
    siamese = SiameseReid(weights="random:1")
    store, plan = FeatureStore(str(tmp_path / "features"), Storage()), make_plan(config)
    key = {row["sample_id"]: row["image_key"] for each in plan.sets for row in each.table.to_pylist()}
    keys = [key[name] for name in ("t00", *pairs["synthetic_id"])]
    vectors = store.read(siamese.resolve(), "features", keys, store.done(siamese.resolve()))
    scores = siamese.scorer()(np.repeat(vectors[:1], N_SEEDS, axis=0), vectors[1:])
    np.testing.assert_array_equal(pairs["reid_siamese_reid"], scores)
    assert len(set(scores)) == N_SEEDS
    found = by_metric(run, "siamese_reid")
    assert found.loc["reid_max", "value"] == pairs["reid_siamese_reid"].max()
    params = params_of(found.loc["reid_mean"])
    assert (params["n_prompts"], params["n_seeds_min"], params["n_seeds_max"]) == (1, N_SEEDS, N_SEEDS)
    assert found.loc["reid_auc", ["status", "reason"]].tolist() == [
        "too_few", "all real images are of one patient: there is no pair of two patients",
    ]  # fmt: skip


@pytest.fixture
def reid(ray_cluster, world, counted_reid, tmp_path) -> Run:
    return evaluate(world.config(tmp_path / "out", encoders=["counted_reid"], privacy={"thresholds": [0.3, 0.9]}))


def test_scores_counts_and_calibration(reid: Run, world: World) -> None:
    found = tables(reid)
    pairs, result = found["pairs"], by_metric(reid, "counted_reid")
    for row in pairs.itertuples():
        left, right = toy(world, f"training/{row.real_id}.png"), toy(world, f"generated/{row.synthetic_id}")
        assert row.reid_counted_reid == pytest.approx(FallsWithDistance()(left, right)[0], rel=1e-12)
    prompts = pairs.groupby("prompt_id")["reid_counted_reid"]
    value = result["value"]
    assert value["reid_mean"] == pytest.approx(prompts.mean().mean(), rel=1e-14)
    assert value["reid_max_mean"] == pytest.approx(prompts.max().mean(), rel=1e-14)
    assert value["reid_max"] == prompts.max().max()
    assert found["prompts"]["reid_counted_reid_max"].tolist() == prompts.max().tolist()
    threshold = value["reid_threshold"]
    for label, cut in (("0.3", 0.3), ("0.9", 0.9), ("calibrated", threshold)):
        assert value[f"reid_count_{label}"] == (prompts.max() > cut).sum()
        assert params_of(result.loc[f"reid_count_{label}"])["n_prompts"] == N_PROMPTS
    assert "reid_count_0.5" not in value

    real = [(f"{kind}/{row['id']}.png", row["patientID"]) for kind, table in
            (("training", world.training), ("heldout", world.heldout)) for row in read_rows(table)]  # fmt: skip
    vectors = np.concatenate([toy(world, path) for path, _ in real])
    patients = np.array([patient for _, patient in real])
    left, right = np.triu_indices(len(real), 1)
    scores = FallsWithDistance()(vectors[left], vectors[right])
    same = patients[left] == patients[right]
    params = params_of(result.loc["reid_auc"])
    assert (params["n_same"], params["n_different"], params["n_patients"]) == (same.sum(), (~same).sum(), 27)
    assert value["reid_auc"] == pytest.approx(roc_auc_score(same, scores), rel=1e-12)
    assert value["reid_fpr_0.3"] == pytest.approx((scores[~same] > 0.3).mean(), rel=1e-12)
    assert (scores[~same] > threshold).sum() <= 10  # 1404 pairs support no rate below 10 of them
    assert set(found["reid_roc"]["encoder"]) == {"counted_reid"}
    assert found["reid_roc"]["true_positive_rate"].is_monotonic_increasing

    reasons = found["verdicts"].set_index("sample_id")["reasons"]
    for row in pairs.itertuples():
        said = any(text.startswith("counted_reid:") for text in reasons[row.synthetic_id])
        assert said == (row.reid_counted_reid > threshold)
    assert result["std_error_method"]["reid_mean"] == "bootstrap over patients"


def test_without_patients_nothing_is_calibrated_and_the_reason_is_said(reid, world, tmp_path) -> None:
    def nameless(name: str, table: Path) -> str:
        rows = [{key: value for key, value in row.items() if key != "patientID"} for row in read_rows(table)]
        return str(world.table(name, rows))

    run = evaluate(
        world.config(
            tmp_path / "nameless",
            real=nameless("training-nameless", world.training),
            heldout=nameless("heldout-nameless", world.heldout),
            encoders=["counted_reid", "pixels"],
            privacy={"thresholds": [0.3, 0.9]},
        )
    )
    assert run.exit_code == 0
    assert sum("name no patients" in note for note in run.notes) == 1
    result = by_metric(run, "counted_reid")
    missing = result[result["status"] != "ok"]
    assert set(missing.index) == {
        "reid_auc", "reid_threshold", "reid_fpr_0.3", "reid_fpr_0.9", "reid_count_calibrated",
    }  # fmt: skip
    assert (missing["reason"] == "the real set names no patients").all()
    assert result["std_error_method"]["reid_mean"] == "bootstrap over prompts"
    assert params_of(result.loc["reid_mean"])["floor_reason"].endswith("names no patients")
    with_patients = by_metric(reid, "counted_reid")
    for metric in ("reid_mean", "reid_max", "reid_count_0.3"):
        assert result["value"][metric] == with_patients["value"][metric]
    assert len(tables(run)["verdicts"]) == N_SYNTHETIC
    assert "reid_roc" not in tables(run)
    assert not any("counted_reid" in text for texts in tables(run)["verdicts"]["reasons"] for text in texts)
    assert numbers(run)["value"].notna().sum() > 20
