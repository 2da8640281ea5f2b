"""How numbers are written wherever results are put into words: rounded by their error, and counted."""

from __future__ import annotations

import math

from chexray.results.rows import Row

SCIENTIFIC_BELOW = 1e-5
"""An error this small would need more than six decimals: the number is then written with an exponent."""

MISSING = "–"
"""Stands for a number that could not be computed."""


def value_text(row: Row, error: float | None = None) -> str:
    """`0.1234`, to the second significant digit of its error, or of the one given."""
    return MISSING if row["value"] is None else number(row["value"], error or error_of(row))


def interval_text(row: Row, error: float | None = None) -> str:
    """`[0.117, 0.130]`, the 95% interval; `± 0.0031` where only an error is known; empty where nothing is."""
    if row["value"] is None:
        return ""
    error = error or error_of(row)
    if row["ci_low"] is not None and row["ci_high"] is not None:
        return f"[{number(row['ci_low'], error)}, {number(row['ci_high'], error)}]"
    return "" if row["std_error"] is None else f"± {number(row['std_error'], error)}"


def number(value: float, error: float | None = None) -> str:
    """`value` rounded to the second significant digit of `error`, to four significant digits when there is none."""
    scale = error if error and math.isfinite(error) else abs(value) / 100
    if scale == 0:
        return "0"
    if scale < SCIENTIFIC_BELOW:
        return f"{value:.2e}"
    decimals = max(0, 1 - math.floor(math.log10(float(f"{scale:.1e}"))))
    text = f"{value:,.{decimals}f}" if abs(value) < 1e7 else f"{value:.3e}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def error_of(row: Row) -> float | None:
    """The error a row's numbers are rounded by: its own, or what its interval is worth."""
    if row["std_error"]:
        return row["std_error"]
    low, high = row["ci_low"], row["ci_high"]
    return None if low is None or high is None or high <= low else (high - low) / 3.92


def count_of(row: Row) -> str:
    """`4 of 80`: a count of synthetic images."""
    return f"{round(row['value']):,} of {row['n_synthetic']:,}"


def are(row: Row) -> str:
    return "is" if round(row["value"]) == 1 else "are"


def count_text(count: float) -> str:
    """`4.0` or `1,234`: an expected count, which need not be whole."""
    if count >= 100:
        return f"{count:,.0f}"
    return f"{count:.1f}" if count >= 0.1 or count == 0 else number(count, count)
