"""A cluster that grows: the run waits for the first node, plans for all, and takes its request back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chexray.config import EncodeConfig, RayConfig, RunConfig, parse_config
from chexray.engine.pools import Resources, plan_pool
from chexray.engine.scaling import grown, growth, settled
from chexray.errors import ResourceError

EMPTY = Resources(cpus=0, gpus=0, memory=0, nodes=0, joined=True)
ONE = Resources(cpus=8, gpus=1, memory=3e10, nodes=2, joined=True, node_cpus=(4.0, 4.0))
ALL = Resources(cpus=16, gpus=4, memory=6e10, nodes=4, joined=True, node_cpus=(4.0,) * 4)


class Cluster:
    """Has one more state at each look."""

    def __init__(self, *states: Resources):
        self.states: Iterator[Resources] = iter(states)
        self.last = EMPTY
        self.asked: list[tuple[int, int]] = []
        self.slept: list[float] = []

    def measure(self) -> Resources:
        self.last = next(self.states, self.last)
        return self.last

    def ask(self, cpus: int, gpus: int) -> None:
        self.asked.append((cpus, gpus))

    @property
    def around(self) -> dict:
        return {"measure": self.measure, "sleep": self.slept.append}


def test_encoding_starts_with_the_first_gpu_and_is_planned_for_all_of_them() -> None:
    cluster, heard = Cluster(EMPTY, EMPTY, ONE, ALL), []
    with grown(RayConfig(gpus=4, cpus=16), EMPTY, heard.append, ask=cluster.ask, **cluster.around) as resources:
        assert cluster.asked == [(16, 4)]
        assert len(cluster.slept) == 2
        pool = plan_pool(EncodeConfig(), resources, n_images=75_649)
        assert (pool.device, pool.actors) == ("cuda", 4)
        assert resources.describe() == "cluster: 2 nodes so far, growing to 16 CPU, 4 GPU"
    assert cluster.asked == [(16, 4), (0, 0)]
    assert heard == ["waiting for the cluster to grow to 16 CPU and 4 GPU; cluster: 0 nodes, 0 CPU"]


def test_training_waits_for_all_and_takes_what_came_in_time() -> None:
    config = RayConfig(gpus=4, wait_s=10)
    assert settled(config, ONE, **Cluster(ONE, ONE, ALL).around) == ALL
    late = Cluster(ONE)
    assert settled(config, ONE, **late.around) == ONE
    assert sum(late.slept) == 10


def test_a_gpu_that_never_comes_is_one_line_and_the_request_is_taken_back() -> None:
    cluster = Cluster(EMPTY)
    with (
        pytest.raises(ResourceError, match=r"ray\.wait_s=5 s for 2 GPU.*autoscaler"),
        grown(RayConfig(gpus=2, wait_s=5), EMPTY, ask=cluster.ask, **cluster.around),
    ):
        pass
    assert cluster.asked[-1] == (0, 0)


def test_a_local_ray_and_a_cluster_of_fixed_size_are_asked_for_nothing() -> None:
    laptop = Resources(cpus=2, gpus=0, memory=8e9, nodes=1)
    cluster = Cluster()
    for config, resources in ((RayConfig(gpus=2), laptop), (RayConfig(), ONE)):
        with grown(config, resources, ask=cluster.ask, **cluster.around) as found:
            assert found is resources
        assert settled(config, resources, **cluster.around) is resources
    assert cluster.asked == []


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
