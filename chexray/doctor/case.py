"""What a check is, and what the checks of one visit know of each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from chexray.config import RunConfig, SetConfig
from chexray.config.addresses import ray_address
from chexray.plan import make_storage
from chexray.storage import Storage, is_s3
from chexray.suite_names import PRIVACY, UTILITY
from chexray.text import printable

if TYPE_CHECKING:
    from chexray.engine.pools import Resources
    from chexray.plan.overlaps import Listed

State = Literal["ok", "note", "FAIL"]
TIMEOUT_S = 10.0
"""Longest wait for one answer of the storage; with one retry, a dead endpoint costs about 11 s."""


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, what was found, and, where it is wrong, the next move."""

    name: str
    state: State
    detail: str
    fix: str = ""

    @property
    def line(self) -> str:
        return printable(f"{self.state:<4}  {self.name:<20} {self.detail}{' ' + self.fix if self.fix else ''}")


def ok(detail: str) -> Check:
    return Check("", "ok", detail)


def note(detail: str, fix: str = "") -> Check:
    return Check("", "note", detail, fix)


def fail(detail: str, fix: str = "") -> Check:
    return Check("", "FAIL", detail, fix)


@dataclass(frozen=True)
class PendingCheck:
    """A check that waits to be made. `when_late`: the next move when it has not ended after `within_s` seconds."""

    name: str
    at: Callable[[], Check]
    within_s: float = 60.0
    when_late: str = "Try again when the machine is less busy."


@dataclass
class Case:
    """One visit. resources: what was found to compute on. n_images: over all sets read so far, 0 for none.

    s3_down: why no further S3 check can succeed, "" while it may. listed: the sets read so far, as
    `chexray.plan.overlaps` compares them.
    """

    config: RunConfig | None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    resources: Resources | None = None
    n_images: int = 0
    s3_down: str = ""
    listed: list[Listed] = field(default_factory=list)

    @property
    def run(self) -> RunConfig:
        """The config of checks that are only made with one."""
        assert self.config is not None
        return self.config

    @property
    def ray_address(self) -> tuple[str, str]:
        """Where the cluster of the run is and which setting says so; two empty strings for a local Ray."""
        return ray_address(self.config.ray.address if self.config is not None else None, self.environment)

    @cached_property
    def storage(self) -> Storage:
        """The storage of the run, less patient."""
        full = make_storage(self.run.storage)
        return replace(full, retries=min(1, full.retries), timeout_s=min(TIMEOUT_S, full.timeout_s))

    @property
    def sets(self) -> Iterator[tuple[str, SetConfig]]:
        """(role, set) for each set that the run reads."""
        run = self.run
        heldout = run.heldout if PRIVACY in run.suite else None
        named = [("real", run.real), ("training", run.training), ("heldout", heldout)]
        named += [
            ("synthetic", item) for item in run.synthetic if item.suites is None or set(item.suites) & set(run.suite)
        ]
        # Of a config that lacks a set, an empty one is left (`ConfigProblems.rest`).
        yield from ((role, item) for role, item in named if item is not None and (item.options or item.source))

    @property
    def outputs(self) -> dict[str, str]:
        """{setting: folder, as written in the config} that the run writes to."""
        run = self.run
        return {"output": run.output, **({"feature_store": run.feature_store} if run.feature_store else {})}

    @property
    def remote(self) -> list[str]:
        """Every s3:// location that the config names."""
        places = [*self.outputs.values(), *(str(item.options.get("path", "")) for _, item in self.sets)]
        places += [item.weights or "" for item in self.run.encoders]
        if UTILITY in self.run.suite:
            places.append(self.run.utility.model.weights)
        return [place for place in places if is_s3(place)]


def not_asked(case: Case) -> Check:
    """What a check of an S3 location says once S3 is known not to answer: nobody waits twice for the same thing."""
    return note(f"not checked, because {case.s3_down}.")


def size(n_bytes: float) -> str:
    """12 GB, 346 MB, 3 kB: decimal, at most three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if n_bytes >= 10 or unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
