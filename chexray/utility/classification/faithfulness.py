"""Label faithfulness: whether synthetic images show the findings they were asked for.

The judge is the classifier trained on real images. What it cannot see in real ones it cannot judge in synthetic ones:
every number stands beside the same classifier's on the real test set (`real_floor`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.findings import FINDINGS
from chexray.metrics.base import Score
from chexray.outputs import Output
from chexray.utility.classification.estimates import Predictions, evaluate, to_scores
from chexray.utility.classification.outputs import AUROC, AUROC_MACRO, FAITHFULNESS_AUROC, FAITHFULNESS_MACRO

FLOOR_METHOD = "the same classifier on the real test set"
MAX_ROWS = 200_000
MAX_COUNTS = 20_000_000
"""Images times resamples: 75,000 images take 266 resamples, whose standard error is known to 4 %."""

CONTRADICTIONS = pa.schema(
    [
        ("sample_id", pa.string()), ("finding", pa.string()), ("asked", pa.int8()), ("probability", pa.float64()),
        ("surprise", pa.float64()),
    ]
)  # fmt: skip


def faithfulness(
    labels: np.ndarray,
    probabilities: np.ndarray,
    clusters: np.ndarray | None = None,
    floor: Mapping[str, float | None] | None = None,
    *,
    cluster: str = "patient",
    resamples: int = 1000,
    seed: int = 0,
) -> list[tuple[str, Score]]:
    """(subset, Score): `faithfulness_auroc` of each finding, then `faithfulness_auroc_macro` of "all".

    AUROC of the classifier's probability against the finding asked for, higher is better, 0.5 when images do not
    depend on it. labels: (n, 14) int8, 1 asked for, 0 denied, -1 left out. probabilities: (S, n, 14) float64 of S
    trainings. clusters: (n,) int64 codes of images that stand or fall together, and `cluster`, what they share:
    "patient" (of the real image each was made for) or "prompt". floor: finding -> AUROC of the same trainings on the
    real test set; a macro floor is given only over the findings of the macro value. Findings never or always asked
    for are nulls with a reason.
    """
    given = dict(floor or {})
    probabilities = np.asarray(probabilities, np.float64)
    thresholds = np.full((len(probabilities), len(FINDINGS)), np.nan)
    n, scored = len(labels), {}
    if n:
        predictions = Predictions(labels, probabilities, thresholds, clusters)
        drawn = resamples_of(n, resamples)
        table = evaluate(predictions, {}, resamples=drawn, seed=seed, only=frozenset({"auroc"}))
        scored = {(subset, score.output): score for subset, score in to_scores(table)}
    seen = [finding for column, finding in enumerate(FINDINGS) if not _objection(finding, labels[:, column], n)]
    scores = []
    for column, finding in enumerate(FINDINGS):
        subset, reason = f"finding:{finding}", _objection(finding, labels[:, column], n)
        named = _named(scored.get((subset, AUROC)), FAITHFULNESS_AUROC, reason, cluster)
        scores.append((subset, _with_floor(named, [finding], given)))
    reason = "" if seen else f"no finding is both asked for and denied among {n:,} synthetic images"
    macro = _named(scored.get(("all", AUROC_MACRO)), FAITHFULNESS_MACRO, reason, cluster)
    return [*scores, ("all", _with_floor(macro, seen, given))]


def resamples_of(n: int, asked: int) -> int:
    """How many resamples of n images are drawn when so many are asked for: fewer of large sets, by MAX_COUNTS."""
    return min(asked, max(200, MAX_COUNTS // max(n, 1)))


def _objection(finding: str, asked: np.ndarray, n: int) -> str:
    """Why a finding cannot be judged; empty when it can."""
    positive, negative = int((asked == 1).sum()), int((asked == 0).sum())
    if positive and negative:
        return ""
    if not positive and not negative:
        return f"no synthetic image says whether {finding} was asked for" if n else "no synthetic image was scored"
    return f"{finding} is asked for in {'none' if not positive else 'all'} of {positive + negative:,} synthetic images"


def _named(score: Score | None, output: Output, reason: str, cluster: str) -> Score:
    """The AUROC under its name here, with the words for synthetic images."""
    if reason or score is None or score.value is None:
        words = reason or (score.reason if score is not None else "") or "not computed"
        return Score(output, None, status="too_few", reason=words)
    about = {
        name: said.replace("patient", cluster) if isinstance(said, str) else said for name, said in score.about.items()
    }
    how = score.std_error_method.replace("patient", cluster)
    return replace(score, output=output, std_error_method=how, about=about)


def _with_floor(score: Score, findings: list[str], floor: Mapping[str, float | None]) -> Score:
    """With the mean of the floors of these findings; without one where any of them has none."""
    if score.value is None or not floor:
        return score
    about: dict[str, Any] = {**score.about, "floor_method": FLOOR_METHOD}
    known = {name: value for name, value in floor.items() if value is not None and math.isfinite(value)}
    if missing := [finding for finding in findings if finding not in known]:
        return replace(score, about=about | {"floor_missing": missing})
    return replace(score, real_floor=float(np.mean([known[finding] for finding in findings])), about=about)


def contradictions(
    ids: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray | None = None,
    mentioned: np.ndarray | None = None,
    *,
    max_rows: int = MAX_ROWS,
) -> pa.Table:
    """Findings that an image was asked to show, or not to, and that the classifier sees otherwise; worst first.

    ids: (n,) str. labels: (n, 14) int8 as in `faithfulness`. probabilities: (S, n, 14). thresholds: (S, 14) tuned on
    validation, 0.5 where None or NaN. mentioned: (n, 14) bool, where the prompt's report says that a finding is there
    or is not; the other labels are a policy's, most often 0 for a finding it does not speak of. None for all.

    Columns: sample_id, finding, asked (1 or 0 as the report says, null where it says neither), probability (the
    classifier's own, mean of the trainings), surprise: -log p(label) in nats, null or not, where p has its logit
    shifted so that the threshold lies at 1/2 (mean over trainings of the shifted logits). It is not calibrated
    otherwise: it orders, it is no odds. Without the shift every rare finding asked for would surprise, since a
    classifier rarely gives one more than 0.3.

    Rows: surprise above log 2, which is to say on the wrong side of the threshold, at most `max_rows`; an image that
    contradicts nothing has none. How many are left out stands in the metadata of the schema, `rows_left_out`.
    """
    probabilities = np.asarray(probabilities, np.float64)
    cut = np.full((len(probabilities), len(FINDINGS)), 0.5) if thresholds is None else np.asarray(thresholds, float)
    shifted = _logit(probabilities) - _logit(np.where(np.isnan(cut), 0.5, cut))[:, None, :]
    signed = np.where(labels == 1, 1.0, -1.0) * shifted.mean(axis=0)
    surprise = np.where(labels < 0, -np.inf, np.logaddexp(0.0, -signed))
    rows, columns = np.nonzero(surprise > math.log(2))
    order = np.lexsort([columns, ids[rows], -surprise[rows, columns]])
    left_out = max(0, len(order) - max_rows)
    rows, columns = rows[order[:max_rows]], columns[order[:max_rows]]
    silent = None if mentioned is None else ~mentioned[rows, columns]
    table = pa.table(
        {
            "sample_id": ids[rows].tolist(),
            "finding": [FINDINGS[column] for column in columns],
            "asked": pa.array(labels[rows, columns], pa.int8(), mask=silent),
            "probability": probabilities.mean(axis=0)[rows, columns],
            "surprise": surprise[rows, columns],
        },
        schema=CONTRADICTIONS,
    )
    return table.replace_schema_metadata({"rows_left_out": str(left_out)})


def _logit(probability: np.ndarray) -> np.ndarray:
    # A float64 probability is exactly 1 beyond a logit of 37: bounded, its logit stays finite.
    bounded = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.log(bounded) - np.log1p(-bounded)
