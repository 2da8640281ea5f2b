"""What a run leaves in its folder: results, side tables and files, written as each suite ends, and what lies there.

The suites of a run are written in their order, each time all that have ended: results and tables first, then run.json,
whose `suites_done` says which they are. What an earlier attempt left is replaced by as much or more, never by less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from chexray import __version__
from chexray.data.schema import REJECT_SCHEMA
from chexray.errors import ChexrayError
from chexray.log import say
from chexray.plan import Plan
from chexray.results import rows as results
from chexray.results.reading import read_results
from chexray.run.directory import RunDirectory
from chexray.run.provenance import Story
from chexray.run.view import RunView
from chexray.storage import Storage, join

if TYPE_CHECKING:
    from chexray.suites.common import Outcome


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


def read_done(plan: Plan, directory: RunDirectory) -> Run | None:
    """The run as it lies in its folder, if it ended well and this version of chexray computed it."""
    status, story = directory.read_json("status.json"), directory.read_json("run.json")
    if (status.get("state"), status.get("exit_code")) != ("done", 0) or story.get("chexray_version") != __version__:
        return None
    try:
        types = dict(zip(REJECT_SCHEMA.names, REJECT_SCHEMA.types, strict=True))
        rejects = plan.storage.read_parquet(join(directory.uri, "rejects.parquet"), types=types)
        frame = read_results(directory.uri, plan.storage)
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


@dataclass
class Record:
    """The suites whose results lie in a run's folder. failures: tracebacks of cells that failed in this attempt."""

    directory: RunDirectory
    suites: Sequence[str]
    failures: list[str] = field(default_factory=list)
    _there: set[str] = field(default_factory=set)

    def recall(self) -> None:
        """Learns what earlier attempts left: a run that is done stays so until another attempt has replaced all of it.

        Results of another version of chexray are replaced suite by suite.
        """
        status, story = self.directory.read_json("status.json"), self.directory.read_json("run.json")
        if status.get("state") == "done":
            self.directory.standing = {key: value for key, value in status.items() if key != "attempt"}
        if story.get("chexray_version") == __version__:
            said = story.get("suites_done", self.suites if self.directory.standing else [])
            self._hold([suite for suite in self.suites if isinstance(said, list | tuple) and suite in said])

    def keep(self, outcome: Outcome, done: Sequence[str], story: Story) -> None:
        """Writes what the suites `done` found, unless the folder holds more than that. story: for run.json."""
        self.failures = outcome.failures
        if self._there > set(done):
            return
        directory = self.directory
        if set(done) != set(self.suites) and directory.standing:  # the results of another version go now
            directory.standing = {}
            directory.status(directory.state)
        results.write(directory.uri, outcome.rows, directory.storage)
        for name, table in outcome.tables.items():
            directory.parquet(f"{name}.parquet", table)
        for name, content in outcome.files.items():
            directory.bytes(name, content)
        if outcome.failures:
            directory.text("errors.log", "\n\n".join(outcome.failures))
        else:
            directory.storage.delete(join(directory.uri, "errors.log"))  # of an attempt before this one
        self.tell(outcome, done, story)

    def tell(self, outcome: Outcome, done: Sequence[str], story: Story) -> None:
        """Writes run.json: where the numbers of the suites `done` come from."""
        notes = [*story["notes"], *outcome.notes]
        self.directory.json("run.json", {**story, "notes": notes, "suites_done": list(done)})
        self._hold(done)

    def _hold(self, done: Sequence[str]) -> None:
        self._there = set(done)
        self.directory.suites_done = list(done)
