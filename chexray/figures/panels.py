"""Small multiples: one panel a finding and one for all label cells together, one line a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexray.figures.lines import Line, settings_of
from chexray.figures.means import mean_line
from chexray.figures.names import shown
from chexray.figures.style import FAINT, GREY, line_styles, sample
from chexray.findings import FINDINGS

FEWEST = 10
"""Images in a bin of the reliability figure: the share of positives among fewer is noise. The table has all bins."""
MOST_BARS = 3
"""Settings beside which intervals can still be told apart."""
COLUMNS, PANEL_IN, GAP_IN, LEFT_IN, BOTTOM_IN, TOP_IN, LEGEND_ROW_IN = 5, 2.3, 0.36, 0.55, 0.5, 0.8, 0.2


@dataclass(frozen=True)
class Kind:
    """title: of the figure. x, y: of the axes. number: what stands in the legends of the panels. nothing: why one has
    no curve."""

    title: str
    x: str
    y: str
    number: str
    nothing: str


KINDS = {
    "roc": Kind("ROC", "1 - specificity", "sensitivity", "area under the curve", "not both classes"),
    "precision_recall": Kind("Precision and recall", "recall", "precision", "average precision", "no positive"),
    "reliability": Kind(
        "Reliability", "mean predicted probability", "share of positives", "calibration error", "no label"
    ),
}


def panel_figure(kind: str, lines: Sequence[Line], head: str) -> Figure:
    """A figure of one kind. lines: all of it, at least one; subsets "finding:<name>" and "all"."""
    settings = settings_of(lines)
    styles = line_styles(settings)
    subsets = [*(f"finding:{finding}" for finding in FINDINGS), "all"]
    rows = -(-len(subsets) // COLUMNS)
    legend_rows = -(-len(settings) // 6)
    bottom_in = BOTTOM_IN + LEGEND_ROW_IN * legend_rows
    width = LEFT_IN + COLUMNS * (PANEL_IN + GAP_IN)
    height = TOP_IN + bottom_in + rows * (PANEL_IN + GAP_IN) - GAP_IN
    figure = Figure(figsize=(width, height))
    for place, subset in enumerate(subsets):
        row, column = divmod(place, COLUMNS)
        left = LEFT_IN + column * (PANEL_IN + GAP_IN)
        base = bottom_in + (rows - 1 - row) * (PANEL_IN + GAP_IN)
        axes = figure.add_axes((left / width, base / height, PANEL_IN / width, PANEL_IN / height))
        _frame(axes, KINDS[kind], first=column == 0, last=row == rows - 1)
        _fill(axes, kind, subset, [line for line in lines if line.subset == subset], styles)
    figure.text(LEFT_IN / width, 1 - 0.28 / height, KINDS[kind].title, fontsize=13, weight="bold")
    figure.text(LEFT_IN / width, 1 - 0.48 / height, _caption(kind, lines, head), fontsize=8.5, color=GREY)
    figure.legend(
        [sample(styles[setting]) for setting in settings],
        [shown(setting) for setting in settings],
        loc="lower left",
        bbox_to_anchor=((LEFT_IN - 0.1) / width, 0.02 / height),
        ncols=min(6, len(settings)),
        fontsize=9,
    )
    return figure


def _caption(kind: str, lines: Sequence[Line], head: str) -> str:
    trainings = max(len({line.seed for line in lines if line.setting == setting}) for setting in settings_of(lines))
    parts = [head, f"numbers: {KINDS[kind].number}"]
    if trainings > 1:
        parts.append(f"lines and numbers: means over {trainings} trainings")
    if kind == "reliability":
        bars = len(settings_of(lines)) <= MOST_BARS and trainings == 1
        parts.append(f"bins of {FEWEST} images or more{'; bars: 95 % intervals' if bars else ''}")
    return "   |   ".join(part for part in parts if part)


def _frame(axes: Axes, kind: Kind, *, first: bool, last: bool) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if last else [])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if first else [])
    if last:
        axes.set_xlabel(kind.x)
    if first:
        axes.set_ylabel(kind.y)


def _fill(axes: Axes, kind: str, subset: str, lines: Sequence[Line], styles: dict[str, dict]) -> None:
    axes.set_title("All findings pooled" if subset == "all" else subset.removeprefix("finding:"))
    if not lines:
        axes.text(0.5, 0.5, f"no curve:\n{KINDS[kind].nothing}", ha="center", va="center", color=GREY)
        return
    _chance(axes, kind, lines)
    means = [mean_line([line for line in lines if line.setting == setting]) for setting in settings_of(lines)]
    for line in reversed(means):
        if kind == "reliability":
            _reliability(axes, line, styles[line.setting], bars=len(means) <= MOST_BARS)
        else:
            _curve(axes, line, styles[line.setting])
    legend = axes.legend(
        [sample(styles[line.setting]) for line in means],
        ["not known" if np.isnan(line.value) else f"{line.value:.3f}" for line in means], loc=_corner(kind, means),
        fontsize=7 if len(means) <= 7 else 6,
        title=None if kind == "reliability" else f"{means[0].n_positive:,} positive of {_images(means):,}",
        title_fontsize=6.5, handlelength=1.8, labelspacing=0.15, borderaxespad=0.1, frameon=True, framealpha=0.75,
        edgecolor="none",
    )  # fmt: skip
    legend.get_title().set_color(GREY)


def _corner(kind: str, means: Sequence[Line]) -> Literal["lower left", "lower right", "upper left", "upper right"]:
    """Where the fewest curves pass."""
    if kind == "precision_recall":
        return "lower left" if np.mean(np.nan_to_num([line.value for line in means])) > 0.45 else "upper right"
    return "lower right" if kind == "roc" else "upper left"


def _images(lines: Sequence[Line]) -> int:
    return max(int(line.n.max(initial=0)) for line in lines)


def _chance(axes: Axes, kind: str, lines: Sequence[Line]) -> None:
    """What a classifier scores that knows nothing; for reliability what a calibrated one does."""
    if kind != "precision_recall":
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, zorder=0)
        return
    if total := _images(lines):
        axes.axhline(lines[0].n_positive / total, color=FAINT, linewidth=0.8, zorder=0)


def _curve(axes: Axes, line: Line, style: dict) -> None:
    x, y = line.x, line.y
    if line.kind == "precision_recall":
        # Average precision holds the precision of a threshold back to the recall of the next stricter one.
        order = np.lexsort([-y, x])
        x, y = np.concatenate([[0.0], x[order]]), np.concatenate([y[order][:1], y[order]])
        style = {**style, "drawstyle": "steps-pre"}
    axes.plot(x, y, linewidth=1.2, **style)


def _reliability(axes: Axes, line: Line, style: dict, *, bars: bool) -> None:
    many = line.n >= FEWEST
    x, y, n = line.x[many], line.y[many], line.n[many]
    axes.plot(x, y, linewidth=0.9, **style)
    axes.scatter(x, y, s=4 + 20 * np.sqrt(n / max(1, int(line.n.max(initial=0)))), color=style["color"], linewidths=0)
    if bars:
        known = many & np.isfinite(line.low) & np.isfinite(line.high)
        axes.vlines(line.x[known], line.low[known], line.high[known], color=style["color"], alpha=0.4, linewidth=0.8)
