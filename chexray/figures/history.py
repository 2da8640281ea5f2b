"""Loss and validation AUROC by epoch, one line a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chexray.figures.lines import Epochs, settings_of
from chexray.figures.names import shown
from chexray.figures.style import GREY, line_styles, sample

PANELS = (("loss", "training loss"), ("val_loss", "validation loss"), ("val_auroc", "validation AUROC, macro"))


def loss_figure(runs: Sequence[Epochs], head: str) -> Figure:
    """Three panels over the epochs of all phases; the two losses share their axis. runs: at least one."""
    settings = settings_of(runs)
    styles = line_styles(settings)
    legend_in = 0.5 + 0.2 * -(-len(settings) // 6)
    width, height = 13.3, 4.2 + legend_in
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(0.055, (legend_in + 0.12) / height, 0.985, 1 - 0.8 / height, 0.16)
    for axes, (column, name) in zip(panels, PANELS, strict=True):
        for run in runs:
            alone = sum(other.setting == run.setting for other in runs) == 1
            values = getattr(run, column)
            epoch = np.arange(1, len(values) + 1)
            style = {**styles[run.setting], "alpha": 1.0 if alone else 0.65}
            axes.plot(epoch, values, linewidth=1.3 if alone else 0.9, marker="." if len(values) == 1 else "", **style)
            turns = np.flatnonzero(np.diff(run.phase)) + 1
            axes.plot(epoch[turns], values[turns], "o", markersize=4, markerfacecolor="white", color=style["color"])
            best = _best(run) if column == "val_auroc" else None
            if best is not None:
                axes.plot(epoch[best], values[best], "o", markersize=4.5, color=style["color"])
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses = np.concatenate([np.concatenate([run.loss, run.val_loss]) for run in runs])
    losses = losses[np.isfinite(losses)]
    if len(losses):
        top = float(np.max(losses))
        for axes in panels[:2]:
            axes.set_ylim(0, top * 1.05 if top > 0 else 1)
    figure.text(0.055, 1 - 0.28 / height, "Training", fontsize=13, weight="bold")
    words = "full dots: the epoch that is kept; open dots: a phase begins"
    figure.text(0.055, 1 - 0.48 / height, "   |   ".join(filter(None, (head, words))), fontsize=8.5, color=GREY)
    figure.legend(
        [sample(styles[setting]) for setting in settings],
        [shown(setting) for setting in settings],
        loc="lower left",
        bbox_to_anchor=(0.045, 0.02 / height),
        ncols=min(6, len(settings)),
        fontsize=9,
    )
    return figure


def _best(run: Epochs) -> int | None:
    """The epoch of the last phase with the highest validation AUROC, the first of equal ones; None without any."""
    known = np.where(np.isfinite(run.val_auroc) & (run.phase == run.phase.max(initial=0)), run.val_auroc, -np.inf)
    return int(np.argmax(known)) if np.isfinite(known).any() else None
