"""A local Ray that does not start is tried once more, then said in one line; its workers run at our own priority."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chexray.cli import main
from chexray.config import RayConfig
from chexray.engine import cluster as clusters
from chexray.engine import local_ray
from chexray.errors import ResourceError

TIMED_OUT = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


class Ray:
    """Stands in for ray.init: fails `failures` times, as a node does that is not up after 30 s."""

    def __init__(self, monkeypatch, failures: int):
        import ray

        self.failures, self.folders, self.told = failures, [], []
        monkeypatch.setattr(ray, "init", self.init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "shutdown", lambda *_: None)  # the Ray of the other tests lives on
        monkeypatch.setattr(clusters, "measured", lambda **about: about)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def init(self, *, _temp_dir: str, **told):
        self.told.append(told)
        folder = Path(_temp_dir)
        assert not folder.exists()
        assert len(str(folder)) < 40  # sockets lie below it, and may not pass 107 characters
        folder.mkdir()
        self.folders.append(folder)
        if len(self.folders) <= self.failures:
            raise Exception(TIMED_OUT)


def test_a_start_that_fails_is_tried_again_in_a_clean_folder(monkeypatch, capsys) -> None:
    fake = Ray(monkeypatch, failures=1)
    with clusters.cluster(RayConfig()):
        first, second = fake.folders
        assert first != second
        assert second.exists()
        assert not first.exists()
    assert not second.exists()
    said = capsys.readouterr().err
    assert "note: Ray did not start here (The current node timed out during startup" in said
    assert "trying once more, waiting up to 120 s" in said


def test_the_second_start_waits_longer_for_the_node(monkeypatch) -> None:
    from ray._private import services

    looks: list[float] = []

    def get_node(*_):
        looks.append(clock[0])
        if clock[0] < 100:
            raise RuntimeError("This node has not registered yet")
        return {"up": True}

    def sleep(seconds: float) -> None:
        clock[0] += 10

    clock = [0.0]
    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr(local_ray.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(local_ray.time, "sleep", sleep)
    monkeypatch.delenv("RAY_gcs_server_port_wait_time_s", raising=False)
    first, second = local_ray.START_WAITS_S
    with local_ray._patient(first), pytest.raises(RuntimeError):
        services.get_node("address", "node")  # Ray's own loop asks again, for 30 s
    with local_ray._patient(second):
        assert services.get_node("address", "node") == {"up": True}
        assert os.environ["RAY_gcs_server_port_wait_time_s"] == "120"  # noqa: SIM112
    assert len(looks) == 12
    assert services.get_node is get_node
    assert "RAY_gcs_server_port_wait_time_s" not in os.environ


def test_cpus_and_folder_follow_the_machine_and_the_settings(monkeypatch) -> None:
    fake = Ray(monkeypatch, failures=0)
    monkeypatch.setattr(local_ray, "usable_cpus", lambda: 1)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as ours, clusters.cluster(RayConfig(temp_dir=ours)):
        assert fake.folders[0].is_relative_to(ours)
    with clusters.cluster(RayConfig(num_cpus=3)):
        pass
    assert [told["num_cpus"] for told in fake.told] == [1, 3]
    assert {told["address"] for told in fake.told} == {"local"}


def test_a_ray_that_never_starts_is_one_line_and_no_defect(monkeypatch, capsys, tmp_path, write_images) -> None:
    fake = Ray(monkeypatch, failures=9)
    real, synthetic = (str(write_images(name, 4)) for name in ("real", "synthetic"))
    flags = ["--real", real, "--synthetic", synthetic, "--encoders", "pixels", "--metrics", "kid"]
    monkeypatch.setattr(sys, "argv", ["chexray", "run", *flags, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == ResourceError.exit_code == 2
    assert len(fake.folders) == 2
    assert not any(folder.exists() for folder in fake.folders)
    last = capsys.readouterr().err.splitlines()[-1]
    for part in ("Ray did not start on this machine", "2 attempts failed", "timed out during startup", "RAY_ADDRESS"):
        assert part in last
    status = json.loads(next((tmp_path / "out").glob("*/status.json")).read_text())
    assert status["state"] == "failed"
    assert "Ray did not start on this machine" in status["message"]
    assert "defect" not in status["message"]
    assert not list((tmp_path / "out").glob("*/errors.log"))


@pytest.mark.parametrize(("load", "says"), [(19.6, "The load is 19.6 on 2 CPUs. "), (0.5, "")])
def test_a_busy_machine_is_named(monkeypatch, load, says) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(local_ray, "usable_cpus", lambda: 2)
    assert local_ray.how_busy() == says


def test_interrupts_are_not_tried_again(monkeypatch) -> None:
    fake = Ray(monkeypatch, failures=0)

    def stopped(**_):
        raise SystemExit(1)

    monkeypatch.setattr("ray.init", stopped)
    with pytest.raises(SystemExit), clusters.cluster(RayConfig()):
        pass
    assert not fake.folders


REAL = """
import json, os, sys
import ray._private.services as services
from chexray.config import RayConfig
from chexray.engine.cluster import cluster

asked, found = [], services.get_node

def get_node(*args):
    asked.append(args)
    if len(asked) == 1:
        raise Exception("The current node timed out during startup.")  # all its processes run by then
    return found(*args)

services.get_node = get_node
with cluster(RayConfig(num_cpus=1, object_store_gb=0.2)):
    import psutil, ray
    nice = ray.get(ray.remote(lambda: os.nice(0)).remote())
    commands = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    first, second = (sum(f"/r{number}/" in command for command in commands) for number in (1, 2))
    said = {"nice": nice, "mine": os.nice(0), "first": first, "second": second, "asked": len(asked)}
    print(json.dumps(said), flush=True)
"""


@pytest.fixture(scope="module")
def second_start():
    """What a real Ray says that came up at the second attempt, in a process of its own."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.getcwd()}
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_worker_niceness"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", REAL], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.ray
def test_workers_run_at_the_priority_of_whoever_starts_them(second_start) -> None:
    assert second_start["nice"] == second_start["mine"]


@pytest.mark.ray
def test_nothing_of_the_first_attempt_is_left(second_start) -> None:
    assert second_start["asked"] >= 2
    assert second_start["first"] == 0
    assert second_start["second"] >= 2


def test_a_priority_that_the_user_chose_stands(monkeypatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "7")
    Ray(monkeypatch, failures=0)
    with clusters.cluster(RayConfig()):
        assert os.environ["RAY_worker_niceness"] == "7"  # noqa: SIM112
