"""One line for several trainings of a setting: eight settings times three trainings would hide one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from chexray.figures.lines import Line

GRID = np.linspace(0.0, 1.0, 401)


def mean_line(lines: Sequence[Line]) -> Line:
    """The line itself when there is one, else the mean of y at equal x, with the mean of the numbers.

    ROC: sensitivity at equal specificity (vertical averaging, Fawcett 2006). Precision and recall: precision at equal
    recall. Reliability: bins of equal probability, each training weighted by its images there; without intervals,
    since the trainings saw the same images. lines: one setting, kind and subset; at least one.
    """
    first = lines[0]
    if len(lines) == 1:
        return first
    value = float(np.mean([line.value for line in lines]))
    if first.kind == "reliability":
        return replace(_mean_bins(lines), value=value)
    at = _sensitivity if first.kind == "roc" else _precision
    y = np.mean([at(line) for line in lines], axis=0)
    nothing = np.full(len(GRID), np.nan)
    n = np.full(len(GRID), max(int(line.n.max(initial=0)) for line in lines))
    return replace(first, x=GRID, y=y, low=nothing, high=nothing, n=n, value=value)


def _sensitivity(line: Line) -> np.ndarray:
    order = np.lexsort([line.y, line.x])
    return np.interp(GRID, line.x[order], line.y[order])


def _precision(line: Line) -> np.ndarray:
    """The precision of the strictest threshold that reaches each recall."""
    order = np.lexsort([-line.y, line.x])
    x, y = line.x[order], line.y[order]
    return y[np.minimum(np.searchsorted(x, GRID, side="left"), len(x) - 1)]


def _mean_bins(lines: Sequence[Line]) -> Line:
    x, y, n = (np.concatenate([getattr(line, name) for line in lines]) for name in ("x", "y", "n"))
    # The means of a bin of width 1/15 lie in it, whichever training they come from.
    codes = np.clip((x * 15).astype(np.int64), 0, 14)
    used = np.unique(codes[n > 0])
    weight = np.bincount(codes, weights=n, minlength=15)[used]
    mean_x = np.bincount(codes, weights=n * x, minlength=15)[used] / weight
    mean_y = np.bincount(codes, weights=n * y, minlength=15)[used] / weight
    nothing = np.full(len(used), np.nan)
    images = np.rint(weight / len(lines)).astype(np.int64)
    return replace(lines[0], x=mean_x, y=mean_y, low=nothing, high=nothing, n=images)
