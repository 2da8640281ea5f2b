"""`chexray privacy audit`: fair specimens, verdicts by the code that users run, and numbers that follow from them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.audited_network import AuditedNetwork
from fixtures.patients import N_HELDOUT, N_TRAINING, World, make_world, read_rows
from rich.console import Console

from chexray import read_results
from chexray.curation.filter_test import FilterTest, audit
from chexray.curation.scoring import audit_rows
from chexray.curation.specimens import NULL, ORIGINALS, PLANTED, TWINS, UNSEEN, halves, make_specimens
from chexray.errors import ConfigError
from chexray.plan import make_plan
from chexray.privacy.augmentations import AUGMENTATIONS
from chexray.privacy.shares import share_interval
from chexray.report.filter_test import render
from chexray.results.rows import params_of

N_IMAGES = 9
CHANGED = [name for name in AUGMENTATIONS if name != "identity"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def network():
    """`audited_network` is an encoder that configs may name."""
    from chexray.plan import encoders as building

    find = building.find
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            building, "find", lambda kind, name: AuditedNetwork if name == "audited_network" else find(kind, name)
        )
        yield


def config(world: World, output: Path, **more: object):
    encoders = [{"name": "pixels", "side": 8}, {"name": "audited_network"}]
    return world.config(output, **{"name": "small", "encoders": encoders, **more})


@pytest.fixture(scope="module")
def done(ray_cluster, world, network) -> FilterTest:
    return audit(config(world, world.folder / "out"), N_IMAGES)


@pytest.fixture
def plan(world, tmp_path):
    return make_plan(world.config(tmp_path / "out"))


def verdicts(done: FilterTest) -> pd.DataFrame:
    frame = pd.read_parquet(f"{done.uri}/verdicts.parquet")
    frame["synthetic_set"] = frame["synthetic_set"].str.partition("@")[0]
    return frame.set_index(["synthetic_set", "sample_id"])


def test_the_scores_are_the_shares_of_the_verdicts(done) -> None:
    table = done.table.set_index("metric")
    assert list(table.index) == [
        *(f"audit_sensitivity_{name}" for name in AUGMENTATIONS),
        "audit_sensitivity", "audit_specificity", "audit_consistency",
    ]  # fmt: skip
    flagged = verdicts(done)["flagged"]
    for name in AUGMENTATIONS:
        copies = [flagged[PLANTED, image] for image in flagged[PLANTED].index if image.startswith(f"{name}/")]
        assert len(copies) == N_IMAGES
        assert table.loc[f"audit_sensitivity_{name}", "value"] == pytest.approx(np.mean(copies))
    changed = [table.loc[f"audit_sensitivity_{name}", "value"] for name in CHANGED]
    assert table.loc["audit_sensitivity", "value"] == pytest.approx(np.mean(changed))
    assert table.loc["audit_specificity", "value"] == pytest.approx(1 - flagged[UNSEEN].mean())
    same = [flagged[TWINS][twin] == flagged[ORIGINALS][twin.partition("/")[2]] for twin in flagged[TWINS].index]
    assert len(same) == N_IMAGES
    assert table.loc["audit_consistency", "value"] == pytest.approx(np.mean(same))
    assert table["n_synthetic"].tolist() == [*[N_IMAGES] * 8, N_IMAGES * 7, N_HELDOUT // 2, N_IMAGES]
    assert (table["n_real"] == N_TRAINING).all()


def test_identical_copies_are_found_and_the_interval_stays_open(done) -> None:
    row = done.table.set_index("metric").loc["audit_sensitivity_identity"]
    assert row["value"] == 1.0
    n_patients = params_of(row)["n_patients"]
    assert row["ci_low"] == pytest.approx(share_interval(1.0, n_patients)[0])


def test_who_flagged_what_adds_up_to_the_verdicts(done) -> None:
    reasons = verdicts(done)["reasons"]
    for row in done.table.to_dict("records"):
        by = params_of(row)["n_flagged_by"]
        assert set(by) == {"pixels", "duplicate", "audited_network"}
        if row["metric"].startswith("audit_sensitivity_"):
            name = row["metric"].removeprefix("audit_sensitivity_")
            mine = [why for image, why in reasons[PLANTED].items() if image.startswith(f"{name}/")]
            for part, count in by.items():
                assert count == sum(any(text.startswith(f"{part}: ") for text in why) for why in mine)
    identity = params_of(done.table.iloc[0])["n_flagged_by"]
    assert identity["duplicate"] == identity["audited_network"] == N_IMAGES


def test_re_identification_takes_part_with_pairs_of_its_own(done) -> None:
    pairs = pd.read_parquet(f"{done.uri}/pairs.parquet")
    pairs["synthetic_set"] = pairs["synthetic_set"].str.partition("@")[0]
    planted = pairs[pairs["synthetic_set"] == PLANTED]
    assert (planted["synthetic_id"].str.partition("/")[2] == planted["real_id"]).all()
    assert len(planted) == N_IMAGES * len(AUGMENTATIONS)
    assert (pairs["synthetic_set"] == UNSEEN).sum() == N_HELDOUT // 2
    sets = {
        name: pairs[pairs["synthetic_set"] == name].set_index("synthetic_id")["real_id"] for name in (ORIGINALS, TWINS)
    }
    assert len(sets[TWINS]) == N_IMAGES
    for twin, real_id in sets[TWINS].items():
        assert sets[ORIGINALS][twin.partition("/")[2]] == real_id


def test_everything_lies_in_the_folder_of_the_audit_and_planted_images_beside_it(done, world) -> None:
    folder = Path(done.uri)
    assert folder.parent == world.folder / "out"
    assert folder.name.startswith("small-audit-")
    assert {"audit.parquet", "audit.csv", "audit.json", "verdicts.parquet", "run.json"} <= {
        p.name for p in folder.iterdir()
    }
    for name in ("audit.parquet", "audit.csv", "audit.json"):
        pd.testing.assert_frame_equal(read_results(str(folder / name)), done.table)
    images = list((world.folder / "out").rglob("planted/*/*.png"))
    assert len(images) == N_IMAGES * (len(AUGMENTATIONS) + 1)
    assert all(image.is_relative_to(world.folder / "out" / "audits") for image in images)
    assert not list((world.folder / "out").glob("small-[!a]*"))
    assert any("audits; delete them" in note for note in done.notes)


def test_the_same_audit_again_does_nothing_anew(done, world, network) -> None:
    again = audit(config(world, world.folder / "out"), N_IMAGES)
    assert again.uri == done.uri
    assert json.loads((Path(again.uri) / "run.json").read_text())["n_encoded_now"] == 0
    pd.testing.assert_frame_equal(again.table.drop(columns="created_at"), done.table.drop(columns="created_at"))


def test_another_threshold_meets_the_same_planted_images(done, world, network) -> None:
    other = audit(config(world, world.folder / "out", privacy={"alpha": 0.1}), N_IMAGES)
    assert other.uri != done.uri
    assert json.loads((Path(other.uri) / "run.json").read_text())["n_encoded_now"] == 0
    columns = ["real_set", "synthetic_set"]
    pd.testing.assert_frame_equal(other.table[columns], done.table[columns])


def test_unseen_patients_are_neither_in_training_nor_in_the_null(world, tmp_path) -> None:
    """Held-out rows of training patients and of training images prove nothing about strangers."""
    rows = read_rows(world.heldout)
    rows[0] = {**rows[0], "patientID": "t-3"}
    rows[1] = {**rows[1], "path": "training/t08.png"}
    heldout = world.table("mixed", rows)
    plan = make_plan(world.config(tmp_path / "out", heldout=str(heldout)))
    null, unseen, notes = halves(plan)
    assert plan.training is not None
    sets = [plan.training, null, unseen]
    for column in ("sample_id", "image_key", "subject_id"):
        values = [set(each.table[column].to_pylist()) for each in sets]
        assert sum(map(len, values)) == len(set.union(*values)), column
    assert len(null) + len(unseen) == N_HELDOUT - 2
    assert abs(len(null) - len(unseen)) <= 2
    assert any(note.startswith("2 images of mixed are left out") for note in notes)
    assert (null.name, unseen.name, unseen.origin) == (NULL, UNSEEN, "synthetic")


def test_without_patients_the_halves_are_by_image_and_that_is_said(world, tmp_path) -> None:
    rows = [{**row, "patientID": ""} for row in read_rows(world.heldout)]
    plan = make_plan(world.config(tmp_path / "out", heldout=str(world.table("anonymous", rows))))
    null, unseen, notes = halves(plan)
    assert len(null) == len(unseen) == N_HELDOUT // 2
    assert "has no patient ids: it is split by image" in notes[0]
    assert any("is split by image" in note for note in notes)


def test_twins_take_each_augmentation_in_turn_and_keep_to_the_first_set(plan) -> None:
    specimens = make_specimens(plan, N_IMAGES)
    assert specimens.plan.pairs[PLANTED].how == "none"
    turns = [twin.partition("/")[0] for twin in specimens.twins.values()]
    assert sorted(set(turns)) == sorted(CHANGED)
    assert {turns.count(name) for name in CHANGED} == {1, 2}
    assert set(specimens.twins) <= set(plan.synthetic[0].table["sample_id"].to_pylist())
    assert specimens.set_of(ORIGINALS).table["sample_id"].to_pylist() == sorted(specimens.twins)


def test_the_run_of_an_audit_is_of_the_filter_alone(plan) -> None:
    audited = make_specimens(plan, 2).plan
    assert audited.config.suite == ["privacy"]
    assert audited.run_id != plan.run_id
    assert not audited.config.privacy.peers
    assert audited.roles == replace(plan.roles, latent=())
    assert audited.encoders == plan.encoders
    assert audited.config.encode.max_reject_fraction == 2 * plan.config.encode.max_reject_fraction


def test_an_audit_of_a_run_of_both_suites_keeps_to_what_privacy_reads(world, tmp_path) -> None:
    encoders = [{"name": "pixels", "side": 8}, {"name": "pixels", "id": "fine", "side": 16, "suites": ["fidelity"]}]
    more = {"suite": "fidelity,privacy", "real": str(world.heldout), "training": str(world.training), "heldout": None}
    plan = make_plan(world.config(tmp_path / "out", encoders=encoders, metrics=["fid"], **more))
    audited = make_specimens(plan, 2).plan
    assert list(audited.encoders) == list(audited.suites_of) == ["pixels", "perceptual_hash", "small_images"]
    assert [encoder.label for encoder in audited.config.encoders] == ["pixels"]
    assert [each.name for each in audited.sets] == ["training", NULL, PLANTED, UNSEEN, ORIGINALS, TWINS]


def test_an_original_whose_copy_could_not_be_judged_counts_nowhere(done, world, network) -> None:
    from chexray.run.evaluation import Run

    specimens = make_specimens(make_plan(config(world, world.folder / "out")), N_IMAGES)
    table = pa.Table.from_pandas(pd.read_parquet(f"{done.uri}/verdicts.parquet"), preserve_index=False)
    lost = next(iter(specimens.planted.values()))["crop"]
    kept = table.filter(pa.array([name != lost for name in table["sample_id"].to_pylist()]))
    run = Run(done.uri, done.run_id, pd.DataFrame(), pd.DataFrame({"set": [PLANTED]}), [], 0)
    scores, rows, notes = audit_rows(specimens, run, kept)
    assert [row["n_synthetic"] for row in rows[:8]] == [N_IMAGES - 1] * 8
    assert rows[0]["n_rejected"] == 1
    assert notes == ["1 originals are left out: they or their copies could not be read"]
    assert scores[0].params["n"] == N_IMAGES - 1


def test_the_table_shows_every_number_and_promises_nothing(done) -> None:
    for width in (70, 120):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(render(done.table))
        text = console.export_text()
        assert all(name in text for name in (*AUGMENTATIONS, "unseen patients, not flagged", "altered, same verdict"))
        assert "100.0 [" in text
        assert '"no copy found" means no more than this test shows' in " ".join(text.split())
        assert "safe" not in text
        assert all(part in text for part in ("duplicate", "pixels", "audited_", "network"))
        assert max(map(len, text.splitlines())) <= width


def test_a_score_without_anything_to_count_is_a_dash_with_its_reason(done) -> None:
    row = {**done.table.iloc[-2].to_dict(), "value": None, "ci_low": None, "ci_high": None, "std_error": None}
    row |= {"status": "too_few", "reason": "there are no images of unseen patients to count", "n_synthetic": 0}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render([row]))
    assert "audit_specificity: there are no images of unseen patients" in console.export_text()


def test_the_command_and_what_it_refuses(done, world, network, tmp_path, monkeypatch, capsys) -> None:
    from chexray.cli import main

    file = tmp_path / "small.yaml"
    file.write_text(config(world, world.folder / "out").to_yaml())
    cases = [
        (["privacy", "audit", file, "--images", N_IMAGES], 0, "test of the privacy filter"),
        (["privacy", "audit", file, "--set", "heldout=null"], 2, "give --heldout"),
        (["privacy", "audit", file, "--set", "suite=fidelity", "--set", "encoders=pixels"], 2, "--set suite=privacy"),
        (["privacy", "audit"], 2, "nothing to run"),
        (["privacy", "audit", file, "--images", 0], 2, "greater than or equal to 1"),
    ]
    for arguments, code, words in cases:
        monkeypatch.setattr(sys, "argv", ["chexray", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        shown = capsys.readouterr()
        assert int(end.value.code or 0) == code, shown.err
        assert words in (shown.out if code == 0 else shown.err)
        if code == 0:
            assert f"results: {done.uri}" in shown.out


def test_one_held_out_patient_cannot_be_halved(world, tmp_path) -> None:
    heldout = world.table("one-patient", read_rows(world.heldout)[:2])
    with pytest.raises(ConfigError, match="2 images of 1 patient, besides those in training, cannot be split"):
        audit(world.config(tmp_path / "out", heldout=str(heldout)), 2)


def test_what_nothing_could_judge_is_no_verdict_of_the_filter() -> None:
    from chexray.curation.scoring import _verdicts
    from chexray.suites.privacy.verdicts import SCHEMA

    rows = [("planted", "a", None, ["not judged"]), ("planted", "b", False, []), ("planted", "c", True, ["pixels: x"])]
    table = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)
    assert _verdicts(table, "planted", ["pixels"]) == {"b": set(), "c": {"pixels"}}
