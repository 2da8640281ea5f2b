"""Real radiographs with four planted copies among 80 synthetic ones: found, first, and hardly any other image."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.patients import read_rows, tables

from chexray import evaluate, parse_config
from chexray.run.evaluation import Run

ENCODERS = ("pixels", "patches", "transformer")

TRANSFORMER = {
    "name": "rad_dino",
    "id": "transformer",
    "weights": "random:7",
    "pooling": "patch_mean",
    "architecture": {
        "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 112, "patch_size": 56,
    },
}  # fmt: skip
"""The mean over four large patches keeps where things are, so that even random weights tell a copy (seeds 1, 2, 3 and 7
do). Over 64 patches of 14 pixels it keeps texture only, and the copies come 1st, 2nd, 28th and 60th (measured)."""


@pytest.fixture(scope="module")
def planted(shared: Path) -> dict[str, str]:
    """{copy: id of the training image it was made from}"""
    folder = shared / "data/cxr"
    id_of = {row["path"]: row["id"] for row in read_rows(folder / "real_train.csv")}
    return {row["img_savename"]: id_of[row["path"]] for row in read_rows(folder / "planted_copies.csv")}


@pytest.fixture(scope="module")
def run(ray_cluster, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = shared / "data/cxr"
    data = {
        "suite": "privacy",
        "real": str(folder / "real_train.csv"),
        "heldout": str(folder / "real_test.csv"),
        "synthetic": str(folder / "synthetic_seeds.csv"),
        "encoders": [{"name": "pixels", "side": 32}, "patches", TRANSFORMER],
        "output": str(tmp_path_factory.mktemp("radiographs")),
    }
    return evaluate(parse_config(data))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_planted_copies_come_first_and_are_flagged(run: Run, planted: dict[str, str], encoder: str) -> None:
    copies = tables(run)["copies"].query(f"encoder == '{encoder}'").sort_values("ratio").set_index("sample_id")
    assert len(copies) == 80
    assert set(copies.index[:4]) == set(planted)
    assert copies["flagged"][:4].all()
    assert copies["nearest_training_id"][:4].to_dict() == planted
    assert copies["flagged"][4:].sum() <= 0.02 * 76
    assert copies["ratio"].iloc[3] < 0.7 < copies["ratio"].iloc[4]


def test_they_are_near_duplicates_and_nothing_else_is(run: Run, planted: dict[str, str]) -> None:
    found = tables(run)["duplicates"]
    assert found.set_index("sample_id")["other_id"].to_dict() == planted
    assert set(found["kind"]) == {"near_training"}


def test_the_verdicts_name_them_and_the_numbers_count_them(run: Run, planted: dict[str, str]) -> None:
    verdicts = tables(run)["verdicts"].set_index("sample_id")
    assert len(verdicts) == 80
    assert set(planted) <= set(verdicts.query("flagged").index)
    assert verdicts["flagged"].sum() <= len(planted) + 0.02 * 76 * len(ENCODERS)
    for name, training_id in planted.items():
        assert (
            sum(f"training image {training_id}" in reason for reason in verdicts["reasons"][name]) == len(ENCODERS) + 1
        )
    rows = run.results.set_index(["metric", "encoder"])
    for encoder in ENCODERS:
        assert rows.loc[("memorised_share", encoder), "value"] >= 4 / 80
    assert rows.loc[("duplicates_near_training", "perceptual_hash"), "value"] == 4
    assert rows["value"].notna().all()


def test_pairs_are_by_prompt_and_five_seeds(run: Run, planted: dict[str, str]) -> None:
    found = tables(run)
    assert len(found["pairs"]) == 80
    assert found["prompts"]["n_seeds"].tolist() == [5] * 16
    nearest = found["pairs"].nsmallest(4, "pixel_distance")
    assert dict(zip(nearest["synthetic_id"], nearest["real_id"], strict=True)) == planted
