"""Runs on a cluster of a head and two workers, handed over through the Jobs API: shared disk, stopped, a node killed.

Every node reaches S3 by a gateway of its own, so it is known which node read or wrote what, and requests are held back
until the blow has fallen: it strikes in the middle of the run whatever the machine's speed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fixtures.nodes import Gateway, Nodes, nodes
from fixtures.s3 import S3, SECRET
from PIL import Image

from chexray import evaluate, parse_config, read_results
from chexray.data.manifest import image_key

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform != "linux", reason="each node has its own loopback address"),
]
CHUNK = 8
NAMES = tuple(f"{role}/{i:04d}.png" for role in ("real", "synthetic") for i in range(48))
BAD = "real/0005.png"


class Cluster:
    """Nodes, their gateways by name, and what went through these."""

    def __init__(self, running: Nodes, gateways: dict[str, Gateway]):
        self.nodes, self.gateways = running, gateways

    def read(self) -> Counter[tuple[str, str]]:
        """(node, image) -> how often its bytes went there. An image is named `real/0001.png`."""
        return self._count("GET", r"/[^/]+/(\w+/\d+\.png)")

    def encoded(self) -> Counter[tuple[str, str]]:
        """`read` by the workers: the driver, on the head, looks at a sample of each set while it plans."""
        return Counter({(node, image): n for (node, image), n in self.read().items() if node != "head"})

    def committed(self) -> Counter[tuple[str, str]]:
        """(node, part) -> how often it was written. A part is named by the hex of its chunk."""
        return self._count("PUT", r".*/part-(\w+)\.parquet")

    def submit(self, config: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Hands the run over and follows it to its end; gives what its user sees."""
        return self.nodes.command("chexray", "submit", config, "--address", self.nodes.jobs, "--follow", *words)

    def ray_job(self, verb: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.nodes.command("ray", "job", verb, "--address", self.nodes.jobs, *words, **environment)

    def pass_on(self) -> None:
        for gateway in self.gateways.values():
            gateway.before = lambda *_: None

    def _count(self, method: str, pattern: str) -> Counter[tuple[str, str]]:
        return Counter(
            (name, found[1])
            for name, gateway in self.gateways.items()
            for verb, path in gateway.answered
            if verb == method and (found := re.fullmatch(pattern, path.partition("?")[0]))
        )


@pytest.fixture(scope="module")
def gateways(s3_server: str) -> Iterator[dict[str, Gateway]]:
    with ExitStack() as stack:
        made = {name: Gateway(s3_server) for name in ("head", "one", "two")}
        for gateway in made.values():
            stack.enter_context(gateway)
        yield made


@pytest.fixture(scope="module")
def running(gateways: dict[str, Gateway]) -> Iterator[Nodes]:
    keys = {"AWS_ACCESS_KEY_ID": "AKIATESTING", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    with nodes({name: {**keys, "AWS_ENDPOINT_URL": gateway.url} for name, gateway in gateways.items()}) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Nodes, gateways: dict[str, Gateway]) -> Cluster:
    for gateway in gateways.values():
        gateway.answered.clear()
    return Cluster(running, gateways)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sets; one file of `real` is no image."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(7)
    for name in NAMES:
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24), np.uint8)).save(root / name)
    (root / BAD).write_bytes(b"not a PNG")
    return root


