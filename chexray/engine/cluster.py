"""One Ray, quiet and sized: joins the cluster of RAY_ADDRESS, or starts a local one and ends it.

An actor pool that books every CPU hangs Ray Data for half an hour, in silence; so pools are sized here, before
anything starts, and what does not fit is a ResourceError that says what is missing.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chexray.config import EncodeConfig, RayConfig
from chexray.errors import ResourceError

_QUIET = {
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOCAL = {
    # Left unset, a local ray.init() turns token authentication on and writes a token into the home directory.
    "RAY_AUTH_MODE": "disabled",
    # Nobody watches a local Ray: its metrics and task events cost 20 of 137 CPU-ms a second (measured).
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
_GPU_BATCH, _CPU_BATCH = 64, 16
_GPU_CHUNK, _CPU_CHUNK = 256, 64
_BYTES_PER_CPU_ACTOR = 2_000_000_000
CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Resources:
    """What the cluster offers: logical CPUs and GPUs, memory in bytes, number of live nodes, start-up seconds.

    node_cpus: CPUs of each node that has any.
    """

    cpus: float
    gpus: float
    memory: float
    nodes: int
    startup_s: float = 0.0
    joined: bool = False
    node_cpus: tuple[float, ...] = ()

    @property
    def smallest_node_cpus(self) -> float:
        """CPUs that every node with any has."""
        return min(self.node_cpus, default=self.cpus / max(1, self.nodes))

    def describe(self) -> str:
        where = "cluster" if self.joined else "local Ray"
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{where}: {self.nodes} node{'s' * (self.nodes != 1)}, {self.cpus:g} CPU{gpus}"


@dataclass(frozen=True)
class Pool:
    """Sizes of the encode stage. `cpus_per_actor` is what Ray books; `torch_threads` is what an actor uses."""

    device: str
    layout: str
    actors: int
    cpus_per_actor: float
    cpus_per_decode: float
    gpus_per_actor: float
    torch_threads: int
    batch_size: int
    chunk_size: int

    def describe(self) -> str:
        workers = f"{self.actors} encoder{'s' * (self.actors != 1)} on {self.device}, {self.torch_threads} thread"
        return f"{workers}{'s' * (self.torch_threads != 1)} each, {self.layout} layout, chunks of {self.chunk_size}"


@contextmanager
def cluster(config: RayConfig, *, verbose: bool = False) -> Iterator[Resources]:
    """A connected Ray. A local one is shut down on exit, its files removed; a joined one is only left."""
    for key, value in _QUIET.items():
        if not (verbose and "LOG" in key):
            os.environ.setdefault(key, value)
    import ray

    started = time.monotonic()
    address = config.address or os.environ.get("RAY_ADDRESS") or None
    owns = not ray.is_initialized()
    folder: str | None = None
    if owns:
        common = {"log_to_driver": verbose, "logging_level": "info" if verbose else "error"}
        if address:
            try:
                _knock(address)
                with _hushed(not verbose):
                    ray.init(address=address, **common)
            except (OSError, ValueError, RuntimeError) as error:
                raise ResourceError(
                    f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0][:160]}). "
                    "Start one with `ray start --head`, correct RAY_ADDRESS, or unset it to run locally."
                ) from None
        else:
            # A short path: Ray's sockets live below it and may not pass 107 characters.
            for key, value in _LOCAL.items():
                os.environ.setdefault(key, value)
            folder = tempfile.mkdtemp(prefix="cxr-", dir="/tmp" if Path("/tmp").is_dir() else None)
            with _hushed(not verbose):
                ray.init(
                    num_cpus=config.num_cpus,
                    include_dashboard=False,
                    object_store_memory=_object_store_bytes(config),
                    _temp_dir=folder,
                    **common,
                )
    _quiet_data(verbose)
    try:
        total = ray.cluster_resources()
        alive = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        yield Resources(
            cpus=total.get("CPU", 0.0),
            gpus=total.get("GPU", 0.0),
            memory=total.get("memory", 0.0),
            nodes=len(alive),
            startup_s=time.monotonic() - started,
            joined=bool(address) or not owns,
            node_cpus=tuple(cpus for cpus in alive if cpus),
        )
    finally:
        if owns:
            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _knock(address: str) -> None:
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

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    # Ray Data else reads the memory maps of each worker every second, which costs 3 % of the encoding.
    context.memory_usage_poll_interval_s = None
    context.print_on_execution_start = verbose
    if not verbose:
        # The bounded retries of engine/encode.py have no other spelling in Ray 2.60.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        warnings.filterwarnings("ignore", module="ray")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        logging.getLogger("ray").setLevel(logging.CRITICAL)


def _object_store_bytes(config: RayConfig) -> int:
    """Features of a run fit in 2 GB (75,649 x 2048 float32 are 614 MB); small machines give a quarter of memory."""
    if config.object_store_gb:
        return int(config.object_store_gb * 1e9)
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        physical = 4_000_000_000
    return int(min(2e9, max(2.5e8, physical / 4)))


def say(message: str) -> None:
    """One line to the error stream, which leaves standard output to the results."""
    print(message, file=sys.stderr, flush=True)


def choose_device(setting: str, asked: str, resources: Resources) -> str:
    """The device that a setting of "cpu", "cuda" or "auto" means. Raises ResourceError for a GPU that is not there."""
    if asked == "cuda" and resources.gpus < 1:
        raise ResourceError(
            f"{setting} is cuda, but {resources.describe()} has no GPU. Use {setting}=cpu, or join a cluster with GPU "
            "workers by RAY_ADDRESS."
        )
    return ("cuda" if resources.gpus >= 1 else "cpu") if asked == "auto" else asked


def plan_pool(config: EncodeConfig, resources: Resources, *, n_images: int) -> Pool:
    """Sizes the encode stage for what the cluster has. Raises ResourceError rather than let a pool hang."""
    device = choose_device("encode.device", config.device, resources)
    on_gpu = device == "cuda"
    batch = (_GPU_BATCH if on_gpu else _CPU_BATCH) if config.batch_size == "auto" else config.batch_size
    chunk = (_GPU_CHUNK if on_gpu else _CPU_CHUNK) if config.chunk_size == "auto" else config.chunk_size
    layout = ("split" if on_gpu else "fused") if config.layout == "auto" else config.layout
    n_chunks = max(1, -(-n_images // chunk))

    if resources.cpus < 1:
        raise ResourceError(f"{resources.describe()}: decoding needs at least 1 CPU. Add CPUs or wait for workers.")
    if on_gpu:
        actors = min(int(resources.gpus), n_chunks) if config.actors == "auto" else config.actors
        if actors > resources.gpus:
            raise ResourceError(
                f"encode.actors is {actors}, one GPU each, but {resources.describe()}. Set encode.actors=auto."
            )
        return Pool(device, layout, actors, 0.0, 1.0, 1.0, 4, batch, chunk)
    # Half a CPU stays free per two: the decode tasks of the split layout, and Ray Data itself, must be able to start.
    by_memory = max(1, int(resources.memory // _BYTES_PER_CPU_ACTOR)) if resources.memory else 10**6
    actors = min(max(1, int(resources.cpus)), n_chunks, by_memory) if config.actors == "auto" else config.actors
    share = max(1, int(resources.cpus // actors))
    booked = 0.5 * share if layout == "fused" else 0.5
    if actors > resources.cpus:
        raise ResourceError(
            f"encode.actors is {actors}, but {resources.describe()}: a pool larger than the CPUs would wait for ever. "
            f"Set encode.actors to at most {int(resources.cpus)}, or auto."
        )
    return Pool(device, layout, actors, booked, 0.25, 0.0, share, batch, chunk)
