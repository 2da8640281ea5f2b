"""What of a config leaves this machine, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from chexray.config import RunConfig, parse_config
from chexray.errors import ConfigError, StorageError
from chexray.jobs.bundle import folder_files, parcel, read_runtime_env
from chexray.jobs.portable_config import submission_id, travelling

PHANTOM = {"source": "phantom", "generator": "real", "n": 4, "seed": 1}


def config(**changes: object) -> RunConfig:
    base = {
        "real": {"name": "test", "path": "s3://bucket/test.csv"},
        "synthetic": {"name": "made", "path": "s3://bucket/made/"},
        "encoders": ["pixels"],
        "output": "s3://bucket/out",
    }
    return parse_config({**base, **changes})


def test_s3_travels_without_a_word() -> None:
    assert travelling(config()).notes == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"real": "data/test.csv"}, "real.path"),
        ({"real": "~/test.csv"}, "real.path"),
        ({"training": "../train.csv"}, "training.path"),
        ({"heldout": {"path": "s3://b/t.csv", "image_root": "images"}}, "heldout.image_root"),
        ({"synthetic": ["s3://b/a/", {"path": "made"}]}, "synthetic.1.path"),
        ({"privacy": {"pairs": "pairs.csv"}}, "privacy.pairs"),
        ({"encoders": [{"name": "siamese_reid", "weights": "models/net.pth"}]}, "encoders.siamese_reid.weights"),
        ({"encoders": [{"name": "rad_dino", "weights": "~/rad-dino"}]}, "encoders.rad_dino.weights"),
        ({"utility": {"model": {"name": "resnet50", "weights": "./net.safetensors"}}}, "utility.model.weights"),
        ({"output": "out"}, "output"),
        ({"feature_store": "features"}, "feature_store"),
    ],
)
def test_relative_paths_are_refused_by_their_key(changes: dict, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        travelling(config(**changes))
    text = str(caught.value)
    assert text.startswith(key)
    assert "s3://" in text
    assert "every node mounts" in text
    assert "\n" not in text


def test_all_relative_inputs_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"real\.path: 'a.csv' .*\(so do synthetic\.0\.path\)"):
        travelling(config(real="a.csv", synthetic="b.csv"))


@pytest.mark.parametrize(
    "weights", ["random:7", "microsoft/rad-dino@main", "https://host/net.pth", "pt_inception-2015-12-05-6726825d.pth"]
)
def test_weights_that_are_no_file_here_travel(weights: str) -> None:
    sent = travelling(config(encoders=[{"name": "rad_dino", "weights": weights}]))
    assert sent.notes == []
    assert yaml.safe_load(sent.text)["encoders"][0]["weights"] == weights


def test_a_hub_id_that_is_also_a_folder_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "microsoft" / "rad-dino").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"rad_dino\.weights"):
        travelling(config(encoders=[{"name": "rad_dino", "weights": "microsoft/rad-dino"}]))


def test_absolute_paths_travel_with_one_note() -> None:
    sent = travelling(config(real="/data/test.csv", output="file:///data/out"))
    assert sent.notes == [
        "must exist on every node of the cluster: /data/test.csv (real.path), file:///data/out (output)"
    ]


def test_phantoms_need_no_path_but_a_lasting_output() -> None:
    phantoms = {"real": {"name": "a", **PHANTOM}, "synthetic": {"name": "b", **PHANTOM, "generator": "good"}}
    assert travelling(config(**phantoms)).notes == []
    with pytest.raises(ConfigError, match="lost with it"):
        travelling(config(**phantoms, output="out"))


def test_other_schemes_are_refused_here_already() -> None:
    with pytest.raises(StorageError, match="ftp://b/x"):
        travelling(config(real="ftp://b/x"))


def test_secrets_stay_and_are_not_even_named_with_their_value() -> None:
    sent = travelling(config(storage={"key": "AKIA1234", "secret": "hush-hush", "profile": "lab"}))
    assert "AKIA1234" not in sent.text + "".join(sent.notes)
    assert "hush-hush" not in sent.text + "".join(sent.notes)
    assert sent.notes[0].startswith("storage.key, storage.secret are not sent")
    assert "'lab'" in sent.notes[1]


def test_the_address_of_ray_stays_and_the_rest_arrives_whole() -> None:
    given = config(ray={"address": "ray://old:10001", "num_cpus": 3}, limit=7)
    sent = travelling(given)
    assert sent.notes == ["ray.address is left out: a job joins the cluster it runs on"]
    arrived = parse_config(yaml.safe_load(sent.text))
    assert arrived.ray.address is None
    assert arrived == given.model_copy(update={"ray": given.ray.model_copy(update={"address": None})})


def test_an_endpoint_on_this_machine_is_pointed_out_unless_the_cluster_is_here_too() -> None:
    given = config(storage={"endpoint_url": "http://127.0.0.1:9000"})
    assert "endpoint_url" in travelling(given, near="head").notes[0]
    assert travelling(given, near="localhost").notes == []


def test_the_submission_id_is_that_of_the_question_and_where_its_answer_goes() -> None:
    base = submission_id(config(name="study"))
    assert base.startswith("study-")
    assert base == submission_id(config(name="study", encode={"batch_size": 3}, ray={"num_cpus": 2}))
    others = [config(name="study", limit=5), config(name="study", output="s3://bucket/other"), config(name="else")]
    assert base not in {submission_id(each) for each in others}


def test_a_shipped_folder_may_hold_inputs_but_no_output(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "test.csv").touch()
    assert travelling(config(real="tables/test.csv", synthetic="tables/*.csv"), folder=tmp_path).notes == []
    for outside in ("tables/other.csv", "../test.csv", "tables/*.parquet"):
        with pytest.raises(ConfigError, match=r"is not in"):
            travelling(config(real=outside), folder=tmp_path)
    with pytest.raises(ConfigError, match="output"):
        travelling(config(output="tables"), folder=tmp_path)


def test_the_parcel_holds_the_config_and_the_folder_without_hidden_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("code/a.py", "run.csv", ".env", ".git/config", "code/__pycache__/a.pyc"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "link.csv").symlink_to(source / "run.csv")
    files = folder_files(source)
    with parcel("name: x\n", source, files) as place:
        held = {str(path.relative_to(place)) for path in Path(place).rglob("*") if path.is_file()}
        assert held == {"run.yaml", "run.csv", "code/a.py", "link.csv"}
        assert (Path(place) / "link.csv").read_text() == "run.csv"
    assert not Path(place).exists()
    with parcel("name: x\n") as place:
        assert [path.name for path in Path(place).iterdir()] == ["run.yaml"]


def test_folders_that_do_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        folder_files(tmp_path / "absent")

    linked = tmp_path / "linked"
    linked.mkdir()
    (tmp_path / "secret").touch()
    (linked / "inner").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match=r"inner is a link"):
        folder_files(linked)
    (linked / "inner").unlink()
    (linked / "inner").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"inner is a link"):
        folder_files(linked)

    named = tmp_path / "named"
    named.mkdir()
    (named / "run.yaml").touch()
    assert folder_files(named, config_path=named / "run.yaml") == [Path("run.yaml")]
    with pytest.raises(ConfigError, match=r"run\.yaml would hide the config"):
        folder_files(named, config_path=tmp_path / "secret")

    large = tmp_path / "large"
    large.mkdir()
    (large / "images.bin").write_bytes(b"x" * 2000)
    monkeypatch.setattr("chexray.jobs.bundle.MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="Data are not sent"):
        folder_files(large)
    monkeypatch.setattr("chexray.jobs.bundle.MAX_BYTES", 10_000)
    monkeypatch.setattr("chexray.jobs.bundle.MAX_FILES", 0)
    with pytest.raises(ConfigError, match="Data are not sent"):
        folder_files(large)


def test_a_runtime_env_is_read_from_yaml_and_json_and_may_not_move_the_config(tmp_path: Path) -> None:
    assert read_runtime_env(None) == {}
    (tmp_path / "env.yaml").write_text("env_vars: {A: '1'}\n")
    (tmp_path / "env.json").write_text('{"env_vars": {"A": "1"}}')
    assert (
        read_runtime_env(tmp_path / "env.yaml") == read_runtime_env(tmp_path / "env.json") == {"env_vars": {"A": "1"}}
    )
    (tmp_path / "bad.yaml").write_text("working_dir: s3://b/x.zip\n")
    with pytest.raises(ConfigError, match="--working-dir"):
        read_runtime_env(tmp_path / "bad.yaml")
