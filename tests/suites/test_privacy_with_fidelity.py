"""Both suites in one run, the benchmark's protocol, and runs without a held-out set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures.patients import (
    EXACT_COPY,
    N_HELDOUT,
    N_PROMPTS,
    N_SYNTHETIC,
    N_TRAINING,
    NEAR_COPY,
    World,
    numbers,
    read,
    read_rows,
    tables,
)
from PIL import Image

from chexray import evaluate
from chexray.plan import make_plan
from chexray.results.rows import params_of
from chexray.run.evaluation import Run

NEED_HELDOUT = ("closer_to_training", "c_t", "c_t_pca64", "nnaa_loss")


@pytest.fixture(scope="module")
def both(calm, world: World) -> Run:
    """The test set as `real` and the training set: fidelity by one encoder, privacy by another."""
    return evaluate(
        world.config(
            world.folder / "both",
            suite="fidelity,privacy",
            real=str(world.heldout),
            training=str(world.training),
            heldout=None,
            encoders=[
                {"name": "pixels", "side": 4, "suites": "fidelity"},
                {"name": "pixels", "id": "pixels-8", "side": 8, "suites": "privacy"},
            ],
            metrics="fid,prdc",
            feature_store=str(world.folder / "both" / "features"),
        )
    )


def test_each_encoder_sees_the_sets_of_its_suites_and_no_other(both: Run, world: World) -> None:
    """Training images meet no encoder of fidelity's; an image of two suites is decoded once."""
    store = world.folder / "both" / "features"
    counts = {}
    for spec in store.glob("*/encoder.json"):
        outputs = json.loads(spec.read_text())["outputs"]
        width = outputs.get("features", outputs.get("image"))
        counts[width] = sum(pq.read_metadata(part).num_rows for part in spec.parent.glob("part-*.parquet"))
    everything = N_TRAINING + N_HELDOUT + N_SYNTHETIC
    assert counts == {16: N_HELDOUT + N_SYNTHETIC, 64: everything, 256: everything, 64 * 64: everything}
    assert json.loads((Path(both.uri) / "run.json").read_text())["n_encoded_now"] == everything


def test_the_results_hold_both_suites(both: Run, calm: Run) -> None:
    rows = both.results
    assert rows.groupby("suite")["encoder"].unique().map(sorted).to_dict() == {
        "fidelity": ["pixels"], "privacy": ["", "perceptual_hash", "pixels-8"],
    }  # fmt: skip
    real = rows.groupby("suite")["real_set"].unique().map(lambda names: [name.split("@")[0] for name in names])
    assert real.to_dict() == {"fidelity": ["heldout"], "privacy": ["training"]}
    assert rows.groupby("suite")["n_real"].unique().map(list).to_dict() == {
        "fidelity": [N_HELDOUT], "privacy": [N_TRAINING],
    }  # fmt: skip
    assert {"per_image", "verdicts", "copies", "pairs"} <= set(tables(both))
    # The test set plays the strangers: the numbers of a run that names it as held-out.
    alone = numbers(calm).replace({"encoder": {"pixels": "pixels-8"}}).set_index(["metric", "encoder"])
    mine = numbers(both).query("suite == 'privacy'").set_index(["metric", "encoder"])
    columns = ["value", "std_error", "ci_low", "ci_high", "real_floor", "n_synthetic"]
    assert mine[columns].equals(alone[columns])


def duplicated_prompts(world: World, name: str, table: Path) -> str:
    rows = read_rows(table)
    for row in rows[5:7]:
        row["annotated_prompt"] = rows[4]["annotated_prompt"]
    return str(world.table(name, rows))


