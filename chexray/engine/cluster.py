"""One Ray, and a quiet one: joins the cluster of RAY_ADDRESS, or starts a local one and ends it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from chexray.config import RayConfig
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.authentication import asks_for_token, own_token
from chexray.engine.pools import Resources
from chexray.engine.versions import version_mismatch
from chexray.errors import ResourceError
from chexray.log import say
from chexray.storage.scratch import scratch
from chexray.text import first_line

_QUIET = {
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOCAL = {
    # Nobody watches a local Ray: its metrics and task events cost 20 of 137 CPU-ms a second (measured).
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Ray gives its workers the lowest priority but for four; beside other work they then get 3 % of a core (measured).
    # Counted from the priority of this process. A value of the user's own stands, as for the others.
    "RAY_worker_niceness": "0",
}
CONNECT_TIMEOUT_S = 5.0
START_ATTEMPTS = 2
OPEN_CLUSTER = (
    "this cluster asks for no token: whoever reaches its ports can run code in it and read its credentials. "
    "Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
)


@contextmanager
def cluster(config: RayConfig, *, verbose: bool = False) -> Iterator[Resources]:
    """A connected Ray. A local one asks everyone for a token of its own, and is shut down on exit, its files removed; a
    joined one, entered with the user's own token, is only left, and it is said when it asks for none.

    Raises ResourceError when no Ray can be joined or started.
    """
    for key, value in _QUIET.items():
        if not (verbose and "LOG" in key):
            os.environ.setdefault(key, value)
    import ray

    started = time.monotonic()
    address = config.address or os.environ.get("RAY_ADDRESS") or None
    owns = not ray.is_initialized()
    with ExitStack() as stack:
        if owns and not address:
            # Ray makes its folder readable and writable by all; so it gets one inside a folder that nobody enters.
            folder = stack.enter_context(scratch())
            stack.enter_context(own_token())
        if owns:
            stack.callback(_shut_down)
            common = {"log_to_driver": verbose, "logging_level": "info" if verbose else "error"}
            if address:
                _join(address, common, verbose)
            else:
                _start(config, common, folder, verbose)
        _quiet_data(verbose)
        forget_extension_types()
        yield measured(joined=bool(address) or not owns, startup_s=time.monotonic() - started)


def _shut_down() -> None:
    import ray

    with _signals_kept():  # it leaves SIGTERM to the system, which ends the process
        ray.shutdown()


def _join(address: str, common: dict[str, Any], verbose: bool) -> None:
    """Raises ResourceError when no cluster of our versions answers."""
    import ray

    if address.startswith(("http://", "https://")):
        raise ResourceError(
            f"{address} is a dashboard, which takes jobs. Use `chexray submit CONFIG --address {address}`, or set "
            "RAY_ADDRESS to host:6379, or to auto inside the cluster."
        )
    try:
        knock(address)
        with _hushed(not verbose), _signals_kept():
            ray.init(address=address, **common)
        if not address.startswith("ray://") and asks_for_token(ray.get_runtime_context().gcs_address) is False:
            say(f"note: {OPEN_CLUSTER}")
    except (OSError, ValueError, RuntimeError) as error:
        if told := version_mismatch(error):
            raise ResourceError(f"{address}: {told}") from None
        raise ResourceError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0][:160]}). "
            "Start one with `ray start --head`, correct RAY_ADDRESS, or unset it to run locally."
        ) from None


def _start(config: RayConfig, common: dict[str, Any], folder: str, verbose: bool) -> None:
    """Starts Ray below `folder`; after a failure once more, in a clean folder and without what the first try left.

    Ray waits 30 s for its node, which a busy machine may need more than once. Raises ResourceError after two failures.
    """
    for key, value in _LOCAL.items():
        os.environ.setdefault(key, value)
    for attempt in range(1, START_ATTEMPTS + 1):
        place = os.path.join(folder, f"r{attempt}")
        try:
            _init(config, common, place, verbose)
            return
        except Exception as error:  # Ray raises its own, plain Exception and what the system says
            _shut_down()
            end_children_of(place)
            shutil.rmtree(place, ignore_errors=True)
            why = first_line(error).rstrip(".")
            if attempt < START_ATTEMPTS:
                say(f"note: Ray did not start here ({why}); trying once more")
                continue
            raise ResourceError(
                f"no local Ray starts on this machine: {START_ATTEMPTS} attempts failed, the last with {why!r}. "
                f"{_how_busy()}Run the command again when the machine has less to do, set RAY_ADDRESS to a running "
                "Ray, or show Ray's own messages with --verbose."
            ) from None


def _init(config: RayConfig, common: dict[str, Any], folder: str, verbose: bool) -> None:
    import ray

    with _hushed(not verbose), _signals_kept():
        ray.init(
            num_cpus=config.num_cpus,
            include_dashboard=False,
            object_store_memory=object_store_bytes(config),
            _temp_dir=folder,
            **common,
        )


def end_children_of(folder: str) -> None:
    """Ends the processes below this one that a failed start left behind: those whose command line names `folder`.

    They hold fixed ports, such as the agent's 52365, which the next start needs.
    """
    import psutil  # pyright: ignore[reportMissingModuleSource]  # as Ray brings it

    left = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(folder in word for word in child.cmdline()):
                child.kill()
                left.append(child)
    psutil.wait_procs(left, timeout=CONNECT_TIMEOUT_S)


def _how_busy() -> str:
    """`The load is 19.6 on 2 CPUs. `, or nothing where the machine has enough to spare."""
    load, cpus = os.getloadavg()[0], os.cpu_count() or 1
    return f"The load is {load:.3g} on {cpus} CPUs. " if load > cpus else ""


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back the SIGTERM handler that the block replaces, as ray.init and ray.shutdown do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def measured(*, joined: bool, startup_s: float = 0.0) -> Resources:
    """What the connected cluster has now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Resources.of(alive, joined=joined, startup_s=startup_s)


def knock(address: str) -> None:
    """Raises OSError when nothing listens at host:port; Ray itself would keep trying for minutes."""
    host, found, port = address.removeprefix("ray://").rpartition(":")
    if found and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextmanager
def _hushed(active: bool) -> Iterator[None]:
    """Drops what native code writes to the error stream: Ray announces even that it will be silent."""
    if not active:
        yield
        return
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _quiet_data(verbose: bool) -> None:
    import logging
    import warnings

    import ray._private.worker
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    # Ray Data else reads the memory maps of each worker every second, which costs 3 % of the encoding.
    context.memory_usage_poll_interval_s = None
    context.print_on_execution_start = verbose
    if not verbose:
        # Ray prints what raylets report, such as each worker killed for lack of memory, whatever log_to_driver says.
        if hasattr(ray._private.worker, "print_to_stdstream"):
            ray._private.worker.print_to_stdstream = lambda *_, **__: None
        # The bounded retries of engine/encode.py have no other spelling in Ray 2.60.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        warnings.filterwarnings("ignore", module="ray")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        logging.getLogger("ray").setLevel(logging.CRITICAL)


def object_store_bytes(config: RayConfig) -> int:
    """Features of a run fit in 2 GB (75,649 x 2048 float32 are 614 MB); small machines give a quarter of memory."""
    if config.object_store_gb:
        return int(config.object_store_gb * 1e9)
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        physical = 4_000_000_000
    return int(min(2e9, max(2.5e8, physical / 4)))
