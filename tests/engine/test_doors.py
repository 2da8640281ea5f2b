"""A local run opens no door: whoever reaches its ports or its temp folder gets nothing without the token of the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import doors

from chexray.storage.scratch import remove_leftovers, scratch

pytestmark = pytest.mark.ray

RUN = """
import json, os, sys
from chexray.config import RayConfig
from chexray.engine.cluster import cluster
with cluster(RayConfig(num_cpus=2, object_store_gb=0.2)):
    import ray
    worker = ray.remote(lambda: os.environ.get("RAY_AUTH_TOKEN", ""))
    mine = os.environ.get("RAY_AUTH_TOKEN", "")
    assert ray.get(worker.remote()) == mine
    temp = ray._private.worker._global_node.get_temp_dir_path()
    print(json.dumps({"token": mine, "temp": temp, "host": ray.util.get_node_ip_address()}), flush=True)
    sys.stdin.readline()
print(json.dumps({name: os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A local Ray in a process of its own, whose environment speaks of another cluster without authentication."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "PYTHONPATH": os.getcwd()}
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):  # of the Ray of the other tests
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    yield {**said, "home": home, "pid": process.pid}
    process.stdin.write("\n")
    process.stdin.close()
    after = json.loads(process.stdout.readline())
    assert process.wait(60) == 0
    assert after == {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": None}
    assert not Path(said["temp"]).exists()


def test_nothing_answers_another_user_without_the_token(run):
    ports = doors.listening(doors.family(run["pid"]))
    assert len(ports) >= 6, ports
    request = {"host": run["host"], "ports": list(ports), "methods": doors.spoken(), "paths": [run["temp"]]}
    done = subprocess.run(
        [sys.executable, doors.__file__], input=json.dumps(request), capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    for port, answers in answer["answers"].items():
        for asked, got in answers.items():
            assert got == "counters" or doors.HARMLESS.search(asked), (port, ports[int(port)], asked, got)
    if os.getuid() == 0:
        assert answer["entered"] == []
    assert doors.listening(doors.family(run["pid"]))  # it still lives


def test_the_token_is_in_no_file_and_on_no_command_line(run):
    assert re.fullmatch("[0-9a-f]{64}", run["token"])
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in doors.family(run["pid"])]
    assert not any(run["token"].encode() in command for command in commands)
    for root in (Path(run["temp"]).parent, run["home"]):
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not any(run["token"].encode() in path.read_bytes() for path in files)
    assert not (run["home"] / ".ray").exists()


def test_the_temp_folder_lies_in_one_that_only_the_user_enters(run):
    parent = Path(run["temp"]).parent
    assert parent.stat().st_mode & 0o777 == 0o700
    assert parent.name.startswith("cxr-")


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("chexray.storage.scratch.place", lambda: tmp_path)
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nimport chexray.storage.scratch as s\n"
        "s.place = lambda: Path(sys.argv[1])\n"
        "with s.scratch() as folder:\n"
        "    Path(folder, 'session').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.glob("cxr-*")
    (tmp_path / "cxr-just-made").mkdir()
    (tmp_path / "cxr-link").symlink_to(tmp_path / "cxr-just-made")
    (tmp_path / "others").mkdir()
    with scratch() as mine, scratch("train-") as second:
        assert not left.exists()
        assert Path(mine).stat().st_mode & 0o777 == 0o700
        assert remove_leftovers(tmp_path) == []
        assert Path(second).is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"cxr-just-made", "cxr-link", "others"}


def test_a_cluster_without_authentication_is_told_from_one_with(run):
    from chexray.engine.authentication import asks_for_token

    gcs = next(port for port, command in doors.listening(doors.family(run["pid"])).items() if command == "gcs_server")
    assert asks_for_token(f"{run['host']}:{gcs}") is True
    assert asks_for_token("127.0.0.1:1") is None
