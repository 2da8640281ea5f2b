"""The trainings below each other: what each was trained on, its numbers on the real test set, and how far from real."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.rows import params_of
from chexray.results.utility.groups import Cells, Row, Study, Training, excludes_zero, shows_difference
from chexray.results.utility.names import TUNED, setting_legend, single_trainings
from chexray.results.utility.remarks import STAR, choices, intervals, missing, notes
from chexray.results.wording import Wording, error_of, number

DIFFERENCE = "auroc_macro_difference"
_PLAIN = (("average_precision_macro", "AP"), ("f1_macro", "F1"), ("brier_macro", "Brier"))
_AS_PUBLISHED = (("f1_macro", "F1"), ("precision_macro", "precision"), ("recall_macro", "recall"))
"""What CheXGenBench prints beside AUROC, at threshold 0.5, over all 14 findings."""
PROTOCOL, PUBLISHED_THRESHOLD, OF_14 = "chexgenbench", "0.5", "_of_14"


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
    rows = study.rows(*metrics_of(study))
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
        lines.append(f"for want of width, see results.csv: {', '.join(name for _, name in _plain(study))}")
    lines += _published_note(study, wording)
    if not layout.accuracy:
        lines += _accuracy_note(study, wording)
    lines.append(wording.own("; ".join(["trained on: real + synthetic images", *setting_legend(settings)])))
    shown = [("auroc_macro", "AUROC"), *_plain(study)]
    better = [name for metric, name in shown if metric != "brier_macro" and study.rows(metric)]
    if not wording.unicode and better:
        brier = "; Brier: lower" if ("brier_macro", "Brier") in shown and study.rows("brier_macro") else ""
        lines.append(f"{', '.join(better)}: higher is better{brier}")
    if study.protocol != PROTOCOL and study.get("average_precision_macro"):
        lines.append("AP: average precision")
    tuned = choices([row for row in rows if study.protocol != PROTOCOL or not _is_tuned(row)], wording)
    yield from dim([*lines, *tuned, *intervals(overall), *notes(overall, wording)])


def metrics_of(study: Study) -> tuple[str, ...]:
    """The metrics that this table shows."""
    plain = [metric for metric, _ in _plain(study)]
    of_14 = [f"{metric}{OF_14}" for metric in plain if study.protocol == PROTOCOL]
    return ("auroc_macro", DIFFERENCE, *plain, *of_14, "accuracy")


def _plain(study: Study) -> tuple[tuple[str, str], ...]:
    """(metric, header) of the columns without intervals: under the benchmark's protocol those that it publishes."""
    return _AS_PUBLISHED if study.protocol == PROTOCOL else _PLAIN


def _is_tuned(row: Row) -> bool:
    return params_of(row).get("threshold") == TUNED


def _published_note(study: Study, wording: Wording) -> list[str]:
    """Under the benchmark's protocol: at which threshold its numbers are, and what they count as 0."""
    if study.protocol != PROTOCOL or not any(study.rows(metric) for metric, _ in _AS_PUBLISHED):
        return []
    lines = [
        f"F1, precision, recall: at threshold {PUBLISHED_THRESHOLD}, as CheXGenBench computes them; at tuned "
        "thresholds: see results.csv"
    ]
    found = (params_of(row).get("counted_as_zero") for row in study.rows(f"f1_macro{OF_14}"))
    absent = list(dict.fromkeys(wording.data(str(name)) for names in found for name in names or ()))
    if absent:
        lines.append(
            f"of 14: findings without a positive test image count as 0, as in CheXGenBench ({', '.join(absent)}); in "
            "brackets without them"
        )
    return lines


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
    for metric, name in () if layout.few else _plain(study):
        threshold = _threshold(study, metric)
        cells = study.get(metric, threshold=threshold)
        of_14 = study.get(f"{metric}{OF_14}", threshold=threshold)
        if any(params_of(row).get("counted_as_zero") for row in of_14.values()):
            at, beside = " of 14", cells
            cells = of_14
        else:
            at, beside = f" ({wording.data(threshold)})" if threshold not in ("", TUNED) else "", {}
        if cells:
            header = f"{name}{_arrow(cells.values(), wording)}\nmacro{at}"

            def plain(one: Training, cells: Cells = cells, beside: Cells = beside) -> Text:
                said = [wording.value(cells[one])] if one in cells else []
                said += [f"({wording.value(beside[one])})"] if one in beside else []
                return Text(" ".join(said))

            columns.append((header, plain))
    accuracy = study.get("accuracy", threshold=_threshold(study, "accuracy"))
    if accuracy and layout.accuracy:
        header = "accuracy\n(all-negative)"
        columns.append((header, lambda one: Text(_accuracy(accuracy[one], wording) if one in accuracy else "")))
    return columns


def _threshold(study: Study, metric: str) -> str:
    """Tuned where anything was, else what there is; under the benchmark's protocol, what it publishes."""
    found = [threshold for name, threshold, subset in study.cells if name == metric and subset == "all"]
    if study.protocol == PROTOCOL and PUBLISHED_THRESHOLD in found:
        return PUBLISHED_THRESHOLD
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
