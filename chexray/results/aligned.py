"""Runs side by side: one line for each number of theirs, with what `chexray.results.decisions` says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from chexray.errors import ConfigError
from chexray.grouping import grouped
from chexray.results.decisions import Verdict, decide, differences, method_params
from chexray.results.rows import Row, method_of, params_of, suite_of
from chexray.results.runs import split_runs
from chexray.results.standing import direction
from chexray.text import listed

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("value", "std_error", "ci_low", "ci_high", "real_floor", "n_real", "n_synthetic", "reason")
"""Fields of a run's row that a line repeats."""


def compare(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Runs side by side: one row for each number of theirs, aligned on what was measured and how.

    frames: run name -> its results. A run with several synthetic sets gives a column group for each, NAME/SET.
    Columns: suite, metric, subset, encoder, encoder_options, protocol, method, better, verdict,
    note, and for each run NAME.value, .std_error, .ci_low, .ci_high, .real_floor, .n_real, .n_synthetic, .reason
    (missing where it has no such number) and NAME.standing: better, worse or empty. better: lower, higher, or floor
    where the number nearest to the real floor is better.
    Raises ConfigError when there are not at least two things to compare.
    """
    import pandas as pd

    runs = split_runs(frames)
    if len(runs) < 2:
        raise ConfigError(f"compare needs at least two runs or sets, found {len(runs)}: {listed(runs) or 'none'}.")
    lines = [_line(group, verdict, runs) for group, verdict in judged(runs)]
    what = ["suite", "metric", "subset", "encoder", "encoder_options", "protocol", "method"]
    columns = [*what, "better", "verdict", "note"]
    fields = (*SHOWN, "standing")
    table = pd.DataFrame(lines, columns=[*columns, *(f"{name}.{field}" for name in runs for field in fields)])
    for name in runs:
        for side in ("n_real", "n_synthetic"):
            # From the values, not from the column: with a gap in it that is one of floats, which lose whole numbers.
            table[f"{name}.{side}"] = pd.array([line[f"{name}.{side}"] for line in lines], dtype="Int64")
    return table


def judged(runs: Mapping[str, list[Row]]) -> Iterator[tuple[dict[str, Row], Verdict]]:
    """({run: its row}, the verdict on them) for each number that any of the runs has."""
    every = ((name, row) for name, rows in runs.items() for row in rows)
    cells = grouped(((suite_of(row), row["metric"], row["subset"], *_setting(row)), (name, row)) for name, row in every)
    for found in cells.values():
        yield from _aligned(found)


def _setting(row: Row) -> tuple[str, ...]:
    """What a utility number was trained on and is thresholded by: numbers that differ there never share a line."""
    if suite_of(row) != "utility":
        return ()
    method = method_of(row)
    return str(method.get("setting", "")), str(method.get("threshold", ""))


def _method(row: Row) -> tuple[str, ...]:
    names = ("encoder", "protocol", "encoder_revision", "weights_sha256")
    return (*(row[name] for name in names), method_params(row))


def _aligned(found: list[tuple[str, Row]]) -> Iterable[tuple[dict[str, Row], Verdict]]:
    """Groups of rows of one metric and subset, at most one a run: first those computed alike, then what is left.

    What is left is put beside what it resembles most, so that the verdict can say why it does not compare.
    """
    left = list(found)
    for depth in (5, 2, 1, 0):  # all of _method; encoder and protocol; encoder; nothing
        alike = grouped((_method(row)[:depth], (name, row)) for name, row in left)
        left = []
        for by_run in map(grouped, alike.values()):
            for rows in zip_longest(*by_run.values()):
                group = {name: row for name, row in zip(by_run, rows, strict=True) if row is not None}
                if len(group) > 1:
                    yield group, decide(group)
                else:
                    left += group.items()
    for name, row in left:
        others = [other for other_name, other in found if other_name != name]
        nearest = max(others, key=lambda other: _shared(row, other), default=None)
        different = [] if nearest is None else differences([row, nearest])
        text = f"not comparable: different {', '.join(different)}" if different else f"only in {name}"
        yield {name: row}, Verdict(text)


def _shared(a: Row, b: Row) -> int:
    return sum(x == y for x, y in zip(_method(a), _method(b), strict=True))


def _line(group: Mapping[str, Row], verdict: Verdict, runs: Iterable[str]) -> dict[str, Any]:
    rows = list(group.values())

    def text(of: Callable[[Row], object]) -> str:
        return " | ".join(dict.fromkeys(str(of(row)) for row in rows))

    line: dict[str, Any] = {"suite": suite_of(rows[0])}
    line |= {name: text(lambda row, name=name: row[name]) for name in ("metric", "subset", "encoder")}
    line |= {"encoder_options": text(lambda row: params_of(row).get("note_encoder") or "")}
    line |= {"protocol": text(lambda row: row["protocol"]), "method": text(method_params), "better": direction(rows[0])}
    line |= {"verdict": verdict.text, "note": "; ".join(verdict.notes)}
    for name in runs:
        row = group.get(name, {})
        line |= {f"{name}.{field}": row.get(field) for field in SHOWN}
        line[f"{name}.standing"] = "better" if name in verdict.winners else "worse" if name in verdict.worse else ""
    return line
