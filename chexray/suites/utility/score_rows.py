"""From predictions to rows: scores of each setting, its groups, and what separates it from training on real images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from chexray.data.subsets import members
from chexray.engine.tasks import in_order
from chexray.grouping import grouped
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suites.common import Context
from chexray.suites.utility.planned_fits import REAL, Trained
from chexray.suites.utility.rows import utility_row
from chexray.utility.classification.estimates import (
    Predictions,
    Table,
    differences,
    evaluate,
    gaps,
    macros_with_absent,
    to_scores,
)

SMALL_CELLS = 2e7
"""Test images times resamples times trainings, 10 s of work, below which all settings are scored here."""


def score_settings(
    context: Context, plan: UtilityPlan, cohorts: Cohorts, trained: Sequence[Trained]
) -> tuple[list[dict[str, Any]], list[Table]]:
    """The rows of every setting, and the table of scores each came from."""
    groups = test_groups(plan, cohorts)
    columns = grouped((subset.column, subset.name) for subset in plan.groups if subset.name in groups)
    tables = evaluated(context, [each.predictions for each in trained], groups, plan.config.resamples, plan.seed)
    baseline = next((table for each, table in zip(trained, tables, strict=True) if each.setting == REAL), None)
    rows = []
    for each, table in zip(trained, tables, strict=True):
        scores = [*to_scores(table), *gaps(table, columns)]
        if context.plan.protocol.absent_count_as_zero:
            scores += macros_with_absent(table)
        rows += [utility_row(context, plan, cohorts, each.asked, subset, score, groups) for subset, score in scores]
        if baseline is not None and table is not baseline:
            against = {"against": REAL}
            rows += [
                utility_row(context, plan, cohorts, each.asked, subset, score, groups, against)
                for subset, score in differences(table, baseline)
            ]
    return rows, tables


def evaluated(
    context: Context, settings: Sequence[Predictions], groups: dict[str, np.ndarray], resamples: int, seed: int
) -> list[Table]:
    """The scores of each setting, in their order: here when there are few, else one Ray task a setting."""
    cells = resamples * sum(each.probabilities.shape[0] * each.probabilities.shape[1] for each in settings)
    here = cells < SMALL_CELLS or len(settings) == 1
    score = partial(evaluate, groups=groups, resamples=resamples, seed=seed)
    progress = context.progress("score", "settings", len(settings))
    items = [(each,) for each in settings]
    return in_order(score, items, progress, workers=context.workers, what="scores", here=here)


def test_groups(plan: UtilityPlan, cohorts: Cohorts) -> dict[str, np.ndarray]:
    """{subgroup: which test images, (n,) bool}."""
    accepted = set(cohorts.test.sample.ids.tolist())
    rows = np.array([identity in accepted for identity in plan.test.table["sample_id"].to_pylist()], bool)
    found = {subset.name: members(plan.test, subset) for subset in plan.groups}
    return {name: mask[rows] for name, mask in found.items() if not isinstance(mask, str)}
