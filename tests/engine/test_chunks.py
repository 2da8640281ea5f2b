"""The chunk engine by itself: each item is committed once, one that ends its worker is found, as the log says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.crashing import Work, chunks_of, stage_of
from ray.exceptions import OutOfMemoryError

from chexray.engine import chunks as engine
from chexray.engine.chunks import MAX_RESTARTS, run_chunks
from chexray.errors import ResourceError, StorageError


def committed(folder: Path) -> list[str]:
    """Every number that was committed, as often as it was."""
    return sorted(number for part in folder.glob("part-*") for number in part.read_text().split())


def numbers(n: int, *but: int) -> list[str]:
    return [f"{i:03d}" for i in range(n) if i not in but]


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What is said to the user."""
    found: list[str] = []
    monkeypatch.setattr(engine, "say", found.append)
    return found


@pytest.fixture(params=["plain actors", "Ray Data"])
def either_way(request, monkeypatch) -> None:
    """How few chunks are done, and how many are."""
    monkeypatch.setattr(engine, "FEW_CHUNKS", 128 if request.param == "plain actors" else 0)


def test_all_chunks_are_done_once_and_nothing_is_said(ray_cluster, tmp_path, lines, either_way) -> None:
    rows = list(run_chunks(stage_of(Work(tmp_path)), chunks_of(30, 8)))
    assert (sum(row["n_done"] for row in rows), sum(row["n_rejected"] for row in rows)) == (30, 0)
    assert committed(tmp_path) == numbers(30)
    assert lines == []


def test_an_item_that_ends_every_worker_is_found_and_named(ray_cluster, tmp_path, lines, either_way) -> None:
    rows = list(run_chunks(stage_of(Work(tmp_path, deadly=(11,))), chunks_of(24, 8)))
    assert (sum(row["n_done"] for row in rows), sum(row["n_rejected"] for row in rows)) == (24, 1)
    assert sorted(set(committed(tmp_path))) == numbers(24, 11)
    assert (tmp_path / "reject-011").read_text() == ""
    first, died, outcome = lines
    assert first.startswith(f"worker processes died {MAX_RESTARTS + 1} times: a worker process was lost")
    assert "GB is free on this machine now; most is used by" in first
    assert "Isolating the number that crashes them: " in first
    assert died.startswith("011 crashed its worker: a worker process was lost")
    assert outcome.endswith("crashed a worker and is rejected until the next run, which tries it alone: 011")


def test_no_item_is_blamed_for_a_worker_that_died_once(ray_cluster, tmp_path, lines) -> None:
    """Workers die over and over, and then no more: all is done, and the log says that no item was the cause."""
    work = Work(tmp_path, deadly=tuple(range(6)), once=True)
    rows = list(run_chunks(stage_of(work, actors=1), chunks_of(8, 8)))
    assert (sum(row["n_done"] for row in rows), sum(row["n_rejected"] for row in rows)) == (8, 0)
    assert sorted(set(committed(tmp_path))) == numbers(8)
    assert not list(tmp_path.glob("reject-*"))
    assert lines[-1] == "no number crashed its worker this time: all 8 are done, and none is rejected for it"


def test_suspects_of_an_earlier_run_are_tried_alone_once(ray_cluster, tmp_path, lines) -> None:
    suspects = chunks_of(2, 1)
    rows = list(run_chunks(stage_of(Work(tmp_path, deadly=(1,))), [], suspects))
    assert [(row["n_done"], row["n_rejected"]) for row in rows] == [(1, 0), (1, 1)]
    assert committed(tmp_path) == ["000"]
    assert (tmp_path / "reject-001").read_text() == "final"
    assert lines[0] == "2 numbers crashed a worker in an earlier run: each is tried once more, alone"
    assert lines[-1] == "1 of 2 numbers crashed a worker and is rejected for good: 001"


def test_an_expected_error_of_a_worker_ends_the_stage_as_itself(ray_cluster, tmp_path, lines, either_way) -> None:
    with pytest.raises(StorageError, match=r"^the disk is full$"):
        list(run_chunks(stage_of(Work(tmp_path, full=5)), chunks_of(8, 8)))
    assert lines == []


def test_few_chunks_bring_no_helpers_of_ray_data(tmp_path) -> None:
    """Three actors that cost more CPU than a small run: looked for in a process that used Ray Data for nothing else."""
    code = f"""if True:
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import ray
        from fixtures.crashing import Work, chunks_of, stage_of
        from pathlib import Path
        from chexray.config import RayConfig
        from chexray.engine.chunks import run_chunks
        from chexray.engine.cluster import cluster
        with cluster(RayConfig(num_cpus=2, object_store_gb=0.2)):
            stage = stage_of(Work(Path({str(tmp_path)!r})))
            assert sum(row["n_done"] for row in run_chunks(stage, chunks_of(30, 8))) == 30
            named = {{each["name"] for each in ray.util.list_named_actors(all_namespaces=True)}}
        assert not named, named
        assert "ray.data" not in sys.modules
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
    assert committed(tmp_path) == numbers(30)


class Short:
    """Stands in for ray where no worker lives long: a neighbour, or one of Ray's own, takes all memory."""

    def __init__(self, user: str):
        self.n_tries = 0
        table = f"PID\tMEM(GB)\tCOMMAND\n4242\t14.80\t{user}\n"
        self.error = OutOfMemoryError(
            f"Memory on the node (IP: 10.0.0.7, ID: 34fb) was 22.61GB used / 23.54GB limit (0.96)\n{table}"
        )

    def put(self, value):
        return value

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda *_: object())

    def wait(self, flying, num_returns):
        return flying[:num_returns], flying[num_returns:]

    def get(self, _):
        self.n_tries += 1
        raise self.error


@pytest.mark.parametrize("user", ["python3 train.py", "ray::run"])
def test_memory_that_others_take_is_no_fault_of_an_item(monkeypatch, tmp_path, lines, user: str) -> None:
    """It is tried again within bounds, and then said; an item whose own worker grew too large is a reject."""
    fake = Short(user)
    monkeypatch.setattr(engine, "ray", fake)
    isolation = engine._Isolation(stage_of(Work(tmp_path)), chunks_of(2, 2))
    if user == "ray::run":
        assert [row["n_rejected"] for row in isolation] == [1, 1]
        assert lines[0] == (
            "000 crashed its worker: out of memory on node 10.0.0.7: 0.9 of 23.5 GB was free; most was used by "
            "ray::run (14.8 GB)"
        )
        return
    words = (
        r"out of memory on node 10\.0\.0\.7: 0\.9 of 23\.5 GB was free; most was used by python3 train\.py.*encode\."
    )
    with pytest.raises(ResourceError, match=words):
        list(isolation)
    assert fake.n_tries == MAX_RESTARTS + 1
    assert not list(tmp_path.glob("reject-*"))
