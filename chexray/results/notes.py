"""What must be said beside the numbers: random weights, bias, rejects, missing numbers, and the paper's limits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chexray.results import fidelity_notes
from chexray.results.grouping import Group
from chexray.results.privacy import remarks as privacy_remarks
from chexray.results.privacy import sentences as privacy_words
from chexray.results.published import ENCODER, PROTOCOL, best, comparable, is_random, test_set_size
from chexray.results.rows import bias_dominated, params_of, suite_of
from chexray.results.utility import remarks as utility_remarks
from chexray.results.utility import words as utility_words
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]

RANDOM_WEIGHTS = "RANDOM WEIGHTS: these numbers compare with nothing"
CANNOT_SEE = "note_encoder_cannot_see"
"""The param in which an encoder without weights says what its features do not show."""
STATUS_WORDS = {"too_few": "too few images", "undefined": "undefined", "failed": "FAILED"}


def summary(rows: Sequence[Row], wording: Wording) -> list[str]:
    """What must not be overlooked, the most important first."""
    loud, quiet = privacy_words.summary(rows, wording)
    labels, trainings = utility_words.summary(rows, wording)
    lines = [*loud, *fidelity_notes.copies(rows, wording), *labels]
    random = dict.fromkeys(wording.data(f"{row['encoder']}: {row['weights']}") for row in rows if is_random(row))
    if random:
        lines.append(f"{RANDOM_WEIGHTS} ({', '.join(random)})")
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        lines.append(f"FAILED: {len(failed)} of {len(rows)} numbers; first {_where(failed[0], wording)}")
    rejected = _rejected(rows, wording)
    if rejected:
        lines.append(f"REJECTED: {rejected}; each with its reason in rejects.parquet")
    biased = [row for row in rows if bias_dominated(row)]
    if biased:
        names = ", ".join(dict.fromkeys(wording.data(row["metric"]) for row in biased))
        subsets = len({row["subset"] for row in biased})
        which = _count(subsets, "subset")
        lines.append(f"BIAS-DOMINATED: {names} in {which} mainly reflects sample size (marked !)")
    lines += [*quiet, *trainings]
    missing = privacy_remarks.missing((row for row in rows if suite_of(row) == "privacy"), wording)
    if missing:
        lines.append(f"privacy, not measured: {missing}")
    lacking = utility_remarks.missing(
        (row for row in rows if suite_of(row) == "utility" and row["status"] != "failed"), wording, mark=""
    )
    if lacking:
        lines.append(f"utility, not measured: {'; '.join(lacking)}")
    nulls = Counter(_why(row) for row in rows if row["value"] is None)
    text = f"{_count(len(rows) - nulls.total(), 'number')} computed"
    if nulls:
        text += f", {nulls.total():,} not ({', '.join(f'{count:,} {why}' for why, count in nulls.most_common())})"
    lines.append(text + ".")
    return lines


def _why(row: Row) -> str:
    """Why a number is missing, in two words to be counted."""
    if privacy_remarks.has_no_pairs(row):
        return "without pairs"
    if suite_of(row) == "utility" and row["status"] == "too_few":
        return "of utility without enough cases"
    return STATUS_WORDS.get(row["status"], str(row["status"]))


def overall(group: Group, wording: Wording) -> list[str]:
    """Footnotes of the table over all images."""
    rows = [row for lines in group.overall.values() for row in lines.values()]
    said = [
        *fidelity_notes.no_floor(rows, wording),
        *fidelity_notes.p_values(group, wording),
        *fidelity_notes.worse(group, wording),
    ]
    whole = [*reasons(rows, wording, several_sets=len(group.columns) > 1), *said, *_paper(rows, wording)]
    return [*whole, *_unseen(rows, wording)]


def _unseen(rows: Iterable[Row], wording: Wording) -> list[str]:
    """`pixels cannot see what is finer than ...`: without weights, an encoder ranks sets by what it sees alone."""
    blind = dict.fromkeys((row["encoder"], str(params_of(row).get(CANNOT_SEE) or "")) for row in rows)
    return [f"{wording.data(encoder)} cannot see {wording.data(what)}" for encoder, what in blind if what]


def reasons(rows: Iterable[Row], wording: Wording, *, several_sets: bool = False, most: int = 4) -> list[str]:
    """Why numbers are missing, counted, the commonest reason first; then what qualifies those that are not missing.

    Reasons that differ in their figures only ("29 images", "21 images") are counted as one and shown by example.
    """
    found: dict[tuple[bool, str], list[tuple[Row, str]]] = {}
    for row in rows:
        for reason in _remarks(row):
            kind = (row["value"] is not None, re.sub(r"\d+", "#", reason))
            found.setdefault(kind, []).append((row, reason))
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    lines = []
    for (computed, _), alike in ordered[:most]:
        names = [_name(row, wording, several_sets) for row, _ in alike]
        same = len({reason for _, reason in alike}) == 1
        text = f"{_some(names)}: {'' if same else 'e.g. '}{wording.data(alike[0][1])}"
        lines.append(text if computed else f"{wording.own('–')} {text}")
    if len(ordered) > most:
        count = sum(len(alike) for _, alike in ordered[most:])
        lines.append(
            f"and {_count(count, 'number')} for {_count(len(ordered) - most, 'other reason')}: see results.csv"
        )
    return lines


def _remarks(row: Row) -> list[str]:
    """The reason of a null; of a number what its metric remarks, and why it has no error."""
    params = params_of(row)
    no_error = params.get("std_error_reason")
    said = [row["reason"], params.get("note"), f"no error estimate, {no_error}" if no_error else ""]
    return [str(text) for text in said if text]


def _name(row: Row, wording: Wording, with_set: bool) -> str:
    of = f" of {set_name(row['synthetic_set'])}" if with_set else ""
    return wording.data(row["metric"] + of)


def legend(groups: Sequence[Group], wording: Wording) -> list[str]:
    """How to read the marks, only those in use."""
    cells = [rows for group in groups for lines in group.subsets.values() for rows in lines.values()]
    rows = [row for by_set in cells for row in by_set.values()]
    lines = []
    if any(row["real_floor"] is not None for row in rows):
        lines.append("real floor: what other real images score in place of the synthetic ones, at both their n")
    if any(group.winners(key, subset) for group in groups for subset in group.subsets for key in group.subsets[subset]):
        lines.append("*  better: its 95% interval overlaps that of no other set")
    elif any(len(group.columns) > 1 for group in groups) and not any(
        group.losers(key, subset) for group in groups for subset in group.subsets for key in group.subsets[subset]
    ):  # who is worse is said under each table
        lines.append("no set is marked better: intervals overlap or are missing, or the numbers do not compare")
    if any(bias_dominated(row) for row in rows):
        lines.append("!  mostly bias at this n: read it against its real floor, or read kid, which is unbiased")
    lines += fidelity_notes.legend(rows, wording)
    if any(row["value"] is not None and row["std_error"] is None and row["ci_low"] is None for row in rows):
        lines.append("a value without an interval has no error estimate: differences may be chance")
    return lines


def _paper(rows: Sequence[Row], wording: Wording) -> list[str]:
    cells = [(row, best(row["metric"], row["encoder"], row["subset"])) for row in rows]
    cells = [(row, cell) for row, cell in cells if cell]
    if not cells:
        return []
    row = cells[0][0]
    if why := comparable(row):
        near = row["encoder"] == ENCODER or row["protocol"] == PROTOCOL
        return [f"the paper's values are not shown: {wording.data(why)}"] if near else []
    lines = [
        f"paper's best: arXiv 2505.10496, without errors, against about {test_set_size():,} MIMIC-CXR test images; "
        f"here n real = {row['n_real']:,}. Other real images, or FID at another n, do not compare."
    ]
    if params_of(row)["weights_are"].endswith("word"):
        lines.append("that the weights are the paper's is the config's word (weights_are: released)")
    doubts = dict.fromkeys(f"?  {cell.model}, {cell.subset}: {cell.suspect}" for _, cell in cells if cell.suspect)
    return [wording.own(line) for line in [*lines, *doubts]]


def paper_doubts(rows: Iterable[Row], wording: Wording) -> list[str]:
    """What makes the paper's best cells for these rows suspect, where they are shown."""
    cells = [best(row["metric"], row["encoder"], row["subset"]) for row in rows if not comparable(row)]
    lines = dict.fromkeys(
        f"?  paper, {cell.model}, {cell.subset.removeprefix('finding:')}: {cell.suspect}"
        for cell in cells
        if cell and cell.suspect
    )
    return [wording.own(line) for line in lines]


def _rejected(rows: Sequence[Row], wording: Wording) -> str:
    """Rejects behind the rows over all images, by synthetic set, the real ones counted in each."""
    counts: dict[str, int] = {}
    for row in rows:
        name = wording.data(set_name(row["synthetic_set"]))
        counts[name] = max(counts.get(name, 0), row["n_rejected"])
    found = {name: count for name, count in counts.items() if count}
    if len(found) > 1:
        found.pop("", None)  # of real images alone, which every set counts too
    return ", ".join(
        f"{_count(count, 'image')} of {f'{name} and its real set' if name else 'the real sets'}"
        for name, count in found.items()
    )


def _where(row: Row, wording: Wording) -> str:
    return f"{wording.data(row['metric'])}, {wording.data(row['subset'])}: {wording.data(row['reason'])}"


def _some(names: Sequence[str], most: int = 3) -> str:
    counted = [f"{count} {name}" if count > 1 else name for name, count in Counter(names).most_common()]
    return ", ".join(counted[:most]) + (f" and {len(counted) - most} more" if len(counted) > most else "")


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
