"""Markdown tables that read well on a terminal and can be pasted into README."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

TARGETS = ("measure", "measured", "target", "")


@dataclass(frozen=True)
class Report:
    """What one part found. rows: lines of the closing table, as TARGETS; agrees: no value was wrong."""

    text: str
    rows: list[list[str]]
    agrees: bool = True


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """`median (min to max)`."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def machine() -> str:
    """What was measured on, and how busy it was: ratios carry over to other machines, seconds do not."""
    import torch

    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores, Python {platform.python_version()}, torch {torch.__version__}; "
        f"load average {load:.1f} at the start (1 process a core would be {cores})"
    )
