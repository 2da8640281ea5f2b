"""The folder of one run, local or on S3: status, provenance, rejects, per-image table, results.

run.json  config.yaml  status.json  rejects.parquet  results.parquet/.csv/.json  errors.log, and what the suites add
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from chexray.storage import Storage, join


def now() -> str:
    """ISO 8601, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class RunDirectory:
    """Writes below `uri`. `status.json` is replaced at every change of stage and now and then inside one, so a watcher
    (or a retried pod) can tell what happened without the logs."""

    uri: str
    run_id: str
    storage: Storage
    clock: Callable[[], str] = now
    started_at: str = field(default="")

    def status(self, state: str, **details: Any) -> None:
        """state: planning, encoding, reducing, training, done, failed or interrupted."""
        self.started_at = self.started_at or self.clock()
        body = {
            "run_id": self.run_id,
            "state": state,
            "started_at": self.started_at,
            "updated_at": self.clock(),
            **details,
        }
        self.json("status.json", body)

    def json(self, name: str, body: dict[str, Any]) -> None:
        self.text(name, json.dumps(body, indent=2, default=str) + "\n")

    def text(self, name: str, text: str) -> None:
        self.bytes(name, text.encode())

    def bytes(self, name: str, content: bytes) -> None:
        self.storage.write(join(self.uri, name), content)

    def parquet(self, name: str, table: pa.Table) -> None:
        self.storage.write_parquet(join(self.uri, name), table)
