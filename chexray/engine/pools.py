"""How much of a cluster a stage takes. What does not fit is a ResourceError that says what is missing.

An actor pool that books every CPU hangs Ray Data for half an hour, in silence; so pools are sized here, before
anything starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chexray.config import EncodeConfig, UtilityConfig
from chexray.errors import ResourceError
from chexray.spelling import plural

_GPU_BATCH, _CPU_BATCH = 64, 16
_GPU_CHUNK, _CPU_CHUNK = 256, 64
_BYTES_PER_CPU_ACTOR = 2_000_000_000


@dataclass(frozen=True)
class Resources:
    """What the cluster offers: logical CPUs and GPUs, memory in bytes, start-up seconds.

    nodes: live nodes that have CPUs; node_cpus: how many each of them has. grows: cpus, gpus and memory are what will
    be there, nodes what is.
    """

    cpus: float
    gpus: float
    memory: float
    nodes: int
    startup_s: float = 0.0
    joined: bool = False
    node_cpus: tuple[float, ...] = ()
    grows: bool = False

    @classmethod
    def of(cls, nodes: Iterable[Mapping[str, float]], *, joined: bool, startup_s: float = 0.0) -> Resources:
        """What live nodes with these Ray resources offer. A node without CPUs, such as the head of a Kubernetes
        cluster, works on nothing: neither it nor its memory counts."""
        working = [node for node in nodes if node.get("CPU", 0.0) > 0]

        def total(what: str) -> float:
            return sum(node.get(what, 0.0) for node in working)

        cpus = tuple(node["CPU"] for node in working)
        return cls(total("CPU"), total("GPU"), total("memory"), len(working), startup_s, joined, cpus)

    @property
    def smallest_node_cpus(self) -> float:
        """CPUs that every node with any has."""
        return min(self.node_cpus, default=self.cpus / max(1, self.nodes))

    def describe(self) -> str:
        where = "cluster" if self.joined else "local Ray"
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        grows = " so far, growing to" if self.grows else ","
        return f"{where}: {plural(self.nodes, 'node')}{grows} {self.cpus:g} CPU{gpus}"


@dataclass(frozen=True)
class Pool:
    """Sizes of the encode stage. `cpus_per_actor` is what Ray books; `torch_threads` is what an actor uses.

    io_threads: images that a worker fetches at once. max_pixels: of an image; a larger one is a reject.
    """

    device: str
    layout: str
    actors: int
    cpus_per_actor: float
    cpus_per_decode: float
    gpus_per_actor: float
    torch_threads: int
    batch_size: int
    chunk_size: int
    io_threads: int
    max_pixels: int

    def describe(self) -> str:
        workers = (
            f"{plural(self.actors, 'encode worker')} on {self.device}, {plural(self.torch_threads, 'thread')} each"
        )
        return f"{workers}, {self.layout} layout, chunks of {self.chunk_size}"


def choose_device(setting: str, asked: str, resources: Resources) -> str:
    """The device that a setting of "cpu", "cuda" or "auto" means. Raises ResourceError for a GPU that is not there."""
    if asked == "cuda" and resources.gpus < 1:
        raise ResourceError(
            f"{setting} is cuda, but {resources.describe()} has no GPU. Use {setting}=cpu. {_more(resources, 'gpus')}"
        )
    return ("cuda" if resources.gpus >= 1 else "cpu") if asked == "auto" else asked


def _more(resources: Resources, what: str) -> str:
    """How a run comes to have more of ray.cpus or ray.gpus."""
    if not resources.joined:
        here = "Join a cluster with GPU workers" if what == "gpus" else "Set ray.num_cpus, or join a cluster"
        return f"{here} by RAY_ADDRESS."
    return (
        f"Start a worker, or, where the cluster has an autoscaler, set ray.{what} to what it shall be asked for; the "
        "run then waits up to ray.wait_s seconds for the first."
    )


def plan_pool(config: EncodeConfig, resources: Resources, *, n_images: int) -> Pool:
    """Sizes the encode stage for what the cluster has. Raises ResourceError rather than let a pool hang."""
    device = choose_device("encode.device", config.device, resources)
    on_gpu = device == "cuda"
    batch = (_GPU_BATCH if on_gpu else _CPU_BATCH) if config.batch_size == "auto" else config.batch_size
    chunk = (_GPU_CHUNK if on_gpu else _CPU_CHUNK) if config.chunk_size == "auto" else config.chunk_size
    layout = ("split" if on_gpu else "fused") if config.layout == "auto" else config.layout
    n_chunks = max(1, -(-n_images // chunk))
    sizes = (batch, chunk, config.io_threads, config.max_pixels)

    if resources.cpus < 1:
        raise ResourceError(f"{resources.describe()}: decoding needs at least 1 CPU. {_more(resources, 'cpus')}")
    if on_gpu:
        actors = min(int(resources.gpus), n_chunks) if config.actors == "auto" else config.actors
        if actors > resources.gpus:
            raise ResourceError(
                f"encode.actors is {actors}, one GPU each, but {resources.describe()}. Set encode.actors=auto."
            )
        return Pool(device, layout, actors, 0.0, 1.0, 1.0, 4, *sizes)
    # Half a CPU stays free per two: the decode tasks of the split layout, and Ray Data itself, must be able to start.
    by_memory = max(1, int(resources.memory // _BYTES_PER_CPU_ACTOR)) if resources.memory else 10**6
    actors = min(max(1, int(resources.cpus)), n_chunks, by_memory) if config.actors == "auto" else config.actors
    # What an actor books must fit on every node: Ray waits for ever for a larger one.
    share = max(1, int(min(resources.cpus // actors, resources.smallest_node_cpus)))
    booked = 0.5 * share if layout == "fused" else 0.5
    if actors > resources.cpus:
        raise ResourceError(
            f"encode.actors is {actors}, but {resources.describe()}: a pool larger than the CPUs would wait for ever. "
            f"Set encode.actors to at most {int(resources.cpus)}, or auto."
        )
    return Pool(device, layout, actors, booked, 0.25, 0.0, share, *sizes)


MOST_SHARING_A_GPU = 8
"""Tasks that multiply on one GPU at once: each holds half a gigabyte of it."""


def gpu_share(resources: Resources, workers: int) -> float:
    """Of a GPU, for each of so many tasks that search or reduce; 0 where they stay on CPUs.

    That is where nodes without a GPU would stand idle, and where GPUs come and go as they are asked for.
    """
    if resources.grows or resources.gpus < max(1, resources.nodes):
        return 0.0
    return 1 / min(MOST_SHARING_A_GPU, max(1, -(-workers // int(resources.gpus))))


@dataclass(frozen=True)
class TrainPool:
    """Sizes of the group. cpus_per_worker is what Ray books, never all; threads is what a worker uses."""

    workers: int
    device: str
    threads: int
    cpus_per_worker: float

    def describe(self) -> str:
        threads = f"{plural(self.threads, 'thread')} each" if self.device == "cpu" else "one GPU each"
        return f"{plural(self.workers, 'training worker')} on {self.device}, {threads}"


def plan_train_pool(config: UtilityConfig, resources: Resources) -> TrainPool:
    """Sizes the group for what the cluster has. Raises ResourceError rather than let it wait for ever."""
    device = choose_device("utility.device", config.device, resources)
    most = int(resources.gpus if device == "cuda" else resources.cpus)
    workers = (most if device == "cuda" else min(most, resources.nodes)) if config.workers == "auto" else config.workers
    if not 1 <= workers <= most:
        raise ResourceError(
            f"utility.workers is {workers}, one {'GPU' if device == 'cuda' else 'CPU'} each, but "
            f"{resources.describe()}. Set it from 1 to {most}, or auto."
        )
    # Workers are spread over the nodes, and each must fit on the smallest: Ray waits for ever for a larger one.
    on_one_node = -(-workers // max(1, resources.nodes))
    threads = max(1, int(resources.smallest_node_cpus // on_one_node))
    share = resources.smallest_node_cpus / on_one_node
    return TrainPool(workers, device, threads, min(1.0, 0.5 * share) if device == "cuda" else 0.5 * min(share, threads))
