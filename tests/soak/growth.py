"""What runs ask of Ray's own autoscaler, sampled every second: two runs on one cluster, Ray Data between, one killed.

The cluster is a `ray start --head` with Ray's autoscaler and its fake provider, whose nodes are raylets of this
machine: the autoscaler decides as on Kubernetes, from the same state. A node that is idle for IDLE_S goes unless it is
asked for.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))
IDLE_S = 6
ASKED = {"A": (2, 0), "B": (1, 1)}
"""CPUs and GPUs that each run asks for."""
HEAD, HEAD_ID = "ray.head.default", "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""What Ray's fake provider calls the head: its group and its node."""
IP = "127.0.0.2"
START_ATTEMPTS = 4
"""A busy machine does not start Ray within the 30 s that it waits for itself."""
PATIENCE_S = 240
"""How long a state is waited for that must come."""


def run(quick: bool) -> bool:
    """Whether the autoscaler was asked for the sum of both runs in every sample of a minute (quick: 25 s), with all
    nodes kept, for A's alone once B was killed (not when quick), and for nothing once A had ended."""
    with _cluster() as (address, environment), ExitStack() as stack:
        a, b = (stack.enter_context(_Driver(address, environment, *ASKED[name])) for name in "AB")
        watch = stack.enter_context(_Driver(address, environment, 0, 0))
        both = _sum(*ASKED.values())
        held = [_reached("A and B ask", watch, both, nodes=3)]
        a.tell("data")
        held += [_stays("A runs Ray Data, B waits", watch, both, nodes=3, seconds=25 if quick else 70)]
        if quick:
            b.tell("end")
        else:
            b.process.kill()
        held += [_reached("B ended" if quick else "B was killed", watch, _sum(ASKED["A"]), nodes=2)]
        a.tell("end")
        held += [_reached("A ended", watch, Counter(), nodes=0)]
    return all(held)


class _Driver:
    """A run in a process of its own, as far as the autoscaler sees it."""

    def __init__(self, address: str, environment: dict[str, str], cpus: int, gpus: int):
        words = [sys.executable, __file__, address, str(cpus), str(gpus)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, env=environment, **pipes)

    def __enter__(self) -> _Driver:
        self.answer()  # it has asked
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, word: str) -> None:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline()

    def state(self) -> tuple[Counter[str], int]:
        """What the autoscaler is asked for, and how many workers there are."""
        self.tell("state")
        asked, nodes = json.loads(self.answer())
        return Counter(asked), nodes


def _sum(*asked: tuple[int, int]) -> Counter[str]:
    return +Counter({"CPU": sum(cpus for cpus, _ in asked), "GPU": sum(gpus for _, gpus in asked)})


def _reached(what: str, watch: _Driver, asked: Counter[str], nodes: int) -> bool:
    started, seen = time.monotonic(), watch.state()
    while seen != (asked, nodes) and time.monotonic() - started < PATIENCE_S:
        time.sleep(1)
        seen = watch.state()
    held = seen == (asked, nodes)
    print(
        f"| {what} | {_said(*seen)} | after {time.monotonic() - started:.0f} s | {'held' if held else 'LOST'} |",
        flush=True,
    )
    return held


def _stays(what: str, watch: _Driver, asked: Counter[str], nodes: int, seconds: int) -> bool:
    """Whether every one of so many samples, one a second, is the same."""
    states: Counter[str] = Counter()
    for _ in range(seconds):
        states[_said(*watch.state())] += 1
        time.sleep(1)
    held = set(states) == {_said(asked, nodes)}
    for state, n in states.items():
        print(f"| {what} | {state} | {n} of {seconds} samples | {'held' if held else 'LOST'} |", flush=True)
    return held


def _said(asked: Counter[str], nodes: int) -> str:
    return f"{asked['CPU']} CPU, {asked['GPU']} GPU asked for, {nodes} workers"


def _autoscaling(port: str) -> dict:
    """What a cluster file of `ray up` would say: workers of one CPU, some with a GPU, none to start with."""
    cpu = {"CPU": 1, "object_store_memory": 80_000_000}
    groups = {HEAD: {"CPU": 0}, "cpu": cpu, "gpu": {**cpu, "GPU": 1}}
    return {
        "cluster_name": "growth",
        "max_workers": 8,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{IP}:{port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        **{f"{which}setup_commands": [] for which in ("", "head_", "worker_")},
        "cluster_synced_files": [],
        "available_node_types": {
            name: {"resources": has, "node_config": {}, "min_workers": 0, "max_workers": 0 if name == HEAD else 8}
            for name, has in groups.items()
        },
    }


@contextmanager
def _cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Its address, and the environment of who joins it."""
    from fixtures.nodes import BIN, FOREIGN, QUIET, Node, _free_port

    folder = Path(tempfile.mkdtemp(prefix="cxg-", dir="/tmp"))
    environment = {key: value for key, value in os.environ.items() if not FOREIGN.match(key)} | QUIET
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "HOME": str(folder)}
    environment |= {"RAY_enable_autoscaler_v2": "1", "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    at_head = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    at_head |= dict.fromkeys(("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"), HEAD_ID)
    options = {"head": "", "num-cpus": "0", "include-dashboard": "false", "node-ip-address": IP}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            port, file = str(_free_port()), folder / f"autoscaling-{attempt}.json"
            file.write_text(json.dumps(_autoscaling(port)))
            options |= {"port": port, "autoscaling-config": str(file)}
            head = Node(f"head-{attempt}", options, environment | at_head, folder)
            stack.callback(head.kill)
            try:
                said = head.started().said
                break
            except RuntimeError:
                if attempt == START_ATTEMPTS:
                    raise
                head.kill()
        yield said.partition("ray start --address='")[2].partition("'")[0], environment


def _driver(address: str, cpus: int, gpus: int) -> None:
    """Asks for what it is given, then does what it is told, a word a line."""
    from chexray.config import RayConfig
    from chexray.engine.cluster import cluster
    from chexray.engine.scaling import grown

    config = RayConfig(address=address, cpus=cpus or None, gpus=gpus or None)
    with cluster(config) as found, grown(config, found):
        import ray

        print("asked", flush=True)
        for line in sys.stdin:
            if line.strip() == "end":
                return
            if line.strip() == "data":
                ray.data.range(64, override_num_blocks=8).map_batches(lambda batch: batch, batch_size=8).count()
                continue
            from chexray.engine.autoscaler import demanded

            asked = {key: int(amount) for key, amount in demanded().items() if amount}
            nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
            print(json.dumps([asked, nodes]), flush=True)


if __name__ == "__main__":
    _driver(sys.argv[1], *map(int, sys.argv[2:]))
