"""A cluster that grows when asked: what the config says it may have (`ray.cpus`, `ray.gpus`), and the wait for it.

A GPU group that scales from zero has no GPU when a run starts, so what is there says nothing of what can be had. The
autoscaler is asked for all of it; encoding starts with the first node, since Ray Data gives work to later ones as they
come, and training, whose group has a fixed size, with all that came in time. GPUs stay asked for until nothing more
uses one, CPUs until the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from chexray.config import RayConfig, RunConfig
from chexray.engine.autoscaler import Request, nothing_else_asked
from chexray.engine.cluster import measured
from chexray.engine.pools import Resources
from chexray.errors import ResourceError
from chexray.log import say

POLL_S = 1.0

_asked: list[Request] = []
"""The request of the run that this process does, or none."""


def growth(config: RunConfig) -> RayConfig:
    """How far the cluster shall grow for a run: no GPU is waited and paid for where none is used."""
    return config.ray if config.devices != {"cpu"} else config.ray.model_copy(update={"gpus": None})


@contextmanager
def grown(
    config: RayConfig,
    resources: Resources,
    on_wait: Callable[[str], None] = lambda _: None,
    *,
    measure: Callable[[], Resources] | None = None,
    sleep: Callable[[float], Any] = time.sleep,
    request: Request | None = None,
) -> Iterator[Resources]:
    """Resources as they will be, once the first of them are there; the request is withdrawn on exit.

    Raises ResourceError when not even one CPU, or one GPU where some are promised, came within `wait_s`.
    on_wait: hears what is waited for. measure, sleep, request: the cluster, clock and autoscaler; tests pass others.
    """
    if not resources.joined or not (config.cpus or config.gpus):
        yield resources
        return
    measure, request = measure or _measure, request or Request()
    gpus = config.gpus or 0
    _asked.append(request)
    try:
        with nothing_else_asked():
            request.ask(config.cpus or 0, gpus)
            first = _wait(request, config, 1, min(1, gpus), measure, sleep, on_wait)
            if first.cpus < 1 or first.gpus < min(1, gpus):
                raise ResourceError(
                    f"{first.describe()} after waiting ray.wait_s={config.wait_s:g} s for {_wanted(request)}. "
                    f"{_why(request)}"
                )
            yield _promised(first, config)
    finally:
        _asked.remove(request)
        request.ask(0, 0)


def _why(request: Request) -> str:
    if request.was_seen():
        return (
            "The autoscaler has the request. See why it starts no node (quota, taints, maxReplicas; `kubectl get "
            "pods`), and whether the cluster has one (enableInTreeAutoscaling), or raise ray.wait_s."
        )
    return (
        "The request was never seen in the state of the cluster: something else there asks the autoscaler in its place "
        "(ray.autoscaler.sdk.request_resources), or the head does not answer. See `ray status` on the head."
    )


def asks() -> bool:
    """Whether the run of this process asks the autoscaler for what it needs."""
    return bool(_asked)


def released() -> None:
    """GPUs are asked for no more, since nothing that comes uses one; they would cost what those that work do."""
    for request in _asked:
        request.ask(request.cpus, 0)


def settled(
    config: RayConfig,
    resources: Resources,
    on_wait: Callable[[str], None] = lambda _: None,
    *,
    measure: Callable[[], Resources] | None = None,
    sleep: Callable[[float], Any] = time.sleep,
) -> Resources:
    """What is there once everything still asked for is, or `wait_s` is over: for a group whose size is fixed at its
    start. The resources as given where this run asked for nothing."""
    if not _asked:
        return resources
    request = _asked[-1]
    return _wait(request, config, request.cpus or 1, request.gpus, measure or _measure, sleep, on_wait)


def _wait(
    request: Request,
    config: RayConfig,
    cpus: int,
    gpus: int,
    measure: Callable[[], Resources],
    sleep: Callable[[float], Any],
    on_wait: Callable[[str], None],
) -> Resources:
    waited = 0.0
    while True:
        found = measure()
        if (found.cpus >= cpus and found.gpus >= gpus) or waited >= config.wait_s:
            return found
        if waited % 30 == 0:
            message = f"waiting for the cluster to grow to {_wanted(request)}; {found.describe()}"
            say(message)
            on_wait(message)
        sleep(POLL_S)
        waited += POLL_S


def _wanted(request: Request) -> str:
    parts = [f"{request.cpus} CPU" if request.cpus else "", f"{request.gpus} GPU" if request.gpus else ""]
    return " and ".join(part for part in parts if part) or "what this run uses"


def _promised(found: Resources, config: RayConfig) -> Resources:
    cpus, gpus = max(found.cpus, config.cpus or 0), max(found.gpus, config.gpus or 0)
    grows = (cpus, gpus) != (found.cpus, found.gpus)
    return replace(found, cpus=cpus, gpus=gpus, memory=found.memory * cpus / found.cpus, grows=grows)


def _measure() -> Resources:
    return measured(joined=True)
