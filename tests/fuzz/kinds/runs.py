"""Run folders of strangers, given to `filter`, `compare`, `status`, the tables of results, and `run --once`."""

from __future__ import annotations

import io
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fuzz.attempt import Attempt, Seen
from fuzz.kinds import tables
from fuzz.run_folders import tampered
from fuzz.values import text

SHARE = 8
RESULTS = ("results.parquet", "results.json", "results.csv")


@dataclass
class Finished:
    """A valid folder of a finished privacy run of the good tables, and a good one to compare with."""

    folder: Path
    run: Path
    config: dict[str, Any]


def prepare(folder: Path) -> Finished:
    import pyarrow as pa
    from results import privacy_rows

    from chexray import __version__
    from chexray.config import parse_config
    from chexray.data.schema import REJECT_SCHEMA
    from chexray.plan import make_plan
    from chexray.results import rows as results
    from chexray.storage import Storage
    from chexray.suites.privacy.verdicts import SCHEMA

    tables.prepare(folder)
    config = {
        "suite": "privacy", "real": tables.good_set(folder, "real"), "synthetic": [tables.good_set(folder, "fake")],
        "heldout": tables.good_set(folder, "held"), "encoders": ["pixels"], "output": "out", "storage": {"retries": 0},
    }  # fmt: skip
    plan = make_plan(parse_config(config))
    run, storage = folder / "run", Storage(retries=0)
    sets = [{"name": each.name, "origin": each.origin, "fingerprint": each.fingerprint} for each in plan.sets]
    fake = next(each for each in plan.sets if each.name == "fake")
    identity = f"fake@{fake.fingerprint}"
    rows = [
        *privacy_rows.search(synthetic_set=identity), *privacy_rows.duplicates(synthetic_set=identity),
        *privacy_rows.reid(synthetic_set=identity),
        *(each | {"suite": "fidelity", "metric": "kid",
        "synthetic_set": identity} for each in privacy_rows.search()[:1]),
    ]  # fmt: skip
    results.write(str(run), rows, storage)
    ids = fake.table["sample_id"].to_pylist()
    verdicts = [
        {"synthetic_set": "fake", "sample_id": name, "flagged": i == 0, "reasons": ["duplicate: x"] if i == 0 else []}
        for i, name in enumerate(ids)
    ]
    storage.write_parquet(str(run / "verdicts.parquet"), pa.Table.from_pylist(verdicts, SCHEMA))
    reject = {
        "set": "fake", "sample_id": ids[1], "uri": "x", "image_key": "k", "stage": "decode", "code": "corrupt",
        "detail": "cut", "transient": False,
    }  # fmt: skip
    storage.write_parquet(str(run / "rejects.parquet"), pa.Table.from_pylist([reject], REJECT_SCHEMA))
    story = {"run_id": "r", "chexray_version": __version__, "sets": sets, "notes": ["a note"], "config": config}
    status = {
        "run_id": "r", "state": "done", "exit_code": 0, "started_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:01:00Z", "done": 3, "total": 3, "rejected": 1, "message": "",
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(story))
    (run / "status.json").write_text(json.dumps(status))
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "log.txt").write_text("2026-01-01T00:00:00Z started\n")
    return Finished(folder, run, config)


def attempt(seeds: Finished, rng: random.Random, folder: Path) -> Attempt:
    run = folder / "run"
    shutil.copytree(seeds.run, run)
    how = " and ".join(tampered(run, seeds.run, rng, folder) for _ in range(rng.choice([1, 1, 1, 2])))
    reader = rng.choice(["filter", "filter", "filter", "table", "compare", "status", "once"])
    if reader == "filter":
        sets = [text(rng)] if rng.random() < 0.05 else []
        return Attempt(f"filter: {how}", lambda: _filter(run, sets), None if sets else ["filter", str(run)])
    if reader == "status":
        where = str(run if rng.random() < 0.6 else folder)
        return Attempt(f"status: {how}", lambda: _status(where), ["status", where])
    if reader == "table":
        where = str(run / rng.choice(RESULTS)) if rng.random() < 0.6 else str(run)
        return Attempt(f"table: {how}", lambda: _table(where))
    if reader == "once":
        return Attempt(f"once: {how}", lambda: _once(seeds, run))
    where = str(run / rng.choice(RESULTS)) if rng.random() < 0.5 else str(run)
    return Attempt(f"compare: {how}", lambda: _compare(where, str(seeds.run)), ["compare", where, str(seeds.run)])


def _filter(run: Path, sets: list[str]) -> Seen:
    from chexray.curation.filtering import filter_run
    from chexray.storage import Storage

    lines = []
    for done in filter_run(str(run), sets=sets, storage=Storage(retries=0)):
        lines += [
            done.name, done.path, done.dropped_path, done.config_path, done.flags, *done.reasons, *done.judged_by,
            *done.untested,
        ]  # fmt: skip
    return Seen("ok", lines)


def _status(where: str) -> Seen:
    from chexray.jobs.status import read_statuses, utc_now
    from chexray.storage import Storage

    lines = []
    for each in read_statuses(where, Storage(retries=0), utc_now):
        lines += [each.run, each.uri, each.state, each.progress, each.updated_at, each.remark]
        json.dumps(each.record)
    return Seen("ok", lines)


def _table(where: str) -> Seen:
    from chexray.report.console import last_page, render
    from chexray.results.reading import read_results
    from chexray.storage import Storage

    frame = read_results(where, Storage(retries=0))
    return Seen("ok", _printed(*render(frame), last_page(frame)))


def _compare(where: str, other: str) -> Seen:
    from chexray.report.comparison import render_compare
    from chexray.results.aligned import compare
    from chexray.results.reading import read_results
    from chexray.storage import Storage

    storage = Storage(retries=0)
    frames = {"stranger": read_results(where, storage), "own": read_results(other, storage)}
    return Seen("ok", _printed(render_compare(compare(frames))))


def _once(seeds: Finished, run: Path) -> Seen:
    """What `run --once` reads of a folder; a run that is not done would start, and is not."""
    from chexray.config import parse_config
    from chexray.plan import make_plan
    from chexray.run import recording
    from chexray.run.directory import RunDirectory

    plan = make_plan(parse_config(seeds.config))
    heard: list[str] = []
    said, recording.say = recording.say, heard.append
    try:
        found = recording.read_done(plan, RunDirectory(str(run), plan.run_id, plan.storage))
    finally:
        recording.say = said
    return Seen("ok", [] if found is None else [*found.notes, *_printed(*_rendered(found.results))])


def _rendered(frame: Any) -> Any:
    from chexray.report.console import render

    return render(frame)


def _printed(*parts: Any) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=100, highlight=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue().split("\n")  # type: ignore[attr-defined]
