"""How all figures look, and how they become bytes that depend on nothing but what they show."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

DPI = 130
GREY, FAINT = "0.35", "0.8"

# Okabe and Ito (2008): told apart with every common colour blindness. Their yellow is too faint for lines on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
FIXED: dict[str, tuple[str, Any]] = {
    "real": (BLACK, "-"),
    "synthetic": (VERMILLION, "-"),
    "mixed": (BLUE, "-"),
    "augmented": (GREEN, "-"),
    "pretrain_synthetic_finetune_real": (PURPLE, "-"),
    "as_is": (GREY, (0, (1, 1))),
}
"""A setting has the same line in all figures."""

OTHERS = [*itertools.product([(0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1))], [SKY, ORANGE, PURPLE])]


def line_styles(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Arguments of `plot` for each setting; those that FIXED does not know take dashed lines, in order."""
    others = itertools.cycle(OTHERS)
    styles = {}
    for setting in settings:
        if setting in FIXED:
            colour, dash = FIXED[setting]
        else:
            dash, colour = next(others)
        styles[setting] = {"color": colour, "linestyle": dash}
    return styles


def sample(style: dict[str, Any]) -> Line2D:
    """A piece of a line for a legend."""
    return Line2D([], [], linewidth=1.4, **style)


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's own defaults, whatever the user's matplotlibrc says, and ours on top; put back at the end.

    parse_math: a name with two `$` is a name, not a formula. fonttype none: text in SVG stays text. hashsalt: ids of
    clip paths are random without it.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "chexray", "font.size": 8,
                "axes.linewidth": 0.6, "axes.edgecolor": GREY, "axes.titlesize": 8.5, "axes.titlelocation": "left",
                "axes.spines.top": False, "axes.spines.right": False, "xtick.color": GREY, "ytick.color": GREY,
                "legend.frameon": False,
            }
        )  # fmt: skip
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def png_and_svg(stem: str, figure: Figure) -> dict[str, bytes]:
    """The two files of a figure. No date in them, and no version of matplotlib in the PNG."""
    FigureCanvasAgg(figure)
    files = {}
    for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        target = io.BytesIO()
        figure.savefig(target, format=ending, dpi=DPI, metadata=metadata)
        files[f"{stem}.{ending}"] = target.getvalue()
    return files