@pytest.mark.parametrize("given", ["real", "training"])
def test_the_benchmarks_protocol_deduplicates_for_fidelity_only(calm, world: World, tmp_path, given: str) -> None:
    """It keeps one real image a prompt, and must not hide those of the training set, or of the null, from privacy."""
    if given == "real":
        sets = {"real": duplicated_prompts(world, "training-twice", world.training), "heldout": str(world.heldout)}
        names = {"fidelity": ("training-twice", N_TRAINING - 2), "privacy": ("training-twice-all", N_TRAINING)}
    else:
        sets = {"real": duplicated_prompts(world, "heldout-twice", world.heldout), "training": str(world.training)}
        sets["heldout"] = None
        names = {"fidelity": ("heldout-twice", N_HELDOUT - 2), "privacy": ("training", N_TRAINING)}
    run = evaluate(world.config(tmp_path, protocol="chexgenbench", suite="fidelity,privacy", metrics="fid", **sets))
    for suite, (name, n) in names.items():
        rows = run.results[run.results["suite"] == suite]
        assert rows["real_set"].str.startswith(f"{name}@").all()
        assert (rows["n_real"] == n).all()
    params = params_of(run.results.set_index("metric").loc["memorised_share"])
    assert params["n_null"] == N_HELDOUT
    assert "pixel_distance_upstream" in set(run.results["metric"])
    copied = tables(run)["copies"].nsmallest(2, "ratio")
    assert copied[["sample_id", "nearest_training_id"]].values.tolist() == [[EXACT_COPY, "t20"], [NEAR_COPY, "t00"]]


def test_upstreams_wrapped_distance_is_shown_under_its_own_name_and_protocol_only(calm, world, tmp_path) -> None:
    assert not calm.results["metric"].str.contains("upstream").any()
    assert "pixel_distance_upstream" not in tables(calm)["pairs"]
    run = evaluate(world.config(tmp_path, protocol="chexgenbench"))
    pairs = tables(run)["pairs"]
    for row in pairs.itertuples():
        real, generated = (
            np.asarray(Image.fromarray(read(world.folder / path)).resize((512, 512), Image.Resampling.BICUBIC))
            for path in (f"training/{row.real_id}.png", f"generated/{row.synthetic_id}")
        )
        wrapped = (real - generated).astype(np.float64)  # of bytes: 3 - 5 is 254
        assert row.pixel_distance_upstream == pytest.approx(np.sqrt(np.mean(wrapped**2)), abs=1e-9)
    assert pairs["pixel_distance"].tolist() == tables(calm)["pairs"]["pixel_distance"].tolist()
    rows = run.results.set_index("metric")
    assert rows.loc["pixel_distance_upstream", "value"] > 4 * rows.loc["pixel_distance", "value"]


def test_without_heldout_images_training_patients_give_the_null(calm: Run, world: World, tmp_path) -> None:
    run = evaluate(world.config(tmp_path, heldout=None))
    assert any("comes from the training patients" in note for note in run.notes)
    rows = run.results.set_index("metric")
    params = params_of(rows.loc["memorised_share"])
    assert params["null"] == "training patients"
    assert params["n_null"] == 6  # a fifth of 30
    missing = rows[rows["value"].isna()]
    assert missing["reason"].to_dict() == dict.fromkeys(NEED_HELDOUT, "no held-out images")
    authenticity = calm.results.set_index("metric").loc["authenticity", "value"]
    assert rows.loc["authenticity", "value"] == authenticity
    copies = tables(run)["copies"]
    assert len(copies) == N_SYNTHETIC
    assert copies["ratio"].between(0, 1).all()
    assert copies.nsmallest(2, "ratio")["sample_id"].tolist() == [EXACT_COPY, NEAR_COPY]
    copies, with_heldout = (table.sort_values("sample_id") for table in (copies, tables(calm)["copies"]))
    assert copies["nearest_training_id"].tolist() == with_heldout["nearest_training_id"].tolist()
    assert copies["distance_training"].tolist() == with_heldout["distance_training"].tolist()


def test_without_heldout_images_and_patients_each_image_is_a_patient(calm: Run, world: World, tmp_path) -> None:
    rows = [{key: value for key, value in row.items() if key != "patientID"} for row in read_rows(world.training)]
    run = evaluate(world.config(tmp_path, heldout=None, real=str(world.table("training-bare", rows))))
    result = run.results.set_index("metric")
    assert set(result.index[result["value"].isna()]) == set(NEED_HELDOUT)
    assert tables(run)["copies"].nsmallest(2, "ratio")["sample_id"].tolist() == [EXACT_COPY, NEAR_COPY]
    assert len(tables(run)["prompts"]) == N_PROMPTS


def test_heldout_and_training_need_no_real_set_of_their_own(calm: Run, world: World, tmp_path) -> None:
    """Naming the training set twice, as real and as training, is the same question."""
    plan = make_plan(world.config(tmp_path, training={"path": str(world.training), "name": "seen"}))
    assert [each.name for each in plan.sets] == ["seen", "heldout", "synthetic"]
    assert "training" not in {each.name for each in plan.sets}
