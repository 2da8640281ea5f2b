"""Scores of a setting as rows of the results: what was trained on what, tested on whom, and under which recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suite_names import UTILITY
from chexray.suites.common import Context, result_row, set_name
from chexray.suites.utility.planned_fits import TrainedSetting
from chexray.utility.classification.outputs import AUROC_MACRO


def utility_row(
    context: Context,
    plan: UtilityPlan,
    cohorts: Cohorts,
    asked: TrainedSetting,
    subset: str,
    score: Score,
    groups: dict[str, np.ndarray],
    method: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A score as a row of the results. n_real: test images of the subset; n_synthetic: images trained on.

    groups: {subgroup: which test images, (n,) bool}.
    """
    n_test = int(groups[subset].sum()) if subset in groups else len(cohorts.test)
    row = result_row(
        context, score, suite=UTILITY, real=plan.test, synthetic=asked.training.synthetic, n_real=n_test,
        n_synthetic=asked.training.mixture.n_synthetic, subset=subset,
        method={**method_of(plan, asked), **(method or {})}, about=about(plan, cohorts, asked), also=plan.training,
    )  # fmt: skip
    return row | recipe_fields(asked)


def failed_row(
    context: Context, plan: UtilityPlan, cohorts: Cohorts, asked: TrainedSetting, reasons: Sequence[str]
) -> list[dict[str, Any]]:
    """The one row of a setting of which a training failed, so that it is not missed; none where none did."""
    if not reasons:
        return []
    score = Score(AUROC_MACRO, None, status="failed", reason=reasons[0])
    return [utility_row(context, plan, cohorts, asked, "all", score, {})]


def method_of(plan: UtilityPlan, asked: TrainedSetting) -> dict[str, Any]:
    """What the classifiers of two rows must share for their numbers to be compared."""
    return {
        "setting": asked.training.setting,
        "training_set": set_name(plan.training),
        "uncertain": plan.policy[0],
        "unmentioned": plan.policy[1],
        "recipe": asked.recipe.fingerprint,
        "budget": asked.recipe.budget,
    }


def about(plan: UtilityPlan, cohorts: Cohorts, asked: TrainedSetting) -> dict[str, Any]:
    """How its training came out. n_presented: images shown over the whole training, repeats counted."""
    mixture = asked.training.mixture
    return {
        "n_train_real": mixture.n_real,
        "n_train_synthetic": mixture.n_synthetic,
        "n_validation": len(cohorts.validation),
        "n_presented": asked.n_presented,
        **({"replaced": mixture.how} if mixture.how else {}),
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
