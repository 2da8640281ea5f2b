"""What a run asks of a cluster's autoscaler, kept in force for as long as the run needs it.

Ray has one such request for a whole cluster, and the last one sent counts. Ray Data's coordinator, an actor that stays
after the job which started it, sends the sum of what is registered with it every 20 s, even when that is nothing. So a
run registers with the coordinator, under a name of its own: requests of several runs add up, each withdraws only its
own, and that of a run that was killed expires. The coordinator is no public part of Ray; where it cannot be had, the
run sends its request itself, again and again.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

EXPIRES_S = 90.0
"""A request that was not renewed for so long is dropped by the coordinator: its run is dead."""
RENEW_S = 15.0
RESEND_S = 2.0
"""How often a request is sent that no coordinator holds: another sender may have overwritten it."""
ANSWER_S = 5.0
"""How long the coordinator is waited for. What it was told it does, even when it answers later."""


class Request:
    """What one run asks for: so many bundles of one CPU, and of one GPU.

    expires_s, every_s: tests pass shorter ones.
    """

    def __init__(self, *, expires_s: float = EXPIRES_S, every_s: float = RENEW_S):
        self.name = f"chexray-{uuid.uuid4().hex[:12]}"
        self.cpus, self.gpus, self._seen = 0, 0, False
        self.expires_s, self.every_s = expires_s, every_s
        self._registered = False
        self._lock, self._done = threading.Lock(), threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="growth", daemon=True)

    def ask(self, cpus: int, gpus: int) -> None:
        """Asks for so much from now on, in place of what was asked before; 0 and 0 withdraw it for good."""
        with self._lock:
            before, self.cpus, self.gpus = self.bundles, cpus, gpus
            if not (cpus or gpus):
                self._done.set()
                self._withdraw(before)
            elif not self._done.is_set():
                self._send()
        if not self._done.is_set() and not self._keeper.is_alive():
            self._keeper.start()

    @property
    def bundles(self) -> list[dict[str, float]]:
        return [{"GPU": 1.0}] * self.gpus + [{"CPU": 1.0}] * self.cpus

    def _keep(self) -> None:
        while not self._done.is_set():
            self.was_seen()
            if self._done.wait(self.every_s if self._registered else RESEND_S):
                return
            with self._lock:
                if not self._done.is_set():
                    self._send()

    def was_seen(self) -> bool:
        """Whether the request is, or once was, in the state of the cluster, which is what the autoscaler reads."""
        with suppress(Exception):  # what Ray raises while a cluster goes down; the run itself hears of that
            self._seen |= self._is_in_force()
        return self._seen

    def _is_in_force(self) -> bool:
        total = demanded()
        return total["CPU"] >= self.cpus and total["GPU"] >= self.gpus

    def _send(self) -> None:
        self._registered = True
        try:
            _told("request_resources", self.name, **self._terms())
        except Exception:  # of another Ray: no such module, no such parameter, an actor that died
            self._registered = False
            with suppress(Exception):
                if not self._is_in_force():
                    _send_alone(self.bundles)

    def _terms(self) -> dict[str, Any]:
        """The request as the coordinator takes it. It keeps nodes that exist from Ray Data for whoever registers: here
        by a pin to a group of nodes ("not in the one named so") that its bookkeeping finds empty, so that it keeps back
        nothing, and that to the autoscaler is every node."""
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import SUBCLUSTER_LABEL_KEY

        pin = {SUBCLUSTER_LABEL_KEY: f"!{self.name}"}
        return {"resources": self.bundles, "expire_after_s": self.expires_s, "subcluster_selector": pin}

    def _withdraw(self, bundles: list[dict[str, float]]) -> None:
        """Only what this run asked: a list that holds more, or something else, is not touched."""
        with suppress(Exception):
            if self._registered:
                _told("cancel_request", self.name)
            elif demanded() == _sum(bundles):
                _send_alone([])


def demanded() -> Counter[str]:
    """{resource: how much of it the autoscaler is asked to provide now}, by whomever: what the cluster's state says."""
    from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get, internal_kv_get_gcs_client

    if not is_autoscaler_v2():
        return _sum(json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or b"[]"))
    total: Counter[str] = Counter()
    for constraint in get_cluster_resource_state(internal_kv_get_gcs_client()).cluster_resource_constraints:
        for each in constraint.resource_requests:
            for resource, amount in each.request.resources_bundle.items():
                total[resource] += amount * each.count
    return total


@contextmanager
def nothing_else_asked() -> Iterator[None]:
    """Ray Data asks for nothing of its own within: the coordinator adds up, so its request for the GPUs that a run has
    asked for already would start as many again."""
    name = "_is_cluster_utilization_low"
    try:
        from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler as Autoscaler
    except ImportError:  # of another Ray
        Autoscaler = None
    before = getattr(Autoscaler, name, None)
    if before is None:
        yield
        return
    setattr(Autoscaler, name, lambda *_: True)
    try:
        yield
    finally:
        setattr(Autoscaler, name, before)


def silence(policy: object) -> None:
    """The same for a scaling policy of Ray Train, which travels to a process of its own."""
    for name in ("_send_resource_request", "_maybe_send_resource_request"):
        if hasattr(policy, name):
            setattr(policy, name, _nothing)


def _nothing(*_: object) -> None:
    pass


def _told(method: str, name: str, **terms: Any) -> None:
    """Calls the coordinator. One that is slow to answer, as while it starts, still does what it was told."""
    import ray
    from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
    from ray.exceptions import GetTimeoutError

    coordinator = get_or_create_autoscaling_coordinator()
    with suppress(GetTimeoutError):
        ray.get(getattr(coordinator, method).remote(requester_id=name, **terms), timeout=ANSWER_S)


def _send_alone(bundles: list[dict[str, float]]) -> None:
    """Overwrites what the autoscaler is asked for, whoever asked it."""
    import ray.autoscaler.sdk

    ray.autoscaler.sdk.request_resources(bundles=bundles)


def _sum(bundles: list[dict[str, float]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for bundle in bundles:
        total.update(bundle)
    return total
