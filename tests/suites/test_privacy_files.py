"""What a privacy run writes: a row for each image, pair and prompt, and values that NumPy and Pillow give too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.patients import (
    EXACT_COPY,
    N_HELDOUT,
    N_PROMPTS,
    N_SEEDS,
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
from chexray.run.evaluation import Run

CELLS = 8


def cells(world: World, path: str) -> np.ndarray:
    """(64,) float64: the `pixels` features by Pillow's box filter in floating point."""
    image = Image.fromarray(read(world.folder / path).astype(np.float32), mode="F")
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX), np.float64).ravel() / 255


def large(world: World, path: str) -> np.ndarray:
    """(512, 512) uint8 by Pillow's bicubic filter, as upstream brings radiographs to one size."""
    return np.asarray(Image.fromarray(read(world.folder / path)).resize((512, 512), Image.Resampling.BICUBIC))


def features(world: World, table: Path, folder: str, column: str) -> tuple[list[str], np.ndarray]:
    names = [row[column] for row in read_rows(table)]
    return names, np.stack([cells(world, f"{folder}/{name if '.' in name else name + '.png'}") for name in names])


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.linalg.norm(left[:, None] - right[None], axis=2)


def test_every_promised_file_with_its_rows(calm: Run) -> None:
    folder = Path(calm.uri)
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "config.yaml", "status.json", "log.txt", "rejects.parquet", "results.parquet",
        "results.csv", "results.json",
        "verdicts.parquet", "copies.parquet", "null_ratios.parquet", "duplicates.parquet",
        "pairs.parquet", "prompts.parquet",
    }  # fmt: skip
    found = {name: len(table) for name, table in tables(calm).items()}
    assert found == {
        "results": len(calm.results), "rejects": 0, "verdicts": N_SYNTHETIC, "copies": N_SYNTHETIC,
        "null_ratios": N_HELDOUT, "duplicates": len(tables(calm)["duplicates"]), "pairs": N_SYNTHETIC,
        "prompts": N_PROMPTS,
    }  # fmt: skip
    assert calm.exit_code == 0
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert (calm.results["suite"] == "privacy").all()
    sizes = calm.results[["n_real", "n_synthetic", "n_rejected"]].drop_duplicates().values.tolist()
    assert sizes == [[N_TRAINING, N_SYNTHETIC, 0]]
    assert calm.results["real_set"].str.startswith("training@").all()
    described = {each["name"]: each["n_evaluated"] for each in json.loads((folder / "run.json").read_text())["sets"]}
    assert described == {"training": N_TRAINING, "heldout": N_HELDOUT, "synthetic": N_SYNTHETIC}


def test_the_null_is_kept_beside_what_was_measured_against_it(calm: Run) -> None:
    found = tables(calm)
    null = found["null_ratios"]
    assert set(null["null"]) == {"held-out"}
    for encoder, copies in found["copies"].groupby("encoder"):
        ratios = null.loc[null["encoder"] == encoder, "ratio"].to_numpy()
        # 24 images of 12 patients, two each: patients are ranked, by the share of their images.
        patients = (ratios[None] <= copies["ratio"].to_numpy()[:, None]).sum(1) / 2
        p_value = (1 + patients) / (len(ratios) / 2 + 1)
        np.testing.assert_allclose(copies["p_value"], p_value)


def test_pairs_hold_what_the_images_say(calm: Run, world: World) -> None:
    pairs = tables(calm)["pairs"]
    assert pairs.groupby("prompt_id").size().eq(N_SEEDS).all()
    assert (pairs["prompt_id"] == pairs["real_id"]).all()
    for row in pairs.itertuples():
        assert row.synthetic_id == f"g{row.real_id[1:]}_gen_{row.seed}.png"
        paths = f"training/{row.real_id}.png", f"generated/{row.synthetic_id}"
        a, b = (cells(world, path) for path in paths)
        assert row.latent_distance_pixels == pytest.approx(np.linalg.norm(a - b) / np.sqrt(len(a)), abs=1e-6)
        a, b = (large(world, path).astype(np.float64) for path in paths)
        assert row.pixel_distance == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), abs=1e-9)
    assert pairs.loc[pairs["pixel_distance"].idxmin(), "synthetic_id"] == NEAR_COPY


