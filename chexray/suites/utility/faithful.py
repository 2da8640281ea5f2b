"""Whether synthetic images show what was asked for, as a classifier trained on real images sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.data.labels import to_codes
from chexray.engine.tasks import in_order
from chexray.engine.train_task import Task
from chexray.metrics.base import Score
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suite_names import UTILITY
from chexray.suites.common import Context, Outcome, own_codes, result_row
from chexray.suites.utility.planned_fits import REAL, Trained, probabilities_of
from chexray.suites.utility.rows import about, method_of, recipe_fields
from chexray.utility.classification.estimates import Table, to_scores
from chexray.utility.classification.faithfulness import contradictions, faithfulness, resamples_of
from chexray.utility.classification.outputs import AUROC

SMALL_CELLS = 1e8
"""Synthetic images times resamples times trainings, 10 s of work, below which all sets are judged here."""

Judged = tuple[list[tuple[str, Score]], pa.Table]
"""(subset, Score) of a synthetic set, and its contradictions."""


def faithfulness_of(
    context: Context,
    plan: UtilityPlan,
    cohorts: Cohorts,
    trained: Sequence[Trained],
    tables: Sequence[Table],
    task: Task,
) -> Outcome:
    """Rows of every synthetic set, and one table of the images that contradict what was asked for, the worst first.

    Nothing without the setting `real`: a classifier that learned from synthetic images would vouch for itself.
    """
    found = [(each, table) for each, table in zip(trained, tables, strict=True) if each.setting == REAL]
    if not found:
        return Outcome(notes=["label faithfulness is not measured: it takes the classifier of setting real"])
    judge, on_real = found[0]
    on_test = {subset: score for subset, score in to_scores(on_real) if score.output == AUROC}
    floor = {subset.removeprefix("finding:"): score.value for subset, score in on_test.items()}
    rows, contradicted, notes = [], [], []
    for manifest, (scores, table) in zip(
        plan.synthetic, _judged(context, plan, cohorts, judge, floor, task), strict=True
    ):
        for subset, score in scores:
            told = about(plan, cohorts, judge.asked)
            if score.real_floor is not None and subset in on_test:
                told["floor_ci_low"] = on_test[subset].ci_low
            row = result_row(
                context, score, suite=UTILITY, real=plan.test, synthetic=manifest, n_real=0,
                n_synthetic=len(cohorts.synthetic[manifest.name]), subset=subset, method=method_of(plan, judge.asked),
                about=told, also=plan.training,
            )  # fmt: skip
            rows.append(row | recipe_fields(judge.asked))
        n_left_out = int((table.schema.metadata or {}).get(b"rows_left_out", 0))
        if n_left_out:
            notes.append(f"{manifest.name}: contradictions.parquet leaves out {n_left_out:,} of its milder rows")
        name = pa.array([manifest.name] * len(table), pa.string())
        contradicted.append(table.replace_schema_metadata(None).add_column(0, "synthetic_set", name))
    return Outcome(rows=rows, tables={"contradictions": pa.concat_tables(contradicted)}, notes=notes)


def _judged(
    context: Context, plan: UtilityPlan, cohorts: Cohorts, judge: Trained, floor: Mapping[str, float | None], task: Task
) -> list[Judged]:
    """What the judge says of each synthetic set, in their order: here when there is little, else one Ray task a set."""
    n_images = [len(cohorts.synthetic[manifest.name]) for manifest in plan.synthetic]
    cells = len(judge.asked.fits) * sum(n * resamples_of(n, plan.config.resamples) for n in n_images)
    here = cells < SMALL_CELLS or len(n_images) == 1
    progress = context.progress("faithfulness", "sets", len(n_images))
    items = (_item(plan, cohorts, judge, floor, task, manifest.name) for manifest in plan.synthetic)
    return in_order(_judge, items, progress, workers=context.workers, what="faithfulness", here=here)


def _item(
    plan: UtilityPlan, cohorts: Cohorts, judge: Trained, floor: Mapping[str, float | None], task: Task, name: str
) -> tuple[Any, ...]:
    """Arguments of _judge for a synthetic set."""
    examples = cohorts.synthetic[name]
    return (
        examples.sample.ids, examples.sample.labels, np.isin(to_codes(examples.table["labels"]), (0, 1)),
        probabilities_of(judge.asked.fits, f"synthetic {name}", task), judge.predictions.thresholds,
        own_codes(examples.table["prompt"]), floor, plan.config.resamples, plan.seed,
    )  # fmt: skip


def _judge(
    ids: np.ndarray,
    labels: np.ndarray,
    mentioned: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray,
    prompts: np.ndarray | None,
    floor: Mapping[str, float | None],
    resamples: int,
    seed: int,
) -> Judged:
    scores = faithfulness(labels, probabilities, prompts, floor, cluster="prompt", resamples=resamples, seed=seed)
    return scores, contradictions(ids, labels, probabilities, thresholds, mentioned)
