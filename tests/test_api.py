"""What Python users see: the names of the package, and what `evaluate` takes and gives back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

import chexray
from chexray import ChexrayError, RunConfig, evaluate, parse_config
from chexray.plan import make_plan
from chexray.run.inputs import as_config

METRIC = """
import numpy as np
class MeanDiff:
    reads, outputs, better = "features", ("mean_diff",), "lower"
    def compute(self, real, synthetic):
        return np.linalg.norm(real.mean(0) - synthetic.mean(0))
"""


def test_dir_is_the_api_and_nothing_else():
    assert sorted(dir(chexray)) == sorted(chexray.__all__)
    assert {"evaluate", "load_config", "parse_config", "read_results", "Run", "RunConfig", "ChexrayError"} <= set(
        dir(chexray)
    )
    assert not {"Any", "TYPE_CHECKING", "annotations"} & set(dir(chexray))
    assert all(getattr(chexray, name) is not None for name in dir(chexray))


def test_the_names_load_neither_torch_nor_ray():
    code = "import sys, chexray; dir(chexray); print([n for n in ('torch', 'ray', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


BODY = {"real": "a", "synthetic": ["b"], "encoders": ["pixels"], "metrics": ["fid", "kid"], "limit": 3}


def forms(tmp_path: Path) -> dict[str, RunConfig]:
    """One config, given in every way."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(BODY))
    rest = {key: value for key, value in BODY.items() if key != "limit"}
    return {
        "a config": as_config(parse_config(BODY)),
        "text": as_config(str(path)),
        "a path": as_config(path),
        "a mapping": as_config(BODY),
        "keywords": as_config(None, {**BODY, "encoders": "pixels", "metrics": "fid,kid", "synthetic": "b"}),
        "paths": as_config(None, {**BODY, "real": Path("a"), "synthetic": [Path("b")]}),
        "nested paths": as_config({**BODY, "real": {"path": Path("a")}, "synthetic": ({"path": Path("b")},)}),
        "a config and keywords": as_config(parse_config(rest), {"limit": 3}),
        "a mapping and keywords": as_config({**BODY, "limit": 9}, {"limit": 3}),
        "a file and keywords": as_config(path, {"limit": 3}),
    }


def test_every_way_to_say_a_config_is_the_same(tmp_path):
    found = forms(tmp_path)
    assert {name: config.fingerprint for name, config in found.items()} == dict.fromkeys(
        found, parse_config(BODY).fingerprint
    )


def test_paths_of_output_and_weights(tmp_path):
    config = as_config(
        BODY | {"output": tmp_path / "o", "encoders": [{"name": "rad_dino", "weights": tmp_path / "w.pth"}]},
        {"feature_store": tmp_path / "f"},
    )
    assert (config.output, config.feature_store) == (str(tmp_path / "o"), str(tmp_path / "f"))
    assert config.encoders[0].weights == str(tmp_path / "w.pth")


def test_secrets_of_a_config_stay(monkeypatch):
    config = parse_config({**BODY, "storage": {"region": "x"}})
    config = config.model_copy(update={"storage": config.storage.model_copy(update={"region": "y"})})
    assert as_config(config, {"limit": 1}).storage is config.storage


def test_encoders_come_by_themselves_as_on_the_command_line():
    names = {
        suite: [item.label for item in as_config(None, {"real": "a", "synthetic": "b", "suite": suite}).encoders]
        for suite in ("fidelity", "fidelity,privacy", "utility")
    }
    assert names == {"fidelity": ["rad_dino"], "fidelity,privacy": ["rad_dino", "pixels", "patches"], "utility": []}


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        (None, {}, "no real and no synthetic"),
        (None, {"real": "a"}, "no synthetic"),
        (3, {}, "given int, expected a RunConfig"),
        (["a"], {}, "given list"),
        ("nowhere.yaml", {}, "no such config file"),
        (BODY, {"limt": 3}, "unknown key 'limt'. Did you mean 'limit'"),
        (BODY, {"real": pd.DataFrame({"path": []})}, "no rows"),
        (BODY, {"real": pd.DataFrame({"path": [object()]})}, "real: found column 'path' whose values are no texts"),
    ],
)
def test_what_is_no_config_is_one_line(given, settings, words):
    with pytest.raises(ChexrayError) as error:
        evaluate(given, **settings)
    assert words in str(error.value)


