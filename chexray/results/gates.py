"""What fails a build: conditions on the results of a run, of which each that does not hold is a line.

    copies              the privacy search finds copies in a set, or an image of it is a training image
    duplicates          images that are training images, or nearly so more often than chance explains
    rejects, rejects:1% any image of any set was rejected, or more than this share of a set
    worse-than:RUN      a number over all images is worse than in RUN; worse-than:RUN:kid for one metric

How often a gate breaks without cause: copies at most 2.5 % of runs (the searches of a run share one level), duplicates
at most 2.5 %, worse-than at most 2.5 % over all numbers that are compared. `rejects` counts, and no chance is in it.
What could not be judged, as near duplicates without held-out images, breaks its gate too, and its line says so: a gate
that nobody tested must not look like one that held.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from chexray.errors import ConfigError
from chexray.results.compare import judged
from chexray.results.privacy.groups import FALSE_ALARM, Audit, audits_of, searches
from chexray.results.privacy.words import IDENTICAL, copied, count_of, count_text, expected, flagged, plural, verdict
from chexray.results.rows import suite_of, to_records
from chexray.results.runs import split_runs
from chexray.results.standing import Z, beats, is_void, stretched
from chexray.results.wording import Wording, set_name
from chexray.text import listed, quoted, shown

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

KINDS = ("copies", "duplicates", "rejects", "worse-than")
OF_PRIVACY = ("copies", "duplicates")
THIS, BASELINE = "this run", "the baseline"
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
        near = difflib.get_close_matches(kind[:100].lower().replace("_", "-"), KINDS, n=1)
        hint = f"Did you mean {near[0]}?" if near and near[0] != kind else f"Known: {', '.join(KINDS)}:RUN[:METRIC]."
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
            near = difflib.get_close_matches(gate.metric, metrics, n=1)
            hint = f"Did you mean {quoted(near[0])}?" if near else f"It has {listed(metrics)}."
            raise ConfigError(f"--fail-on {shown(gate)}: {shown(gate.run)} has no metric {quoted(gate.metric)}. {hint}")


def judge(
    gates: Iterable[Gate],
    results: pd.DataFrame,
    sets: Mapping[str, tuple[int, int]],
    baselines: Mapping[str, pd.DataFrame],
    wording: Wording | None = None,
) -> list[Judged]:
    """Each gate, in order, with what broke it.

    results: of the run. sets: {set: (images evaluated, images rejected)}. baselines: {RUN of worse-than: its results}.
    Raises ConfigError where a gate has nothing to look at: no privacy numbers, or no number that compares.
    """
    wording = wording or Wording()
    found = []
    for gate in gates:
        if gate.kind == "rejects":
            found.append(_rejects(gate, sets))
        elif gate.kind == "worse-than":
            found.append(_worse(gate, results, baselines[gate.run], wording))
        else:
            found.append(_privacy(gate, results, wording))
    return found


def _rejects(gate: Gate, sets: Mapping[str, tuple[int, int]]) -> Judged:
    total = sum(map(sum, sets.values()))
    allowed = f"{100 * gate.share:g} % are allowed" if gate.share else "none is allowed"
    broken = tuple(
        f"{shown(name)}: {plural(lost, 'image')} of {n + lost:,} {'was' if lost == 1 else 'were'} rejected, {allowed}"
        for name, (n, lost) in sets.items()
        if lost > gate.share * (n + lost)
    )
    return Judged(gate, broken, f"{sum(lost for _, lost in sets.values()):,} of {total:,} images rejected, {allowed}")


def _privacy(gate: Gate, results: pd.DataFrame, wording: Wording) -> Judged:
    audits = audits_of(row for row in to_records(results) if suite_of(row) == "privacy")
    columns = [(audit, column) for audit in audits for column in audit.columns]
    if not columns:
        raise ConfigError(f"--fail-on {gate.kind}: the results hold no numbers of the privacy suite.")
    of_kind = _copies if gate.kind == "copies" else _duplicates
    broken = tuple(
        f"{audit.label(column, wording)}: {line}"
        for audit, column in columns
        for line in of_kind(audit, column, wording)
    )
    what = "no copies found" if gate.kind == "copies" else "no more than chance explains"
    return Judged(gate, broken, f"{what} in {plural(len(columns), 'synthetic set')}, at the sensitivity said above")


def _copies(audit: Audit, column: Any, wording: Wording) -> Iterator[str]:
    said = [(search, verdict(search, wording)) for search in searches(audit, wording) if search.column == column]
    for search, words in said:
        if words.found:
            p_value = "" if search.p_value is None else f", p {search.p_value:.2g}, threshold {FALSE_ALARM:g}"
            yield f"{flagged(search)} flagged, {expected(search)} expected by chance ({search.encoder}{p_value})"
    yield from _identical(audit, column)
    if not any(words.found is not None for _, words in said):
        why = f": {said[0][1].text} ({said[0][0].encoder})" if said else ": nothing was searched"
        yield f"whether there are copies could not be judged{why}"


def _identical(audit: Audit, column: Any) -> Iterator[str]:
    exact = copied(audit, column).exact
    if exact is not None and exact["value"]:
        yield f"{count_of(exact)} images {'is' if round(exact['value']) == 1 else 'are'} {IDENTICAL}, none is allowed"


def _duplicates(audit: Audit, column: Any, _wording: Wording) -> Iterator[str]:
    copies = copied(audit, column)
    if copies.near is None or copies.near["value"] is None:
        why = "" if copies.near is None else f": {shown(copies.near['reason'])}"
        yield f"duplicates could not be judged{why}"
        return
    yield from _identical(audit, column)
    if copies.exact is not None and copies.exact["value"] == copies.near["value"]:
        return  # identical images are near ones too
    near = f"{count_of(copies.near)} images are nearly a training image"
    if copies.nearly:
        yield f"{near}, {count_text(copies.near['real_floor'])} expected by chance (threshold p {FALSE_ALARM:g})"
    elif copies.unchecked:
        yield f"{near}, and no held-out images tell how many chance gives: give --heldout"


def _worse(gate: Gate, results: pd.DataFrame, baseline: pd.DataFrame, wording: Wording) -> Judged:
    """Numbers over all images that are worse than those of a baseline.

    A number is worse where `compare` says so: of one real set, encoder and method, at a size that may be compared, with
    95 % intervals apart; of equal generators 0.3 % are. From 9 numbers on the intervals are stretched, by Bonferroni,
    so that one of them is called worse in at most FALSE_ALARM of runs.
    """
    name = gate.run or "the first run"
    objections: dict[str, int] = {}
    compared: list[tuple[str, Row, Row, bool]] = []
    for label, ours, theirs in _matched(results, baseline, name):
        for group, words in judged({THIS: ours, BASELINE: theirs}):
            if len(group) < 2:
                continue
            # A number that copies of real images made good is no yardstick, and is not cleared by being no worse.
            void = next((f"{of} {why}" for of, row in group.items() if (why := is_void(row))), "")
            if void or words.text.startswith(("not comparable", "unknown")):
                objections[void or words.text] = objections.get(void or words.text, 0) + 1
            else:
                compared.append((label, group[THIS], group[BASELINE], THIS in words.worse))
    wanted = [each for each in compared if each[1]["subset"] == "all" and gate.metric in ("", each[1]["metric"])]
    if not wanted:
        most = max(objections, key=lambda text: objections[text], default="they have no number in common")
        raise ConfigError(
            f"--fail-on {shown(gate)}: no number of this run compares with {shown(name)}: {shown(most, 300)}. Name a "
            "run of the same real set, encoders and settings."
        )
    factor = stretch(len(wanted))
    broken = tuple(
        f"{label}: {_number(ours, wording)}, {_number(theirs, wording, short=True)} in {shown(name)}"
        for label, ours, theirs, is_worse in wanted
        if is_worse and beats(stretched(theirs, factor), stretched(ours, factor))
    )
    return Judged(gate, broken, f"none of {plural(len(wanted), 'number')} is worse than in {shown(name)}")


def stretch(n: int) -> float:
    """How much wider than 95 % each of n intervals is taken, so that of n equal numbers one is worse in at most
    FALSE_ALARM of runs: simulated, 0.3 % of one number, 1.4 % of 5, 2.4 to 2.5 % of 9 to 300 independent ones."""
    return max(1.0, NormalDist().inv_cdf(1 - FALSE_ALARM / n) * math.sqrt(2) / (2 * Z))


def _matched(results: pd.DataFrame, baseline: pd.DataFrame, name: str) -> Iterator[tuple[str, list[Row], list[Row]]]:
    """(set, its rows, rows of the baseline's set of the same name, or of its only one)."""
    theirs = _by_set(baseline)
    for label, rows in _by_set(results).items():
        if label not in theirs and len(theirs) != 1:
            raise ConfigError(
                f"--fail-on worse-than: {shown(name)} holds {len(theirs)} synthetic sets ({listed(theirs)}), and none "
                f"is called {quoted(label)}. Give the set the name of the one it is to be compared with."
            )
        yield label, rows, theirs.get(label) or next(iter(theirs.values()))


def _by_set(frame: pd.DataFrame) -> dict[str, list[Row]]:
    """Rows by the name of their synthetic set; without those of numbers that no synthetic image entered."""
    found: dict[str, list[Row]] = {}
    for rows in split_runs({"run": frame}).values():
        own = [row for row in rows if row["synthetic_set"] and row["subset"] == "all"]
        names = [row["synthetic_set"] for row in own]
        if names:
            found[set_name(max(names, key=names.count))] = own
    return found


def _number(row: Row, wording: Wording, *, short: bool = False) -> str:
    value = f"{wording.value(row)} {wording.interval(row)}".rstrip()
    if short:
        return value
    encoder = f", {wording.data(row['encoder'])}" if row["encoder"] else ""
    return f"{wording.data(row['metric'])} {value} ({row['better'] or 'nearest to its floor'} is better{encoder})"
