"""An audit of the filter on a terminal: what it finds of planted copies, what it flags by mistake, which part does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.privacy.layout import scaled, value_and_interval
from chexray.results.privacy.words import NOT_FOUND
from chexray.results.rows import params_of, to_records
from chexray.results.wording import Wording, set_name

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

SENSITIVITY, SPECIFICITY, CONSISTENCY = "audit_sensitivity", "audit_specificity", "audit_consistency"
MEAN = "mean, identity left out"
SECTIONS = {
    SENSITIVITY: "planted copies: flagged",
    SPECIFICITY: "unseen patients: not flagged",
    CONSISTENCY: "twins: same verdict as image",
}
UNITS = {
    SPECIFICITY: ("n_patients", "patients"),
    CONSISTENCY: ("n_prompts", "prompts"),
}


def render(rows: pd.DataFrame | Iterable[Row], *, width: int | None = None, console: Console | None = None) -> Any:
    """The rows of audit.parquet as a rich renderable."""
    from chexray.results import table

    return table.View(to_records(rows), show, width, console)


def show(rows: Sequence[Row], wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    """One line a score: its share with interval, and beside it what each part of the filter flags by itself."""
    if not rows:
        return
    first = rows[0]
    searched = f"{wording.data(set_name(first['real_set']))}: {first['n_real']:,} training images"
    title = ["audit of the privacy filter", searched, f"protocol {wording.data(first['protocol'])}"]
    yield Text(wording.own(" · ").join(title), style="bold")
    whole = _table(rows, wording)
    if fits(whole, console, width):
        yield whole
    else:
        yield _table(rows, wording, parts=())
        yield Text("")
        yield _table(rows, wording, shares=False)
    yield from dim(_legend(rows, wording))
    yield Text("")


def _table(rows: Sequence[Row], wording: Wording, *, shares: bool = True, parts: Sequence[str] | None = None) -> Table:
    parts = _parts(rows) if parts is None else parts
    table = house_table(wording)
    table.add_column("" if shares else "flagged by each part, %")
    if shares:
        table.add_column("share, % [95% interval]", no_wrap=True)
        table.add_column("n", justify="right")
    for part in parts:
        heading = f"by {wording.data(part)}" if shares else wording.data(part)
        table.add_column(Text(heading), justify="right", overflow="fold")
    section = None
    for row in rows:
        own = next(name for name in SECTIONS if row["metric"].startswith(name))
        if own != section:
            table.add_row(Text(SECTIONS[own], style="bold"))
            section = own
        by = params_of(row).get("n_flagged_by", {})
        cells = [_percent(by.get(part), row["n_synthetic"]) for part in parts]
        share = (_share(row, wording), f"{row['n_synthetic']:,}") if shares else ()
        table.add_row(*map(Text, (f"  {_label(row, own)}", *share, *cells)))
    return table


def _share(row: Row, wording: Wording) -> str:
    """`98.3 [91.0, 100.0]`, rounded by the interval: all or none flagged has no other error."""
    if row["value"] is None:
        return wording.own("–")
    return value_and_interval({**scaled(row, 100), "std_error": None}, wording)


def _parts(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(part for row in rows for part in params_of(row).get("n_flagged_by", {})))


def _label(row: Row, section: str) -> str:
    if section == SENSITIVITY:
        return row["metric"].removeprefix(f"{SENSITIVITY}_") if row["metric"] != SENSITIVITY else MEAN
    key, noun = UNITS[section]
    units = params_of(row).get(key)
    return "each an image" if units is None else f"of {units:,} {noun}"


def _percent(count: int | None, n: int) -> str:
    return "" if count is None or not n else f"{100 * count / n:.1f}"


def _legend(rows: Sequence[Row], wording: Wording) -> list[str]:
    lines = []
    for row in rows:
        if row["value"] is None:
            lines.append(f"{wording.data(row['metric'])}: {wording.data(row['reason'])}")
        if row["metric"] == CONSISTENCY and row["value"] is not None:
            flagged = params_of(row).get("n_flagged", 0)
            lines.append(f"of {row['n_synthetic']:,} twins, {flagged:,} or their images were flagged at all")
    lines.append("an image is flagged when any part flags it; by ...: what each part flags by itself, %")
    lines.append(f'what the filter lets pass has "{NOT_FOUND}": the one measured here')
    return lines