def test_prompts_and_results_sum_the_pairs_up(calm: Run) -> None:
    found = tables(calm)
    value = calm.results.set_index(["metric", "encoder"])["value"]
    for column, metric, encoder in (
        ("latent_distance_pixels", "latent_distance", "pixels"),
        ("pixel_distance", "pixel_distance", ""),
    ):
        grouped = found["pairs"].groupby("prompt_id")[column]
        prompts = found["prompts"].set_index("prompt_id")
        assert (prompts["n_seeds"] == N_SEEDS).all()
        np.testing.assert_allclose(prompts[f"{column}_mean"], grouped.mean(), rtol=1e-14)
        np.testing.assert_array_equal(prompts[f"{column}_min"], grouped.min())
        assert value[metric, encoder] == pytest.approx(grouped.mean().mean(), rel=1e-14)
        assert value[f"{metric}_min_mean", encoder] == pytest.approx(grouped.min().mean(), rel=1e-14)
        assert value[f"{metric}_min", encoder] == grouped.min().min()


def test_copies_are_the_nearest_images_of_brute_force(ray_cluster, world: World) -> None:
    plain = evaluate(world.config(world.folder / "plain", privacy={"views": False, "planted": 0}))
    copies = tables(plain)["copies"].set_index("sample_id")
    training_ids, t = features(world, world.training, "training", "id")
    _, h = features(world, world.heldout, "heldout", "id")
    names, s = features(world, world.synthetic, "generated", "img_savename")
    copies = copies.loc[names]
    to_training, to_heldout = distances(s, t), distances(s, h)
    assert copies["nearest_training_id"].tolist() == [training_ids[i] for i in to_training.argmin(1)]
    np.testing.assert_allclose(copies["distance_training"], to_training.min(1), atol=1e-6)
    np.testing.assert_allclose(copies["distance_stranger"], to_heldout.min(1), atol=1e-6)
    ratio = to_training.min(1) / to_heldout.min(1)
    np.testing.assert_allclose(copies["ratio"], ratio, rtol=1e-5, atol=1e-6)
    own = np.arange(N_HELDOUT) // 2
    others = np.where(own[:, None] == own, np.inf, distances(h, h))
    null = distances(h, t).min(1) / others.min(1)
    p_value = (1 + (null <= ratio[:, None]).sum(1) / 2) / (1 + N_HELDOUT / 2)
    np.testing.assert_allclose(copies["p_value"], p_value, rtol=1e-14)
    # 12 patients support no rate below 1/13, which is then used in place of 0.01.
    assert copies["flagged"].tolist() == (p_value <= 1 / 13).tolist()
    value = plain.results.set_index(["metric", "encoder"])["value"]
    assert value["memorised_share", "pixels"] == copies["flagged"].mean()
    assert copies["ratio"].nsmallest(2).index.tolist() == [EXACT_COPY, NEAR_COPY]


def test_duplicates_and_verdicts_name_what_was_copied(calm: Run) -> None:
    found = tables(calm)
    duplicates = found["duplicates"].set_index(["kind", "sample_id"])
    assert duplicates.loc[("exact_training", EXACT_COPY), ["other_id", "bits"]].tolist() == ["t20", 0.0]
    assert duplicates.loc[("near_training", NEAR_COPY), "other_id"] == "t00"
    value = calm.results.set_index("metric")["value"]
    assert value["duplicates_exact_training"] == 1
    verdicts = found["verdicts"].set_index("sample_id")
    assert (verdicts["flagged"] == (verdicts["reasons"].map(len) > 0)).all()
    reasons = verdicts.loc[EXACT_COPY, "reasons"]
    assert "duplicate: same pixels as training image t20" in list(reasons)
    assert any(text.startswith("pixels: nearer to training image t20 than unseen patients are") for text in reasons)
    assert any("from training image t00" in text for text in verdicts.loc[NEAR_COPY, "reasons"])
    flagged = set(found["copies"].query("flagged")["sample_id"])
    flagged |= {name for kind, name in duplicates.index if kind.endswith("training")}
    assert flagged == set(verdicts.query("flagged").index)


def test_the_same_question_again_reads_what_is_there(calm: Run, world: World) -> None:
    def committed() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in world.features.rglob("*.parquet")}

    before = committed()
    again = evaluate(world.config(world.folder / "again"))
    assert committed() == before
    assert json.loads((Path(again.uri) / "run.json").read_text())["n_encoded_now"] == 0
    pd.testing.assert_frame_equal(numbers(again), numbers(calm), check_exact=True)
    for name, table in tables(again).items():
        if name != "results":
            pd.testing.assert_frame_equal(table, tables(calm)[name], check_exact=True)
