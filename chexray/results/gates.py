"""What fails a build: conditions on the results of a run, of which each that does not hold is a line.

    copies              the privacy search finds copies in a set, or an image of it is a training image
    duplicates          images that are training images, or nearly so more often than chance explains
    rejects, rejects:1% any image of any set was rejected, or more than this share of a set
    worse-than:RUN      a number over all images is worse than in RUN; worse-than:RUN:kid for one metric

Whether they hold is decided in `chexray.results.judging`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chexray.errors import ConfigError
from chexray.results.rows import suite_of, to_records
from chexray.spelling import nearest, suggestion
from chexray.text import listed, quoted, shown

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("copies", "duplicates", "rejects", "worse-than")
OF_PRIVACY = ("copies", "duplicates")
EXIT_CODE = 3
"""Of a command whose results are written and whose gate is broken."""

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True)
class Gate:
    """One condition. run, metric: of worse-than. share: of the images of a set that may be rejected."""

    kind: str
    run: str = ""
    metric: str = ""
    share: float = 0.0

    def __str__(self) -> str:
        parts = [self.kind, self.run, self.metric, f"{100 * self.share:g}%" if self.share else ""]
        return ":".join(part for part in parts if part)


@dataclass(frozen=True)
class Judged:
    """A gate and what broke it: a line each, none where it holds. told: what was looked at, for a gate that holds."""

    gate: Gate
    broken: tuple[str, ...]
    told: str

    @property
    def lines(self) -> list[str]:
        """`FAILED GATE copies: ...` for each reason, or one line that it holds."""
        if self.broken:
            return [f"FAILED GATE {shown(self.gate)}: {line}" for line in self.broken]
        return [f"gate {shown(self.gate)} holds: {self.told}"]


def read_gates(given: Iterable[str] | None, *, baseline: bool = False) -> tuple[Gate, ...]:
    """The gates of `--fail-on`, which may be repeated and may name several, separated by commas, each once.

    baseline: worse-than needs no RUN, since what is compared has one. Raises ConfigError for what is no gate.
    """
    words = [word.strip() for text in given or () for word in text.split(",") if word.strip()]
    return tuple(dict.fromkeys(_read(word, baseline) for word in words))


def flags(gates: Iterable[Gate]) -> list[str]:
    """The same gates for another command line."""
    return [part for gate in gates for part in ("--fail-on", str(gate))]


def _read(word: str, baseline: bool) -> Gate:
    kind, colon, rest = word.partition(":")
    if kind not in KINDS or (colon and not rest) or (rest and kind in OF_PRIVACY):
        near = "" if kind in KINDS else nearest(kind, KINDS)
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(KINDS)}:RUN[:METRIC]."
        raise ConfigError(f"--fail-on {quoted(word)}: there is no such gate. {hint}")
    if kind == "rejects" and rest:
        found = _SHARE.fullmatch(rest)
        share = float(found[1]) / (100 if found[2] else 1) if found else 2.0
        if share >= 1:
            raise ConfigError(f"--fail-on {quoted(word)}: expected a share of the images of a set, such as rejects:1%.")
        return Gate(kind, share=share)
    if kind != "worse-than":
        return Gate(kind)
    if not rest and not baseline:
        raise ConfigError(
            "--fail-on worse-than: with what? Give the folder of a finished run, worse-than:out/run-0123."
        )
    # What follows the last colon is a metric unless it is part of a path or of s3://.
    run, _, metric = rest.rpartition(":")
    named = bool(run) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", metric) is not None
    return Gate(kind, *((run, metric) if named else (rest, "")))


def check_gates(
    gates: Iterable[Gate], suites: Collection[str], baselines: Mapping[str, pd.DataFrame], *, duplicates: bool = True
) -> None:
    """Raises ConfigError for a gate that this run could not answer, before anything is computed.

    suites: of the run. duplicates: whether it counts them. baselines: {RUN of worse-than: its results}, where known.
    """
    for gate in gates:
        if gate.kind in OF_PRIVACY and "privacy" not in suites:
            raise ConfigError(
                f"--fail-on {gate.kind}: the run has suite {', '.join(suites)} only. Add the privacy suite "
                f"(--suite {','.join([*suites, 'privacy'])}), or drop the gate."
            )
        if gate.kind == "duplicates" and not duplicates:
            raise ConfigError("--fail-on duplicates: privacy.duplicates is false. Drop one of the two.")
        if gate.kind != "worse-than" or gate.run not in baselines:
            continue
        rows = to_records(baselines[gate.run])
        known = {suite_of(row) for row in rows}
        if not known & set(suites):
            held = ", ".join(sorted(known)) or "no suite"
            raise ConfigError(
                f"--fail-on {shown(gate)}: {shown(gate.run)} holds numbers of {held}, and this run computes "
                f"{', '.join(suites)}. Name a run of the same suite."
            )
        metrics = dict.fromkeys(row["metric"] for row in rows if row["subset"] == "all")
        if gate.metric and gate.metric not in metrics:
            hint = suggestion(gate.metric, metrics, f"It has {listed(metrics)}.")
            raise ConfigError(f"--fail-on {shown(gate)}: {shown(gate.run)} has no metric {quoted(gate.metric)}. {hint}")
