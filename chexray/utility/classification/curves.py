"""Curves and predictions as tables: what the figures draw and what anyone else may compute further with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from chexray.findings import FINDINGS
from chexray.stats.classification import auroc, average_precision, calibration_error
from chexray.stats.curves import precision_recall_points, reliability_bins, roc_points
from chexray.utility.classification.estimates import Predictions

CURVES = pa.schema(
    [
        ("setting", pa.string()), ("synthetic_set", pa.string()), ("kind", pa.string()), ("subset", pa.string()),
        ("seed", pa.int64()), ("x", pa.float64()), ("y", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ("threshold", pa.float64()), ("n", pa.int64()), ("n_positive", pa.int64()), ("value", pa.float64()),
    ]
)  # fmt: skip
"""One row a point, in the order of the curve.

kind: "roc" (x false positive rate, y true positive rate), "precision_recall" (x recall, y precision) or "reliability"
(x mean probability and y share of positives of a bin, with the 95 % interval `low` to `high`, else null).
subset: "finding:<name>", or "all" for all label cells together. threshold: null in reliability; infinite at (0, 0).
n: images (label cells in "all") behind the curve, for reliability those in the bin; n_positive: positives of the
whole curve. value: the exact area, average precision or calibration error, which thinned points give only nearly.
"""

ASIDE = frozenset({"uri", "path", "image_path", "image", "prompt", "annotated_prompt", "text", "caption", "report"})
_PATH = re.compile(r"[/\\].*\.\w{2,5}$|^\w+://")
_SENTENCE = re.compile(r"(\S+\s+){4}\S")


def curves_table(
    setting: str, synthetic_set: str, predictions: Predictions, seeds: Sequence[int] | None = None
) -> pa.Table:
    """The curves of all trainings of one setting, with schema CURVES. At most 400 points a curve.

    seeds: the seed of each training, counted from 0 when not given. A finding without both classes has no ROC, one
    without a positive no precision-recall curve, one without a label no reliability.
    """
    columns: dict[str, list] = {name: [] for name in CURVES.names}
    for place, seed in enumerate(_seeds(predictions, seeds)):
        for subset, labels, scores, subjects in _subsets(predictions, place):
            for kind, points in _curves(labels, scores, subjects):
                size = len(points["x"])
                fixed = {"setting": setting, "synthetic_set": synthetic_set, "kind": kind, "subset": subset}
                fixed |= {"seed": seed, "n": len(labels), "n_positive": int(labels.sum()), "low": None, "high": None}
                for name in CURVES.names:
                    values = points.get(name, fixed.get(name))
                    columns[name].extend(values if isinstance(values, list) else [values] * size)
    return pa.table(columns, schema=CURVES)


def _seeds(predictions: Predictions, seeds: Sequence[int] | None) -> list[int]:
    found = len(predictions.probabilities)
    if seeds is not None and len(seeds) != found:
        raise ValueError(f"{len(seeds)} seeds for {found} trainings")
    return list(range(found)) if seeds is None else [int(seed) for seed in seeds]


def _subsets(predictions: Predictions, place: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """(subset, labels, scores, subjects) without masked cells."""
    labels, scores, subjects = predictions.labels, predictions.probabilities[place], predictions.subjects
    for column, finding in enumerate(FINDINGS):
        known = labels[:, column] >= 0
        people = None if subjects is None else subjects[known]
        yield f"finding:{finding}", labels[known, column], scores[known, column], people
    # The cells of an image depend on each other: an image without a patient is then its own.
    whose = np.arange(len(labels)) if subjects is None else subjects
    rows, cells = np.nonzero(labels >= 0)
    yield "all", labels[rows, cells], scores[rows, cells], whose[rows]


def _curves(labels: np.ndarray, scores: np.ndarray, subjects: np.ndarray | None) -> Iterator[tuple[str, dict]]:
    for kind, points, area in (
        ("roc", roc_points, auroc),
        ("precision_recall", precision_recall_points, average_precision),
    ):
        x, y, threshold = points(labels, scores)
        if len(x):
            value = float(area(labels, scores)[0])
            yield kind, {"x": x.tolist(), "y": y.tolist(), "threshold": threshold.tolist(), "value": value}
    if bins := reliability_bins(labels, scores, subjects):
        names = {"x": "confidence", "y": "frequency", "low": "ci_low", "high": "ci_high", "n": "n"}
        columns = {column: [getattr(one, name) for one in bins] for column, name in names.items()}
        yield "reliability", {**columns, "value": float(calibration_error(labels, scores)[0])}


def predictions_table(
    setting: str,
    synthetic_set: str,
    sample_ids: np.ndarray,
    predictions: Predictions,
    further: pa.Table | None = None,
    seeds: Sequence[int] | None = None,
) -> pa.Table:
    """One row a training and test image: setting, synthetic_set, seed, sample_id, then 14 columns "p_<finding>"
    (float64 probabilities), 14 columns "y_<finding>" (int8 labels, null where masked), then further columns.

    sample_ids: (n,) str in the order of the predictions. further: n rows of the test set's manifest in that order.
    Of these, free text, paths and nested values are left out (`describes`); one whose name is taken is called
    "manifest_<name>". Raises ValueError when the lengths differ.
    """
    n = len(predictions.labels)
    if len(sample_ids) != n or (further is not None and len(further) != n):
        rows = "no" if further is None else len(further)
        raise ValueError(f"{len(sample_ids)} ids and {rows} further rows for {n} predicted images")
    found = _seeds(predictions, seeds)
    times = len(found)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "setting": pa.array([setting] * (n * times), pa.string()),
        "synthetic_set": pa.array([synthetic_set] * (n * times), pa.string()),
        "seed": pa.array(np.repeat(np.array(found, np.int64), n)),
        "sample_id": pa.array(np.tile(sample_ids, times).tolist(), pa.string()),
    }
    for column, finding in enumerate(FINDINGS):
        columns[f"p_{finding}"] = pa.array(predictions.probabilities[:, :, column].reshape(-1).astype(np.float64))
    for column, finding in enumerate(FINDINGS):
        labels = np.tile(predictions.labels[:, column].astype(np.int8), times)
        columns[f"y_{finding}"] = pa.array(labels, pa.int8(), mask=labels < 0)
    for name, values in zip(further.column_names, further.columns, strict=True) if further is not None else ():
        if name != "sample_id" and describes(name, values):
            columns[f"manifest_{name}" if name in columns else name] = pa.chunked_array(
                [chunk for _ in range(times) for chunk in values.chunks], values.type
            )
    return pa.table(columns)


def describes(name: str, values: pa.ChunkedArray) -> bool:
    """Whether a column of a manifest may stand beside predictions: numbers, dates and short words, such as sex or view.

    Not prompts, reports and paths, by the name of the column (ASIDE) or by a value that reads like a sentence of five
    words or more, is longer than 100 characters, or looks like a path to a file.
    """
    if name.lower() in ASIDE or pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        return False
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return True
    texts = (text for text in values.unique().to_pylist() if text is not None)
    return not any(len(text) > 100 or _SENTENCE.search(text) or _PATH.search(text) for text in texts)
