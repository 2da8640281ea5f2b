"""Keeps Ray from printing, and from replacing our handlers of signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from chexray.engine.arrow_types import forget_extension_types

_QUIET = {
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def quiet_environment(verbose: bool) -> None:
    """Sets what Ray reads when it is imported. A value of the user's own stands."""
    for key, value in _QUIET.items():
        if not (verbose and "LOG" in key):
            os.environ.setdefault(key, value)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Puts back the SIGTERM handler that the block replaces, as ray.init and ray.shutdown do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def hushed(active: bool) -> Iterator[None]:
    """Drops what native code writes to the error stream: Ray announces even that it will be silent."""
    saved = -1
    with suppress(OSError, AttributeError):  # the error stream may be closed
        sys.stderr.flush()
        saved = os.dup(2) if active else -1
    if saved < 0:
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


_shown = [False]
"""Whether Ray's own words are shown, from the start of the cluster to the use of Ray Data."""


def quiet_ray(verbose: bool) -> None:
    """Keeps a connected Ray, and from now on Ray Data, from printing."""
    import logging
    import warnings

    import ray._private.worker

    _shown[0] = verbose
    if not verbose:
        # Ray prints what raylets report, such as each worker killed for lack of memory, whatever log_to_driver says.
        if hasattr(ray._private.worker, "print_to_stdstream"):
            ray._private.worker.print_to_stdstream = lambda *_, **__: None
        # The bounded retries of engine/encode.py have no other spelling in Ray 2.60.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        warnings.filterwarnings("ignore", module="ray")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        logging.getLogger("ray").setLevel(logging.CRITICAL)


def quiet_data() -> ModuleType:
    """ray.data, as quiet, and without the Arrow types that its import registers. Imported where it is used: a second
    that a run without it need not pay."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = _shown[0]
    # Ray Data else reads the memory maps of each worker every second, which costs 3 % of the encoding.
    context.memory_usage_poll_interval_s = None
    context.print_on_execution_start = _shown[0]
    if not _shown[0]:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    forget_extension_types()
    return ray.data
