"""From predictions to rows: scores of each setting, its groups, and what separates it from training on real images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chexray.data.subsets import members
from chexray.engine.tasks import as_they_finish
from chexray.metrics.base import Score
from chexray.plan.plan import UTILITY
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suites.common import Context, result_row, set_name
from chexray.suites.utility.fits import REAL, Trained
from chexray.utility.scores import Predictions, Table, differences, evaluate, gaps, to_scores

SMALL_CELLS = 2e7
"""Test images times resamples below which a setting is scored here: starting workers would take longer."""


def score_settings(
    context: Context, plan: UtilityPlan, cohorts: Cohorts, trained: Sequence[Trained]
) -> tuple[list[dict[str, Any]], list[Table]]:
    """The rows of every setting, and the table of scores each came from."""
    groups = test_groups(plan, cohorts)
    columns: dict[str, list[str]] = {}
    for subset in plan.groups:
        if subset.name in groups:
            columns.setdefault(subset.column, []).append(subset.name)
    small = len(cohorts.test) * plan.config.resamples < SMALL_CELLS
    items = [(i, each.predictions, groups, plan.config.resamples, plan.seed) for i, each in enumerate(trained)]
    progress = context.progress("score", "settings", len(items))
    found: dict[int, Table] = {}
    for place, table in as_they_finish(_evaluate, items, workers=context.workers, what="scores", here=small):
        found[place] = table
        progress.advance(1)
    progress.close()
    tables = [found[i] for i in range(len(items))]
    baseline = next((table for each, table in zip(trained, tables, strict=True) if each.setting == REAL), None)
    rows = []
    for each, table in zip(trained, tables, strict=True):
        scores = [*to_scores(table), *gaps(table, columns)]
        rows += [utility_row(context, plan, cohorts, each, subset, score, groups) for subset, score in scores]
        if baseline is not None and table is not baseline:
            against = {"against": REAL}
            rows += [
                utility_row(context, plan, cohorts, each, subset, score, groups, against)
                for subset, score in differences(table, baseline)
            ]
    return rows, tables


def _evaluate(
    place: int, predictions: Predictions, groups: dict[str, np.ndarray], resamples: int, seed: int
) -> tuple[int, Table]:
    return place, evaluate(predictions, groups, resamples=resamples, seed=seed)


def test_groups(plan: UtilityPlan, cohorts: Cohorts) -> dict[str, np.ndarray]:
    """{subgroup: which test images, (n,) bool}."""
    accepted = set(cohorts.test.sample.ids.tolist())
    rows = np.array([identity in accepted for identity in plan.test.table["sample_id"].to_pylist()], bool)
    found = {subset.name: members(plan.test, subset) for subset in plan.groups}
    return {name: mask[rows] for name, mask in found.items() if not isinstance(mask, str)}


def utility_row(
    context: Context,
    plan: UtilityPlan,
    cohorts: Cohorts,
    each: Trained,
    subset: str,
    score: Score,
    groups: dict[str, np.ndarray],
    params: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A score as a row of the results. n_real: test images of the subset; n_synthetic: images trained on."""
    mixture = each.asked.training.mixture
    n_test = int(groups[subset].sum()) if subset in groups else len(cohorts.test)
    row = result_row(
        context,
        score,
        suite=UTILITY,
        real=plan.test,
        synthetic=each.asked.training.synthetic,
        n_real=n_test,
        n_synthetic=mixture.n_synthetic,
        subset=subset,
        params={**about(plan, cohorts, each), **(params or {})},
        also=plan.training,
    )
    return row | recipe_fields(each)


def about(plan: UtilityPlan, cohorts: Cohorts, each: Trained) -> dict[str, Any]:
    """What a row says of its classifier."""
    mixture = each.asked.training.mixture
    return {
        "setting": each.setting,
        "training_set": set_name(plan.training),
        "n_train_real": mixture.n_real,
        "n_train_synthetic": mixture.n_synthetic,
        "n_validation": len(cohorts.validation),
        "uncertain": plan.config.uncertain,
        "unmentioned": plan.config.unmentioned,
        "recipe": each.asked.recipe.fingerprint,
        **({"replaced": mixture.how} if mixture.how else {}),
    }


def recipe_fields(each: Trained) -> dict[str, str]:
    """The fields of a row that name the network."""
    recipe = each.asked.recipe
    return {
        "encoder": recipe.model,
        "encoder_revision": f"recipe {recipe.fingerprint}",
        "weights": recipe.weights,
        "weights_sha256": recipe.weights_sha256,
    }
