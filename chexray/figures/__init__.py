"""Curves as pictures and event files. Matplotlib and tensorboardX load on use; of chexray only names and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def figure_files(curves: pa.Table, history: pa.Table | None = None, *, title: str = "") -> dict[str, bytes]:
    """{file name: content} of every figure, as PNG and SVG, one set of figures for each synthetic set.

    curves: rows of `utility.curves.curves_table`; settings without a synthetic set ("real", "as_is") stand in the
    figures of all sets. history: one row an epoch with setting, synthetic_set, seed, phase, epoch, loss, val_loss and
    val_auroc; null where an epoch has no value. title: such as "resnet50, tested on real_test".

    Names are roc-<set>.png, precision_recall-<set>.svg, reliability-..., loss-...; without any synthetic set roc.png.
    Kinds without a row have no file. Equal tables give equal bytes under one version of matplotlib.
    """
    from chexray.figures.history import loss_figure
    from chexray.figures.lines import epochs_of, lines_of, sets_of
    from chexray.figures.names import file_stems, shown
    from chexray.figures.panels import KINDS, panel_figure
    from chexray.figures.style import drawing, png_and_svg

    lines, epochs = lines_of(curves), epochs_of(history)
    names = sorted({one.synthetic_set for one in (*lines, *epochs)} - {""}) or [""]
    files: dict[str, bytes] = {}
    with drawing():
        for name, stem in zip(names, file_stems(names), strict=True):
            ending = f"-{stem}" if name else ""
            head = ", ".join(shown(part) for part in (title, name) if part)
            for kind in KINDS:
                if chosen := [line for line in sets_of(lines, name) if line.kind == kind]:
                    files |= png_and_svg(f"{kind}{ending}", panel_figure(kind, chosen, head))
            if runs := sets_of(epochs, name):
                files |= png_and_svg(f"loss{ending}", loss_figure(runs, head))
    return files
