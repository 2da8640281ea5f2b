"""A cluster that grows when asked: what the config says it may have (`ray.cpus`, `ray.gpus`), and the wait for it.

A GPU group that scales from zero has no GPU when a run starts, so what is there says nothing of what can be had. The
autoscaler is asked for all of it; encoding starts with the first node, since Ray Data gives work to later ones as they
come, and training, whose group has a fixed size, with all that came in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from chexray.config import RayConfig, RunConfig
from chexray.engine.cluster import measured
from chexray.engine.pools import Resources
from chexray.errors import ResourceError
from chexray.log import say

POLL_S = 1.0


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
    ask: Callable[[int, int], None] | None = None,
) -> Iterator[Resources]:
    """Resources as they will be, once the first of them are there; the request is withdrawn on exit.

    Raises ResourceError when not even one CPU, or one GPU where some are promised, came within `wait_s`.
    on_wait: hears what is waited for. measure, sleep, ask: the cluster, clock and autoscaler; tests pass others.
    """
    if not resources.joined or not (config.cpus or config.gpus):
        yield resources
        return
    measure, ask = measure or _measure, ask or _ask
    ask(config.cpus or 0, config.gpus or 0)
    try:
        first = _wait(config, 1, min(1, config.gpus or 0), measure, sleep, on_wait)
        if first.cpus < 1 or first.gpus < min(1, config.gpus or 0):
            raise ResourceError(
                f"{first.describe()} after waiting ray.wait_s={config.wait_s:g} s for {_wanted(config)}. See why the "
                "autoscaler starts no node (quota, taints, maxReplicas; `kubectl get pods`), or wait longer."
            )
        yield _promised(first, config)
    finally:
        ask(0, 0)


def released(config: RayConfig, resources: Resources) -> None:
    """Withdraws the request before the end: GPUs that nothing more will use cost what those that work do."""
    if resources.joined and (config.cpus or config.gpus):
        _ask(0, 0)


def settled(
    config: RayConfig,
    resources: Resources,
    on_wait: Callable[[str], None] = lambda _: None,
    *,
    measure: Callable[[], Resources] | None = None,
    sleep: Callable[[float], Any] = time.sleep,
) -> Resources:
    """What is there once everything promised is, or `wait_s` is over: for a group whose size is fixed at its start."""
    if not resources.joined or not (config.cpus or config.gpus):
        return resources
    return _wait(config, config.cpus or 1, config.gpus or 0, measure or _measure, sleep, on_wait)


def _wait(
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
            message = f"waiting for the cluster to grow to {_wanted(config)}; {found.describe()}"
            say(message)
            on_wait(message)
        sleep(POLL_S)
        waited += POLL_S


def _wanted(config: RayConfig) -> str:
    parts = [f"{config.cpus} CPU" if config.cpus else "", f"{config.gpus} GPU" if config.gpus else ""]
    return " and ".join(part for part in parts if part)


def _promised(found: Resources, config: RayConfig) -> Resources:
    cpus, gpus = max(found.cpus, config.cpus or 0), max(found.gpus, config.gpus or 0)
    grows = (cpus, gpus) != (found.cpus, found.gpus)
    return replace(found, cpus=cpus, gpus=gpus, memory=found.memory * cpus / found.cpus, grows=grows)


def _measure() -> Resources:
    return measured(joined=True)


def _ask(cpus: int, gpus: int) -> None:
    """Tells the autoscaler how large the cluster must be, whatever runs; 0 and 0 withdraw that."""
    import ray.autoscaler.sdk

    bundles = [{"GPU": 1}] * gpus + [{"CPU": 1}] * cpus
    ray.autoscaler.sdk.request_resources(bundles=bundles)
