"""Handing a run to a Ray cluster once, following its log, and what to type next."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from chexray.config import RunConfig
from chexray.engine.job_api import JobExists, JobState, LogBroken
from chexray.errors import ChexrayError, ConfigError, ResourceError
from chexray.jobs.portable_config import RUN_FILE
from chexray.storage import is_remote
from chexray.text import quoted, shown

ENTRYPOINT = f"chexray run {RUN_FILE} --once"
GATE = 3
"""Exit code of a run that is done and breaks a gate of --fail-on."""
POLL_S = 2.0
PATIENCE = 30
"""Failed looks in a row, POLL_S apart, before a cluster counts as gone; a head that restarts takes most of a minute."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class JobsApi(Protocol):
    """What is needed of `chexray.engine.job_api.Jobs`."""

    address: str

    def states(self) -> dict[str, JobState]: ...
    def state(self, submission_id: str) -> JobState: ...
    def submit(self, entrypoint: str, submission_id: str, runtime_env: dict[str, object]) -> None: ...
    def tail(self, submission_id: str) -> Iterator[str]: ...


@dataclass(frozen=True)
class Submitted:
    """A job on the cluster; `is_new` is false where the same evaluation was pending or running already."""

    submission_id: str
    is_new: bool
    status: str = "PENDING"


def find_address(given: str | None, environment: Mapping[str, str]) -> str:
    """Where the dashboard answers: --address, RAY_API_SERVER_ADDRESS, or a RAY_ADDRESS that is a URL of it."""
    named = {"--address": given}
    named |= {name: environment.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
    for name, text in named.items():
        if not text or (name == "RAY_ADDRESS" and not text.startswith(("http://", "https://"))):
            continue
        parts = _split(text)
        if "@" in text or "?" in text:
            raise ConfigError(
                f"{name} may hold a user, password or token (@, ?). Leave it out, and set RAY_AUTH_TOKEN where needed."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{name} is {quoted(text)}: expected the URL of the cluster's dashboard, such as http://head:8265."
            )
        return text.rstrip("/")
    raise ConfigError(
        "no cluster named. Give --address http://head:8265 (the dashboard's port), or set RAY_API_SERVER_ADDRESS."
    )


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # brackets of an IPv6 address that do not match
        return urlsplit("")


def submit(
    jobs: JobsApi, submission_id: str, runtime_env: dict[str, object], *, exact: bool = False, flags: Sequence[str] = ()
) -> Submitted:
    """Starts the job unless it is pending or running; after one that ended the id gets -2, -3, ...

    exact: the user chose the id, so that it is used as it is or not at all. flags: further words of the command; with
    others it is another job, so that the id says which.
    """
    if flags and not exact:
        submission_id += f"-{hashlib.blake2b(shlex.join(flags).encode(), digest_size=3).hexdigest()}"
    if not _ID.fullmatch(submission_id):
        raise ConfigError(
            f"--submission-id {quoted(submission_id)}: expected up to 128 letters, digits, '.', '_' and '-', a letter "
            "or digit first."
        )
    for _ in range(3):  # somebody else may submit between the look and the leap
        states = jobs.states()
        free, number = submission_id, 1
        while free in states:
            if not states[free].ended:
                return Submitted(free, False, states[free].status)
            if exact:
                raise ConfigError(
                    f"a job {free!r} ended on this cluster already ({states[free].status}). Give another "
                    "--submission-id, or none."
                )
            number += 1
            free = f"{submission_id}-{number}"
        try:
            jobs.submit(f"{ENTRYPOINT} {shlex.join(flags)}".rstrip(), free, runtime_env)
            return Submitted(free, True)
        except JobExists:
            continue
    raise ResourceError(
        f"the cluster says that a job {submission_id!r} exists, and does not list it: was it deleted? "
        "Give another --submission-id."
    )


def follow(
    jobs: JobsApi, submission_id: str, write: Callable[[str], object], *, sleep: Callable[[float], object] = time.sleep
) -> JobState:
    """Writes the log of a job as it grows and returns the state the job ended in.

    A connection that breaks is made again, and what was written is not written twice.
    Raises ResourceError when the cluster stays away.
    """
    seen = failures = 0
    while True:
        skip = seen
        try:
            for text in jobs.tail(submission_id):
                new = text[skip:]
                skip -= min(skip, len(text))
                if new:
                    seen, failures = seen + len(new), 0
                    write(new)
        except LogBroken:
            pass
        try:
            state = jobs.state(submission_id)
        except ChexrayError:
            state = None
            if failures >= PATIENCE:
                raise
        if state and state.ended:
            return state
        failures = 0 if state else failures + 1
        sleep(POLL_S)


def exit_code(state: JobState) -> int:
    """The entry point's own exit code where the cluster tells it; else 0 for success, 130 when stopped, or 1."""
    if state.status == "SUCCEEDED":
        return 0
    if state.exit_code:
        return state.exit_code if state.exit_code > 0 else 128 - state.exit_code
    return 130 if state.status == "STOPPED" else 1


def next_commands(
    address: str, submission_id: str, config: RunConfig, environment: Mapping[str, str]
) -> dict[str, str]:
    """{what: the command} to follow, ask about and stop a job, fit to be pasted; no secret is in them."""
    # Ray's own command takes --address for a suggestion: the environment overrules it.
    ray = f"RAY_API_SERVER_ADDRESS={shlex.quote(address)} ray job"
    if not environment.get("RAY_AUTH_MODE") and (
        environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    ):
        ray = f"RAY_AUTH_MODE=token {ray}"
    return {
        "follow": f"{ray} logs --follow {submission_id}",
        "status": shlex.join(["chexray", "status", config.output, *_storage_options(config)]),
        "stop": f"{ray} stop {submission_id}",
    }


def _storage_options(config: RunConfig) -> list[str]:
    if not is_remote(config.output):
        return []
    named = {key: getattr(config.storage, key) for key in ("endpoint_url", "region", "profile")}
    named["requester_pays"] = "true" if config.storage.requester_pays else None  # reading needs no encryption header
    return [part for key, value in named.items() if value for part in ("--set", f"storage.{key}={value}")]


def reason(state: JobState) -> str:
    """Why a job ended as it did, in one line; its log has been shown."""
    if state.exit_code in (126, 127):
        return "no chexray on the cluster's PATH. Its image, or --runtime-env, must bring it"
    if state.exit_code == GATE:
        return f"chexray ended with exit code {GATE}: the run is done, and what --fail-on names was found"
    if state.exit_code:
        return f"chexray ended with exit code {state.exit_code}"
    return shown(" ".join(state.message[:10_000].split()), 300) or "no reason given"
