"""The cluster of a run: joined and counted, too small, of other versions, silent, or an address of another kind."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.jobs_api import JobsApi, served

from chexray import parse_config
from chexray.doctor import cluster as looking
from chexray.doctor.case import Case
from chexray.doctor.checks import perform
from chexray.engine import probing
from chexray.engine.pools import Resources
from chexray.engine.probing import NotJoined, version_mismatch

PYTHON = platform.python_version()


def case(tmp_path: Path, address: str = "", **more) -> Case:
    data = {
        "real": "real.csv",
        "synthetic": "synthetic.csv",
        "encoders": ["pixels"],
        "output": str(tmp_path / "out"),
        "ray": {"address": address or None, **more.pop("ray", {})},
    }
    return Case(parse_config({**data, **more}), environment={"RAY_AUTH_MODE": "disabled"})


def lines(pending) -> list[str]:
    return [perform(each).line for each in pending]


@pytest.fixture(scope="module")
def address(ray_cluster) -> str:
    import ray

    return ray.get_runtime_context().gcs_address


@contextmanager
def recorded(address: str, **versions: str) -> Iterator[None]:
    """The cluster with other versions in its record, which is what Ray compares."""
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._raylet import GcsClient

    def put(values: dict) -> None:
        client.internal_kv_put(CLUSTER_METADATA_KEY, json.dumps(values).encode(), True, namespace=b"cluster")

    client = GcsClient(address=address)
    true = json.loads(client.internal_kv_get(CLUSTER_METADATA_KEY, namespace=b"cluster"))
    put({**true, **versions})
    try:
        yield
    finally:
        put(true)


def test_a_cluster_is_joined_counted_and_leaves_nothing_in_the_output(address, tmp_path) -> None:
    visited = case(
        tmp_path, address, utility={"workers": 3, "device": "cpu"}, suite=["fidelity", "utility"], training="train.csv"
    )
    cluster, encoding, training = lines([*looking.pending(visited), *looking.pool_pending(visited)])
    assert cluster.startswith("ok ")
    assert "1 node with CPUs, 2 CPU" in cluster
    assert encoding.startswith("ok ")
    assert training.startswith("FAIL")
    assert "utility.workers is 3" in training
    assert "Set it from 1 to 2, or auto." in training
    assert not (tmp_path / "out").exists()


def test_too_few_cpus_for_the_pool_are_found(address, tmp_path) -> None:
    visited = case(tmp_path, address, encode={"actors": 5, "device": "cpu"})
    _, pool = lines([*looking.pending(visited), *looking.pool_pending(visited)])
    assert pool.startswith("FAIL")
    assert "encode.actors is 5" in pool
    assert "Set encode.actors to at most 2, or auto." in pool


def test_another_version_of_ray_is_found(address, tmp_path) -> None:
    import ray

    with recorded(address, ray_version="2.59.1"):
        (line,) = lines(looking.pending(case(tmp_path, address)))
    assert line.startswith("FAIL")
    assert f"the cluster runs Ray 2.59.1 on Python {PYTHON}, this process Ray {ray.__version__} on Python" in line
    assert line.endswith("Run chexray in the image of the cluster, or install ray==2.59.1.")


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"ray_version": "2.48.0", "python_version": "3.10.1"}, "install ray==2.48.0 on Python 3.10.1."),
        ({"python_version": "3.10.1"}, "or install Python 3.10.1."),
        ({"python_version": f"{PYTHON.rpartition('.')[0]}.99"}, "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor"),
    ],
)
def test_what_ray_says_of_versions_becomes_one_line(theirs, words) -> None:
    import ray
    from ray._private.utils import check_version_info

    own = {"ray_version": ray.__version__, "python_version": PYTHON}
    check_version_info(own, "node 10.0.0.1", python_version_match_level="patch")
    with pytest.raises(RuntimeError) as raised:
        check_version_info({**own, **theirs}, "node 10.0.0.1", python_version_match_level="patch")
    line = version_mismatch(raised.value)
    assert line is not None
    assert "\n" not in line
    assert words in line
    assert version_mismatch(RuntimeError("the head is out of memory")) is None


def test_a_folder_that_a_node_does_not_see_is_found(address, tmp_path) -> None:
    hidden = str(tmp_path / "hidden")
    seen = probing.look(address, [str(tmp_path), hidden])
    assert [node.unseen for node in seen.nodes] == [(hidden,)]
    found = looking.judged(seen, {})
    assert found.state == "FAIL"
    assert f"{hidden} of this machine is not seen by" in found.detail
    assert found.fix == "Mount it on every node (NFS), or use s3://."


def node(name: str, **more) -> probing.Node:
    return probing.Node(
        **{"name": name, "resources": {"CPU": 2.0}, "answered": True, "chexray": "", "unseen": (), **more}
    )


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"answered": False}, "b ran no task in time"),
        ({"chexray": "0.0.1"}, "0.0.1 on b"),
        ({"unseen": ("/out/probe",)}, "/out of this machine is not seen by b of 2"),
    ],
)
def test_one_odd_node_is_named(odd, words, monkeypatch) -> None:
    monkeypatch.setattr(looking, "installed", lambda: "")
    seen = probing.Seen("2.60.0", "3.11.7", (node("a"), node("b", **odd)), 4.0)
    found = looking.judged(seen, {"/out/probe": "/out"})
    assert found.state == "FAIL"
    assert words in found.detail
    assert found.fix


def test_a_head_without_cpus_is_no_node_to_work_on() -> None:
    seen = probing.Seen("2.60.0", "3.11.7", (node("head", resources={"memory": 4e9}), node("worker")), 2.0)
    assert (seen.resources.nodes, seen.resources.cpus, seen.resources.memory) == (1, 2.0, 0.0)
    assert "1 node with CPUs and 1 without" in looking.judged(seen, {}).detail


def test_a_cluster_that_grows_is_sized_for_what_it_may_become(tmp_path) -> None:
    visited = case(tmp_path, "head:6379", encode={"actors": 4}, ray={"gpus": 4, "cpus": 16})
    visited.resources = Resources(1, 0, 1e9, 1, joined=True, node_cpus=(1,))
    (line,) = lines(looking.pool_pending(visited))
    assert line.startswith("ok ")
    assert "4 encode workers on cuda" in line
    assert "may grow to 16 CPU and 4 GPU" in line


def test_nobody_at_the_address_is_found_at_once(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    visited = Case(None, environment={"RAY_ADDRESS": address})
    (line,) = lines(looking.pending(visited))
    assert line.startswith("FAIL")
    assert f"nothing listens at {address}" in line
    assert "Correct RAY_ADDRESS" in line
    visited = case(tmp_path, address)
    cluster, pool = lines([*looking.pending(visited), *looking.pool_pending(visited)])
    assert "Correct ray.address" in cluster
    assert pool.startswith("note")


def test_a_port_that_is_not_rays_is_given_up() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(NotJoined, match="does not answer as Ray does"):
        probing.look(f"127.0.0.1:{silent.getsockname()[1]}", patience_s=0.5)


def test_without_an_address_the_machine_is_described_and_nothing_is_started(tmp_path) -> None:
    visited = case(tmp_path, ray={"num_cpus": 1}, encode={"actors": 2, "device": "cpu"})
    visited.environment = {}
    cluster, pool = lines([*looking.pending(visited), *looking.pool_pending(visited)])
    assert cluster.startswith("ok ")
    assert "a Ray of its own on this machine, with 1 CPU" in cluster
    assert "local Ray: 1 node, 1 CPU" in pool
    assert "Set encode.actors to at most 1, or auto." in pool


def test_an_address_of_the_jobs_api_is_told_from_one_to_join() -> None:
    import ray

    with served(JobsApi(ray_version=ray.__version__)) as same:
        found = looking.jobs_api(same.address, "RAY_ADDRESS")
        assert found.state == "note"
        assert f"chexray submit CONFIG --address {same.address}" in found.fix
    with served(JobsApi(ray_version="2.41.0")) as other:
        found = looking.jobs_api(other.address, "RAY_ADDRESS")
        assert found.state == "FAIL"
        assert f"runs Ray 2.41.0, this process Ray {ray.__version__}" in found.detail
        assert "pip install ray==2.41.0" in found.fix
    gone = looking.jobs_api(other.address, "RAY_ADDRESS")
    assert gone.state == "FAIL"
    assert "Correct RAY_ADDRESS" in gone.line
    with served(JobsApi(token="t0ps3cret")) as closed:
        found = looking.jobs_api(closed.address, "RAY_ADDRESS")
        assert found.state == "FAIL"
        assert "RAY_AUTH_TOKEN" in found.line
