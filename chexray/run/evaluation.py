"""The story of a run on one page: plan, encode, ask, write.

plan = make_plan(config)              nothing started, everything checked
with cluster(...):
    encode pending images             each once per encoder; parts + rejects = manifest
    for each suite: its questions     fidelity: set x encoder x subset; privacy: pairs, searches, duplicates;
                                      utility: classifiers trained on mixtures, tested on real images
        write and show its answers    results, side tables, provenance: no later suite can lose them
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from chexray.config import RunConfig
from chexray.errors import ChexrayError
from chexray.log import heard_by, say
from chexray.plan import Plan, make_plan
from chexray.plugins import header
from chexray.registry import using
from chexray.results import rows as results
from chexray.run.directory import RunDirectory, now
from chexray.run.inputs import as_config
from chexray.run.provenance import Story, provenance, seconds
from chexray.run.recording import Record, Run, read_done
from chexray.run.stopping import LAST_WORD_S, Stop, in_time
from chexray.run.trimming import trim_memory
from chexray.suite_names import UTILITY

if TYPE_CHECKING:
    from chexray.engine.encode import Encoded
    from chexray.engine.features import FeatureStore
    from chexray.engine.pools import Pool, Resources
    from chexray.engine.progress import Progress
    from chexray.engine.telemetry import Meter
    from chexray.suites.common import Context, Outcome

STATUS_EVERY_S = 10.0
SLOW_S = 2.0
FAILED_WORD_S = 60.0
"""For the status of a run that failed, which nobody waits for as for a stop."""
STOPPED = "stopped on request; the same command resumes"

OnSuite = Callable[[str, pd.DataFrame], Any]
"""Hears each suite that has ended: its name, and its rows as they stand in the results."""


def evaluate(
    config: RunConfig | str | PathLike[str] | Mapping[str, object] | None = None,
    *,
    plugins: Sequence[str | Path] = (),
    verbose: bool = False,
    once: bool = False,
    on_suite: OnSuite = lambda *_: None,
    **settings: object,
) -> Run:
    """Runs the evaluation a config asks for and returns its numbers; everything is also in the run's folder.

    config: a RunConfig, the path of a YAML file, or a mapping as in such a file. settings: what takes the place of the
    config's own settings, or of all of it: evaluate(real="a/", synthetic="b/", encoders="pixels", metrics="fid").
    A set may be a pandas DataFrame with one row an image. plugins: files of metrics, encoders and sources of your own
    (docs/PLUGINS.md). Resumes by itself: chunks that an earlier, interrupted run committed are not done again.
    once: a run that is done already (same config, images, weights and version of chexray) is read, not computed again.
    on_suite: called when a suite has ended and its results are written; not for a run that is only read.
    Raises ChexrayError (one line) for wrong input and for what a machine or cluster did, RunFailed when too many images
    were rejected, and KeyboardInterrupt on Ctrl-C, SIGTERM or SIGHUP, after the status has been written.
    """
    with using(plugins):
        with Stop(lambda: _tell(STOPPED)).on_signals(), said_if_slow("plan: reading sets and weights"):
            plan = make_plan(as_config(config, settings))
        return evaluate_plan(plan, verbose=verbose, once=once, on_suite=on_suite)


def evaluate_plan(plan: Plan, *, verbose: bool = False, once: bool = False, on_suite: OnSuite = lambda *_: None) -> Run:
    """The same for a plan that is made already."""
    directory = RunDirectory(plan.run_uri, plan.run_id, plan.storage)
    if once and (found := read_done(plan, directory)):
        return found
    plan.storage.check_writable(plan.run_uri)
    directory.text("config.yaml", header(plan.plugins) + plan.config.to_yaml())
    directory.continue_log()
    record = Record(directory, plan.config.suite)
    record.recall()
    stop = Stop(lambda: _end_unheard(directory, stop))
    with heard_by(directory.hear), directory.beating(), stop.on_signals():
        directory.status("planning", n_images=len(plan.images))
        try:
            return _evaluate(plan, directory, record, verbose, on_suite, stop)
        except (KeyboardInterrupt, SystemExit, Exception) as error:
            # SystemExit is Ray's answer to SIGTERM while it starts.
            stop.ignore_signals()
            if done := directory.suites_done:
                say(f"note: the results of {', '.join(done)} are in {directory.uri}")
            if stop.error is None and (stop.asked or isinstance(error, KeyboardInterrupt | SystemExit)):
                _end(directory, "interrupted", STOPPED, 130, LAST_WORD_S)
                raise KeyboardInterrupt from None
            told = _failure(error, directory, record, stop)
            if told is error:
                raise
            raise told from (None if stop.error else error)


def _failure(error: BaseException, directory: RunDirectory, record: Record, stop: Stop) -> BaseException:
    """The error that ends the run, after it is written: what is expected is one line, a defect keeps its traceback."""
    from chexray.engine.failures import explained

    stage = {"planning": "plan", "encoding": "encode", "training": "utility"}.get(directory.state, "")
    told = stop.error or explained(error, stage)
    if isinstance(told, ChexrayError):
        _end(directory, "failed", str(told), told.exit_code, LAST_WORD_S if stop.error else FAILED_WORD_S)
        return told
    # The causes behind it may quote what a service answered; the error stream has them.
    trace = "".join(traceback.format_exception(error, chain=False))
    directory.text("errors.log", "\n\n".join([*record.failures, trace]))
    _end(directory, "failed", f"{type(error).__name__} (a defect of chexray)", 1, FAILED_WORD_S)
    return error


def _end(directory: RunDirectory, state: str, message: str, exit_code: int, seconds: float) -> None:
    """The last word of an attempt, which a storage that hangs or fails can neither hold up nor replace."""

    def write() -> None:
        directory.hear(f"{state}: {message}")
        directory.status(state, message=message, exit_code=exit_code)

    try:
        is_written = in_time(write, seconds)
    except ChexrayError as error:
        say(f"note: the status of {directory.run_id} could not be written ({error})")
    else:
        if not is_written:
            say(f"note: the status of {directory.run_id} could not be written: its storage did not answer in time")


def _end_unheard(directory: RunDirectory, stop: Stop) -> None:
    """The last word where the main thread hangs: the process ends after it."""
    told = stop.error
    _tell(str(told) if told else STOPPED)
    code = getattr(told, "exit_code", 1) if told else 130
    _end(directory, "failed" if told else "interrupted", str(told) if told else STOPPED, code, LAST_WORD_S)


def _tell(message: str) -> None:
    print(f"chexray: {message}", file=sys.stderr, flush=True)


def _evaluate(plan: Plan, directory: RunDirectory, record: Record, verbose: bool, on_suite: OnSuite, stop: Stop) -> Run:
    from chexray.engine.cluster import cluster
    from chexray.engine.features import FeatureStore
    from chexray.engine.scaling import grown, growth, released
    from chexray.engine.shared import check_shared
    from chexray.engine.telemetry import cost, metered
    from chexray.engine.watching import head_watched
    from chexray.run.rejecting import check_rejects, clipped_notes
    from chexray.suites.common import Context, collect_rejects

    config = plan.config
    times = {"started": time.monotonic()}
    store = FeatureStore(plan.store_uri, plan.storage)
    with (
        cluster(config.ray, verbose=verbose) as found,
        head_watched(lambda lost: stop.fail(lost, lost.exit_code)),
        grown(growth(config), found, lambda message: directory.status("waiting", message=message)) as resources,
        metered(plan.run_id, resources) as meter,
    ):
        check_shared(plan.store_uri, plan.storage, found)
        times["ray"] = time.monotonic()
        pool = _planned_pool(plan, resources)
        plan = _with_precision(plan, directory, store, pool)
        times["precision"] = time.monotonic()
        trim_memory()
        encoded = _encode(plan, directory, store, pool, meter)
        trim_memory()
        times["encode"] = time.monotonic()
        if plan.utility is None or plan.utility.config.device == "cpu":
            released()
        rejects = collect_rejects(plan, encoded.done)
        directory.parquet("rejects.parquet", rejects)
        check_rejects(plan, rejects)
        notes = [*plan.notes, *clipped_notes(plan, encoded.done)]

        def story() -> Story:
            done = {"n_encoded_now": encoded.n_encoded, "encode_cpu_s": round(encoded.cpu_s, 3), "notes": notes}
            return provenance(plan, rejects, times, resources, pool) | done | {"cost": cost(seconds(times), resources)}

        workers, progress = max(1, int(resources.cpus)), partial(_new_progress, directory)
        context = Context(plan, store, encoded.done, workers, now(), rejects, progress, resources)
        outcome = _answers(context, directory, record, on_suite, times, story)

    times["done"] = time.monotonic()
    record.tell(outcome, config.suite, story())
    exit_code = 1 if outcome.failures else 0
    counts = {"n_results": len(outcome.rows), "n_rejected": len(rejects), "n_failed_cells": len(outcome.failures)}
    directory.status("done", exit_code=exit_code, **counts)
    frame = results.to_table(outcome.rows).to_pandas()
    said = [*notes, *outcome.notes]
    return Run(directory.uri, plan.run_id, frame, rejects.to_pandas(), said, exit_code, plan.storage)


def _planned_pool(plan: Plan, resources: Resources) -> Pool:
    """How images are encoded with these resources. Raises ResourceError for what encoding or training cannot have."""
    from chexray.engine.pools import plan_pool

    pool = plan_pool(plan.config.encode, resources, n_images=len(plan.images))
    if plan.utility is not None:
        from chexray.engine.pools import plan_train_pool

        plan_train_pool(plan.utility.config, resources)  # what cannot be had is said before images are decoded
    say(f"{resources.describe()}; {pool.describe()}")
    return pool


def _with_precision(plan: Plan, directory: RunDirectory, store: FeatureStore, pool: Pool) -> Plan:
    """The plan once each network has a precision; see `chexray.run.precision`."""
    if not plan.undecided:
        return plan
    from chexray.run.precision import Checker, with_precision

    directory.status("encoding", done=0, total=len(plan.images), rejected=0, message="checking a lower precision")
    return with_precision(plan, store, directory, Checker.on_workers(store, pool))


def _encode(plan: Plan, directory: RunDirectory, store: FeatureStore, pool: Pool, meter: Meter) -> Encoded:
    """Encodes what is not in the store yet."""
    from chexray.engine.encode import encode
    from chexray.engine.progress import Progress
    from chexray.engine.worker import Job

    images = plan.images
    job = Job(plan.encoders, store, pool)
    progress = Progress("encode", "images", len(images), on_change=_status_writer(directory, "encoding"))
    directory.status("encoding", done=0, total=len(images), rejected=0)
    with meter.booked("encode", pool.actors * pool.gpus_per_actor):
        return encode(images, job, progress)


def _answers(
    context: Context, directory: RunDirectory, record: Record, on_suite: OnSuite, times: dict[str, float],
    story: Callable[[], Story],
) -> Outcome:  # fmt: skip
    """What all suites of a run found; the results are written as each of them ends. story: for run.json."""
    from chexray.suites.common import Outcome
    from chexray.suites.registry import answer

    outcome, asked = Outcome(), context.plan.config.suite
    for position, suite in enumerate(asked, 1):
        directory.status("training" if suite == UTILITY else "reducing", suite=suite)
        answers = answer(suite, context)
        outcome.add(answers)
        times[suite] = time.monotonic()
        record.keep(outcome, asked[:position], story())
        on_suite(suite, results.to_table(answers.rows).to_pandas())
        trim_memory()
    return outcome


def _new_progress(directory: RunDirectory, stage: str, unit: str, total: int) -> Progress:
    from chexray.engine.progress import Progress

    state = "training" if stage == "train" else "reducing"
    return Progress(stage, unit, total, on_change=_status_writer(directory, state))


def _status_writer(directory: RunDirectory, state: str) -> Callable[[Progress], None]:
    last = [float("-inf")]

    def write(progress: Progress) -> None:
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
