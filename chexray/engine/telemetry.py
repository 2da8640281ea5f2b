"""What a run tells those who operate the cluster: Prometheus metrics while it works, and what it cost, for run.json.

Metrics travel with Ray's own, from the process of the driver; docs/METRICS.md explains each. A local Ray has them off.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from chexray.errors import ChexrayError
from chexray.storage.traffic import taken

if TYPE_CHECKING:
    from chexray.engine.pools import Resources
    from chexray.engine.progress import Progress
    from chexray.storage import Storage

PREFIX = "ray_"
"""What Ray puts before the name of every metric; it adds `_total` to counters."""

BEAT_S = 5.0
"""Ray forgets a gauge 20 s after it was set, where its interval of 10 s is not changed."""

_READ = ("bytes_read", "reads")

METRICS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "chexray_done": ("gauge", ("run", "stage", "unit"), "Images encoded, numbers computed or epochs trained so far."),
    "chexray_pending": ("gauge", ("run", "stage", "unit"), "Those still to do in this stage: the queue."),
    "chexray_per_second": ("gauge", ("run", "stage", "unit"), "Those done a second, since the first in this stage."),
    "chexray_rejects": ("gauge", ("run", "stage", "unit"), "Images that could not be read or encoded so far."),
    "chexray_node_images": ("counter", ("run", "node"), "Images encoded or rejected, by the node that did it."),
    "chexray_node_bytes_read": ("counter", ("run", "node"), "Bytes of images read from storage, by node."),
    "chexray_gpu_hours": ("gauge", ("run",), "GPU-hours booked by this run so far."),
    "chexray_cpu_hours": ("gauge", ("run",), "CPU-hours of the cluster held by this run so far."),
}
"""{name: (kind, tags, what it says)} of every metric that chexray exports."""


class Meter:
    """Metrics and costs of one run. `spent`: {stage: {"bytes_read", "reads", "gpu_s"}}; bookings are open ones.

    cpus: of the cluster. export: whether Prometheus hears of it. clock: seconds; tests pass another.
    """

    def __init__(self, run: str, cpus: float, *, export: bool, clock: Callable[[], float] = time.monotonic):
        self.run, self.cpus, self.clock = run, cpus, clock
        self.spent: dict[str, Counter[str]] = {}
        self._started, self._gpus, self._since = clock(), 0.0, clock()
        self._metrics = _metrics() if export else {}
        self._progress: Progress | None = None

    def add(self, stage: str, **amounts: float) -> None:
        self.spent.setdefault(stage, Counter()).update(amounts)

    def watch(self, progress: Progress) -> None:
        """From now on the stage of the run is that of this progress line."""
        self._progress = progress
        self.show()

    def show(self) -> None:
        """Exports the state of the present stage. A gauge that is not set anew is soon forgotten by Ray."""
        if not self._metrics:
            return
        self._set("chexray_cpu_hours", self.cpus * (self.clock() - self._started) / 3600, run=self.run)
        self._set("chexray_gpu_hours", self.gpu_seconds / 3600, run=self.run)
        if (line := self._progress) is None:
            return
        tags = {"run": self.run, "stage": line.stage, "unit": line.unit}
        self._set("chexray_done", line.done, **tags)
        self._set("chexray_pending", max(0, line.total - line.done), **tags)
        self._set("chexray_rejects", line.rejected, **tags)
        rate = line.rate_at(line.clock()) if line.done < line.total else None
        self._set("chexray_per_second", rate or 0.0, **tags)

    def end(self) -> None:
        """Exports nothing from now on; what was spent stays."""
        self._metrics = {}

    def beat(self, over: threading.Event) -> None:
        """Shows again and again, until `over`, so that a stage in which nothing moves is still seen."""
        while not over.wait(BEAT_S):
            self.show()

    def chunk(self, row: Mapping[str, Any]) -> None:
        """What a worker answered for a chunk."""
        self.add("encode", bytes_read=row.get("bytes_read", 0), reads=row.get("reads", 0))
        tags = {"run": self.run, "node": row.get("node") or "unknown"}
        self._count("chexray_node_images", row["n_done"], **tags)
        self._count("chexray_node_bytes_read", row.get("bytes_read", 0), **tags)

    @property
    def gpu_seconds(self) -> float:
        done = sum(each["gpu_s"] for each in self.spent.values())
        return done + self._gpus * (self.clock() - self._since)

    @contextmanager
    def booked(self, stage: str, gpus: float) -> Iterator[None]:
        """So many GPUs are the run's within, whether it keeps them busy or not."""
        self._gpus, self._since = gpus, self.clock()
        try:
            yield
        finally:
            self.add(stage, gpu_s=gpus * (self.clock() - self._since))
            self._gpus = 0.0

    def _set(self, name: str, value: float, **tags: str) -> None:
        if metric := self._metrics.get(name):
            with suppress(Exception):  # a run does not end over a number for a dashboard
                metric.set(value, tags=tags)

    def _count(self, name: str, value: float, **tags: str) -> None:
        if (metric := self._metrics.get(name)) and value > 0:
            with suppress(Exception):
                metric.inc(value, tags=tags)


