"""Scores of a setting as rows of the results: what was trained on what, tested on whom, and under which recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.plan.plan import UTILITY
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suites.common import Context, result_row, set_name
from chexray.suites.utility.fits import TrainedSetting


def utility_row(
    context: Context,
    plan: UtilityPlan,
    cohorts: Cohorts,
    asked: TrainedSetting,
    subset: str,
    score: Score,
    groups: dict[str, np.ndarray],
    params: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A score as a row of the results. n_real: test images of the subset; n_synthetic: images trained on.

    groups: {subgroup: which test images, (n,) bool}.
    """
    n_test = int(groups[subset].sum()) if subset in groups else len(cohorts.test)
    row = result_row(
        context,
        score,
        suite=UTILITY,
        real=plan.test,
        synthetic=asked.training.synthetic,
        n_real=n_test,
        n_synthetic=asked.training.mixture.n_synthetic,
        subset=subset,
        params={**about(plan, cohorts, asked), **(params or {})},
        also=plan.training,
    )
    return row | recipe_fields(asked)


def failed_row(
    context: Context, plan: UtilityPlan, cohorts: Cohorts, asked: TrainedSetting, reasons: Sequence[str]
) -> list[dict[str, Any]]:
    """The one row of a setting of which a training failed, so that it is not missed; none where none did."""
    if not reasons:
        return []
    score = Score("auroc_macro", None, "higher", status="failed", reason=reasons[0])
    return [utility_row(context, plan, cohorts, asked, "all", score, {})]


def about(plan: UtilityPlan, cohorts: Cohorts, asked: TrainedSetting) -> dict[str, Any]:
    """What a row says of its classifier. n_presented: images shown over the whole training, repeats counted."""
    training, recipe = asked.training, asked.recipe
    return {
        "setting": training.setting,
        "training_set": set_name(plan.training),
        "n_train_real": training.mixture.n_real,
        "n_train_synthetic": training.mixture.n_synthetic,
        "n_validation": len(cohorts.validation),
        "uncertain": plan.policy[0],
        "unmentioned": plan.policy[1],
        "recipe": recipe.fingerprint,
        "budget": recipe.budget,
        "n_presented": asked.n_presented,
        **({"replaced": training.mixture.how} if training.mixture.how else {}),
    }


def recipe_fields(asked: TrainedSetting) -> dict[str, str]:
    """The fields of a row that name the network."""
    recipe = asked.recipe
    return {
        "encoder": recipe.model,
        "encoder_revision": f"recipe {recipe.fingerprint}",
        "weights": recipe.weights,
        "weights_sha256": recipe.weights_sha256,
    }
