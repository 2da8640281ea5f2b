"""What the utility rows say: what each training set is worth beside real images, and which labels are not shown."""

from __future__ import annotations

from collections.abc import Iterator

from chexray.report.document import Callout, Note, Part, Section
from chexray.report.reasons import FINDING as PREFIX
from chexray.report.utility.groups import Row, TrainingColumn, UtilityTables, sizes_of
from chexray.report.utility.names import setting_words
from chexray.report.utility.roles import FAITHFULNESS, MACRO
from chexray.report.wording import value_and_interval
from chexray.results.identity import set_name
from chexray.results.numbers import error_of, number
from chexray.results.rows import params_of
from chexray.results.trainings import CHANCE, excludes_zero, not_shown, single_trainings


def section(tables: UtilityTables) -> Section:
    """Labels that images do not show first, then a line a training."""
    parts: list[Part] = [*_labels(tables), *_trainings(tables)]
    if any(excludes_zero(row) and single_trainings(row) for row in tables.differences.values()):
        parts.append(Note("1 seed: trainings often differ as much by their seed alone; set utility.seeds to 3 or more"))
    title = f"UTILITY · {tables.headline} {MACRO} on {set_name(tables.test_set)}, model {tables.model or 'none'}"
    return Section(title, tuple(parts))


def _labels(tables: UtilityTables) -> Iterator[Callout]:
    hidden: dict[tuple[str, str], list[str]] = {}
    for place, cells in tables.cells.items():
        for training, row in cells.items():
            if place.family == FAITHFULNESS and place.subset != "all" and not_shown(row):
                floor = number(row["real_floor"], error_of(row))
                text = f"{place.subset.removeprefix(PREFIX)} {value_and_interval(row)}, on real images {floor}"
                hidden.setdefault(training.column, []).append(text)
    for column in tables.generators:
        if texts := hidden.get(column):
            about = f"{tables.headline} of findings asked for"
            yield Callout(tables.generator(column), "LABELS NOT SHOWN", (f"{about}: {'; '.join(texts)}",), "alarm")


def _trainings(tables: UtilityTables) -> Iterator[Callout]:
    values, differences = tables.get(MACRO), tables.differences
    for training in tables.trainings:
        row = values.get(training)
        if row is not None:
            yield _callout(tables, training, row, differences.get(training))


def _callout(tables: UtilityTables, training: TrainingColumn, row: Row, difference: Row | None) -> Callout:
    """`phantom-good  worse  synthetic alone, 0 real + 400 synthetic: 0.861 [0.841, 0.881], -0.047 [-0.075, -0.020] to
    real`"""
    about = tables.generator(training.column) if training.synthetic_set else "real images"
    sizes = sizes_of(params_of(row))
    images = ", {:,} real + {:,} synthetic".format(*sizes) if sizes else ""
    head = f"{setting_words(training.setting)}{tables.variant(training)}{images}"
    if row["value"] is None:
        return Callout(about, "FAILED" if row["status"] == "failed" else "no value", (head,))
    text, verdict = f"{head}: {value_and_interval(row)}", ""
    if difference is not None and difference["value"] is not None:
        text += f", {value_and_interval(difference)} to {params_of(difference).get('against', 'real')}"
        verdict = _against(difference)
    texts = [text]
    if row["ci_low"] is not None and row["ci_low"] <= CHANCE:
        texts.append("NOT SHOWN to be better than chance")
    return Callout(about, verdict, tuple(texts))


def _against(row: Row) -> str:
    """The verdict on a difference: of two single trainings it is true of these two."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return "no interval"
    if not excludes_zero(row):
        return "no difference"
    side = "worse" if (row["ci_high"] < 0) == (row["better"] != "lower") else "better"
    return f"{side}, 1 seed" if single_trainings(row) else side
