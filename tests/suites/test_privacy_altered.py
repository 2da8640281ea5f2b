"""Copies that were turned and cropped: found by a whole run, which says what else it would find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures.patients import save, tables, write_table
from fixtures.summary import summary_lines
from PIL import Image

from chexray import evaluate, parse_config
from chexray.phantom import draw
from chexray.privacy.augmentations import ALTERATIONS
from chexray.run.evaluation import Run

N, N_COPIES, SIDE = 40, 6, 128
SPACES = ["pixels", "patches", "perceptual_hash"]


def altered(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turned, then cropped to 85 %, by Pillow alone."""
    edge = 0.075 * SIDE
    turned = Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC)
    box = (edge, edge, SIDE - edge, SIDE - edge)
    return np.asarray(turned.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("altered")
    named = {}
    for name, seed in (("training", 1), ("heldout", 2)):
        rows = []
        for i in range(N):
            save(folder / name / f"{i}.png", draw(i, seed=seed, size=SIDE).image)
            rows.append({"id": f"{name}{i}", "path": f"{name}/{i}.png", "patientID": f"{name}{i}"})
        named[name] = write_table(folder / f"{name}.csv", rows)
    rows = []
    for i in range(N):
        image = draw(i, seed=3, generator="good", size=SIDE).image
        if i < N_COPIES:
            image = altered(draw(i, seed=1, size=SIDE).image, 9 if i % 2 else -9)
        save(folder / "generated" / f"{i:02d}.png", image)
        rows.append({"sample_id": f"g{i:02d}", "image": f"generated/{i:02d}.png"})
    return {
        "suite": "privacy",
        "real": str(named["training"]),
        "heldout": str(named["heldout"]),
        "synthetic": str(write_table(folder / "generated.csv", rows)),
        "encoders": ["pixels", "patches"],
        "privacy": {"pixel_distance": False, "peers": False, "planted": 10},
        "output": str(folder / "out"),
        "feature_store": str(folder / "features"),
    }


@pytest.fixture(scope="module")
def run(ray_cluster, data: dict[str, object]) -> Run:
    return evaluate(parse_config(data))


def test_they_are_near_duplicates_of_their_originals(run: Run) -> None:
    found = tables(run)["duplicates"].query("kind == 'near_training'").set_index("sample_id")
    copies = {f"g{i:02d}": f"training{i}" for i in range(N_COPIES)}
    assert {name: found.loc[name, "other_id"] for name in copies} == copies
    assert found.loc[list(copies), "view"].eq("turned by 8 degrees and cropped to 86 %").all()
    reasons = tables(run)["verdicts"].set_index("sample_id").loc["g01", "reasons"]
    assert any("from training image training1, turned by 8 degrees and cropped to 86 %" in each for each in reasons)


@pytest.mark.parametrize("encoder", ["pixels", "patches"])
def test_the_searches_put_them_first(run: Run, encoder: str) -> None:
    copies = tables(run)["copies"].query(f"encoder == '{encoder}'").nsmallest(N_COPIES, "ratio")
    assert set(copies["sample_id"]) == {f"g{i:02d}" for i in range(N_COPIES)}
    assert copies["nearest_training_id"].tolist() == [f"training{int(name[1:])}" for name in copies["sample_id"]]


def test_the_run_says_what_it_would_have_found(run: Run) -> None:
    rows = run.results.set_index(["metric", "encoder"])
    for encoder in (*SPACES, ""):
        for name in ALTERATIONS:
            row = rows.loc[(f"planted_found_{name}", encoder)]
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert rows.loc[("planted_found_exact", encoder), "value"] == 1
    assert rows.loc[("planted_found_turned_9_cropped_85", ""), "value"] >= 0.8


def test_without_views_they_go_unnoticed_and_the_summary_says_so(ray_cluster, data: dict[str, object]) -> None:
    privacy = {"pixel_distance": False, "peers": False, "planted": 10, "views": False}
    plain = evaluate(parse_config({**data, "privacy": privacy, "output": f"{data['output']}-plain"}))
    duplicates = tables(plain)["duplicates"]
    assert not set(duplicates["sample_id"]) & {f"g{i:02d}" for i in range(N_COPIES)}
    rows = plain.results.set_index(["metric", "encoder"])["value"]
    assert rows["planted_found_exact", ""] == 1
    missed = round(10 * rows["planted_found_turned_9_cropped_85", ""])
    assert missed <= 5
    said = " ".join(summary_lines(plain.results))
    assert " found by pixels, patches, perceptual_hash; fewest: " in said
    assert plain.results["metric"].str.startswith("planted_found").any()


def test_a_second_run_prepares_nothing_anew(run: Run, data: dict[str, object]) -> None:
    features = Path(str(data["feature_store"]))
    before = {path: path.stat().st_mtime_ns for path in features.rglob("*.parquet")}
    again = evaluate(parse_config({**data, "name": "again"}))
    assert {path: path.stat().st_mtime_ns for path in features.rglob("*.parquet")} == before
    columns = ["metric", "encoder", "value", "ci_low", "ci_high"]
    assert again.results[columns].equals(run.results[columns])
