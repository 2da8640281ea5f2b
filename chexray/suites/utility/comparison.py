"""The comparison of all settings as one table: a line a setting and generator, a column a headline number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from chexray.results.rows import params_of

HEADLINES: tuple[tuple[str, Any, str], ...] = (
    ("auroc_macro", None, "auroc_macro"),
    ("auroc_macro_difference", None, "auroc_macro_difference_to_real"),
    ("auroc_micro", None, "auroc_micro"),
    ("average_precision_macro", None, "average_precision_macro"),
    ("f1_macro", 0.5, "f1_macro_at_0.5"),
    ("f1_macro", "tuned", "f1_macro_tuned"),
    ("brier_macro", None, "brier_macro"),
    ("calibration_error_micro", None, "calibration_error_micro"),
    ("accuracy", 0.5, "accuracy"),
)
"""(metric, threshold, column): numbers over all test images, each with `_ci_low` and `_ci_high` beside it."""

OF_ALL_FINDINGS: tuple[tuple[str, Any, str], ...] = tuple(
    (f"{name}_macro_of_14", 0.5, f"{name}_macro_of_14_at_0.5") for name in ("f1", "precision", "recall")
)
"""Likewise, where the protocol counts absent findings as 0: columns that other runs do not have."""

ABOUT = ("n_train_real", "n_train_synthetic", "n_validation", "seeds", "n_presented", "recipe")


def comparison(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """One row a setting and synthetic set, in the order of the results; null where there is no number.

    Columns: setting, synthetic_set, ABOUT, n_test, HEADLINES, OF_ALL_FINDINGS where rows have them,
    accuracy_of_all_negative, status, reason.
    """
    rows = list(rows)
    metrics = {row["metric"] for row in rows}
    headlines = (*HEADLINES, *(each for each in OF_ALL_FINDINGS if each[0] in metrics))
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    names = {(metric, threshold): column for metric, threshold, column in headlines}
    for row in rows:
        params = params_of(row)
        column = names.get((row["metric"], params.get("threshold")))
        if row["subset"] != "all" or column is None:
            continue
        line = lines.setdefault((params["setting"], row["synthetic_set"]), _empty(row))
        line |= {column: row["value"], f"{column}_ci_low": row["ci_low"], f"{column}_ci_high": row["ci_high"]}
        line |= {name: params[name] for name in ABOUT if name in params}
        if row["metric"] == "accuracy":
            line["accuracy_of_all_negative"] = params.get("all_negative")
        if row["status"] != "ok" and not line["reason"]:
            line |= {"status": row["status"], "reason": row["reason"]}
    return pa.Table.from_pylist(list(lines.values()), schema=_schema(headlines))


def _empty(row: Mapping[str, Any]) -> dict[str, Any]:
    about = {"setting": params_of(row)["setting"], "synthetic_set": row["synthetic_set"]}
    return {**about, "n_test": row["n_real"], "status": "ok", "reason": ""}


def _schema(headlines: Iterable[tuple[str, Any, str]]) -> pa.Schema:
    text, count, number = pa.string(), pa.int64(), pa.float64()
    columns: Iterable[tuple[str, pa.DataType]] = [
        ("setting", text),
        ("synthetic_set", text),
        *((name, text if name == "recipe" else count) for name in ABOUT),
        ("n_test", count),
        *((f"{column}{end}", number) for _, _, column in headlines for end in ("", "_ci_low", "_ci_high")),
        ("accuracy_of_all_negative", number),
        ("status", text),
        ("reason", text),
    ]
    return pa.schema(list(columns))
