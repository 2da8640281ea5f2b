"""What stands beside each other in a comparison: runs, and the synthetic sets of runs that have several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.results.identity import set_name
from chexray.results.rows import Row, suite_of, to_records
from chexray.suite_names import UTILITY

if TYPE_CHECKING:
    import pandas as pd


def split_runs(frames: Mapping[str, pd.DataFrame]) -> dict[str, list[Row]]:
    """Frames by run name, those with several synthetic sets cut into NAME/SET.

    What calibrates a network on real pairs is of every set, whichever it is filed under. What was trained on real
    images alone is of none: beside several sets it goes by the name of the run, and is left out where no other run is.
    """
    runs: dict[str, list[Row]] = {}
    for name, frame in frames.items():
        records: list[Row] = [*to_records(frame)]
        by_kind = grouped((suite_of(row) == UTILITY and not row["synthetic_set"], row) for row in records)
        alone, by_set = by_kind.get(True, []), _by_set(by_kind.get(False, []))
        if len(by_set) < 2:
            runs |= {name: records} if records else {}
            continue
        runs |= {name: alone} if alone and len(frames) > 1 else {}
        short = [set_name(identity) for identity in by_set]
        for identity, rows in by_set.items():
            label = set_name(identity) if short.count(set_name(identity)) == 1 else identity
            runs[f"{name}/{label}"] = rows
    return runs


def _by_set(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by synthetic set, what calibrates a network with each."""
    audited = dict.fromkeys(row["synthetic_set"] for row in rows if not output_of(row).of_encoder)
    found: dict[str, list[Row]] = {identity: [] for identity in audited}
    for row in rows:
        own = row["synthetic_set"] in audited or not audited
        for identity in [row["synthetic_set"]] if own else audited:
            found.setdefault(identity, []).append(row)
    return found