@pytest.fixture
def frames(write_images):
    """{"real": a DataFrame, "synthetic": another} of absolute paths with a column that makes subsets."""
    found = {}
    for name, n in (("real", 8), ("synthetic", 6)):
        images = sorted(write_images(name, n, seed=len(name)).glob("*.png"))
        found[name] = pd.DataFrame(
            {"image": images, "sex": ["F", "M"] * (n // 2)}, index=pd.Index(range(n), name="row")
        )
    return found


def planned(tmp_path, frames, **settings):
    body = {"encoders": "pixels", "metrics": "kid", "output": tmp_path / "out", **frames, **settings}
    return make_plan(as_config(None, body))


def test_a_frame_is_a_set_by_its_content(tmp_path, frames):
    plan = planned(tmp_path, frames, subsets="all,sex")
    assert (len(plan.real), len(plan.synthetic[0]), plan.real.name, plan.synthetic[0].name) == (
        8,
        6,
        "real",
        "synthetic",
    )
    assert {subset.name for subset in plan.subsets} == {"all", "sex:F", "sex:M"}
    again = planned(tmp_path, {name: frame.copy() for name, frame in frames.items()}, subsets="all,sex")
    assert again.run_id == plan.run_id  # the same call resumes
    changed = frames["real"].assign(sex="F")
    assert planned(tmp_path, {**frames, "real": changed}, subsets="all").run_id != plan.run_id


def test_frames_of_other_kinds_and_by_name(tmp_path, frames):
    texts = {name: frame.assign(image=frame["image"].map(str)) for name, frame in frames.items()}
    arrow = {name: pa.Table.from_pandas(frame, preserve_index=False) for name, frame in texts.items()}
    assert len(planned(tmp_path, arrow).real) == 8
    both = planned(tmp_path, {"real": texts["real"], "synthetic": {"one": texts["synthetic"], "two": texts["real"]}})
    assert [item.name for item in both.synthetic] == ["one", "two"]
    listed = planned(tmp_path, {"real": texts["real"], "synthetic": [texts["synthetic"], texts["real"]]})
    assert [item.name for item in listed.synthetic] == ["synthetic-1", "synthetic-2"]


def test_relative_paths_of_a_frame_start_from_its_root(tmp_path, frames):
    real = (
        frames["real"].assign(image=[path.name for path in frames["real"]["image"]]).rename(columns={"image": "mine"})
    )
    named = {"path": real, "image_root": tmp_path / "real", "columns": {"image": "mine"}, "name": "r"}
    plan = planned(tmp_path, {**frames, "real": named})
    assert (plan.real.name, len(plan.real)) == ("r", 8)


def test_a_frame_of_another_process_is_said(tmp_path, frames, monkeypatch):
    from chexray.data.sources import frame

    config = as_config(None, {"encoders": "pixels", "metrics": "kid", "output": str(tmp_path / "out"), **frames})
    assert len(make_plan(parse_config(yaml.safe_load(config.to_yaml()))).real) == 8
    monkeypatch.setattr(frame, "_KEPT", {})
    with pytest.raises(ChexrayError, match="a table in memory, and this process was not given it"):
        make_plan(parse_config(yaml.safe_load(config.to_yaml())))


def test_a_run_from_frames_with_a_plugin_and_its_tables(ray_cluster, tmp_path, frames):
    """One real run: workers read the frames' images, the plug-in's number is there, and every table joins."""
    (tmp_path / "meandiff.py").write_text(METRIC)
    run = evaluate(
        **frames, encoders="pixels", metrics="kid,prdc,meandiff", subsets="all,sex", output=tmp_path / "out",
        plugins=[tmp_path / "meandiff.py"],
    )  # fmt: skip
    assert isinstance(run, chexray.Run)
    assert set(run.results["metric"]) >= {"kid", "mean_diff", "coverage"}
    assert {"per_image", "rejects", "results"} <= set(run.tables())
    joined = run.per_image.merge(run.results[run.results["subset"] == "all"], on=["synthetic_set", "encoder"])
    assert len(joined) >= len(run.per_image) == 6
    with pytest.raises(ChexrayError, match="has no table 'verdicts'"):
        _ = run.verdicts
    shown = run._repr_html_()
    assert "mean_diff" in shown
    assert "<script" not in shown
    html = type(run)(**{**vars(run), "notes": ["<script>alert(1)</script>"]})._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    mean_diff = run.results.query("metric == 'mean_diff'")
    assert (mean_diff["value"] > 0).all(), mean_diff["reason"].tolist()
