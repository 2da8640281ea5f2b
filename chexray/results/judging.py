"""What breaks a gate, by the results of a run.

How often a gate breaks without cause: copies at most 2.5 % of runs (the searches of a run share one level), duplicates
at most 2.5 %, worse-than at most 2.5 % over all numbers that are compared. `rejects` counts, and no chance is in it.
What could not be judged, as near duplicates without held-out images, breaks its gate too, and its line says so: a gate
that nobody tested must not look like one that held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

from chexray.errors import ConfigError
from chexray.results.aligned import judged
from chexray.results.copies import FALSE_ALARM
from chexray.results.gates import Gate, Judged
from chexray.results.identity import set_name
from chexray.results.numbers import are, count_of, count_text, interval_text, value_text
from chexray.results.rows import Row, to_records
from chexray.results.runs import split_runs
from chexray.results.standing import Z, beats, is_void, stretched
from chexray.results.verdicts import SetVerdict, set_verdicts
from chexray.spelling import plural
from chexray.text import listed, quoted, shown

if TYPE_CHECKING:
    import pandas as pd

THIS, BASELINE = "this run", "the baseline"


def judge(
    gates: Iterable[Gate],
    results: pd.DataFrame,
    sets: Mapping[str, tuple[int, int]],
    baselines: Mapping[str, pd.DataFrame],
) -> list[Judged]:
    """Each gate, in order, with what broke it.

    results: of the run. sets: {set: (images evaluated, images rejected)}. baselines: {RUN of worse-than: its results}.
    Raises ConfigError where a gate has nothing to look at: no privacy numbers, or no number that compares.
    """
    found = []
    for gate in gates:
        if gate.kind == "rejects":
            found.append(_rejects(gate, sets))
        elif gate.kind == "worse-than":
            found.append(_worse(gate, results, baselines[gate.run]))
        else:
            found.append(_privacy(gate, results))
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


def _privacy(gate: Gate, results: pd.DataFrame) -> Judged:
    verdicts = set_verdicts(to_records(results))
    if not verdicts:
        raise ConfigError(f"--fail-on {gate.kind}: the results hold no numbers of the privacy suite.")
    of_kind = _copies if gate.kind == "copies" else _duplicates
    names = [set_name(each.synthetic_set) for each in verdicts]
    broken = tuple(
        f"{shown(name if names.count(name) == 1 else each.synthetic_set)}: {line}"
        for name, each in zip(names, verdicts, strict=True)
        for line in of_kind(each)
    )
    what = "no copies found" if gate.kind == "copies" else "no more than chance explains"
    return Judged(gate, broken, f"{what} in {plural(len(verdicts), 'synthetic set')}, at the sensitivity said above")


def _copies(found: SetVerdict) -> Iterator[str]:
    for search in found.hits:
        p_value = "" if search.p_value is None else f", p {search.p_value:.2g}, threshold {FALSE_ALARM:g}"
        yield f"{search.counts} ({shown(search.encoder)}{p_value})"
    yield from _identical(found)
    if not found.judged:
        first = next(iter(found.undecided), None)
        why = f"{shown(first.verdict.reason)} ({shown(first.encoder)})" if first else "nothing was searched"
        yield f"whether there are copies could not be judged: {why}"


def _identical(found: SetVerdict) -> Iterator[str]:
    exact = found.duplicated.exact
    if exact is not None and exact["value"]:
        yield f"{count_of(exact)} images {are(exact)} the same as a training image, none is allowed"


def _duplicates(found: SetVerdict) -> Iterator[str]:
    copies = found.duplicated
    if copies.near is None or copies.near["value"] is None:
        why = "" if copies.near is None else f": {shown(copies.near['reason'])}"
        yield f"duplicates could not be judged{why}"
        return
    yield from _identical(found)
    if copies.exact is not None and copies.exact["value"] == copies.near["value"]:
        return  # identical images are near ones too
    near = f"{count_of(copies.near)} images are nearly a training image"
    if copies.nearly:
        yield f"{near}, {count_text(copies.near['real_floor'])} expected by chance (threshold p {FALSE_ALARM:g})"
    elif copies.unchecked:
        yield f"{near}, and no held-out images tell how many chance gives: give --heldout"


def _worse(gate: Gate, results: pd.DataFrame, baseline: pd.DataFrame) -> Judged:
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
        f"{label}: {_number(ours)}, {_value(theirs)} in {shown(name)}"
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


def _number(row: Row) -> str:
    encoder = f", {shown(row['encoder'])}" if row["encoder"] else ""
    return f"{shown(row['metric'])} {_value(row)} ({row['better'] or 'nearest to its floor'} is better{encoder})"


def _value(row: Row) -> str:
    return f"{value_text(row)} {interval_text(row)}".rstrip()
