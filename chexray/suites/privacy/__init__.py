"""Privacy: does a generator give away the patients it learned from?

Three questions of stored vectors and one of pixels: do pairs of a real image and what its prompt gave look like one
patient (pairs), is any synthetic image nearer to a training image than an unseen image would be (copies), is any an
equal or a mirrored one (duplicates). A verdict for every image comes of the answers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from chexray.metrics.base import Score
from chexray.stats.ranking import Roc
from chexray.suite_names import PRIVACY
from chexray.suites.common import Context, Outcome, result_row, with_set_names
from chexray.suites.privacy.copies import null_rows, search_copies
from chexray.suites.privacy.duplicates import search_duplicates
from chexray.suites.privacy.failures import FailureCollector
from chexray.suites.privacy.pairs import calibrate_networks, pair_rows, prompt_rows, score_pairs
from chexray.suites.privacy.planted import search_planted
from chexray.suites.privacy.sets import ImageSet, Sets, read_sets
from chexray.suites.privacy.verdicts import flagged_scores, verdicts
from chexray.suites.privacy.worklists import told_copies, told_duplicates, told_verdicts


def evaluate_privacy(context: Context) -> Outcome:
    """The privacy rows of every synthetic set, and its tables, the verdicts first."""
    sets, guard = read_sets(context), FailureCollector()
    calibrations, calibration_scores = calibrate_networks(context, sets, guard)
    pairs = score_pairs(context, sets, calibrations, guard)
    copies = search_copies(context, sets, guard)
    duplicates = search_duplicates(context, sets, guard)
    planted = search_planted(context, sets, copies, duplicates, guard)
    judged = verdicts(sets, copies, duplicates, pairs, calibrations)

    rows = []
    for images in sets.synthetic:
        rows += _rows(context, sets, images, "", flagged_scores(judged, images.name))
        for label, scores in calibration_scores.items():
            rows += _rows(context, sets, images, label, scores)
        for one in pairs:
            if one.synthetic is images:
                for label, scores in one.scores.items():
                    rows += _rows(context, sets, images, label, scores, method={"pairs": one.pairs.how})
        for each in copies:
            if each.synthetic is images:
                rows += _rows(context, sets, images, each.label, each.scores)
        for label, scores in planted.items():
            rows += _rows(context, sets, images, label, scores)
        for found in duplicates:
            if found.synthetic is images:
                rows += _rows(context, sets, images, context.plan.roles.duplicates or "", found.scores)
    rejected = [
        f"{one.synthetic.name}: {int(np.isnan(values).sum())} of {len(values)} pairs have no {name}: "
        "an image could not be read again"
        for one in pairs
        for name, values in one.columns.items()
        if np.isnan(values).any()
    ]
    tables = {
        "verdicts": told_verdicts(sets, judged),
        "copies": told_copies(sets, copies),
        "null_ratios": _joined(null_rows(copies)),
        "duplicates": told_duplicates(sets, duplicates),
        "pairs": _joined(pair_rows(one) for one in pairs),
        "prompts": _joined(prompt_rows(one) for one in pairs),
        "reid_roc": _joined(
            _roc_rows(label, calibration.roc)
            for label, calibration in calibrations.items()
            if calibration.roc is not None
        ),
    }
    outcome = Outcome(
        rows=rows,
        tables={name: table for name, table in tables.items() if table is not None},
        notes=[*sets.notes, *_lost_pairs(context, pairs), *rejected],
        failures=guard.failures,
    )
    return with_set_names(context.plan, outcome)


def _roc_rows(label: str, roc: Roc) -> pa.Table:
    return pa.table(
        {
            "encoder": pa.array([label] * len(roc.threshold), pa.string()),
            "false_positive_rate": roc.false_positive_rate,
            "true_positive_rate": roc.true_positive_rate,
            "threshold": roc.threshold,
        }
    )


def _rows(
    context: Context, sets: Sets, images: ImageSet, label: str, scores: list[Score], method: dict | None = None
) -> list[dict]:
    return [
        result_row(
            context, score, suite=PRIVACY, real=sets.training.manifest, synthetic=images.manifest,
            n_real=len(sets.training), n_synthetic=len(images), encoder=label, method=method,
            also=None if sets.heldout is None else sets.heldout.manifest,
        )
        for score in scores
    ]  # fmt: skip


def _lost_pairs(context: Context, pairs: list) -> list[str]:
    """Notes on pairs that the plan did not know yet: those of images that could not be read."""
    return [
        f"{one.synthetic.name}: {note}"
        for one in pairs
        for note in one.pairs.notes
        if note not in context.plan.pairs[one.synthetic.name].notes
    ]


def _joined(tables: Iterable[pa.Table]) -> pa.Table | None:
    """All tables in one; None when there is none."""
    found = list(tables)
    return pa.concat_tables(found, promote_options="permissive") if found else None
