"""A phantom generator that copies 5 % of its training images is caught; the same one without copies is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.patients import read_rows, tables

from chexray import evaluate, parse_config
from chexray.results.rows import params_of
from chexray.run.evaluation import Run

N_TRAINING, N_HELDOUT, N_GOOD, N_COPIER = 120, 240, 100, 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="module")
def run(ray_cluster, folder: Path) -> Run:
    def phantom(name: str, generator: str, n: int, seed: int, **more: int) -> dict[str, object]:
        path = str(folder / name)
        return {"name": name, "source": "phantom", "generator": generator, "n": n, "seed": seed, "size": 64,
                "path": path, **more}  # fmt: skip

    data = {
        "suite": "privacy",
        "real": phantom("training", "real", N_TRAINING, 5),
        "heldout": phantom("heldout", "real", N_HELDOUT, 1),
        "synthetic": [
            phantom("good", "good", N_GOOD, 2),
            phantom("copier", "copier", N_COPIER, 4, training_seed=5, training_n=N_TRAINING),
        ],
        "encoders": [{"name": "pixels", "side": 32}, "patches"],
        "privacy": {"pixel_distance": False, "peers": False},
        "output": str(folder / "out"),
    }
    return evaluate(parse_config(data))


@pytest.fixture(scope="module")
def copy_of(run: Run, folder: Path) -> dict[str, str]:
    """{copy: the training image it repeats}"""
    return {row["id"]: row["copy_of"] for row in read_rows(folder / "copier" / "manifest.csv") if row["copy_of"]}


@pytest.mark.parametrize("encoder", ["pixels", "patches"])
def test_every_copy_is_first_flagged_and_traced(run: Run, copy_of: dict[str, str], encoder: str) -> None:
    assert len(copy_of) == N_COPIER // 20
    copies = tables(run)["copies"].query(f"encoder == '{encoder}' and synthetic_set.str.startswith('copier@')")
    first = copies.nsmallest(len(copy_of), "ratio")
    assert dict(zip(first["sample_id"], first["nearest_training_id"], strict=True)) == copy_of
    assert first["flagged"].all()
    verdicts = tables(run)["verdicts"].set_index("sample_id")
    assert verdicts.loc[list(copy_of), "flagged"].all()


def test_the_copier_is_caught_and_the_good_generator_is_not(run: Run) -> None:
    rows = run.results.set_index(["metric", "encoder", run.results["synthetic_set"].str.split("@").str[0]])
    params = {key: params_of(rows.loc[("memorised_excess", *key)]) for key in
              ((encoder, name) for encoder in ("pixels", "patches") for name in ("good", "copier"))}  # fmt: skip
    assert any(params[encoder, "copier"]["significant"] for encoder in ("pixels", "patches"))
    assert not any(params[encoder, "good"]["significant"] for encoder in ("pixels", "patches"))
    share = rows.loc["memorised_share"]
    assert share.loc[("pixels", "copier"), "value"] >= 0.05
    assert share.loc[("pixels", "copier"), "ci_low"] > share.loc[("pixels", "copier"), "real_floor"]
    assert share.loc[("pixels", "good"), "ci_low"] <= share.loc[("pixels", "good"), "real_floor"]
    near = rows.loc["duplicates_near_training"]["value"]
    assert near["perceptual_hash", "copier"] >= 10
    assert near["perceptual_hash", "good"] <= 1


def test_a_generator_pairs_with_what_it_learned_from(run: Run, copy_of: dict[str, str]) -> None:
    pairs = tables(run)["pairs"]
    assert set(pairs["synthetic_set"].str.partition("@")[0]) == {"copier"}
    assert len(pairs) == N_COPIER
    own = pairs.set_index("synthetic_id")["real_id"]
    assert own[list(copy_of)].to_dict() == copy_of
    assert any("good: no pairs: no prompt and no id" in note for note in run.notes)
