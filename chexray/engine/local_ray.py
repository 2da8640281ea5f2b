"""Starts a Ray on this machine, more patiently after a failure, and ends it with all that it started."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chexray.config import RayConfig
from chexray.engine.cpus import usable_cpus
from chexray.engine.quiet import hushed, signals_kept
from chexray.errors import ResourceError
from chexray.log import say
from chexray.storage.reaper import MARK, end_processes_of
from chexray.text import first_line

_LOCAL = {
    # Nobody watches a local Ray: its metrics and task events cost 20 of 137 CPU-ms a second (measured).
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Ray gives its workers the lowest priority but for four; beside other work they then get 3 % of a core (measured).
    # Counted from the priority of this process. A value of the user's own stands, as for the others.
    "RAY_worker_niceness": "0",
}
START_WAITS_S = (30.0, 120.0)
"""How long each attempt waits for the processes of the node. 30 s are Ray's own."""


def start(config: RayConfig, common: dict[str, Any], folder: str, verbose: bool) -> None:
    """Starts Ray below `folder`; after a failure once more, in a clean folder, without what the first try left, and
    with four times the patience, since a busy machine may need more than Ray's 30 s.

    Raises ResourceError after two failures.
    """
    for key, value in _LOCAL.items():
        os.environ.setdefault(key, value)
    for attempt, wait_s in enumerate(START_WAITS_S, 1):
        place = os.path.join(folder, f"r{attempt}")
        try:
            with _marked(folder), _patient(wait_s):
                _init(config, common, place, verbose)
            return
        except Exception as error:  # Ray raises its own, plain Exception and what the system says
            shut_down()
            # They hold fixed ports, such as the agent's 52365, which the next start needs.
            end_processes_of(folder)
            shutil.rmtree(place, ignore_errors=True)
            why = first_line(error).rstrip(".")
            if attempt < len(START_WAITS_S):
                more = f"waiting up to {START_WAITS_S[attempt]:g} s"
                say(f"note: Ray did not start here ({why}); trying once more, {more}")
                continue
            raise ResourceError(
                f"Ray did not start on this machine: {attempt} attempts failed, the last with {why!r}. "
                f"{how_busy()}Run the command again when the machine is less busy, set RAY_ADDRESS to a running "
                "Ray, or show Ray's own messages with --verbose."
            ) from None


def shut_down() -> None:
    import ray

    with signals_kept():  # it leaves SIGTERM to the system, which ends the process
        try:
            ray.shutdown()
        except BaseException:  # stopped meanwhile: what is left to Python's exit would write into a folder that is gone
            ray.shutdown()
            raise


def _init(config: RayConfig, common: dict[str, Any], folder: str, verbose: bool) -> None:
    import ray

    with hushed(not verbose), signals_kept():
        ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=config.num_cpus or usable_cpus(),
            include_dashboard=False,
            object_store_memory=object_store_bytes(config),
            _temp_dir=folder,
            **common,
        )


@contextmanager
def _marked(folder: str) -> Iterator[None]:
    """What is started within the block carries the name of the folder, and so do its own children; by that it is found
    when it outlives the run (`chexray.storage.reaper`)."""
    os.environ[MARK] = folder
    try:
        yield
    finally:
        os.environ.pop(MARK, None)


@contextmanager
def _patient(wait_s: float) -> Iterator[None]:
    """Lets Ray wait longer for its node than the 30 s that stand in its code (Node.__init__ of Ray 2.60)."""
    from ray._private import services

    if wait_s <= START_WAITS_S[0]:
        yield
        return
    waits = {"RAY_gcs_server_port_wait_time_s": f"{wait_s:.0f}", "RAY_agent_register_timeout_ms": f"{wait_s * 1e3:.0f}"}
    added = [name for name in waits if name not in os.environ]
    ask, end = services.get_node, time.monotonic() + wait_s

    def get_node(*args: object) -> object:
        while True:
            try:
                return ask(*args)
            except RuntimeError:  # not there yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    services.get_node = get_node
    os.environ |= {name: waits[name] for name in added}
    try:
        yield
    finally:
        services.get_node = ask
        for name in added:
            os.environ.pop(name, None)


def how_busy() -> str:
    """`The load is 19.6 on 2 CPUs. `, or nothing where the machine has enough to spare."""
    load, cpus = os.getloadavg()[0], usable_cpus()
    return f"The load is {load:.3g} on {cpus} CPUs. " if load > cpus else ""


def object_store_bytes(config: RayConfig) -> int:
    """Features of a run fit in 2 GB (75,649 x 2048 float32 are 614 MB); small machines give a quarter of memory."""
    if config.object_store_gb:
        return int(config.object_store_gb * 1e9)
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        physical = 4_000_000_000
    return int(min(2e9, max(2.5e8, physical / 4)))
