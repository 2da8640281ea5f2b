"""What a run could not compute: parts of the privacy suite without a verdict, and suites without any number.

An image that no part judged is not an image without a copy, so whatever acts on verdicts says what they rest on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from chexray.results.rows import suite_of, to_records
from chexray.results.wording import set_name
from chexray.text import shown

DECIDING = {
    "memorised_share": "nearest training image",
    "duplicates_near_training": "duplicates",
    "reid_count_calibrated": "re-identification",
}
"""Metric -> the part of the suite whose flags on single images it counts."""


def parts(rows: Any, synthetic: str) -> tuple[list[str], list[str]]:
    """(parts that judged the images of a set, a line for each that could not), of the results of a run.

    `pixels (nearest training image)`; `pixels (nearest training image): 3 held-out images give no null`.
    """
    judged, failed = [], []
    for row in _deciding(to_records(rows)):
        if set_name(row["synthetic_set"]) != synthetic:
            continue
        name = f"{row['encoder']} ({DECIDING[row['metric']]})"
        if row["value"] is None:
            failed.append(f"{name}: {row['reason']}")
        else:
            judged.append(name)
    return judged, failed


def _deciding(rows: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return (row for row in rows if suite_of(row) == "privacy" and row["metric"] in DECIDING)


def without_numbers(rows: Any) -> list[str]:
    """A line for each suite of which no number could be computed, with the commonest reason."""
    by_suite: dict[str, list[Mapping[str, Any]]] = {}
    for row in to_records(rows):
        by_suite.setdefault(suite_of(row), []).append(row)
    return [
        f"the {suite} suite has no number: {shown(Counter(row['reason'] for row in found).most_common(1)[0][0])}"
        for suite, found in by_suite.items()
        if all(row["value"] is None for row in found)
    ]
