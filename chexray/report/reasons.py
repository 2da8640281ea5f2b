"""Why numbers are missing, and what their metrics remark of others: each reason once, counted, the commonest first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from chexray.report.wording import some
from chexray.results.identity import set_name
from chexray.results.numbers import MISSING
from chexray.results.rows import Row, params_of
from chexray.spelling import plural

Name = Callable[[Row], str]

FINDING = "finding:"


def metric_of(row: Row) -> str:
    return row["metric"]


def subset_of(row: Row) -> str:
    """`Edema`; the metric for numbers over all images."""
    return row["metric"] if row["subset"] == "all" else row["subset"].removeprefix(FINDING)


def set_of(row: Row) -> str:
    return set_name(row["synthetic_set"])


def said_of(row: Row) -> Iterator[str]:
    """The reason of a null; of a number what its metric remarks, and why it has no error."""
    params = params_of(row)
    no_error = params.get("std_error_reason") if not has_error(row) else None
    said = (row["reason"], params.get("note"), f"no error estimate, {no_error}" if no_error else "")
    return (str(text) for text in said if text)


def has_error(row: Row) -> bool:
    return row["std_error"] is not None or row["ci_low"] is not None


def reasons(
    rows: Iterable[Row],
    name: Name = metric_of,
    of: Name = set_of,
    *,
    said: Callable[[Row], Iterable[str]] = said_of,
    mark: str = f"{MISSING} ",
    most: int = 4,
) -> list[str]:
    """`– fid of good (pixels): 21 images, and at least 30 are needed`, missing numbers first.

    Reasons that differ in their figures only ("29 images", "21 images") are one, shown by example. name: what a row
    measures, "" for nothing. of: what it measures that of; said only where others have the number without the reason,
    as is the encoder. mark: before a missing number. most: reasons told.
    """
    every = list(rows)
    found: dict[tuple[bool, str], list[tuple[Row, str]]] = {}
    for row in every:
        for text in said(row):
            found.setdefault((row["value"] is not None, _kind(row, text)), []).append((row, text))
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    lines = []
    for (computed, _), alike in ordered[:most]:
        whose = _whose([row for row, _ in alike], every, name, of)
        example = "" if len({text for _, text in alike}) == 1 else "e.g. "
        lines.append(f"{'' if computed else mark}{whose}{': ' if whose else ''}{example}{alike[0][1]}")
    if len(ordered) > most:
        count = sum(len(alike) for _, alike in ordered[most:])
        lines.append(f"{plural(count, 'number')} for {plural(len(ordered) - most, 'other reason')}: see results.csv")
    return lines


def _kind(row: Row, text: str) -> str:
    subset = row["subset"].removeprefix(FINDING)
    return re.sub(r"\d+", "#", text.replace(subset, "#") if subset != "all" else text)


def _whose(rows: Sequence[Row], among: Sequence[Row], name: Name, of: Name) -> str:
    """`dcr_q01, dcr_q05 of seeds (pixels)`; of a training that failed, what it is called."""
    measured = {(row["metric"], row["subset"]) for row in rows}
    alike = [row for row in among if (row["metric"], row["subset"]) in measured]
    owners = list(dict.fromkeys(map(of, rows)))
    names = list(dict.fromkeys(text for row in rows if (text := name(row))))
    if of is not set_of and all(row["status"] == "failed" for row in rows):
        return some(owners)
    shown = some(names)
    if set(owners) != set(map(of, alike)):
        shown += f"{' of ' if shown else ''}{some(owners)}"
    encoders = dict.fromkeys(row["encoder"] for row in rows)
    if set(encoders) != {row["encoder"] for row in alike}:
        shown += f"{' ' if shown else ''}({', '.join(encoder or 'none' for encoder in encoders)})"
    return shown
