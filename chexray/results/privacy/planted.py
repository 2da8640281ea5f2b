"""What a run found of the altered copies it planted itself, for the summary and as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.text import Text

from chexray.results.layout import dim, house_table
from chexray.results.privacy.groups import Audit, Line, Row, searches
from chexray.results.privacy.names import PLANTED_PREFIX
from chexray.results.rows import params_of
from chexray.results.wording import Wording

NOT_TRIED = "whether altered copies would be found was not tried"


def altered(audit: Audit, wording: Wording) -> list[str]:
    """`planted copies found by pixels, perceptual_hash: exact, mirrored 40 of 40; turned 9 degrees 35 of 40`.

    What all spaces of the run found together; NOT_TRIED without planted copies.
    """
    by_count: dict[tuple[int, int], list[str]] = {}
    searched = ""
    for line in _lines(audit):
        if not line.first["encoder"] and line.first["value"] is not None:
            params = params_of(line.first)
            by_count.setdefault((params["n_found"], params["n"]), []).append(params["alteration"])
            searched = params["searched"]
    if not by_count:
        return [NOT_TRIED]
    counts = sorted(by_count.items(), key=lambda item: -item[0][0] / item[0][1])
    parts = [f"{found} of {n} {', '.join(names)}" for (found, n), names in counts]
    return [f"altered copies that this run planted and found by {wording.data(searched)}: {'; '.join(parts)}"]


def planted(audit: Audit, wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    """One line an alteration, one column a space and one for all of them together."""
    lines = _lines(audit)
    if not lines:
        return
    yield Text("\nplanted copies", style="bold")
    found: dict[str, dict[str, Row]] = {}
    for line in lines:
        if line.first["value"] is not None:
            found.setdefault(line.metric, {})[line.first["encoder"]] = line.first
    encoders = sorted({encoder for rows in found.values() for encoder in rows}, key=lambda name: name == "")
    table = house_table(wording)
    table.add_column("training images, altered", overflow="fold")
    for encoder in encoders:
        table.add_column(Text(wording.data(encoder) if encoder else "any"), justify="right")
    for rows in found.values():
        params = params_of(next(iter(rows.values())))
        cells = [_count(rows[encoder]) if encoder in rows else "" for encoder in encoders]
        table.add_row(Text(params["alteration"]), *map(Text, cells))
    yield table
    tried = {search.row["encoder"] for search in searches(audit, wording)}
    untried = sorted(tried - set(encoders))
    notes = [
        "found: flagged by the thresholds above, among training images altered by this run; intervals: results.csv"
    ]
    notes += [f"not tried: {', '.join(map(wording.data, untried))}; chexray audit tries them"] if untried else []
    yield from dim(notes)


def _lines(audit: Audit) -> list[Line]:
    return audit.lines(prefix=PLANTED_PREFIX)


def _count(row: Row) -> str:
    params = params_of(row)
    return f"{params['n_found']:,} of {params['n']:,}"
