"""What qualifies utility numbers, said once: what intervals hold, how thresholds were chosen, why some are null."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chexray.results.rows import params_of
from chexray.results.utility.groups import FINDING
from chexray.results.utility.names import MEASURES, TUNED, setting_name, threshold_of
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]

STAR = "the 95 % interval of the paired difference excludes 0; nothing corrects for many trainings"
"""What a star beside a training says of its difference to another."""

UNCORRECTED = f"{STAR} and findings"
"""What a star beside a finding says in rows without p-values."""

STAR_OF_FINDINGS = "differs from real; corrected for the number of findings: 5 % of such stars are expected to be false"
"""What it says in others."""

_SEED_NOTE = "spread between trainings"
"""A note with these words is left out: `intervals` says for all numbers what it says for one."""

_AVERAGE = re.compile(r"(.+?)(?:_(macro|micro))?(_difference)?")


FEW = 10
"""Positive test images below which a finding is named beside a macro number that it moves."""


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
        spread = f"the spread between {span} trainings is in them"
    elif counts[-1] > 1:
        spread = "the spread between trainings is in those of several seeds only"
    return [f"intervals: {how}; {spread}"]


def choices(rows: Sequence[Row], wording: Wording) -> list[str]:
    """How long epochs are, how labels were read, how many findings are in a macro number, whence thresholds are."""
    params = [params_of(row) for row in rows]
    lines = []
    trained = [found for row, found in zip(rows, params, strict=True) if row["status"] != "failed"]
    presented = {found.get("n_presented") or 0 for found in trained if found.get("budget") == "epochs"} - {0}
    if len(presented) > 1:
        lines.append("an epoch is one pass of each training's own images: larger sets were trained longer")
    policies = [
        f"{what} read as {', '.join(said)}"
        for name, what in (("uncertain", "uncertain"), ("unmentioned", "not mentioned"))
        if (said := dict.fromkeys(wording.data(found[name]) for found in params if name in found))
    ]
    if policies:
        lines.append(f"labels: {'; '.join(policies)}")
    macro = [
        found
        for row, found in zip(rows, params, strict=True)
        if (row["metric"], row["subset"]) == ("auroc_macro", "all")
    ]
    counts = sorted({int(found["n_findings"]) for found in macro if "n_findings" in found})
    if len(counts) == 1:
        lines.append(f"macro: the mean over {counts[0]} findings")
    elif counts:
        lines.append(
            f"macro: the mean over {counts[0]} to {counts[-1]} findings, not the same for all: see results.csv"
        )
    few: dict[str, int] = {}
    for row, found in zip(rows, params, strict=True):
        if row["metric"] == "auroc" and row["value"] is not None and int(found.get("n_positive", FEW)) < FEW:
            few[wording.data(row["subset"].removeprefix("finding:"))] = int(found["n_positive"])
    if few:
        named = ", ".join(f"{name} {n}" for name, n in sorted(few.items(), key=lambda item: item[1]))
        lines.append(f"macro: findings of few positives weigh as much as the others: {named}")
    if any(threshold_of(found) == TUNED for found in params):
        sizes = sorted({int(found["n_validation"]) for found in params if found.get("n_validation")})
        number = f"{sizes[0]:,} " if len(sizes) == 1 else ""
        lines.append(f"F1: thresholds tuned on {number}real validation images, one a finding")
    return lines


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


def elsewhere(unseen: Iterable[tuple[str, str]], wording: Wording, *, most: int = 4) -> list[str]:
    """What was measured and stands in no table, in a line, so that nobody misses it. unseen: (metric, subset)."""
    kinds: set[str] = set()
    measures: set[str] = set()
    others: dict[str, None] = {}
    for metric, subset in unseen:
        match = _AVERAGE.fullmatch(metric)
        measure, average, difference = match.groups() if match else ("", None, None)
        kind = average or ("per-finding" if subset.startswith(FINDING) else "")
        if measure not in MEASURES or not kind:
            others[wording.data(metric)] = None
        elif difference:
            others["more differences"] = None
        else:
            kinds.add(kind)
            measures.add(measure)
    parts = [_some(list(others), most)] if others else []
    if kinds:
        *first, last = [kind for kind in ("per-finding", "macro", "micro") if kind in kinds]
        what = "values" if kinds == {"per-finding"} else "averages"
        said = ", ".join(words for measure, words in MEASURES.items() if measure in measures)
        parts.insert(0, f"{', '.join(first)}{' and ' if first else ''}{last} {what} of {said}")
    return [f"also in results.csv: {'; '.join(parts)}"] if parts else []


def missing(rows: Iterable[Row], wording: Wording, *, mark: str = "– ", most: int = 4) -> list[str]:
    """Why numbers among `rows` are null, the commonest reason first, each with the findings or numbers it holds for.

    Reasons that differ in their figures only are shown by example. Trainings are named where others have the number;
    one that failed is named alone, whatever of it is missing.
    """
    rows = list(rows)
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["value"] is None:
            finding = row["subset"].removeprefix(FINDING)
            found.setdefault(re.sub(r"\d+", "#", row["reason"].replace(finding, "#")), []).append(row)
    ordered = sorted(found.values(), key=len, reverse=True)
    lines = []
    for alike in ordered[:most]:
        reasons = {row["reason"] for row in alike}
        whose = f"{_whose(alike, rows, wording)}: {'' if len(reasons) == 1 else 'e.g. '}"
        lines.append(wording.own(mark) + whose + wording.data(alike[0]["reason"]))
    if len(ordered) > most:
        others = len(ordered) - most
        lines.append(f"and {others} other reason{'' if others == 1 else 's'}: see results.csv")
    return lines


def notes(rows: Iterable[Row], wording: Wording, *, most: int = 4) -> list[str]:
    """What rows that have a value remark of it, each text once."""
    said: dict[str, list[Row]] = {}
    for row in rows:
        params = params_of(row)
        no_error = params.get("std_error_reason")
        for text in (row["reason"], params.get("note"), f"no interval, {no_error}" if no_error else ""):
            if row["value"] is not None and text and _SEED_NOTE not in str(text):
                said.setdefault(wording.data(text), []).append(row)
    lines = [f"{_some(_names(alike, wording))}: {text}" for text, alike in list(said.items())[:most]]
    return lines + (["further notes: see results.csv"] if len(said) > most else [])


def _whose(alike: Sequence[Row], among: Sequence[Row], wording: Wording) -> str:
    what = {(row["metric"], row["subset"]) for row in alike}
    have = {_training(row) for row in among if (row["metric"], row["subset"]) in what}
    lack = {_training(row): None for row in alike}
    if all(row["status"] == "failed" for row in alike):
        return _some([wording.data(_training_text(*one)) for one in lack])
    names = _some(_names(alike, wording))
    if set(lack) == have:
        return names
    return f"{names} of {_some([wording.data(_training_text(*one)) for one in lack])}"


def _training(row: Row) -> tuple[str, str]:
    return str(params_of(row).get("setting", "")), row["synthetic_set"]


def _training_text(setting: str, synthetic_set: str) -> str:
    return f"{setting_name(setting)}{f' ({set_name(synthetic_set)})' if synthetic_set else ''}"


def _names(rows: Iterable[Row], wording: Wording) -> list[str]:
    """Findings and groups by name; a number over all images by its metric."""
    names = (row["metric"] if row["subset"] == "all" else row["subset"].removeprefix(FINDING) for row in rows)
    return list(dict.fromkeys(wording.data(name) for name in names))


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
