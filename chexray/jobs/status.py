"""How runs are doing, read from the `status.json` of their folders: no cluster has to answer for it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from chexray.config.secrets import refuse_in_location
from chexray.errors import ChexrayError, StorageError
from chexray.run.directory import ENDED, HEARTBEAT_S
from chexray.storage import Storage, absolute, basename, join, parent
from chexray.text import one_line, printable, shown

STATUS_FILE = "status.json"
DEAD = "dead"
"""The state of a run that has not ended and whose status was not renewed MISSED_BEATS times: its driver is gone."""

MISSED_BEATS = 3
LONGEST_BEAT_S = 3600.0
CLOCKS_DIFFER_S = 60.0
"""A status from so far in the future says that the clocks of two machines differ."""

MAX_BYTES = 1_000_000
"""Size of a status; ours take 300 bytes."""


@dataclass(frozen=True)
class RunStatus:
    """One run as its folder tells it; what the file does not say is None or "".

    state: what the file says (`last_state`), or DEAD. silent_s: seconds since the last word of a run that is dead.
    heartbeat_s: how often the run renews its status. suites_done: suites whose results are in the folder. ahead_s: how
    far its clock is ahead of ours. attempt: what a later attempt at a run that is done did; the results are not its.
    """

    run: str
    uri: str
    state: str
    last_state: str = ""
    started_at: str = ""
    updated_at: str = ""
    age_s: float | None = None
    done: int | None = None
    total: int | None = None
    rejected: int | None = None
    exit_code: int | None = None
    message: str = ""
    silent_s: float | None = None
    heartbeat_s: float = HEARTBEAT_S
    suites_done: tuple[str, ...] = ()
    ahead_s: float | None = None
    attempt: RunStatus | None = None

    @property
    def progress(self) -> str:
        return "" if self.done is None else f"{self.done:,}/{'?' if self.total is None else format(self.total, ',')}"

    @property
    def remark(self) -> str:
        """What a person should read: the message, that nothing was heard for long, and what a later attempt did."""
        words = [self.message] if self.message else []
        if self.silent_s is not None:
            words.append(
                f"no status update for {spell(self.silent_s)} while {self.last_state}, by this machine's clock "
                f"({MISSED_BEATS} are missing): its driver or pod has ended; the same command resumes"
            )
        if self.state not in ENDED and self.suites_done:
            words.append(f"results of {', '.join(self.suites_done)} are there")
        if self.ahead_s is not None:
            words.append(f"its clock is {spell(self.ahead_s)} ahead of this machine's")
        if self.attempt is not None:
            more = ", ".join(filter(None, [self.attempt.progress, self.attempt.remark]))
            words.append(f"a later attempt: {self.attempt.state}{f', {more}' if more else ''}")
        return "; ".join(words)

    @property
    def record(self) -> dict[str, object]:
        """For --json."""
        return asdict(self)


def read_statuses(uri: str, storage: Storage, now: Callable[[], datetime]) -> list[RunStatus]:
    """The run whose folder `uri` is, or the runs in the folder `uri`, newest first. Raises StorageError, one line.

    The folders may be anybody's: control characters are shown as escapes, and long texts are cut. A file that cannot
    be understood is an error for one run, and a line of state "unreadable" among several.
    """
    refuse_in_location(uri, "status")
    where = absolute(uri.rstrip("/") or uri)
    if basename(where) == STATUS_FILE:
        where = parent(where)
    own = join(where, STATUS_FILE)
    if storage.exists(own):
        return [_read(own, storage, now())]
    # Beside the runs lie features and images, of which there may be 100,000.
    named = [join(folder, STATUS_FILE) for folder in storage.folders(where)]
    files = [found.uri for found in storage.stat(named) if found is not None]
    if not files:
        raise StorageError(
            f"{shown(uri)}: neither a run nor a folder of runs has {STATUS_FILE} there. Name the `output` of the "
            "config or a run's folder; a run writes it once its sets and weights are read."
        )
    moment = now()
    with ThreadPoolExecutor(min(8, len(files))) as pool:
        found = list(pool.map(lambda file: _read_or_say(file, storage, moment), files))
    return sorted(sorted(found, key=lambda each: each.run), key=lambda each: each.updated_at, reverse=True)


def unfinished(place: str, storage: Storage) -> str:
    """A note on results of a run that is not done: which suites they are of; "" for any other place.

    place: a run's folder or a file in it.
    """
    folder = place.rstrip("/")
    folder = parent(folder) if folder.endswith((".parquet", ".json", ".csv")) else folder
    try:
        if not storage.exists(join(absolute(folder), STATUS_FILE)):
            return ""
        found = read_statuses(folder, storage, utc_now)[0]
    except ChexrayError:
        return ""
    if found.state == "done":
        return ""
    suites = ", ".join(found.suites_done) or "the suites that had ended"
    return f"{found.run} is not done ({found.state}): its results are those of {suites}; the same command resumes"


def _read_or_say(file: str, storage: Storage, moment: datetime) -> RunStatus:
    try:
        return _read(file, storage, moment)
    except StorageError as error:
        folder = parent(file)
        return RunStatus(one_line(basename(folder)), printable(folder), "unreadable", message=one_line(error))


def _read(file: str, storage: Storage, moment: datetime) -> RunStatus:
    found = storage.stat([file])[0]
    try:
        is_small = found is not None and found.size <= MAX_BYTES
        body = json.loads(storage.read(file)) if is_small else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("state"), str):
        raise StorageError(
            f"{shown(file)}: not the status of a run. It may be written this moment: look again, or run the same "
            "command again, which resumes and writes it anew."
        )
    return _parsed(body, parent(file), moment)


def _parsed(body: dict[str, object], folder: str, moment: datetime) -> RunStatus:
    state, updated = (one_line(_text(body.get(key)), 200) for key in ("state", "updated_at"))
    when, beat = _moment(updated), _beat(body.get("heartbeat_s"))
    since = None if when is None else (moment - when).total_seconds()
    is_dead = state not in ENDED and since is not None and since > MISSED_BEATS * beat
    suites, attempt = body.get("suites_done"), body.get("attempt")
    return RunStatus(
        run=one_line(_text(body.get("run_id")) or basename(folder), 200),
        uri=printable(folder),
        state=DEAD if is_dead else state,
        last_state=state,
        started_at=one_line(_text(body.get("started_at")), 200),
        updated_at=updated,
        age_s=None if since is None else max(0.0, since),
        done=_whole(body.get("done")),
        total=_whole(body.get("total")),
        rejected=_whole(body.get("rejected", body.get("n_rejected"))),
        exit_code=_whole(body.get("exit_code")),
        message=one_line(_text(body.get("message"))),
        silent_s=since if is_dead else None,
        heartbeat_s=beat,
        suites_done=tuple(one_line(_text(name), 40) for name in suites[:10]) if isinstance(suites, list) else (),
        ahead_s=-since if since is not None and since < -CLOCKS_DIFFER_S else None,
        attempt=_attempt(attempt, folder, moment) if isinstance(attempt, dict) else None,
    )


def _attempt(body: dict[str, object], folder: str, moment: datetime) -> RunStatus | None:
    """Of a later attempt; one level deep, whatever a file holds."""
    is_one = isinstance(body.get("state"), str)
    return _parsed({**body, "attempt": None, "suites_done": None}, folder, moment) if is_one else None


def _beat(value: Any) -> float:
    """Seconds between two signs of life; runs of before this was recorded renewed their status every minute."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return min(float(value), LONGEST_BEAT_S) if is_one and value > 0 else HEARTBEAT_S


def spell(seconds: float) -> str:
    """`40 s`, `25 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{int(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def utc_now() -> datetime:
    return datetime.now(UTC)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 else None


def _moment(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
