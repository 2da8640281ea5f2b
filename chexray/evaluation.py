"""The story of a run on one page: plan, encode, ask, write.

plan = make_plan(config)              nothing started, everything checked
with cluster(...):
    encode pending images             each once per encoder; parts + rejects = manifest
    for each suite: its questions     fidelity: set x encoder x subset; privacy: pairs, searches, duplicates;
                                      utility: classifiers trained on mixtures, tested on real images
write results, side tables, rejects, provenance
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from chexray import __version__
from chexray.config import RunConfig
from chexray.data.manifest import REJECT_SCHEMA
from chexray.errors import ChexrayError, RunFailed
from chexray.inputs import as_config
from chexray.log import heard_by, say
from chexray.plan import Plan, make_plan
from chexray.plan.plan import FIDELITY, PRIVACY, UTILITY
from chexray.plugins import header
from chexray.provenance import provenance
from chexray.registry import using
from chexray.results import rows as results
from chexray.results.showing import RunView
from chexray.rundir import RunDirectory, now
from chexray.stopping import Stop
from chexray.storage import Storage, join

STATUS_EVERY_S = 10.0
SLOW_S = 2.0


@dataclass(frozen=True)
class Run(RunView):
    """A finished run. exit_code: 0, or 1 when some cell failed; its rows say why. storage: how its folder is read."""

    uri: str
    run_id: str
    results: pd.DataFrame
    rejects: pd.DataFrame
    notes: list[str]
    exit_code: int
    storage: Storage = field(default_factory=Storage, repr=False, compare=False)


def evaluate(
    config: RunConfig | str | PathLike[str] | Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[str | Path] = (),
    verbose: bool = False,
    once: bool = False,
    **settings: Any,
) -> Run:
    """Runs the evaluation a config asks for and returns its numbers; everything is also in the run's folder.

    config: a RunConfig, the path of a YAML file, or a mapping as in such a file. settings: what takes the place of the
    config's own settings, or of all of it: evaluate(real="a/", synthetic="b/", encoders="pixels", metrics="fid").
    A set may be a pandas DataFrame with one row an image. plugins: files of metrics, encoders and sources of your own
    (docs/PLUGINS.md). Resumes by itself: chunks that an earlier, interrupted run committed are not done again.
    once: a run that is done already (same config, images, weights and version of chexray) is read, not computed again.
    Raises ChexrayError (one line) for wrong input, RunFailed when too many images were rejected, and KeyboardInterrupt
    on Ctrl-C or SIGTERM, after the status has been written.
    """
    with using(plugins):
        with Stop().on_signals(), said_if_slow("plan: reading sets and weights"):
            plan = make_plan(as_config(config, settings))
        return evaluate_plan(plan, verbose=verbose, once=once)


def evaluate_plan(plan: Plan, *, verbose: bool = False, once: bool = False) -> Run:
    """The same for a plan that is made already."""
    directory = RunDirectory(plan.run_uri, plan.run_id, plan.storage)
    if once and (found := _done_already(plan, directory)):
        return found
    plan.storage.check_writable(plan.run_uri)
    directory.text("config.yaml", header(plan.plugins) + plan.config.to_yaml())
    directory.continue_log()
    stop = Stop()
    with heard_by(directory.hear), directory.beating(), stop.on_signals():
        directory.status("planning", n_images=len(plan.images))
        try:
            return _evaluate(plan, directory, verbose)
        except (KeyboardInterrupt, SystemExit, Exception) as error:
            # SystemExit is Ray's answer to SIGTERM while it starts.
            stop.ignore_signals()
            if stop.asked or isinstance(error, KeyboardInterrupt | SystemExit):
                _end(directory, "interrupted", "stopped on request; the same command resumes", 130)
                raise KeyboardInterrupt from None
            if isinstance(error, ChexrayError):
                _end(directory, "failed", str(error), error.exit_code)
                raise
            # The causes behind it may quote what a service answered; the error stream has them.
            directory.text("errors.log", "".join(traceback.format_exception(error, chain=False)))
            _end(directory, "failed", f"{type(error).__name__} (a defect of chexray)", 1)
            raise


def _end(directory: RunDirectory, state: str, message: str, exit_code: int) -> None:
    directory.hear(f"{state}: {message}")
    directory.status(state, message=message, exit_code=exit_code)


def _done_already(plan: Plan, directory: RunDirectory) -> Run | None:
    """The run as it lies in its folder, if it ended well and this version of chexray computed it."""
    status, story = directory.read_json("status.json"), directory.read_json("run.json")
    if (status.get("state"), status.get("exit_code")) != ("done", 0) or story.get("chexray_version") != __version__:
        return None
    try:
        types = dict(zip(REJECT_SCHEMA.names, REJECT_SCHEMA.types, strict=True))
        rejects = plan.storage.read_parquet(join(directory.uri, "rejects.parquet"), types=types)
        frame = results.read_results(directory.uri, plan.storage)
    except ChexrayError as error:
        if getattr(error, "transient", False):
            raise
        return None  # somebody tidied up, or changed it: only another run brings it back
    notes = story.get("notes")
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        return None
    if any(rejects["transient"].to_pylist()):
        return None  # these images may be readable now
    say(f"{plan.run_id} is done since {status.get('updated_at')}: nothing is computed again")
    return Run(directory.uri, plan.run_id, frame, rejects.to_pandas(), notes, 0, plan.storage)


def _evaluate(plan: Plan, directory: RunDirectory, verbose: bool) -> Run:
    from chexray.engine.cluster import cluster
    from chexray.engine.encode import encode
    from chexray.engine.features import FeatureStore
    from chexray.engine.pools import plan_pool
    from chexray.engine.progress import Progress
    from chexray.engine.scaling import grown, growth, released
    from chexray.engine.shared import check_shared
    from chexray.engine.worker import Job
    from chexray.suites.common import Context, Outcome, collect_rejects

    config, images = plan.config, plan.images
    times = {"started": time.monotonic()}
    store = FeatureStore(plan.store_uri, plan.storage)
    with (
        cluster(config.ray, verbose=verbose) as found,
        grown(growth(config), found, lambda message: directory.status("waiting", message=message)) as resources,
    ):
        check_shared(plan.store_uri, plan.storage, found)
        times["ray"] = time.monotonic()
        pool = plan_pool(config.encode, resources, n_images=len(images))
        if plan.utility is not None:
            from chexray.engine.train import plan_train_pool

            plan_train_pool(plan.utility.config, resources)  # what cannot be had is said before images are decoded
        say(f"{resources.describe()}; {pool.describe()}")
        job = Job(
            plan.encoders,
            store,
            plan.storage,
            pool.device,
            pool.torch_threads,
            pool.batch_size,
            config.encode.io_threads,
            config.encode.max_pixels,
        )
        progress = Progress("encode", "images", len(images), on_change=_status_writer(directory, "encoding"))
        directory.status("encoding", done=0, total=len(images), rejected=0)
        encoded = encode(images, plan.encoders, store, pool, job, progress, plan.wanted, plan.depths)
        times["encode"] = time.monotonic()
        if plan.utility is None:
            released(config.ray, found)

        rejects = collect_rejects(plan, encoded.done)
        directory.parquet("rejects.parquet", rejects)
        _check_rejects(plan, rejects)
        clipped = _clipped(plan, encoded.done)

        def new_progress(stage: str, unit: str, total: int) -> Progress:
            state = "training" if stage == "train" else "reducing"
            return Progress(stage, unit, total, on_change=_status_writer(directory, state))

        workers = max(1, int(resources.cpus))
        context = Context(plan, store, encoded.done, workers, now(), rejects, new_progress, resources)
        outcome = Outcome()
        for suite in config.suite:
            directory.status("training" if suite == UTILITY else "reducing", suite=suite)
            try:
                outcome.add(_suite(suite)(context))
            except ChexrayError:
                if outcome.rows:  # what the suites before it found is not lost
                    _write(directory, outcome)
                raise
            times[suite] = time.monotonic()

    _write(directory, outcome)
    exit_code = 1 if outcome.failures else 0
    notes = [*plan.notes, *clipped, *outcome.notes]
    times["done"] = time.monotonic()
    done = {"n_encoded_now": encoded.n_encoded, "encode_cpu_s": round(encoded.cpu_s, 3), "notes": notes}
    directory.json("run.json", provenance(plan, rejects, times, resources, pool) | done)
    directory.status(
        "done",
        exit_code=exit_code,
        n_results=len(outcome.rows),
        n_rejected=len(rejects),
        n_failed_cells=len(outcome.failures),
    )
    frame = results.to_table(outcome.rows).to_pandas()
    return Run(directory.uri, plan.run_id, frame, rejects.to_pandas(), notes, exit_code, plan.storage)


def _write(directory: RunDirectory, outcome: Any) -> None:
    """Rows, tables and files of the suites that ran."""
    results.write(directory.uri, outcome.rows, directory.storage)
    for name, table in outcome.tables.items():
        directory.parquet(f"{name}.parquet", table)
    for name, content in outcome.files.items():
        directory.bytes(name, content)
    if outcome.failures:
        directory.text("errors.log", "\n\n".join(outcome.failures))
    else:
        directory.storage.delete(join(directory.uri, "errors.log"))  # of an attempt before this one


def _suite(name: str) -> Any:
    """The function that answers the questions of a suite."""
    if name == FIDELITY:
        from chexray.suites.fidelity import evaluate_fidelity

        return evaluate_fidelity
    if name == PRIVACY:
        from chexray.suites.privacy import evaluate_privacy

        return evaluate_privacy
    from chexray.suites.utility import evaluate_utility

    return evaluate_utility


def _check_rejects(plan: Plan, rejects: pa.Table) -> None:
    """Raises RunFailed when a set lost more than `max_reject_fraction`, or all, of its images."""
    limit = plan.config.encode.max_reject_fraction
    for manifest in plan.sets:
        mine = [row for row in rejects.to_pylist() if row["set"] == manifest.name]
        n = len(manifest) + len(manifest.rejects)
        if not mine or (len(mine) <= limit * n and len(mine) < n):
            continue
        first = mine[0]
        again = sum(row["transient"] for row in mine)
        hint = f"{again} of them may succeed when you run the same command again. " if again else ""
        raise RunFailed(
            f"{manifest.name}: {len(mine)} of {n} images were rejected, over encode.max_reject_fraction={limit:g}. "
            f"First: {first['uri']}: {first['code']}: {first['detail']}. {hint}"
            f"All are listed in {plan.run_uri}/rejects.parquet; mend them, or raise the limit."
        )


def _clipped(plan: Plan, done: dict[str, Any]) -> list[str]:
    """Notes on images that are brighter than the depth of their set. Raises RunFailed where that depth was found in a
    sample and is too small for more than `max_reject_fraction` of the set."""
    from chexray.suites.common import clipped_of

    notes, counts = [], clipped_of(plan, done)
    for manifest in plan.sets:
        count, depth = counts.get(manifest.name, 0), manifest.depth
        if not count:
            continue
        bits = f"the {abs(depth.bits)} bits of its set" if depth and depth.bits else "the bits that their files declare"
        told = f"{manifest.name}: {count} of {len(manifest)} images hold values beyond {bits}, which were cut off"
        limit = plan.config.encode.max_reject_fraction
        if depth and depth.bits and not depth.given and count > limit * len(manifest):
            raise RunFailed(
                f"{told}, over encode.max_reject_fraction={limit:g}. The sample in which the depth was found held no "
                "such image. Give the set `bits`, such as 16."
            )
        move = f"its `bits: {depth.bits}` is too small" if depth and depth.given else "give the set `bits`"
        notes.append(f"{told}. If that is not padding or a marker, {move}")
    return notes


def _status_writer(directory: RunDirectory, state: str) -> Any:
    last = [float("-inf")]

    def write(progress: Any) -> None:
        moment = time.monotonic()
        if moment - last[0] >= STATUS_EVERY_S or progress.done >= progress.total:
            last[0] = moment
            directory.status(state, done=progress.done, total=progress.total, rejected=progress.rejected)

    return write


@contextmanager
def said_if_slow(message: str) -> Iterator[None]:
    """Prints the line once the block has taken SLOW_S, so that silence is short and a quick error stands alone."""
    timer = threading.Timer(SLOW_S, say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
