"""What qualifies privacy numbers, said once: why some are missing, what their metrics remark, which have no error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from chexray.results.privacy.names import EXTREMES, WITHIN
from chexray.results.rows import params_of
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]


def remarks(
    rows: Iterable[Row], wording: Wording, *, name: Callable[[str], str] = str, mark: str = "– ", most: int = 4
) -> list[str]:
    """Why numbers among `rows` are missing, then what is remarked of the others, each reason once.

    Synthetic sets and encoders are named where a reason does not hold for all that have the metric. Reasons that differ
    in their figures only are shown by example. name: what to call a metric, "" for nothing. mark: before a reason for
    missing numbers. most: reasons shown.
    """
    rows = list(rows)
    found: dict[tuple[bool, str], list[tuple[Row, str]]] = {}
    for row in rows:
        for text in _said(row):
            found.setdefault((row["value"] is not None, re.sub(r"\d+", "#", text)), []).append((row, text))
    ordered = sorted(found.items(), key=lambda item: (item[0][0], -len(item[1])))
    lines = []
    for (computed, _), alike in ordered[:most]:
        whose = _whose([row for row, _ in alike], rows, name, wording)
        example = "" if len({text for _, text in alike}) == 1 else "e.g. "
        text = f"{whose}{': ' if whose else ''}{example}{wording.data(alike[0][1])}"
        lines.append(text if computed else wording.own(mark) + text)
    if len(ordered) > most:
        others = len(ordered) - most
        lines.append(f"and {others} other reason{'' if others == 1 else 's'}: see results.csv")
    return lines


def has_no_pairs(row: Row) -> bool:
    """Whether the number is missing because no synthetic image of the set belongs to a real one."""
    return row["value"] is None and params_of(row).get("pairs") == "none"


def missing(rows: Iterable[Row], wording: Wording) -> str:
    """Why privacy numbers among `rows` are missing, in a line; sets without pairs by name. Empty where none is."""
    rows = [row for row in rows if row["value"] is None and row["status"] != "failed"]
    unpaired = [row for row in rows if has_no_pairs(row)]
    parts = remarks((row for row in rows if not has_no_pairs(row)), wording, mark="")
    return "; ".join([*parts, *([f"{_sets(unpaired, wording)}: no pairs"] if unpaired else [])])


def without_error(rows: Iterable[Row]) -> list[str]:
    """The line about numbers that never have an error estimate, naming the kinds that are there."""
    bare = {row["metric"] for row in rows if row["value"] is not None and not _has_error(row)}
    kinds = [words for metric, words in EXTREMES.items() if metric in bare]
    kinds += ["within-set counts"] if bare & WITHIN else []
    return [f"{_and(list(dict.fromkeys(kinds)))} have no error estimate: compare them at equal n"] if kinds else []


def _said(row: Row) -> list[str]:
    params = params_of(row)
    no_error = params.get("std_error_reason")
    if _has_error(row) or row["metric"] in EXTREMES or row["metric"] in WITHIN:
        no_error = None  # the rule for these: `without_error` says it once
    said = [row["reason"], params.get("note"), f"no error estimate, {no_error}" if no_error else ""]
    return [str(text) for text in said if text]


def _has_error(row: Row) -> bool:
    return row["std_error"] is not None or row["ci_low"] is not None


def _whose(rows: Sequence[Row], among: Sequence[Row], name: Callable[[str], str], wording: Wording) -> str:
    """`dcr_q01, dcr_q05 of seeds (pixels)`."""
    metrics = {row["metric"] for row in rows}
    alike = [row for row in among if row["metric"] in metrics]
    names = [wording.data(text) for text in dict.fromkeys(name(row["metric"]) for row in rows) if text]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    if {row["synthetic_set"] for row in rows} != {row["synthetic_set"] for row in alike}:
        shown += f"{' of ' if shown else ''}{_sets(rows, wording)}"
    encoders = dict.fromkeys(row["encoder"] for row in rows)
    if set(encoders) != {row["encoder"] for row in alike}:
        shown += f"{' ' if shown else ''}({', '.join(wording.data(encoder or 'none') for encoder in encoders)})"
    return shown


def _sets(rows: Iterable[Row], wording: Wording) -> str:
    return ", ".join(dict.fromkeys(wording.data(set_name(row["synthetic_set"])) for row in rows))


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
