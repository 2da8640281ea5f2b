"""What a run tells those who operate the cluster: metrics, costs, and the dashboard that shows them."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from chexray.engine import telemetry
from chexray.engine.pools import Resources
from chexray.engine.progress import Progress
from chexray.engine.telemetry import METRICS, PREFIX, Meter, cost, meter, metered, note_reads, noted
from chexray.storage import Storage, join
from chexray.storage.traffic import counted, taken

REPOSITORY = Path(__file__).resolve().parents[2]
LAPTOP = Resources(cpus=4, gpus=0, memory=8e9, nodes=1)
CLUSTER = Resources(cpus=16, gpus=4, memory=8e10, nodes=4, joined=True)
CHUNK = {"n_done": 64, "n_rejected": 1, "node": "worker-1", "bytes_read": 1000, "reads": 64}


class Metrics:
    """In place of Ray's: the last value of each metric and its labels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.values: dict[str, dict[tuple[str, ...], float]] = {}
        monkeypatch.setattr(telemetry, "_metrics", lambda: {name: _Metric(self, name) for name in METRICS})


class _Metric:
    def __init__(self, metrics: Metrics, name: str):
        self.name, self.tags = name, METRICS[name][1]
        self.values = metrics.values.setdefault(name, {})

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tags)
        self.values[tuple(tags.values())] = value

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.set(self.values.get(tuple(tags.values()), 0.0) + value, tags)


def test_a_joined_cluster_hears_of_rate_rejects_queue_stage_and_node(monkeypatch) -> None:
    heard = Metrics(monkeypatch)
    now = [100.0]
    with metered("run-1", CLUSTER) as of_run:
        progress = Progress("encode", "images", 192, stream=io.StringIO(), clock=lambda: now[0])
        here = ("run-1", "encode", "images")
        assert heard.values["chexray_pending"][here] == 192  # before the first chunk is done
        for _ in range(2):
            meter().chunk(CHUNK)
            progress.advance(64, 1)
            now[0] += 10
        meter().show()  # 20 s after the first, whether or not something was done since
        state = {name: heard.values[f"chexray_{name}"][here] for name in ("done", "pending", "rejects", "per_second")}
        assert state == {"done": 128, "pending": 64, "rejects": 2, "per_second": 3.2}
        assert heard.values["chexray_node_images"] == {("run-1", "worker-1"): 128}
        assert heard.values["chexray_node_bytes_read"] == {("run-1", "worker-1"): 2000}
        assert of_run is meter()
        progress.advance(64)
        assert heard.values["chexray_per_second"][here] == 0.0
        assert heard.values["chexray_pending"][here] == 0


def test_a_stage_in_which_nothing_moves_is_still_shown(monkeypatch) -> None:
    monkeypatch.setattr(telemetry, "BEAT_S", 0.001)
    heard = Metrics(monkeypatch)
    with metered("run-1", CLUSTER):
        Progress("train", "epochs", 7, stream=io.StringIO())
        pending, until = heard.values["chexray_pending"], time.monotonic() + 20
        pending.clear()  # as Ray does
        while not pending and time.monotonic() < until:
            threading.Event().wait(0.001)
        assert pending == {("run-1", "train", "epochs"): 7}


def test_a_local_ray_hears_of_nothing_and_a_broken_exporter_ends_no_run(monkeypatch) -> None:
    heard = Metrics(monkeypatch)
    with metered("run-1", LAPTOP):
        meter().chunk(CHUNK)
        Progress("encode", "images", 64, stream=io.StringIO()).advance(64)
    assert heard.values == {}
    monkeypatch.setattr(_Metric, "set", lambda *_, **__: 1 / 0)
    with metered("run-1", CLUSTER):
        meter().chunk(CHUNK)
        Progress("encode", "images", 64, stream=io.StringIO()).advance(64)


def test_costs_are_gpus_booked_times_their_time_and_bytes_by_stage(monkeypatch) -> None:
    now = [0.0]
    with metered("run-1", CLUSTER):
        found = Meter("run-1", CLUSTER.cpus, export=False, clock=lambda: now[0])
        monkeypatch.setattr(telemetry, "_meter", found)
        with found.booked("encode", 4):
            found.chunk(CHUNK)
            now[0] = 1800.0
            assert found.gpu_seconds == 7200
        now[0] = 3600.0
        with suppress(ValueError), found.booked("utility", 2):
            now[0] = 7200.0
            raise ValueError("a training that failed")
        counted(b"12345")
        spent = cost({"ray": 90.0, "encode": 1800.0, "fidelity": 900.0, "utility": 3600.0}, CLUSTER)
    stages = spent.pop("by_stage")
    assert spent == {"gpu_hours": 4.0, "cpu_hours": pytest.approx(16 * 6390 / 3600), "bytes_read": 1005, "reads": 65}
    assert stages["encode"] == {"gpu_hours": 2.0, "cpu_hours": 8.0, "bytes_read": 1000, "reads": 64}
    assert stages["utility"]["gpu_hours"] == 2.0
    assert stages["driver"] == {"gpu_hours": 0.0, "cpu_hours": 0.0, "bytes_read": 5, "reads": 1}


def test_workers_leave_what_they_read_and_a_lost_one_leaves_none(tmp_path) -> None:
    taken()
    storage, uris = Storage(), [join(str(tmp_path), f"read-{rank}.json") for rank in range(3)]
    Storage().write(join(str(tmp_path), "image.png"), b"x" * 70)
    for uri in uris[:2]:
        storage.read(join(str(tmp_path), "image.png"))
        note_reads(storage, uri)
    storage.write(uris[2], b'["no numbers"]')
    assert noted(storage, uris) == {"bytes_read": 140, "reads": 2}
    assert not Path(uris[0]).exists()
    assert noted(storage, uris[:2]) == {}


def _dashboard() -> dict:
    return json.loads((REPOSITORY / "deploy/grafana/chexray.json").read_text())


def test_the_dashboard_is_one_and_each_panel_has_its_place() -> None:
    board = _dashboard()
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(board)
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "run"]
    places = set()
    for panel in board["panels"]:
        assert {"id", "title", "description", "type", "gridPos", "targets", "fieldConfig"} <= set(panel)
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places.add((place["x"], place["y"]))
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])
    assert len(places) == len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_metric_of_the_dashboard_is_one_of_ours_or_of_rays() -> None:
    import ray.dashboard.modules.metrics

    folder = Path(ray.dashboard.modules.metrics.__file__).parent / "dashboards"
    rays = set(re.findall(r"\bray_\w+", "\n".join(path.read_text() for path in folder.glob("*.py"))))
    ours = {PREFIX + name + "_total" * (kind == "counter"): tags for name, (kind, tags, _) in METRICS.items()}
    shown = set()
    for panel in _dashboard()["panels"]:
        for target in panel["targets"]:
            names = set(re.findall(r"\bray_\w+", target["expr"]))
            assert names, target["expr"]
            assert names <= rays | set(ours), target["expr"]
            shown |= names
            used = set(re.findall(r"(\w+)=~?\"", target["expr"]))
            assert used <= set.intersection(*({*ours[name]} for name in names if name in ours), used), target["expr"]
    assert shown >= set(ours)


def test_each_metric_is_explained() -> None:
    text = (REPOSITORY / "docs/METRICS.md").read_text()
    for name, (kind, tags, about) in METRICS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{PREFIX}{name}"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:3] == [f"`{PREFIX}{name}{'_total' * (kind == 'counter')}`", kind, ", ".join(tags)]
        assert cells[3].lower().startswith(about.rstrip(".").lower())
