"""The command itself: a line for each check, whatever breaks or hangs, its exit code, and its JSON."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from chexray.cli import app
from chexray.doctor import machine, versions
from chexray.doctor.case import Case, Check, PendingCheck, ok, size
from chexray.doctor.checks import perform
from chexray.errors import ConfigError


@pytest.fixture
def config(write_images, tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    data = {
        "real": str(write_images("real", 4)),
        "synthetic": str(write_images("synthetic", 4)),
        "encoders": ["pixels"],
        "output": str(tmp_path / "out"),
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def invoke(*arguments: str | Path):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_a_config_without_a_fault_passes(config) -> None:
    done = invoke(config)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[-1] == f"all {len(lines) - 1} checks passed"
    names = [line[6:26].strip() for line in lines[:-1]]
    assert names == [
        "chexray", "python", "packages", "torch", "gpu", "ray", "temporary files",
        "output", "set real", "set synthetic", "weights pixels", "cluster", "encoding pool",
    ]  # fmt: skip


def test_every_fault_is_one_line_and_none_hides_another(config, tmp_path) -> None:
    done = invoke(
        config, "--set", "encode.actors=99", "--set", "encoders.0.name=rad_dino", "--set", "real.path=gone.csv",
        "--set", "encoders.0.weights=gone.safetensors",
    )  # fmt: skip
    assert done.exit_code == 1
    failed = [line for line in done.output.splitlines() if line.startswith("FAIL")]
    assert [line[6:26].strip() for line in failed] == ["set gone", "weights rad_dino", "encoding pool"]
    assert done.output.splitlines()[-1] == "3 of 13 checks failed"
    assert "Traceback" not in done.output


def test_places_that_chexray_does_not_speak_to_are_lines(config) -> None:
    done = invoke(config, "--set", "output=ftp://bucket/out", "--set", "real.path=ftp://bucket/real")
    failed = [line for line in done.output.splitlines() if line.startswith("FAIL")]
    assert [line[6:26].strip() for line in failed] == ["output", "set real"]
    assert all("only local paths and s3://, " in line for line in failed)


def test_a_config_that_cannot_be_read_is_a_line_too(tmp_path) -> None:
    done = invoke(tmp_path / "gone.yaml")
    assert done.exit_code == 1
    assert done.output.startswith("FAIL  config")
    assert "\nok    python" in done.output
    assert "needs a CONFIG" in invoke("--set", "limit=3").output


def test_json_holds_the_same(config) -> None:
    done = invoke(config, "--json", "--set", "encode.actors=99")
    assert done.exit_code == 1
    said = json.loads(done.output)
    assert said["failed"] == 1
    (pool,) = [check for check in said["checks"] if check["state"] == "FAIL"]
    assert pool["name"] == "encoding pool"
    assert set(pool) == {"name", "state", "detail", "fix"}


def test_a_check_that_breaks_names_the_kind_of_error_alone() -> None:
    def breaks():
        raise KeyError("a-secret")

    found = perform(PendingCheck("odd", breaks))
    assert (found.name, found.state) == ("odd", "FAIL")
    assert "KeyError" in found.line
    assert "a-secret" not in found.line

    def refuses():
        raise ConfigError("two\nlines")

    assert perform(PendingCheck("odd", refuses)).detail == r"two\nlines"


def test_a_check_that_hangs_ends() -> None:
    never = threading.Event()
    found = perform(PendingCheck("stuck", lambda: ok(str(never.wait())), within_s=0.05, when_late="Do this."))
    assert found == Check("stuck", "FAIL", "no answer within 0.05 s.", "Do this.")
    never.set()


def test_packages_outside_their_range_are_named_with_the_command() -> None:
    assert versions.packages(["numpy>=1.0", "never-heard-of>=2; extra == 'test'"]).state == "ok"
    found = versions.packages(["numpy>=99", "never-heard-of>=2", "pyyaml"])
    assert found.state == "FAIL"
    assert "never-heard-of missing (needs >=2)" in found.detail
    assert found.fix == "pip install 'numpy>=99' 'never-heard-of>=2'"


def test_an_unsupported_python_is_named_with_the_range() -> None:
    assert versions.python("3.12.1", ">=3.11,<3.14").state == "ok"
    assert versions.python("3.10.9", ">=3.11,<3.14").state == "FAIL"
    assert versions.python("3.14.0", ">=3.11,<3.14").state == "FAIL"


def test_a_torchvision_that_does_not_import_is_found(monkeypatch) -> None:
    import importlib

    real = importlib.import_module

    def broken(name: str):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore")
        return real(name)

    monkeypatch.setattr(versions.importlib, "import_module", broken)
    found = versions.torch()
    assert found.state == "FAIL"
    assert "torchvision beside torch" in found.detail
    assert "nms does not exist" in found.detail
    assert "more" not in found.detail


def test_a_gpu_that_torch_does_not_see_is_found(monkeypatch) -> None:
    from chexray.engine import probing

    monkeypatch.setattr(probing, "gpus_of_this_machine", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert versions.gpu(Case(None, environment={})).state == "FAIL"
    assert versions.gpu(Case(None, environment={"RAY_ADDRESS": "head:6379"})).state == "note"
    monkeypatch.setattr(probing, "gpus_of_this_machine", lambda: 0)
    assert versions.gpu(Case(None, environment={})).detail == "no GPU"


@pytest.mark.parametrize(
    ("environment", "state", "words"),
    [
        ({}, "ok", ""),
        ({"RAY_ADDRESS": "h:1"}, "note", "RAY_AUTH_MODE is not set"),
        ({"RAY_ADDRESS": "h:1", "RAY_AUTH_MODE": "disabled"}, "ok", "RAY_AUTH_MODE=disabled"),
        ({"RAY_ADDRESS": "h:1", "RAY_AUTH_MODE": "maybe"}, "note", "neither token nor disabled"),
        ({"RAY_ADDRESS": "h:1", "RAY_AUTH_MODE": "token"}, "FAIL", "there is no token"),
        ({"RAY_ADDRESS": "h:1", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "t0ps"}, "ok", "from RAY_AUTH_TOKEN"),
    ],
)
def test_how_a_cluster_is_joined_is_said(environment, state, words, tmp_path) -> None:
    found = versions.ray(Case(None, environment={**environment, "HOME": str(tmp_path)}))
    assert found.state == state
    assert words in found.detail
    assert "t0ps" not in found.line


def test_room_for_temporary_files_is_judged(tmp_path, monkeypatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")

    def of(free: float, shared: float):
        sizes = {str(tmp_path): usage(1e12, 0, free), "shm": usage(shared, 0, shared)}
        monkeypatch.setattr(machine.shutil, "disk_usage", sizes.__getitem__)
        monkeypatch.setattr(machine.os.path, "isdir", lambda _: True)
        return machine.temporary(str(tmp_path), "shm")

    assert of(5e11, 8e9).state == "ok"
    assert of(4e10, 8e9).state == "FAIL"
    assert of(5e11, 64e6).state == "note"
    assert machine.temporary(str(tmp_path / "gone")).state == "FAIL"


def test_sizes_have_three_digits_at_most() -> None:
    assert [size(n) for n in (5, 4200, 346_000_000, 1.6e12)] == ["5 B", "4.2 kB", "346 MB", "1.6 TB"]
