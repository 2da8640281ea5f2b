"""The trainings below each other: what each was trained on, its numbers on the real test set, and how far from real."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.rows import params_of
from chexray.results.utility.groups import Row, Study, Training, excludes_zero, shows_difference
from chexray.results.utility.names import TUNED, setting_legend, single_trainings
from chexray.results.utility.remarks import STAR, choices, intervals, missing, notes
from chexray.results.wording import Wording, error_of, number

DIFFERENCE = "auroc_macro_difference"
_PLAIN = (("average_precision_macro", "AP"), ("f1_macro", "F1"), ("brier_macro", "Brier"))
METRICS = ("auroc_macro", DIFFERENCE, *(name for name, _ in _PLAIN), "accuracy")


NAME_WIDTH = 18
"""Holds "pretrain-finetune" below the name of a generator; longer names fold."""


@dataclass(frozen=True)
class Layout:
    """generator: in a column of its own, not above its lines. accuracy: in a column, not in a footnote.

    stacked: intervals below their values. narrow: sizes and long settings in two lines. few: AUROC alone.
    """

    generator: bool = False
    accuracy: bool = False
    stacked: bool = False
    narrow: bool = False
    few: bool = False


LAYOUTS = (
    Layout(generator=True, accuracy=True),
    Layout(accuracy=True),
    Layout(),
    Layout(stacked=True),
    Layout(stacked=True, narrow=True),
    Layout(stacked=True, narrow=True, few=True),
)
"""From wide to narrow."""


def comparison(study: Study, wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    """The table of all trainings and its footnotes, for `chexray.results.utility.table`."""
    rows = study.rows(*METRICS)
    if not any(row["subset"] == "all" for row in rows):
        return
    several = len(study.generators) > 1
    layouts = [layout for layout in LAYOUTS if several or not layout.generator]
    built = ((layout, _table(study, layout, wording)) for layout in layouts)
    layout, table = next(
        ((layout, table) for layout, table in built if fits(table, console, width)),
        (layouts[-1], _table(study, layouts[-1], wording)),
    )
    yield table
    overall = [row for row in rows if row["subset"] == "all"]
    settings = list(dict.fromkeys(training.setting for training in study.trainings))
    lines = missing(overall, wording)
    lines += _star(study, wording)
    if layout.few:
        lines.append(f"for want of width, see results.csv: {', '.join(name for _, name in _PLAIN)}")
    if not layout.accuracy:
        lines += _accuracy_note(study, wording)
    lines.append(wording.own("; ".join(["trained on: real + synthetic images", *setting_legend(settings)])))
    better = [name for name, metrics in (("AUROC", ("auroc_macro",)), *((n, (m,)) for m, n in _PLAIN[:2]))
              if study.rows(*metrics)]  # fmt: skip
    if not wording.unicode and better:
        brier = "; Brier: lower" if study.rows("brier_macro") else ""
        lines.append(f"{', '.join(better)}: higher is better{brier}")
    if study.get("average_precision_macro"):
        lines.append("AP: average precision")
    yield from dim([*lines, *choices(rows, wording), *intervals(overall), *notes(overall, wording)])


def _star(study: Study, wording: Wording) -> list[str]:
    """What a star means, or why there is none."""
    rows = [row for row in study.get(DIFFERENCE).values() if row["ci_low"] is not None]
    lines = []
    if any(shows_difference(row) for row in rows):
        lines.append(f"*  differs from {_baseline(study, wording)}: {STAR}")
    elif rows and not any(excludes_zero(row) for row in rows):
        lines.append(f"no training is shown to differ from {_baseline(study, wording)}: the intervals hold 0")
    if any(excludes_zero(row) and single_trainings(row) for row in study.rows(DIFFERENCE, "auroc_difference")):
        lines.append("no star between single trainings: those that differ in their seed alone are often as far apart")
    return lines


def _baseline(study: Study, wording: Wording) -> str:
    found = dict.fromkeys(str(params_of(row).get("against", "real")) for row in study.get(DIFFERENCE).values())
    return wording.data(" or ".join(found))


def _table(study: Study, layout: Layout, wording: Wording) -> Table:
    table = house_table(wording)
    columns = _columns(study, layout, wording)
    if layout.generator:
        table.add_column("generator", overflow="fold", max_width=NAME_WIDTH)
    table.add_column("setting", overflow="fold", max_width=NAME_WIDTH)
    table.add_column(Text("trained\non"), overflow="fold")
    for header, _ in columns:
        table.add_column(Text(header), overflow="fold")
    for column in (None, *study.generators):
        trainings = study.of(column)
        above = wording.own("–") if column is None else study.generator(column, wording)
        headed = column is not None and len(study.generators) > 1 and not layout.generator
        if headed and trainings:
            table.add_row(Text(above))
        for position, training in enumerate(trainings):
            head = [Text(above if position == 0 else "")] if layout.generator else []
            name, size = study.name(training, wording), _trained_on(study, training)
            if layout.narrow:
                name, size = name.replace("pretrain-", "pretrain-\n "), size.replace(" + ", " +\n")
            name = f"{' ' if headed else ''}{name}"
            table.add_row(*head, Text(name), Text(size), *(cell(training) for _, cell in columns))
    return table


def _columns(study: Study, layout: Layout, wording: Wording) -> list[tuple[str, Callable[[Training], Text]]]:
    """(header, cell) of the numbers that anything has."""
    between = "\n" if layout.stacked else " "
    aurocs, differences = study.get("auroc_macro"), study.get(DIFFERENCE)

    def full(row: Row | None, mark: str = "") -> Text:
        parts = [] if row is None else [f"{wording.value(row)}{mark}", wording.interval(row)]
        return Text(between.join(part for part in parts if part), style="bold" if mark else "")

    columns: list[tuple[str, Callable[[Training], Text]]] = []
    if aurocs:
        columns.append((f"AUROC{_arrow(aurocs.values(), wording)}\nmacro", lambda one: full(aurocs.get(one))))
    if differences:
        header = f"difference\nto {_baseline(study, wording)}"
        columns.append(
            (header, lambda one: full(found := differences.get(one), "*" if shows_difference(found) else ""))
        )
    for metric, name in () if layout.few else _PLAIN:
        threshold = _threshold(study, metric)
        cells = study.get(metric, threshold=threshold)
        if cells:
            at = f" ({wording.data(threshold)})" if threshold not in ("", TUNED) else ""
            header = f"{name}{_arrow(cells.values(), wording)}\nmacro{at}"

            def plain(one: Training, cells: dict[Training, Row] = cells) -> Text:
                return Text(wording.value(cells[one]) if one in cells else "")

            columns.append((header, plain))
    accuracy = study.get("accuracy", threshold=_threshold(study, "accuracy"))
    if accuracy and layout.accuracy:
        header = "accuracy\n(all-negative)"
        columns.append((header, lambda one: Text(_accuracy(accuracy[one], wording) if one in accuracy else "")))
    return columns


def _threshold(study: Study, metric: str) -> str:
    """Tuned where anything was; else what there is."""
    found = [threshold for name, threshold, subset in study.cells if name == metric and subset == "all"]
    return TUNED if TUNED in found else next(iter(found), "")


def _arrow(rows: Iterable[Row], wording: Wording) -> str:
    better = next((row["better"] for row in rows if row["better"]), "")
    return wording.arrow(better) if wording.unicode else ""


def _accuracy(row: Row, wording: Wording) -> str:
    """`0.881 (0.872)`, the all-negative predictor's beside it."""
    negative = params_of(row).get("all_negative")
    return wording.value(row) + ("" if negative is None else f" ({number(negative, error_of(row))})")


