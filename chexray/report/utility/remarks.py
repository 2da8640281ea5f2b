"""What qualifies utility numbers: what intervals hold, how thresholds were chosen, what else was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from chexray.outputs import output_of
from chexray.report.reasons import reasons, said_of, subset_of
from chexray.report.utility.groups import UtilityTables
from chexray.report.utility.names import TUNED, setting_name, threshold_of
from chexray.report.utility.roles import CLASSIFICATION, FINDING, MACRO
from chexray.report.wording import some
from chexray.results.identity import set_name
from chexray.results.rows import Row, params_of

STAR = "the 95 % interval of the paired difference excludes 0; nothing corrects for many trainings"
"""What a star beside a training says of its difference to another."""

UNCORRECTED = f"{STAR} and findings"
"""What a star beside a finding says in rows without p-values."""

STAR_OF_FINDINGS = "differs from real; corrected for the number of findings: 5 % of such stars are expected to be false"
"""What it says in others."""

_SEED_NOTE = "spread between trainings"
"""A note with these words is left out: `intervals` says for all numbers what it says for one."""


def why(rows: Iterable[Row], **changes: Any) -> list[str]:
    """Why numbers are missing, and what is remarked of others, by finding or group and by training."""
    return reasons(rows, subset_of, _training, said=_said, **changes)


def _said(row: Row) -> Iterator[str]:
    return (text for text in said_of(row) if _SEED_NOTE not in text)


def _training(row: Row) -> str:
    """`mixed 50 % (phantom-poor)`"""
    of = f" ({set_name(row['synthetic_set'])})" if row["synthetic_set"] else ""
    return f"{setting_name(str(params_of(row).get('setting', '')))}{of}"


def intervals(rows: Iterable[Row]) -> list[str]:
    """What the 95% intervals were made from, in a line; [] where there is none."""
    having = [row for row in rows if row["value"] is not None and row["ci_low"] is not None]
    if not having:
        return []
    methods = {row["std_error_method"] for row in having}
    known = {"patient": "patients", "image": "images (patients are not known)"}
    units = [words for unit, words in known.items() if any(unit in method for method in methods)]
    how = f"95 % of resampled test {' and '.join(units)}" if units else f"95 % ({', '.join(sorted(methods))})"
    counts = sorted({int(params_of(row).get("seeds", 1)) for row in having})
    spread = "one training each: the spread between trainings is not in them"
    if counts[-1] > 1 and all("seed" in method for method in methods):
        span = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        spread = f"they include the variation over {span} seeds"
    elif counts[-1] > 1:
        spread = "those of several seeds include the variation over seeds, others do not"
    return [f"intervals: {how}; {spread}"]


def choices(rows: Sequence[Row]) -> Iterator[str]:
    """How long epochs are, how labels were read, how many findings are in a macro number, whence thresholds are."""
    every = [(row, params_of(row), output_of(row)) for row in rows]
    params = [found for _, found, _ in every]
    epochs = [found for row, found, _ in every if row["status"] != "failed" and found.get("budget") == "epochs"]
    if len({found.get("n_presented") or 0 for found in epochs} - {0}) > 1:
        yield "an epoch is one pass of each training's own images: larger sets were trained longer"
    policies = [
        f"{what} read as {', '.join(said)}"
        for name, what in (("uncertain", "uncertain"), ("unmentioned", "not mentioned"))
        if (said := dict.fromkeys(str(found[name]) for found in params if name in found))
    ]
    if policies:
        yield f"labels: {'; '.join(policies)}"
    macro = [found for row, found, output in every if (output.role, output.rank, row["subset"]) == (MACRO, 1, "all")]
    counts = sorted({int(found["n_findings"]) for found in macro if "n_findings" in found})
    if len(counts) == 1:
        yield f"macro: the mean over {counts[0]} findings"
    elif counts:
        yield f"macro: the mean over {counts[0]} to {counts[-1]} findings, not the same for all: see results.csv"
    if any(threshold_of(found) == TUNED for found in params):
        sizes = sorted({int(found["n_validation"]) for found in params if found.get("n_validation")})
        number = f"{sizes[0]:,} " if len(sizes) == 1 else ""
        yield f"thresholds: tuned on {number}real validation images, one a finding"


def group_means(rows: Iterable[Row], *, gap: bool) -> list[str]:
    """That groups are means over findings of their own, in a line; [] where all have the same. gap: there is such."""
    found = [params_of(row) for row in rows if row["value"] is not None]
    kept = {(int(each["n_findings"]), *each.get("left_out", ())) for each in found if "n_findings" in each}
    if len(kept) < 2:
        return []
    fewest, most = min(kept)[0], max(kept)[0]
    span = f"{fewest} to {most}" if fewest < most else f"{most}"
    line = f"groups: the mean over {span} findings, those with both classes in the group"
    return [f"{line}; the gap line compares the same findings" if gap else line]


def elsewhere(tables: UtilityTables, shown: set[tuple[str, str, str, bool]], *, most: int = 4) -> list[str]:
    """What was measured and stands in no table, in a line, so that nobody misses it.

    shown: (family, role, label, whether over all images) of what tables show.
    """
    kinds: dict[str, None] = {}
    measures: dict[str, None] = {}
    others: dict[str, None] = {}
    for number in tables.cells:
        if (number.family, number.role, number.label, number.subset == "all") in shown:
            continue
        if number.family != CLASSIFICATION or not number.role:
            others[number.label] = None
        elif number.role.endswith("difference"):
            others["more differences"] = None
        else:
            kinds["per-finding" if number.role == FINDING else number.role] = None
            measures[number.label] = None
    parts = [some(list(others), most)] if others else []
    if kinds:
        what = "values" if set(kinds) == {"per-finding"} else "averages"
        *first, last = sorted(kinds, key=lambda kind: (kind != "per-finding", kind))
        parts.insert(0, f"{', '.join(first)}{' and ' if first else ''}{last} {what} of {', '.join(measures)}")
    return [f"also in results.csv: {'; '.join(parts)}"] if parts else []
