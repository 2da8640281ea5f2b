"""What is said under a fidelity table: copies of real images, worse sets, and whether KID tells a set from real."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chexray.results.grouping import Column, Group, Key
from chexray.results.layout import marks
from chexray.results.rows import params_of
from chexray.results.standing import COPIES, direction, is_fidelity, n_copies
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]

LEVEL = 0.05
"""A p-value from here on does not tell two sets apart."""

COPIES_FIRST = "copies_of_real_first"
"""The param that names the first few of them."""

BY_FEATURES = f"{COPIES}_by_features"
"""The param that counts those of other pixels, to which every encoder gives the same features."""


def copies(rows: Iterable[Row], wording: Wording) -> list[str]:
    """A line for each synthetic set that holds images of the real set it is compared with, the most first."""
    found: dict[str, Row] = {}
    for row in rows:
        if is_fidelity(row) and n_copies(row) > n_copies(found.get(row["synthetic_set"], {})):
            found[row["synthetic_set"]] = row
    lines = []
    for row in sorted(found.values(), key=lambda row: -n_copies(row)):
        params, n = params_of(row), n_copies(row)
        name, real = (wording.data(set_name(row[side])) for side in ("synthetic_set", "real_set"))
        alike = int(params.get(BY_FEATURES) or 0)
        how = "equal pixel by pixel" if not alike else f"{n - alike:,} equal pixel by pixel, {alike:,} in all features"
        first = [wording.data(one) for one in params.get(COPIES_FIRST) or []]
        which = f", first {', '.join(first[:3])}" if first else ""
        lines.append(
            f"COPIES OF REAL IMAGES: {n:,} of {row['n_synthetic']:,} images of {name} are images of {real} ({how})"
            f"{which}. Its fidelity numbers measure these copies: take them out and run again."
        )
    return lines


def worse(group: Group, wording: Wording) -> list[str]:
    """Which sets are worse than the best one by which metrics, over all images, where no set is marked better."""
    found: dict[tuple[Column, ...], list[str]] = {}
    for key in group.overall:
        losers = group.losers(key)
        if losers:
            found.setdefault(losers, []).append(group.metric_name(key, wording))
    if len(group.columns) < 2 or not found:
        return []
    parts = [
        f"{_and([group.label(column, wording) for column in losers])} by {', '.join(names)}"
        for losers, names in found.items()
    ]
    return [f"no set is marked best, but worse than the best: {'; '.join(parts)}"]


def standings(group: Group, subsets: Iterable[str], keys: Sequence[Key], column: Column, wording: Wording) -> list[str]:
    """The subsets in which this set is worse than the best one and none is marked, by metric."""
    parts = []
    for key in keys:
        lost = [s for s in subsets if key in group.subsets[s] and column in group.losers(key, s)]
        if lost:
            parts.append(f"by {group.metric_name(key, wording)} in {_subsets(lost, wording)}")
    return [f"no set is marked best, but this one is worse than the best: {'; '.join(parts)}"] if parts else []


def p_values(group: Group, wording: Wording) -> list[str]:
    """`kid: p of no difference from real images: a 0.002, b 0.43`, over all images."""
    lines = []
    for key, rows in group.overall.items():
        tested = {column: p for column, row in rows.items() if (p := _p_value(row)) is not None}
        if not tested:
            continue
        several = len(group.columns) > 1
        said = [f"{group.label(column, wording)} {p:.2g}" if several else f"{p:.2g}" for column, p in tested.items()]
        name = group.metric_name(key, wording)
        lines.append(f"{name}: p of no difference from the real images (permutation test): {', '.join(said)}")
    return lines


def not_told_apart(rows: Iterable[Row], wording: Wording) -> list[str]:
    """The subsets whose synthetic images a permutation test does not tell from the real ones, by metric."""
    tested: dict[str, dict[str, float]] = {}
    for row in rows:
        p = _p_value(row)
        if p is not None:
            tested.setdefault(row["metric"], {})[row["subset"]] = p
    lines = []
    for metric, found in tested.items():
        alike = [subset for subset, p in found.items() if p >= LEVEL]
        if alike:
            lines.append(
                f"{wording.data(metric)}: not told apart from real images (permutation test, p >= {LEVEL:g}): "
                f"{_subsets(alike, wording)}"
            )
    return lines


def no_floor(rows: Iterable[Row], wording: Wording) -> list[str]:
    """Why numbers have no real floor, where they would, by reason."""
    missing: dict[str, dict[str, None]] = {}
    for row in rows:
        reason = params_of(row).get("floor_reason")
        if reason and is_fidelity(row) and row["value"] is not None and row["real_floor"] is None:
            missing.setdefault(str(reason), {})[wording.data(row["metric"])] = None
    return [f"no real floor for {', '.join(names)}: {wording.data(reason)}" for reason, names in missing.items()]


def legend(rows: Sequence[Row], wording: Wording) -> list[str]:
    """How to read the marks of `chexray.results.layout.marks` that are about a floor or a copy, and the arrow to it."""
    used = "".join(marks(row, False) for row in rows)
    lines = []
    judged = dict.fromkeys(wording.data(row["metric"]) for row in rows if direction(row) == "floor")
    if judged:
        lines.append(wording.own(f"→  {', '.join(judged)}: the nearer to the real floor, the better"))
    if "^" in used:
        lines.append(
            "^  beyond its real floor, better than other real images get: copies or too little variety, no better set"
        )
    if "=" in used:
        lines.append("=  the set holds images of the real set: the number measures these copies")
    return lines


def _p_value(row: Row) -> float | None:
    return params_of(row).get("p_value") if is_fidelity(row) and row["value"] is not None else None


def _subsets(names: Sequence[str], wording: Wording, most: int = 4) -> str:
    short = [wording.data(name.removeprefix("finding:")) for name in names]
    return ", ".join(short[:most]) + (f" and {len(short) - most} more" if len(short) > most else "")


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
