"""The folder of one run, local or on S3: status, log, provenance, rejects, per-image table, results.

run.json  config.yaml  status.json  log.txt  rejects.parquet  results.parquet/.csv/.json  errors.log, precision.json
where a run chose a precision, and the suites' own
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from chexray.errors import StorageError
from chexray.storage import Storage, join

ENDED = ("done", "failed", "interrupted")
STATES = ("planning", "waiting", "encoding", "reducing", "training", *ENDED)
HEARTBEAT_S = 60.0
"""A run that has not ended writes its status at least so often."""
LOG_BYTES = 200_000
MAX_JSON_BYTES = 20_000_000
"""Size of run.json; that of a run with a thousand notes takes 200 kB."""


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class RunDirectory:
    """Writes below `uri`. `status.json` is replaced at every change of stage and now and then inside one, so a watcher
    (or a retried pod) can tell what happened without the logs of a pod that is gone.

    standing: the status of a run that is done and whose results still lie in the folder. While it is set it stays as
    it is, and what a later attempt does stands in it under `attempt`. suites_done: suites whose results lie there.
    """

    uri: str
    run_id: str
    storage: Storage
    clock: Callable[[], str] = now
    started_at: str = field(default="")
    heartbeat_s: float = HEARTBEAT_S
    standing: dict[str, Any] = field(default_factory=dict)
    suites_done: list[str] = field(default_factory=list)
    _log: list[str] = field(default_factory=list)
    _n_written: int = 0
    _last: dict[str, Any] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def status(self, state: str, **details: object) -> None:
        """state: one of STATES. The log so far goes with it."""
        with self._lock:
            self.started_at = self.started_at or self.clock()
            self._last = {"run_id": self.run_id, "state": state, "started_at": self.started_at, **details}
            if state == "done":
                self.standing = {}
            self._write_status()

    @property
    def state(self) -> str:
        """The last one that was written, or ""."""
        return self._last.get("state", "")

    def continue_log(self) -> None:
        """Keeps what earlier attempts wrote to log.txt, its last LOG_BYTES: why they failed is asked for later."""
        uri = join(self.uri, "log.txt")
        if self.storage.exists(uri):
            earlier = self.storage.read(uri)[-LOG_BYTES:].decode(errors="replace")
            self._log.append(earlier)
            self.hear("--- again")

    def hear(self, line: str) -> None:
        """One line for log.txt, which is written with the next status; never waits for one that is being written."""
        self._log.append(f"{self.clock()} {line}\n")

    @contextmanager
    def beating(self, every: float | None = None) -> Iterator[None]:
        """Renews status.json while the block runs, so that a long silent stage differs from a pod that is gone."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.heartbeat_s if every is None else every):
                with suppress(StorageError), self._lock:  # the run itself meets a storage that fails
                    if self._last.get("state") not in ENDED:
                        self._write_status()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(5)  # not the time of a storage that hangs, when a stop has 20 s

    def _write_status(self) -> None:
        n_lines = len(self._log)
        if n_lines > self._n_written:
            self.text("log.txt", "".join(self._log[:n_lines]))
            self._n_written = n_lines
        body = {**self._last, "updated_at": self.clock(), "heartbeat_s": self.heartbeat_s}
        body["suites_done"] = self.suites_done
        self.json("status.json", {**self.standing, "attempt": body} if self.standing else body)

    def json(self, name: str, body: Mapping[str, object]) -> None:
        self.text(name, json.dumps(body, indent=2, default=str) + "\n")

    def text(self, name: str, text: str) -> None:
        self.bytes(name, text.encode())

    def bytes(self, name: str, content: bytes) -> None:
        self.storage.write(join(self.uri, name), content)

    def parquet(self, name: str, table: pa.Table) -> None:
        self.storage.write_parquet(join(self.uri, name), table)

    def read_json(self, name: str) -> dict[str, object]:
        """What is in a JSON file of the folder; {} where there is none, or where it is not whole or no run's."""
        uri = join(self.uri, name)
        there = self.storage.stat([uri])[0]
        if there is None or there.size > MAX_JSON_BYTES:
            return {}
        try:
            found = json.loads(self.storage.read(uri))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