_meter = Meter("", 0.0, export=False)
"""That of the run which this process does; before the first run, one that nobody reads."""


@contextmanager
def metered(run: str, resources: Resources) -> Iterator[Meter]:
    """The meter of a run, which all stages report to within. On a local Ray it exports nothing."""
    global _meter
    taken()
    mine, over = Meter(run, resources.cpus, export=resources.joined), threading.Event()
    _meter = mine
    if resources.joined:
        threading.Thread(target=mine.beat, args=[over], name="metrics", daemon=True).start()
    try:
        yield mine
    finally:
        over.set()
        mine.end()


def meter() -> Meter:
    """That of the run at work."""
    return _meter


def note_reads(storage: Storage, uri: str) -> None:
    """Leaves at `uri` how much this process read, for `noted` in another."""
    with suppress(ChexrayError):
        storage.write(uri, json.dumps(dict(zip(_READ, taken(), strict=True))).encode())


def noted(storage: Storage, uris: Iterable[str]) -> Counter[str]:
    """What the notes at these places add up to; they are removed. A worker that was lost left none."""
    total: Counter[str] = Counter()
    for uri in uris:
        with suppress(ChexrayError, ValueError, TypeError, AttributeError):
            total.update({name: int(json.loads(storage.read(uri)).get(name, 0)) for name in _READ})
            storage.delete(uri)
    return total


def cost(seconds: Mapping[str, float], resources: Resources) -> dict[str, Any]:
    """What run.json says a run cost, in all and by stage. seconds: {stage: how long it took}.

    gpu_hours: GPUs booked by encoders and training workers x their time, idle or not, also those that came late.
    cpu_hours: CPUs of the cluster x time. bytes_read, reads: of images by encoders, of stored images by training
    workers, and what the driver read.
    """
    spent = {**_meter.spent, "driver": dict(zip(_READ, taken(), strict=True))}
    stages: dict[str, dict[str, float]] = {}
    for stage in dict.fromkeys([*seconds, *spent]):
        found = spent.get(stage, {})
        stages[stage] = {
            "gpu_hours": round(found.get("gpu_s", 0.0) / 3600, 6),
            "cpu_hours": round(resources.cpus * seconds.get(stage, 0.0) / 3600, 6),
            "bytes_read": int(found.get("bytes_read", 0)),
            "reads": int(found.get("reads", 0)),
        }
    total = {name: round(sum(each[name] for each in stages.values()), 6) for name in next(iter(stages.values()), {})}
    return {**total, "by_stage": stages}


def _metrics() -> dict[str, Any]:
    from ray.util import metrics

    kinds = {"gauge": metrics.Gauge, "counter": metrics.Counter}
    return {name: kinds[kind](name, about, tag_keys=tags) for name, (kind, tags, about) in METRICS.items()}
