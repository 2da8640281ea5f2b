"""What a further utility run does not do again, and how it lives with other suites in one folder."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from fixtures.classroom import (
    INVISIBLE,
    N_TEST,
    N_TRAINING,
    VISIBLE,
    Classroom,
    assert_same,
    committed,
    fits,
    read_rows,
    tables,
)
from sklearn.metrics import roc_auc_score

from chexray import evaluate
from chexray.results.rows import params_of
from chexray.run.evaluation import Run


def test_the_same_question_again_trains_nothing_by_the_real_command(
    lesson: Run, classroom: Classroom, tmp_path, monkeypatch, capsys
) -> None:
    from chexray.cli import main

    before = committed(classroom.store)
    data = classroom.data(tmp_path / "out", fractions=[0.25, 0.5], figures=True, tensorboard=True)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data))

    def train(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["chexray", "train", str(file), *more])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0, said.err
        return said.out

    planned = train("--dry-run")
    assert not (tmp_path / "out").exists()
    assert "train      mixed_25 (drawn): 71 real + 24 synthetic" in planned
    assert "pending    utility_images: 0 of 325 images to encode" in planned
    printed = train()
    assert committed(classroom.store) == before
    for word in ("real", "synthetic", "mixed 50 %", "mixed 25 %", "augmented", "pretrain-finetune", "drawn", "AUROC"):
        assert word in printed
    folder = next((tmp_path / "out").glob("run-*"))
    assert printed.rstrip().endswith(f"results: {folder}")
    assert_same(lesson, dataclasses.replace(lesson, uri=str(folder)))


def test_another_generator_and_another_seed_train_only_what_is_new(lesson: Run, classroom: Classroom) -> None:
    before = committed(classroom.store)
    further = evaluate(
        classroom.config(
            classroom.folder / "further",
            settings=["real", "synthetic"],
            seeds=2,
            synthetic=[classroom.generated(classroom.drawn), classroom.generated(classroom.noise)],
        )
    )
    after = committed(classroom.store)
    assert before.items() <= after.items()
    new = {json.loads((path.parent / "fit.json").read_text())["title"] for path in after.keys() - before.keys()}
    assert new == {
        "real, seed 1", "synthetic (drawn), seed 1", "synthetic (noise), seed 0", "synthetic (noise), seed 1",
    }  # fmt: skip
    found, first = tables(further), tables(lesson)
    for _, mine in found["predictions"].groupby(["setting", "synthetic_set"]):
        assert mine["seed"].tolist() == [0] * N_TEST + [1] * N_TEST
    for setting in ("real", "synthetic"):
        mine = found["predictions"].query(
            f"setting == {setting!r} and not synthetic_set.str.startswith('noise@') and seed == 0"
        )
        old = first["predictions"].query(f"setting == {setting!r}")
        assert np.array_equal(mine.filter(like="p_").to_numpy(), old.filter(like="p_").to_numpy())
    macro = found["results"].query("metric == 'auroc_macro' and subset == 'all'")
    macro = macro.assign(name=macro["synthetic_set"].str.split("@").str[0]).set_index(["setting", "name"])
    assert set(macro.index) == {("real", ""), ("synthetic", "drawn"), ("synthetic", "noise")}
    for key, row in macro.iterrows():
        params = params_of(row)
        rows = found["predictions"].set_index(["setting", "synthetic_set"]).loc[[(key[0], row["synthetic_set"])]]
        areas = [
            np.mean([roc_auc_score(one[f"y_{f}"], one[f"p_{f}"]) for f in (*VISIBLE, INVISIBLE)])
            for _, one in rows.groupby("seed")
        ]
        assert params["seeds"] == 2
        assert row["value"] == pytest.approx(np.mean(areas), abs=1e-9)
        assert params["seed_std"] == pytest.approx(np.std(areas, ddof=1), abs=1e-9)
    # Noise teaches nothing, and the classifier of real images says that it shows nothing.
    assert macro.loc[("synthetic", "noise"), "value"] < 0.65 < macro.loc[("real", ""), "value"]
    judged = found["results"].query("metric == 'faithfulness_auroc_macro'")
    assert judged["value"].tolist()[0] > 0.75 > 0.65 > judged["value"].tolist()[1]


def test_three_suites_share_a_run_and_read_their_own_sets(lesson: Run, classroom: Classroom) -> None:
    """`drawn` is for training alone, `noise` for the other suites. The classifier of the first run is tested as it is
    here, and gives its own predictions to the last bit."""
    weights = fits(classroom.store)["real"] / "model.safetensors"
    store = classroom.folder / "whole" / "features"
    run = evaluate(
        classroom.config(
            classroom.folder / "whole",
            suite="fidelity,privacy,utility",
            encoders=[{"name": "pixels", "side": 4}],
            metrics="fid",
            floor=False,
            settings=["as_is", "synthetic"],
            epochs=1,
            faithfulness=False,
            model={"name": "test_resnet", "weights": str(weights)},
            feature_store=str(store),
            synthetic=[
                classroom.generated(classroom.drawn, suites="utility"),
                classroom.generated(classroom.noise, suites="fidelity,privacy"),
            ],
        )
    )
    found = tables(run)
    results = found["results"]
    names = results.assign(name=results["synthetic_set"].str.split("@").str[0]).groupby("suite")["name"].agg(set)
    assert names.to_dict() == {"fidelity": {"noise"}, "privacy": {"noise"}, "utility": {"", "drawn"}}
    assert {"per_image", "copies", "pairs", "verdicts", "predictions", "curves", "history"} <= set(found)
    assert "contradictions" not in found
    assert set(fits(store)) == {"as_is", "synthetic (drawn)"}
    cached = sum(len(pd.read_parquet(part)) for part in store.glob("resized_images-*/part-*.parquet"))
    assert cached == N_TRAINING + N_TEST + len(read_rows(classroom.drawn))

    taught = tables(lesson)["predictions"].query("setting == 'real'").filter(like="p_")
    as_is = found["predictions"].query("setting == 'as_is'").filter(like="p_")
    assert np.array_equal(as_is.to_numpy(), taught.to_numpy())
    rows = results[results["setting"] == "as_is"]
    assert (rows["weights"] == str(weights)).all()
    assert rows["weights_sha256"].str.len().eq(64).all()
    assert (rows["synthetic_set"] == "").all()
    assert not results["metric"].str.endswith("_difference").any()  # no setting `real` to differ from
