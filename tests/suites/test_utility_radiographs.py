"""Real radiographs and images made of them, through every setting: who trains, who is kept apart, what is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.summary import summary_lines
from rich.console import Console

from chexray import evaluate, parse_config
from chexray.errors import ChexrayError, ConfigError
from chexray.plan import Plan, make_plan
from chexray.report.console import render
from chexray.results.rows import params_of
from chexray.run.evaluation import Run

SETTINGS = ["real", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real"]
N_TRAINING, N_TEST = 380, 222


@pytest.fixture(scope="module")
def cxr(shared: Path) -> Path:
    return shared / "data/cxr"


def data_of(cxr: Path, output: Path, *tables: str, **more: Any) -> dict[str, Any]:
    """A small run on the radiographs. tables: of synthetic sets, by default that of the training prompts."""
    folders = {"generations_with_metadata": "synthetic_train"}
    named = tables or ("generations_with_metadata",)
    return {
        "suite": "utility",
        "real": str(cxr / "real_test.csv"),
        "training": str(cxr / "real_train.csv"),
        "synthetic": [
            {"path": str(cxr / f"{table}.csv"), "image_root": str(cxr / folders.get(table, table))} for table in named
        ],
        "utility": {
            "settings": SETTINGS,
            "fractions": [0.25],
            "model": {"name": "test_resnet", "weights": "none"},
            "image_size": 32,
            "seeds": 1,
            "epochs": 2,
            "batch_size": 64,
            "learning_rate": 3e-3,
            "resamples": 100,
            "device": "cpu",
            "figures": False,
        },
        "output": str(output),
        **more,
    }


def plan_of(data: dict[str, Any]) -> Plan:
    return make_plan(parse_config(data))


@pytest.fixture(scope="module")
def data(cxr: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return data_of(cxr, tmp_path_factory.mktemp("radiographs"))


@pytest.fixture(scope="module")
def plan(data: dict[str, Any]) -> Plan:
    return plan_of(data)


@pytest.fixture(scope="module")
def run(ray_cluster, data: dict[str, Any]) -> Run:
    return evaluate(parse_config(data))


# The plan


def test_every_synthetic_image_has_the_twin_that_its_file_names(plan: Plan) -> None:
    assert plan.utility is not None
    twins = plan.utility.twins["generations_with_metadata"].table
    assert len(twins) == N_TRAINING
    made_for = zip(twins["synthetic_id"].to_pylist(), twins["real_id"].to_pylist(), strict=True)
    assert all(name == f"SyntheticImg_{identity}.png" for name, identity in made_for)


def test_twins_of_validation_images_do_not_train_and_no_image_trains_beside_its_twin(plan: Plan) -> None:
    assert plan.utility is not None
    cohorts = plan.utility.planned
    n_validation = len(cohorts.validation)
    assert len(cohorts.training) == N_TRAINING - n_validation
    assert not set(cohorts.training.subjects) & set(cohorts.validation.subjects)
    left_out = f"{n_validation} images were made for validation images and are not used for training"
    assert f"generations_with_metadata: {left_out}" in cohorts.notes
    held = set(cohorts.validation.sample.ids)
    for training in cohorts.trainings:
        for phase in training.mixture.phases:
            originals = [original_of(identity) for identity in phase.sample.ids]
            assert not set(originals) & held, training.setting
            if training.setting.startswith("mixed"):
                assert len(set(originals)) == len(originals) == N_TRAINING - n_validation


def original_of(identity: str) -> str:
    return identity.removeprefix("SyntheticImg_").removesuffix(".png")


def test_columns_of_training_prompts_come_from_the_training_set(plan: Plan) -> None:
    assert not [note for note in plan.notes if "come from real_test" in note]
    (synthetic,) = plan.synthetic
    assert synthetic.table["sex"].null_count == 0


@pytest.mark.parametrize("others", [(), ("synthetic_seeds",)])
def test_images_of_test_prompts_cannot_train(cxr: Path, tmp_path: Path, others: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^synthetic_test: .*222 .*were made for test .*suites: \[fidelity\]"):
        plan_of(data_of(cxr, tmp_path, "synthetic_test", *others))


def test_the_benchmarks_protocol_fixes_what_it_names(cxr: Path, tmp_path: Path) -> None:
    data = data_of(cxr, tmp_path, protocol="chexgenbench")
    with pytest.raises(ChexrayError, match=r"chexgenbench fixes utility\.image_size to 224, the config asks for 32"):
        plan_of(data)
    data["utility"] = {"settings": SETTINGS, "model": {"name": "test_resnet", "weights": "none"}}
    plan = plan_of(data)
    assert plan.utility is not None
    recipe = plan.utility.recipe("fp32")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer, recipe.schedule) == (20, 768, "adam", "plateau")
    assert recipe.augment == "chexgenbench"
    n_real = len(plan.utility.planned.training)
    (note,) = (note for note in plan.notes if "utility.batch_size is 768" in note)
    assert f"an epoch of real shows {n_real} images, a single step (in 5 of 5 settings)" in note


# The run


def test_each_setting_says_how_many_images_of_each_kind_it_saw(run: Run, plan: Plan) -> None:
    assert plan.utility is not None
    n = N_TRAINING - len(plan.utility.planned.validation)
    half, quarter = (n + 1) // 2, (25 * n + 50) // 100
    rows = run.results.query("metric == 'auroc_macro' and subset == 'all'")
    params = [params_of(one) for one in rows.to_dict("records")]
    found = {each["setting"]: (each["n_train_real"], each["n_train_synthetic"]) for each in params}
    assert found == {
        "real": (n, 0),
        "synthetic": (0, n),
        "mixed": (n - half, half),
        "mixed_25": (n - quarter, quarter),
        "augmented": (n, n),
        "pretrain_synthetic_finetune_real": (n, n),
    }
    assert {each["n_validation"] for each in params} == {N_TRAINING - n}
    assert [each.get("replaced") for each in params if each["setting"].startswith("mixed")] == ["by_id", "by_id"]
    assert set(rows["n_real"]) == {N_TEST}
    assert list(rows["n_synthetic"]) == [each["n_train_synthetic"] for each in params]
    assert [name == "" for name in rows["synthetic_set"]] == [each["setting"] == "real" for each in params]
    assert all(0 <= value <= 1 for value in rows["value"])


def test_predictions_are_of_the_test_table_and_its_labels(run: Run, cxr: Path) -> None:
    with (cxr / "real_test.csv").open(newline="") as file:
        sex = {row["id"]: row["sex"] for row in csv.DictReader(file)}
    found = pd.read_parquet(Path(run.uri) / "predictions.parquet")
    assert len(found) == 6 * N_TEST
    assert [dict(zip(part["sample_id"], part["sex"], strict=True)) for _, part in found.groupby("setting")] == [sex] * 6
    positive = run.results.query("metric == 'auroc' and subset == 'finding:Edema' and synthetic_set == ''")
    assert params_of(positive.iloc[0])["n_positive"] == found.query("setting == 'real'")["y_Edema"].sum() == 20


def test_a_finding_nobody_has_is_a_null_with_its_reason(run: Run) -> None:
    rows = run.results.query("subset == 'finding:Fracture' and metric == 'auroc'")
    assert len(rows) == 6
    assert set(rows["status"]) == {"too_few"}
    assert set(rows["reason"]) == {f"no positive among {N_TEST} test images"}


def test_one_table_compares_the_settings(run: Run) -> None:
    console = Console(file=io.StringIO(), width=110, legacy_windows=False)
    parts = render(run.results)
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    (start,) = (place for place, line in enumerate(text.splitlines()) if line.startswith("setting"))
    names = [line.split("  ")[0].strip() for line in text.splitlines()[start + 2 :]]
    table = [name for name in names if name][:6]  # intervals may stand below their values
    assert table == ["real", "synthetic", "mixed 50 %", "mixed 25 %", "augmented", "pretrain-finetune"]
    assert "n = 222 test images" in text
    assert all(len(line) <= 110 for line in text.splitlines())
    quiet = "\n".join(summary_lines(run.results))
    assert "real images: real alone" in quiet
    assert "no positive among 222 test images" in quiet


def test_no_prompt_no_patient_and_no_path_of_an_image_leaves_the_tables(run: Run, cxr: Path) -> None:
    """Neither in the run's folder nor beside the trained weights; the config names the tables, not the images."""
    forbidden = ["chest radiograph", "Study 1", "real/test/", "real/train/"]
    with (cxr / "real_test.csv").open(newline="") as file:
        forbidden += [Path(row["path"]).stem for row in csv.DictReader(file)]
    folders = [Path(run.uri), Path(run.uri).parent / "features" / "fits"]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert {"predictions.parquet", "contradictions.parquet", "fit.json", "model.safetensors"} <= {f.name for f in files}
    for path in files:
        for text in texts(path):
            assert not [word for word in forbidden if word in text], path.name
    columns = pq.read_schema(Path(run.uri) / "predictions.parquet").names
    assert [name for name in columns if not name.startswith(("p_", "y_"))] == [
        "setting", "synthetic_set", "seed", "sample_id", "view", "age", "sex",
    ]  # fmt: skip


def texts(path: Path) -> Iterator[str]:
    """Everything a person could read in a file."""
    if path.suffix != ".parquet":
        yield path.read_bytes().decode("latin-1")
        return
    table = pq.read_table(path)
    yield str(table.schema.metadata)
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_nested(column.type):
            yield "\n".join(map(str, column.unique().to_pylist() if pa.types.is_string(column.type) else column))
