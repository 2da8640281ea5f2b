"""Plug-in files go with a job: into its working directory or its ConfigMap, and into its entry point and id."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from fixtures.jobs_api import JobsApi, served
from typer.testing import CliRunner

from chexray.cli import app
from chexray.config import RunConfig, parse_config
from chexray.errors import ChexrayError, ConfigError
from chexray.jobs.bundle import PLUGINS, parcel
from chexray.jobs.manifests import MAX_PLUGIN_BYTES, _with_plugins, kuberay_manifest
from chexray.jobs.portable_config import distinct, plugin_flags, submission_id
from chexray.plan.naming import check_names
from chexray.plugin_files import PluginFile
from chexray.registry import use

METRIC = """
import numpy as np
class MeanDiff:
    reads, outputs, better = "features", ("mean_diff",), "lower"
    def compute(self, real, synthetic):
        return np.linalg.norm(real.mean(0) - synthetic.mean(0))
"""
FILE = PluginFile("meandiff.py", METRIC.encode())
needs_kustomize = pytest.mark.skipif(
    not (shutil.which("kubectl") or shutil.which("kustomize")), reason="neither kubectl nor kustomize is on PATH"
)


@pytest.fixture(autouse=True)
def _nothing_registered():
    yield
    use([])


def config(**changes: object) -> RunConfig:
    base = {"real": "s3://b/r.csv", "synthetic": "s3://b/s/", "encoders": ["pixels"], "output": "s3://b/out"}
    return parse_config({**base, **changes})


def test_a_parcel_holds_the_bytes(tmp_path: Path) -> None:
    with parcel("name: x\n", plugins=[FILE]) as folder:
        assert (Path(folder) / PLUGINS / "meandiff.py").read_bytes() == FILE.source
    (tmp_path / PLUGINS).mkdir()
    (tmp_path / PLUGINS / "x.py").write_text("")
    with (
        pytest.raises(ConfigError, match="is where --plugin goes"),
        parcel("", tmp_path, [Path(PLUGINS, "x.py")], [FILE]),
    ):
        pass


def test_an_edited_file_is_another_submission() -> None:
    edited = PluginFile("meandiff.py", FILE.source + b"#")
    ids = [submission_id(config(), plugins) for plugins in ((), [FILE], [edited])]
    assert len(set(ids)) == 3
    assert submission_id(config()) == ids[0]


def test_two_files_of_one_name_are_refused() -> None:
    assert distinct([FILE]) == [FILE]
    with pytest.raises(ConfigError, match=r"two plug-in files are called meandiff\.py"):
        distinct([FILE, PluginFile("meandiff.py", b"")])


def test_names_are_checked_before_anything_is_sent(tmp_path: Path) -> None:
    given = config(metrics=["kdi", "meandiff"], encoders=["pixel"], real={"source": "tabel", "path": "s3://b/r.csv"})
    assert [line.split(".")[0] for line in check_names(given, "--runtime-env")] == [
        "unknown encoder 'pixel'", "unknown metric 'kdi'", "unknown metric 'meandiff'", "unknown source 'tabel'",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"unknown encoder 'pixel'\. Did you mean 'pixels'"):
        check_names(given)
    (tmp_path / "meandiff.py").write_text(METRIC)
    use([tmp_path / "meandiff.py"])
    assert check_names(config(metrics=["meandiff"])) == []


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(API, submit): a Jobs API without a cluster, and the command against it."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ray.dashboard.modules.dashboard_sdk.get_auth_headers_if_auth_enabled", lambda headers: {})
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(config(metrics=["meandiff"]).to_yaml())
    Path("meandiff.py").write_text(METRIC)
    with served(JobsApi()) as api:
        yield api, lambda *more: CliRunner().invoke(app, ["submit", "run.yaml", "--address", api.address, *more])


def test_submit_sends_the_file_and_says_so_in_the_command(submitted) -> None:
    api, submit = submitted
    assert submit("--plugin", "meandiff.py").exit_code == 0
    ((name, job),) = api.jobs.items()
    assert job["entrypoint"] == f"chexray run run.yaml --once --plugin {PLUGINS}/meandiff.py"
    with zipfile.ZipFile(io.BytesIO(next(iter(api.packages.values())))) as package:
        assert package.read(f"{PLUGINS}/meandiff.py").decode() == METRIC
        assert "plugin" not in yaml.safe_load(package.read("run.yaml"))
    Path("meandiff.py").write_text(METRIC + "# edited\n")
    submit("--plugin", "meandiff.py")
    assert len(api.jobs) == 2
    assert submit("--plugin", "meandiff.py").stdout.startswith("already ")
    assert name in api.jobs


def test_submit_without_the_file_sends_nothing(submitted) -> None:
    api, submit = submitted
    done = submit()
    assert isinstance(done.exception, ChexrayError)
    assert "unknown metric 'meandiff'" in str(done.exception)
    assert not api.jobs


def test_the_entry_point_of_a_manifest_finds_the_files_beside_the_config() -> None:
    command = "chexray run /etc/chexray/run.yaml --once"
    assert _with_plugins(command, [FILE]) == f"{command} --plugin /etc/chexray/meandiff.py"
    assert plugin_flags([], "x/") == []
    with pytest.raises(ConfigError, match="fit beside the config"):
        _with_plugins(command, [PluginFile("a.py", b"#" * MAX_PLUGIN_BYTES), FILE])


@needs_kustomize
def test_a_manifest_holds_the_file_and_names_it() -> None:
    text = kuberay_manifest(config(metrics=["meandiff"]), ["s3"], plugins=[FILE]).text
    documents = list(yaml.safe_load_all(text))
    (job,) = [each for each in documents if each["kind"] == "RayJob"]
    (held,) = [each["data"] for each in documents if each["kind"] == "ConfigMap" and "run.yaml" in each["data"]]
    assert held["meandiff.py"] == METRIC
    assert job["spec"]["entrypoint"].endswith("--plugin /etc/chexray/meandiff.py")