def _accuracy_note(study: Study, wording: Wording) -> list[str]:
    cells = study.get("accuracy", threshold=_threshold(study, "accuracy"))
    if not cells:
        return []
    negatives = {params_of(row).get("all_negative") for row in cells.values()}
    once = len(negatives) == 1 and None not in negatives
    parts = []
    for column in (None, *study.generators):
        own = [training for training in study.of(column) if training in cells]
        values = [(cells[one], study.name(one, wording)) for one in own]
        said = ", ".join(f"{name} {wording.value(row) if once else _accuracy(row, wording)}" for row, name in values)
        head = f"{study.generator(column, wording)}: " if column and len(study.generators) > 1 else ""
        parts += [f"{head}{said}"] if said else []
    row = next(iter(cells.values()))
    negative = f"{number(params_of(row)['all_negative'], error_of(row))} " if once else "in brackets that "
    return [f"accuracy ({negative}of a predictor that always says no): {'; '.join(parts)}"]


def _trained_on(study: Study, training: Training) -> str:
    """`200 + 200`, real and synthetic images; empty where nothing was trained."""
    for (_, _, _), cells in study.cells.items():
        params = params_of(cells[training]) if training in cells else {}
        if "n_train_real" in params or "n_train_synthetic" in params:
            real, synthetic = (int(params.get(f"n_train_{side}") or 0) for side in ("real", "synthetic"))
            return f"{real:,} + {synthetic:,}" if real or synthetic else ""
    return ""
