"""What a run could not compute: parts of the privacy suite without a verdict, and suites without any number.

An image that no part judged is not an image without a copy, so whatever acts on verdicts says what they rest on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.results.identity import set_name
from chexray.results.rows import Row, suite_of, to_records
from chexray.text import shown

if TYPE_CHECKING:
    import pandas as pd

    Rows = pd.DataFrame | Iterable[Row]


def parts(rows: Rows, synthetic: str) -> tuple[list[str], list[str]]:
    """(parts that judged the images of a set, a line for each that could not), of the results of a run.

    `pixels (nearest training image)`; `pixels (nearest training image): 3 held-out images give no baseline`.
    """
    judged, failed = [], []
    for row in to_records(rows):
        part = output_of(row).judges
        if not part or set_name(row["synthetic_set"]) != synthetic:
            continue
        name = f"{row['encoder']} ({part})"
        if row["value"] is None:
            failed.append(f"{name}: {row['reason']}")
        else:
            judged.append(name)
    return judged, failed


def without_numbers(rows: Rows) -> list[str]:
    """A line for each suite of which no number could be computed, with the commonest reason."""
    by_suite = grouped((suite_of(row), row) for row in to_records(rows))
    return [
        f"the {suite} suite has no number: {shown(Counter(row['reason'] for row in found).most_common(1)[0][0])}"
        for suite, found in by_suite.items()
        if all(row["value"] is None for row in found)
    ]
