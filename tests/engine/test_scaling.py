"""A cluster that grows: the run waits for the first node, plans for all, and takes its request back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from chexray.config import EncodeConfig, RayConfig, RunConfig, parse_config
from chexray.engine.pools import Resources, plan_pool
from chexray.engine.scaling import asks, grown, growth, released, settled
from chexray.errors import ResourceError

EMPTY = Resources(cpus=0, gpus=0, memory=0, nodes=0, joined=True)
ONE = Resources(cpus=8, gpus=1, memory=3e10, nodes=2, joined=True, node_cpus=(4.0, 4.0))
ALL = Resources(cpus=16, gpus=4, memory=6e10, nodes=4, joined=True, node_cpus=(4.0,) * 4)


class Cluster:
    """Has one more state at each look, and is its own autoscaler."""

    def __init__(self, *states: Resources):
        self.states: Iterator[Resources] = iter(states)
        self.last = EMPTY
        self.asked: list[tuple[int, int]] = []
        self.slept: list[float] = []
        self.cpus, self.gpus, self.seen = 0, 0, True

    def measure(self) -> Resources:
        self.last = next(self.states, self.last)
        return self.last

    def ask(self, cpus: int, gpus: int) -> None:
        self.cpus, self.gpus = cpus, gpus
        self.asked.append((cpus, gpus))

    def was_seen(self) -> bool:
        return self.seen

    @property
    def around(self) -> dict:
        return {"measure": self.measure, "sleep": self.slept.append, "request": self}

    def settled(self, config: RayConfig, resources: Resources) -> Resources:
        return settled(config, resources, measure=self.measure, sleep=self.slept.append)


def test_encoding_starts_with_the_first_gpu_and_is_planned_for_all_of_them() -> None:
    cluster, heard = Cluster(EMPTY, EMPTY, ONE, ALL), []
    with grown(RayConfig(gpus=4, cpus=16), EMPTY, heard.append, **cluster.around) as resources:
        assert cluster.asked == [(16, 4)]
        assert len(cluster.slept) == 2
        pool = plan_pool(EncodeConfig(), resources, n_images=75_649)
        assert (pool.device, pool.actors) == ("cuda", 4)
        assert resources.describe() == "cluster: 2 nodes so far, growing to 16 CPU, 4 GPU"
    assert cluster.asked == [(16, 4), (0, 0)]
    assert heard == ["waiting for the cluster to grow to 16 CPU and 4 GPU; cluster: 0 nodes, 0 CPU"]


def test_training_waits_for_all_that_is_asked_for_and_takes_what_came_in_time() -> None:
    config = RayConfig(gpus=4, wait_s=10)
    cluster = Cluster(ONE, ONE, ONE, ALL)
    with grown(config, EMPTY, **cluster.around):
        assert cluster.settled(config, ONE) == ALL
    late = Cluster(ONE)
    with grown(config, EMPTY, **late.around):
        assert late.settled(config, ONE) == ONE
    assert sum(late.slept) == 10


def test_what_was_released_is_not_waited_for() -> None:
    cluster = Cluster(ONE)
    config = RayConfig(gpus=4, cpus=8)
    with grown(config, EMPTY, **cluster.around):
        assert asks()
        released()
        assert cluster.asked == [(8, 4), (8, 0)]
        assert cluster.settled(config, ONE) == ONE
    assert cluster.slept == []
    assert cluster.asked[-1] == (0, 0)
    assert cluster.settled(config, ONE) is ONE
    assert not asks()


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (True, r"ray\.wait_s=5 s for 2 GPU\. The autoscaler has the request.*quota, taints.*raise ray\.wait_s"),
        (False, r"ray\.wait_s=5 s for 2 GPU\. The request was never seen(?!.*(quota|taints)).*ray status"),
    ],
)
def test_a_gpu_that_never_comes_is_one_line_and_the_request_is_taken_back(seen: bool, told: str) -> None:
    cluster = Cluster(EMPTY)
    cluster.seen = seen
    with (
        pytest.raises(ResourceError, match=told),
        grown(RayConfig(gpus=2, wait_s=5), EMPTY, **cluster.around),
    ):
        pass
    assert cluster.asked[-1] == (0, 0)


def test_a_local_ray_and_a_cluster_of_fixed_size_are_asked_for_nothing() -> None:
    laptop = Resources(cpus=2, gpus=0, memory=8e9, nodes=1)
    cluster = Cluster()
    for config, resources in ((RayConfig(gpus=2), laptop), (RayConfig(), ONE)):
        with grown(config, resources, **cluster.around) as found:
            assert found is resources
        assert cluster.settled(config, resources) is resources
    assert cluster.asked == []


@pytest.mark.parametrize(
    ("resources", "device", "told"),
    [
        (EMPTY, "auto", r"decoding needs at least 1 CPU\..*ray\.cpus.*ray\.wait_s"),
        (replace(ONE, gpus=0), "cuda", r"has no GPU\. Use encode\.device=cpu\..*ray\.gpus.*ray\.wait_s"),
        (replace(EMPTY, joined=False), "auto", r"local Ray: .*ray\.num_cpus.*RAY_ADDRESS"),
        (replace(ONE, gpus=0, joined=False), "cuda", r"GPU workers by RAY_ADDRESS"),
    ],
)
def test_what_is_missing_is_said_with_the_keys_that_bring_it(resources: Resources, device: str, told: str) -> None:
    with pytest.raises(ResourceError, match=told):
        plan_pool(EncodeConfig(device=device), resources, n_images=10)


def test_what_an_actor_books_fits_on_every_node() -> None:
    small = Resources(cpus=3, gpus=0, memory=1e12, nodes=3, joined=True, node_cpus=(1.0, 1.0, 1.0))
    pool = plan_pool(EncodeConfig(), small, n_images=10)
    assert (pool.actors, pool.cpus_per_actor, pool.torch_threads) == (1, 0.5, 1)


@pytest.mark.parametrize(
    ("suite", "encode", "utility", "gpus"),
    [
        ("fidelity", "auto", "auto", 4),
        ("fidelity", "cpu", "auto", None),
        ("fidelity,utility", "cpu", "auto", 4),
        ("fidelity,utility", "cpu", "cpu", None),
        ("utility", "auto", "cpu", None),
    ],
)
def test_no_gpu_is_waited_for_where_none_is_used(suite: str, encode: str, utility: str, gpus: int | None) -> None:
    config: RunConfig = parse_config(
        {
            "real": "x.csv",
            "synthetic": "y.csv",
            "encoders": "pixels",
            "suite": suite,
            "ray": {"gpus": 4, "cpus": 8},
            "encode": {"device": encode},
            "utility": {"device": utility},
        }
    )
    assert growth(config).gpus == gpus
    assert growth(config).cpus == 8