@pytest.fixture(scope="module")
def alone(ray_cluster, images: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The results of one node, on local files."""
    return numbers(evaluate(parse_config(settings(images, tmp_path_factory.mktemp("alone")))).results)


def settings(place: str | Path, output: str | Path) -> dict:
    """A config that names no S3 endpoint and no credentials: each node has them in its environment."""
    return {
        "name": "spread",
        "real": {"path": f"{place}/real", "name": "real"},
        "synthetic": [{"path": f"{place}/synthetic", "name": "synthetic"}],
        "encoders": [{"name": "pixels", "side": 4}],
        "metrics": ["fid", "kid", "prdc"],
        "output": str(output),
        "floor": False,
        # Requests that a test holds back must not be sent again.
        "storage": {"timeout_s": 200},
        "encode": {"chunk_size": CHUNK, "batch_size": 4, "max_reject_fraction": 0.05},
    }


def upload(folder: Path, s3: S3) -> None:
    for path in sorted(folder.rglob("*.png")):
        s3.storage.write(f"{s3.bucket}/{path.parent.name}/{path.name}", path.read_bytes())


def numbers(results: pd.DataFrame) -> pd.DataFrame:
    """All that a run found, without what names the run and the places of its images."""
    return results.drop(columns=["created_at", "run_id", "real_set", "synthetic_set"])


def save(config: dict, folder: Path) -> str:
    file = folder / "run.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return str(file)


class Hold:
    """Lets the workers commit one part, and its worker read one image of its next chunk; holds back all else they ask
    for from then on, so that chunks are open whenever a test strikes. What is held when the block ends breaks off.

    `first`: the worker that committed.
    """

    def __init__(self, cluster: Cluster):
        self.cluster, self.first = cluster, ""
        self._lock, self._has_read = threading.Lock(), False
        self._is_counted, self._is_open, self._over = threading.Event(), threading.Event(), threading.Event()
        self._spared: tuple[str, ...] = ()

    def __enter__(self) -> Hold:
        for name, gateway in self.cluster.gateways.items():
            gateway.before = partial(self._before, name)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.pass_on()
        self._over.set()

    def wait(self, job: Future[subprocess.CompletedProcess[str]]) -> None:
        """Until the driver has counted the part and the next chunk is open. Fails when the job ends before."""
        job.add_done_callback(lambda _: [event.set() for event in (self._is_counted, self._is_open)])
        self._is_counted.wait()
        self._is_open.wait()
        assert not job.done(), job.result()

    def release(self, *nodes: str) -> None:
        """What these nodes ask for goes on; what others do breaks off."""
        self._spared = nodes
        self.__exit__()

    def _before(self, node: str, method: str, path: str, body: bytes) -> None:
        if node == "head":
            if method == "PUT" and "/status.json" in path and re.search(rb'"done": [1-9]', body):
                self._is_counted.set()
        elif not self._passes(node, method, path):
            self._over.wait()
            if node not in self._spared:
                raise ConnectionAbortedError

    def _passes(self, node: str, method: str, path: str) -> bool:
        with self._lock:
            if not self.first:
                if method == "PUT" and "/part-" in path:
                    self.first = node
                return True
            if node == self.first and method == "GET" and ".png" in path:
                if not self._has_read:
                    self._has_read = True
                    return True
                self._is_open.set()
            return False


def finished(job: subprocess.CompletedProcess[str]) -> str:
    """The URI of the run of a job that ended well."""
    assert job.returncode == 0, job.stdout + job.stderr
    found = re.search(r"^results: (\S+)$", job.stdout, re.MULTILINE)
    assert found, job.stdout
    return found[1]


def status(uri: str, storage: Any) -> dict:
    return json.loads(storage.read(f"{uri}/status.json"))


def stored(bucket: S3, output: str) -> tuple[dict[str, set[str]], set[str]]:
    """What the feature store holds: {chunk: its images}, and the rejected images among them."""
    files = bucket.storage.list(bucket.bucket)
    names = {image_key(f.uri, f.size, f.version): "/".join(f.uri.split("/")[-2:]) for f in files}
    chunks: dict[str, list[str]] = {}
    rejected = []
    for file in files:
        if found := re.fullmatch(re.escape(output) + r"/.*/(part|rejects)-(\w+)\.parquet", file.uri):
            keys = bucket.storage.read_parquet(file.uri, ["image_key"])["image_key"].to_pylist()
            chunks.setdefault(found[2], []).extend(names[key] for key in keys)
            rejected += [names[key] for key in keys if found[1] == "rejects"]
    in_order = sorted(name for images in chunks.values() for name in images)
    assert len(in_order) == len(set(in_order)), "an image is in two parts"
    return {chunk: set(images) for chunk, images in chunks.items()}, set(rejected)


def test_the_jobs_api_refuses_whoever_has_no_token(cluster: Cluster) -> None:
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{cluster.nodes.jobs}/api/jobs/")
    assert answer.value.code == 401
    refused = cluster.ray_job("submit", "--", "true", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "Invalid authentication token" in refused.stderr


def test_nodes_that_share_a_disk_evaluate_local_paths(cluster, images, alone, tmp_path) -> None:
    config = save(settings(images, tmp_path / "out"), tmp_path)
    uri = finished(cluster.ray_job("submit", "--", "chexray", "run", config))
    pd.testing.assert_frame_equal(numbers(read_results(uri)), alone, check_exact=True)


def test_a_stopped_job_says_so_and_the_next_one_does_only_what_is_left(cluster, images, s3, tmp_path) -> None:
    upload(images, s3)
    config = save(settings(s3.bucket, f"{s3.bucket}/out"), tmp_path)
    with ThreadPoolExecutor(1) as pool, Hold(cluster) as hold:
        job = pool.submit(cluster.submit, config, "--submission-id", "to-be-stopped")
        hold.wait(job)
        stop = cluster.ray_job("stop", "to-be-stopped")
        assert stop.returncode == 0, stop.stdout + stop.stderr
        assert job.result().returncode == 130, job.result().stdout + job.result().stderr
        # Within the 20 s that a stopped job has here, and a pod of Kubernetes has 30.
        assert "terminated gracefully with SIGTERM" in cluster.nodes.supervisor_log("to-be-stopped")
        chunks, _ = stored(s3, f"{s3.bucket}/out")
        (uri,) = {
            file.uri.rpartition("/")[0] for file in s3.storage.list(f"{s3.bucket}/out") if "status.json" in file.uri
        }
        assert {"state": "interrupted", "exit_code": 130}.items() <= status(uri, s3.storage).items()
        assert len(chunks) == 1

        cluster.pass_on()  # what the dead job asked for stays held
        for gateway in cluster.gateways.values():
            gateway.answered.clear()
        assert finished(cluster.submit(config)) == uri
    assert {"state": "done", "exit_code": 0}.items() <= status(uri, s3.storage).items()
    (done,) = chunks.values()
    assert Counter(image for _, image in cluster.encoded().elements()) == Counter(set(NAMES) - done)


def test_a_killed_node_costs_its_open_chunk_and_no_number(cluster, images, alone, s3, tmp_path) -> None:
    upload(images, s3)
    config = settings(s3.bucket, f"{s3.bucket}/out")
    with ThreadPoolExecutor(1) as pool, Hold(cluster) as hold:
        job = pool.submit(cluster.submit, save(config, tmp_path))
        hold.wait(job)
        cluster.nodes.workers[hold.first].kill()
        (survivor,) = cluster.nodes.workers.keys() - {hold.first}
        hold.release(survivor)
        done = job.result()
    uri = finished(done)
    # Ray tries the open chunk on the dead node a few times before it knows; that says nothing against the images.
    assert "Isolating" not in done.stdout
    story = json.loads(s3.storage.read(f"{uri}/run.json"))
    assert {"nodes": 2, "cpus": 2.0, "joined": True}.items() <= story["resources"].items()
    assert story["pool"]["actors"] == 2  # the driver is on the head and books none of them
    assert {"state": "done", "exit_code": 0, "n_rejected": 1}.items() <= status(uri, s3.storage).items()

    chunks, rejected = stored(s3, f"{s3.bucket}/out")
    assert set().union(*chunks.values()) == set(NAMES)
    assert rejected == {BAD}
    committed = cluster.committed()
    assert Counter(part for _, part in committed.elements()) == Counter(chunks.keys()), "a part was written twice"
    (before,) = [part for node, part in committed if node == hold.first]
    again = {image for image, n in Counter(image for _, image in cluster.encoded().elements()).items() if n > 1}
    lost = {image for node, image in cluster.encoded() if node == hold.first} - chunks[before]
    assert lost
    assert again == lost, "an image outside open chunks was read twice, or one inside was not"

    pd.testing.assert_frame_equal(numbers(read_results(uri, s3.storage)), alone, check_exact=True)
