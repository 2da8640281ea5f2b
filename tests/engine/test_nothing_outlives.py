"""A driver that is killed leaves nothing: the processes of its Ray and its folder are gone within 10 s."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

GONE_S = 10.0
RUN = """
import os, signal, subprocess, sys
from chexray.config import RayConfig
from chexray.engine.cluster import cluster
with cluster(RayConfig(num_cpus=1, object_store_gb=0.1, temp_dir=sys.argv[1])):
    import ray

    @ray.remote(num_cpus=0)
    class Stuck:
        \"\"\"Does not see that its raylet is gone, as a controller of Ray Train did that waited on a futex.\"\"\"
        def start(self):
            command = [sys.executable, "-c", "import signal; signal.pause()"]
            self.worker = subprocess.Popen(command, start_new_session=True)
            return self.worker.pid
        def freeze(self):
            os.kill(os.getpid(), signal.SIGSTOP)

    stuck = Stuck.remote()
    ray.get(stuck.start.remote())
    stuck.freeze.remote()
    print("up", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def marked(mark: str) -> list[str]:
    """Command lines of the living processes with this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            pass
    return found


@pytest.mark.ray
@pytest.mark.timeout(200)
def test_a_killed_driver_leaves_no_process_and_no_folder() -> None:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        mark = f"OUTLIVES={os.path.basename(folder)}"
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OUTLIVES": os.path.basename(folder)}
        environment.pop("RAY_ADDRESS", None)
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert len(marked(mark)) >= 6
        assert len(list(Path(folder).glob("cxr-*"))) == 1
        process.communicate("\n")
        assert process.returncode == -signal.SIGKILL
        end = time.monotonic() + GONE_S
        while (marked(mark) or os.listdir(folder)) and time.monotonic() < end:
            time.sleep(0.02)
        assert marked(mark) == []
        assert os.listdir(folder) == []
