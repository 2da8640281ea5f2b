"""Sets that lack something: a number that cannot be had is a null with its reason, and every image is accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures.patients import N_HELDOUT, N_SYNTHETIC, N_TRAINING, World, numbers, read_rows, tables

from chexray import evaluate
from chexray.errors import ConfigError, RunFailed
from chexray.results.rows import params_of
from chexray.run.evaluation import Run

MEMORISATION = (
    "memorised_share", "memorised_excess", "closer_to_training", "dcr_q01", "dcr_q05", "dcr_below_null",
)  # fmt: skip


@pytest.fixture
def run(calm, world: World, tmp_path: Path):
    """A run of the world with other settings; whatever is missing in it, it ends well and its tables add up."""

    def evaluated(**more: object) -> Run:
        done = evaluate(world.config(tmp_path / "out", **more))
        assert done.exit_code == 0
        accepted = {}
        for each in json.loads((Path(done.uri) / "run.json").read_text())["sets"]:
            assert each["n_rows"] == each["n_evaluated"] + each["n_rejected"]
            if each["origin"] == "synthetic":
                accepted[f"{each['name']}@{each['fingerprint']}"] = each["n_evaluated"]
        verdicts = tables(done)["verdicts"]
        assert verdicts.groupby("synthetic_set").size().to_dict() == accepted
        without = done.results[done.results["value"].isna()]
        assert (without["reason"].str.len() > 10).all()
        assert without["status"].isin(["too_few", "undefined"]).all()
        return done

    return evaluated


def part(world: World, name: str, rows: Sequence[dict], **changed: object) -> str:
    """A table of some rows of the world; changed: {column: value, or None to drop it}."""
    new = [{**row, **changed} for row in rows]
    return str(world.table(name, [{key: value for key, value in row.items() if value is not None} for row in new]))


def reasons(run: Run) -> dict[str, str]:
    """Why numbers are missing. c_t_pca64 always is: as in dgm-eval, it needs a third of the space with more than 20
    synthetic images, and there are 36 in all."""
    missing = run.results[run.results["value"].isna() & (run.results["metric"] != "c_t_pca64")]
    return dict(zip(missing["metric"], missing["reason"], strict=True))


def test_one_synthetic_image(run, world: World) -> None:
    done = run(synthetic=[world.generated(Path(part(world, "one-generated", read_rows(world.synthetic)[1:2])))])
    assert set(reasons(done)) == {"c_t", "nnaa_loss"}
    found = tables(done)
    assert found["copies"][["sample_id", "nearest_training_id", "flagged"]].values.tolist() == [
        ["g00_gen_1.png", "t00", True]
    ]
    assert len(found["pairs"]) == len(found["prompts"]) == 1
    row = numbers(done).set_index("metric").loc["pixel_distance"]
    assert row[["std_error", "ci_low", "ci_high"]].isna().all()
    assert "one prompt" in params_of(row)["std_error_reason"]


def test_one_training_image(run, world: World) -> None:
    done = run(real=part(world, "one-training", read_rows(world.training)[:1]))
    assert reasons(done) == {
        "authenticity": "1 training images, and at least 2 are needed",
        "nnaa_loss": "each of the three sets needs at least 2 images, of 2 patients",
    }
    assert set(tables(done)["copies"]["nearest_training_id"]) == {"t00"}
    assert "33 of 36 synthetic images are in no pair: no real image has its prompt" in "\n".join(done.notes)
    params = params_of(done.results.set_index("metric").loc["pixel_distance"])
    assert "no image of another patient" in params["floor_reason"]


def test_one_heldout_image(run, world: World) -> None:
    done = run(heldout=part(world, "one-heldout", read_rows(world.heldout)[:1]))
    why = "the baseline (held-out) has no ratio: every image needs a training and a reference image of another patient"
    assert {name: reasons(done).get(name) for name in MEMORISATION} == dict.fromkeys(MEMORISATION, why)
    assert len(tables(done)["copies"]) == 0
    assert tables(done)["verdicts"]["flagged"].sum() > 0  # duplicates are still found


def test_one_image_everywhere_and_no_heldout(run, world: World) -> None:
    done = run(
        real=part(world, "only-training", read_rows(world.training)[:1]),
        heldout=None,
        synthetic=[world.generated(Path(part(world, "only-generated", read_rows(world.synthetic)[:1])))],
    )
    why = "1 training images of 1 patients give no baseline: give --heldout"
    assert reasons(done) == dict.fromkeys((*MEMORISATION, "authenticity", "c_t", "nnaa_loss"), why)


@pytest.mark.parametrize("nameless", ["training", "heldout", "both"])
def test_without_patients(run, world: World, nameless: str) -> None:
    sets = {}
    for role, key in (("training", "real"), ("heldout", "heldout")):
        if nameless in (role, "both"):
            sets[key] = part(world, f"{role}-no-patients", read_rows(getattr(world, role)), patientID=None)
    done = run(**sets)
    # Two held-out images of one patient are each other's nearest: without the names they are no baseline.
    withheld = set() if nameless == "training" else {"memorised_share", "memorised_excess", "nnaa_loss"}
    assert set(reasons(done)) == withheld
    assert all("follow-ups of one patient are no baseline" in why for why in reasons(done).values())
    copies = tables(done)["copies"]
    assert copies["flagged"].isna().all() == bool(withheld)
    assert copies["ratio"].notna().all()
    said = [note for note in done.notes if "no patients" in note]
    assert len(said) == 1
    assert ".columns.subject_id" in said[0]
    method = done.results.set_index("metric").loc["pixel_distance", "std_error_method"]
    assert method == ("bootstrap over patients" if nameless == "heldout" else "bootstrap over prompts")


def test_heldout_images_of_training_patients_are_no_strangers(run, world: World) -> None:
    rows = read_rows(world.heldout)
    for row in rows[:3]:
        row["patientID"] = "t-3"
    done = run(heldout=part(world, "heldout-known", rows))
    note = "3 of 24 held-out images are left out of the baseline: they, or their patients, are also in training"
    assert note in done.notes
    params = params_of(done.results.set_index("metric").loc["memorised_share"])
    assert params["n_null"] == N_HELDOUT - 3


def test_heldout_images_that_are_all_of_training_leave_the_other_null(run, world: World) -> None:
    """Where the only stranger cannot be read; without one, the plan refuses the set."""
    with pytest.raises(ConfigError, match=r"heldout \(same\): all 30 held-out images are also in the training set"):
        run(heldout={"path": str(world.training), "name": "same"})
    (world.folder / "heldout" / "stranger.png").write_text("hello")
    stranger = {**read_rows(world.heldout)[0], "path": "heldout/stranger.png"}
    same = part(world, "same", [*read_rows(world.training), stranger])
    done = run(heldout=same, encode={"max_reject_fraction": 0.1})
    notes = "\n".join(done.notes)
    assert "30 of 30 held-out images are left out" in notes
    assert "no image of same is left: the search for copies takes its baseline from the training patients" in notes
    without = run(heldout=None)
    kept = ["metric", "encoder", "value", "ci_low", "ci_high", "reason"]
    assert numbers(done)[kept].equals(numbers(without)[kept])


def test_unreadable_images_of_any_set_are_rejects_and_rows_add_up(run, world: World) -> None:
    sets = {}
    for role, folder, column in (
        ("training", "training/", "path"), ("heldout", "heldout/", "path"), ("synthetic", "", "img_savename"),
    ):  # fmt: skip
        rows = read_rows(getattr(world, role))
        (world.folder / (folder or "generated/") / "bad.png").write_text("hello")
        rows[4][column] = f"{folder}bad.png"
        sets[role] = part(world, f"{role}-bad", rows)
    more = {
        "real": sets["training"], "heldout": sets["heldout"], "synthetic": [world.generated(Path(sets["synthetic"]))]
    }  # fmt: skip
    with pytest.raises(RunFailed, match=r"training-bad: 1 of 30 images were rejected.*not_an_image"):
        evaluate(world.config(world.folder / "strict", **more))
    done = run(**more, encode={"max_reject_fraction": 0.1})
    assert done.rejects[["set", "sample_id", "code"]].values.tolist() == [
        ["training-bad", "t04", "not_an_image"],
        ["heldout-bad", "h04", "not_an_image"],
        ["synthetic-bad", "bad.png", "not_an_image"],
    ]
    sizes = done.results[["n_real", "n_synthetic", "n_rejected"]].drop_duplicates().values.tolist()
    assert sizes == [[N_TRAINING - 1, N_SYNTHETIC - 1, 3]]
    # g01_gen_1.png is the bad one, and t04 takes the three images of its prompt with it.
    found = tables(done)
    assert len(found["copies"]) == N_SYNTHETIC - 1
    assert len(found["pairs"]) == N_SYNTHETIC - 1 - 3
    notes = "\n".join(done.notes)
    assert "4 of 36 pairs lost with 1 real and 1 synthetic images rejected; 1 prompts lost all their pairs" in notes
    assert "1 of 11 prompts lack seeds: 3 expected, 2 found first at 't01'" in notes


def test_no_prompts_and_no_ids_mean_no_pairs(run, world: World) -> None:
    table = Path(part(world, "generated-bare", read_rows(world.synthetic), prompt=None, seed=None))
    done = run(synthetic=[world.generated(table)])
    assert {name for name in reasons(done) if "distance" in name} == {
        "latent_distance", "latent_distance_min_mean", "latent_distance_min",
        "pixel_distance", "pixel_distance_min_mean", "pixel_distance_min",
    }  # fmt: skip
    assert set(reasons(done).values()) == {"there are no pairs of a real and a synthetic image"}
    found = tables(done)
    assert (len(found["pairs"]), len(found["prompts"]), len(found["copies"])) == (0, 0, N_SYNTHETIC)


def test_sets_may_be_called_what_the_searches_are_called(run, calm: Run, world: World) -> None:
    """A set named like a word of the searches must not be taken for it."""
    names = ("null", "aside", "training mirrored", "heldout")
    sets = [{**world.generated(world.synthetic), "name": name} for name in names]
    expected = calm.results.set_index(["metric", "encoder"])["value"]
    for heldout in ({"path": str(world.heldout), "name": "strangers"}, None):
        done = run(heldout=heldout, synthetic=sets)
        values = done.results.pivot(index=["metric", "encoder"], columns="synthetic_set", values="value")
        assert values.shape[1] == len(names)
        assert values.nunique(axis=1, dropna=False).eq(1).all()
        if heldout:
            assert values.iloc[:, 0].dropna().to_dict() == expected.dropna().to_dict()
