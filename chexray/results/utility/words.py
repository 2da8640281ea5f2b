"""What utility rows say in sentences: what each training set is worth beside real, which labels are not shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chexray.results.rows import params_of, suite_of
from chexray.results.utility.groups import FINDING, Study, Training, excludes_zero, studies_of
from chexray.results.utility.names import setting_words, single_trainings
from chexray.results.wording import Wording, error_of, number, set_name

Row = Mapping[str, Any]

GOOD_FLOOR = 0.7
"""AUROC on real test images from which a classifier can be held against synthetic ones that it does not understand."""

CHANCE = 0.5


def summary(rows: Sequence[Row], wording: Wording) -> tuple[list[str], list[str]]:
    """What the utility rows among these say: (labels that images do not show, a line a training)."""
    loud: list[str] = []
    quiet: list[str] = []
    studies = studies_of(row for row in rows if suite_of(row) == "utility")
    for study in studies:
        where = f"{wording.data(study.model)} on {wording.data(set_name(study.test_set))}, " if len(studies) > 1 else ""
        loud += _labels(study, wording, where)
        quiet += [f"{where}{line}" for line in _trainings(study, wording)]
    return loud, quiet


def not_shown(row: Row) -> bool:
    """Whether a finding that was asked for cannot be seen in the images, by a classifier that sees it in real ones.

    Its AUROC there is good, and its interval on synthetic images reaches down to chance and lies below its interval
    on real ones. Of few images the two overlap, and nothing is said.
    """
    floor, low, high = row["real_floor"], row["ci_low"], row["ci_high"]
    if row["value"] is None or floor is None or low is None or high is None:
        return False
    lowest = params_of(row).get("floor_ci_low")
    return floor >= GOOD_FLOOR and low <= CHANCE and high < (floor if lowest is None else lowest)


def _labels(study: Study, wording: Wording, where: str) -> list[str]:
    lines = []
    for column in study.generators:
        hidden = [
            (subset.removeprefix(FINDING), row)
            for subset in study.subsets("faithfulness_auroc")
            for training, row in study.get("faithfulness_auroc", subset).items()
            if training.column == column and not_shown(row)
        ]
        if hidden:
            parts = [
                f"{wording.data(name)} {wording.value(row)} {wording.interval(row)}, "
                f"on real images {number(row['real_floor'], error_of(row))}"
                for name, row in hidden
            ]
            name = study.generator(column, wording)
            lines.append(f"LABELS NOT SHOWN: {where}{name}: AUROC of findings asked for: {'; '.join(parts)}")
    return lines


def _trainings(study: Study, wording: Wording) -> Iterator[str]:
    values, differences = study.get("auroc_macro"), study.get("auroc_macro_difference")
    for training in study.trainings:
        row = values.get(training)
        if row is not None:
            yield _sentence(study, training, row, differences.get(training), wording)


def _sentence(study: Study, training: Training, row: Row, difference: Row | None, wording: Wording) -> str:
    """`good: trained on synthetic alone 0.861 AUROC macro, 0.047 [0.020, 0.075] below real (0 real, 400 synthetic)`."""
    head = f"{study.generator(training.column, wording)}: " if training.synthetic_set else ""
    head += f"{wording.data(setting_words(training.setting))}{study.variant(training, wording)}"
    if row["value"] is None:
        return f"{head}: no AUROC macro, {wording.data(row['reason'])}"
    text = f"{head} {wording.value(row)}"
    if difference is None or difference["value"] is None:
        text += f" {wording.interval(row)} AUROC macro" if wording.interval(row) else " AUROC macro"
    else:
        text += f" AUROC macro, {_against(difference, wording)}"
    text += _sizes(row)
    if row["ci_low"] is not None and row["ci_low"] <= CHANCE:
        text += ": NOT SHOWN to be better than chance"
    if difference is not None and excludes_zero(difference) and single_trainings(difference):
        text += "; utility.seeds: 3 tells more"
    return text


def _against(row: Row, wording: Wording) -> str:
    """`0.047 [0.020, 0.075] below real`, of which two single trainings is true; or that no difference is shown."""
    baseline = wording.data(params_of(row).get("against", "real"))
    if row["ci_low"] is None or row["ci_high"] is None:
        side = "below" if row["value"] < 0 else "above"
        return f"{number(abs(row['value']))} {side} {baseline}, without an interval"
    if not excludes_zero(row):
        return f"no difference to {baseline} shown, {wording.value(row)} {wording.interval(row)}"
    turned = dict(row)
    if row["ci_high"] < 0:
        turned |= {"value": -row["value"], "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
    side = "below" if row["ci_high"] < 0 else "above"
    only = " in these two trainings" if single_trainings(row) else ""
    return f"{wording.value(turned)} {wording.interval(turned)} {side} {baseline}{only}"


def _sizes(row: Row) -> str:
    params = params_of(row)
    if "n_train_real" not in params and "n_train_synthetic" not in params:
        return ""
    real, synthetic = (int(params.get(f"n_train_{side}") or 0) for side in ("real", "synthetic"))
    return f" ({real:,} real, {synthetic:,} synthetic)" if real or synthetic else ""
