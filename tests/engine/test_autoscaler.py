"""A run's request to the autoscaler: in force while it is needed, added to those of other runs, gone with its run."""

from __future__ import annotations

import inspect
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from chexray.config import RayConfig
from chexray.engine import autoscaler
from chexray.engine.autoscaler import Request, nothing_else_asked, silence
from chexray.engine.cluster import measured
from chexray.engine.scaling import grown, released

DEADLINE_S = 20


class Coordinator:
    """Ray Data's, and the state of the cluster it writes; `broken`: what each call to it raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: Exception | None = None):
        self.broken, self.held, self.state = broken, {}, Counter()
        self.told: list[str] = []
        self.alone: list[Counter[str]] = []
        self.renewed = threading.Event()
        monkeypatch.setattr(autoscaler, "_told", self.call)
        monkeypatch.setattr(autoscaler, "_send_alone", self.overwrite)
        monkeypatch.setattr(autoscaler, "demanded", lambda: self.state)

    def call(self, method: str, name: str, **terms: object) -> None:
        if self.broken:
            raise self.broken
        self.told.append(method)
        if self.told.count("request_resources") == 3:
            self.renewed.set()
        if method == "cancel_request":
            del self.held[name]
        else:
            self.held[name] = terms
        self.tick()

    def tick(self) -> None:
        self.state = sum((autoscaler._sum(each["resources"]) for each in self.held.values()), Counter())

    def overwrite(self, bundles: list[dict[str, float]]) -> None:
        self.state = autoscaler._sum(bundles)
        self.alone.append(self.state)
        if len(self.alone) == 3:
            self.renewed.set()


def test_a_request_is_renewed_until_it_is_withdrawn_and_seen_in_the_state(monkeypatch) -> None:
    coordinator = Coordinator(monkeypatch)
    request = Request(every_s=0.001)
    request.ask(4, 2)
    assert coordinator.renewed.wait(DEADLINE_S)
    assert request.was_seen()
    request.ask(4, 0)
    assert coordinator.state == Counter(CPU=4)
    request.ask(0, 0)
    assert coordinator.told[-1] == "cancel_request"
    n = len(coordinator.told)
    request._keeper.join(DEADLINE_S)
    request.ask(4, 2)  # withdrawn for good
    assert (coordinator.held, len(coordinator.told)) == ({}, n)


def test_requests_of_two_runs_add_up_and_each_withdraws_its_own(monkeypatch) -> None:
    coordinator = Coordinator(monkeypatch)
    first, second = Request(), Request()
    first.ask(6, 0)
    second.ask(4, 2)
    assert coordinator.state == Counter(CPU=10, GPU=2)
    first.ask(0, 0)
    assert coordinator.state == Counter(CPU=4, GPU=2)
    second.ask(0, 0)
    assert not +coordinator.state


@pytest.mark.parametrize(
    "error", [ImportError("no such module"), TypeError("unexpected keyword"), RuntimeError("died")]
)
def test_without_a_coordinator_the_request_is_sent_again_whenever_it_was_overwritten(monkeypatch, error) -> None:
    coordinator = Coordinator(monkeypatch, broken=error)
    monkeypatch.setattr(autoscaler, "RESEND_S", 0.001)
    request = Request()
    request.ask(4, 2)
    until = time.monotonic() + DEADLINE_S
    while not coordinator.renewed.is_set() and time.monotonic() < until:
        coordinator.state = Counter()  # somebody else overwrites it
        coordinator.renewed.wait(0.01)
    assert len(coordinator.alone) >= 3
    assert all(each == Counter(CPU=4, GPU=2) for each in coordinator.alone)
    coordinator.state = coordinator.alone[-1]
    request.ask(0, 0)
    request._keeper.join(DEADLINE_S)
    assert coordinator.alone[-1] == Counter()


def test_without_a_coordinator_what_another_asked_last_is_left_alone(monkeypatch) -> None:
    coordinator = Coordinator(monkeypatch, broken=ImportError())
    request = Request()
    request.ask(4, 2)
    coordinator.state = Counter(CPU=64)  # holds what this run asks for, too
    request.ask(0, 0)
    request._keeper.join(DEADLINE_S)
    assert coordinator.state == Counter(CPU=64)


def test_ray_data_asks_for_nothing_beside_the_run_and_train_neither() -> None:
    from ray import cloudpickle
    from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler as Autoscaler
    from ray.train import ScalingConfig
    from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    before = Autoscaler._is_cluster_utilization_low
    with nothing_else_asked():
        assert Autoscaler._is_cluster_utilization_low(None, None) is True
    assert Autoscaler._is_cluster_utilization_low is before
    policy = create_scaling_policy(ScalingConfig(num_workers=2))
    silence(policy)
    there = pickle.loads(cloudpickle.dumps(policy))  # pyright: ignore[reportPrivateImportUsage]
    there._send_resource_request()  # would fail: it has no coordinator
    there.make_decision_for_running_worker_group(None, None)
    started = inspect.getsource(DataParallelTrainer.fit)
    assert "self._initialize_and_run_controller(" in started
    assert "scaling_policy=create_scaling_policy(" in started
    with pytest.raises(ImportError), nothing_else_asked():
        raise ImportError("of the run itself")


def _ticked() -> Counter[str]:
    """What the state of the cluster holds once Ray Data's coordinator has sent its list, as it does every 20 s."""
    import ray

    coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
    ray.get(coordinator.get_reserved_resources.remote("tick", recompute=True))
    return Counter({name: int(amount) for name, amount in autoscaler.demanded().items()})


def _in_time(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + DEADLINE_S
    while not (found := is_so()) and time.monotonic() < until:
        threading.Event().wait(0.1)
    return found


def test_rays_own_state_holds_the_sum_of_two_runs_across_ray_data_and_loses_that_of_a_dead_one(ray_cluster) -> None:
    """The real coordinator and the real state of the cluster; tests/soak/growth.py adds a real autoscaler."""
    import ray

    here = measured(joined=True)
    dead = Request(expires_s=0.5, every_s=3600)  # as that of a run which was killed
    with grown(RayConfig(cpus=6, wait_s=0), here):
        assert ray.data.range(8).map_batches(lambda batch: batch).count() == 8
        assert _ticked() == Counter(CPU=6)
        other = Request()  # of a run in another process
        other.ask(4, 2)
        assert _ticked() == Counter(CPU=10, GPU=2)
        assert other.was_seen()
        dead.ask(1, 0)
        assert _in_time(lambda: _ticked() == Counter(CPU=10, GPU=2))
        held = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        for name in (other.name, dead.name):  # nothing that exists is kept from Ray Data
            assert ray.get(held.get_reserved_resources.remote(name)) == {}
        released()
        assert _ticked() == Counter(CPU=10, GPU=2)
        other.ask(0, 0)
        assert _ticked() == Counter(CPU=6)
    assert not +_ticked()
    dead._done.set()
