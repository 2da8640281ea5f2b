"""Processes killed in the middle of a privacy run change nothing in what it finds."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import ray
import yaml
from fixtures import killed_driver
from fixtures.deadly import DeadlyStorage
from fixtures.patients import World, numbers, tables

from chexray import evaluate
from chexray.engine import blocks
from chexray.engine import search as stage
from chexray.plan import make_plan
from chexray.run.evaluation import Run, evaluate_plan


def stripes(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.glob("search/*/stripe-*.parquet")}


def assert_same(run: Run, other: Run) -> None:
    pd.testing.assert_frame_equal(numbers(run), numbers(other), check_exact=True)
    found = tables(other)
    assert len(found) == len(tables(run))
    for name, table in tables(run).items():
        if name != "results":
            pd.testing.assert_frame_equal(table, found[name], check_exact=True)


def test_a_worker_killed_in_the_middle_of_a_search_changes_nothing(calm, world: World, monkeypatch, tmp_path) -> None:
    """Three blocks, stripes of 16 queries, all by tasks; the first task that comes to the third block dies."""
    monkeypatch.setattr(stage, "SMALL_FLOP", 0.0)
    monkeypatch.setattr(stage, "STRIPE_ROWS", 16)
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 10)
    store, mark = world.copy_features(tmp_path / "features"), tmp_path / "killed"
    config = world.config(tmp_path / "out", feature_store=str(store))
    deadly = DeadlyStorage(at="block-00002.parquet", mark=str(mark), spare=os.getpid())
    killed = evaluate_plan(dataclasses.replace(make_plan(config), storage=deadly))
    assert mark.exists()
    assert_same(calm, killed)
    assert json.loads((Path(killed.uri) / "run.json").read_text())["n_encoded_now"] == 0
    before = stripes(store)
    assert len(before) > 20

    again = evaluate(config)
    assert stripes(store) == before
    assert_same(calm, again)


def test_a_driver_killed_in_the_middle_of_a_search_resumes(calm, world: World, tmp_path) -> None:
    stripe = 5
    store = world.copy_features(tmp_path / "features")
    data = world.data(tmp_path / "out", feature_store=str(store))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data))
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, killed_driver.__file__, str(file), str(stripe)]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    committed = stripes(store)
    assert len(committed) == stripe - 1
    folder = next((tmp_path / "out").glob("run-*"))
    assert not (folder / "results.parquet").exists()

    resumed = evaluate(world.config(tmp_path / "out", feature_store=str(store)))
    assert Path(resumed.uri) == folder
    assert committed.items() <= stripes(store).items()
    assert_same(calm, resumed)
