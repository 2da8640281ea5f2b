"""Whether synthetic images show what was asked for, as a classifier trained on real images sees them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from chexray.engine.train import Task
from chexray.plan.plan import UTILITY
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.suites.common import Context, Outcome, own_codes, result_row
from chexray.suites.utility.fits import REAL, Trained, probabilities_of
from chexray.suites.utility.scored import about, recipe_fields
from chexray.utility.faithfulness import contradictions, faithfulness
from chexray.utility.scores import Table, to_scores


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
    on_test = {subset: score for subset, score in to_scores(on_real) if score.metric == "auroc"}
    floor = {subset.removeprefix("finding:"): score.value for subset, score in on_test.items()}
    rows, contradicted, notes = [], [], []
    for manifest in plan.synthetic:
        examples = cohorts.synthetic[manifest.name]
        probabilities = probabilities_of(judge.asked.fits, f"synthetic {manifest.name}", task)
        scores = faithfulness(
            examples.sample.labels,
            probabilities,
            own_codes(examples.table["prompt"]),
            floor,
            cluster="prompt",
            resamples=plan.config.resamples,
            seed=plan.seed,
        )
        for subset, score in scores:
            params = about(plan, cohorts, judge)
            if score.real_floor is not None and subset in on_test:
                params["floor_ci_low"] = on_test[subset].ci_low
            row = result_row(
                context,
                score,
                suite=UTILITY,
                real=plan.test,
                synthetic=manifest,
                n_real=0,
                n_synthetic=len(examples),
                subset=subset,
                params=params,
                also=plan.training,
            )
            rows.append(row | recipe_fields(judge))
        table = contradictions(examples.sample.ids, examples.sample.labels, probabilities, judge.predictions.thresholds)
        n_left_out = int((table.schema.metadata or {}).get(b"rows_left_out", 0))
        if n_left_out:
            notes.append(f"{manifest.name}: contradictions.parquet leaves out {n_left_out:,} of its milder rows")
        name = pa.array([manifest.name] * len(table), pa.string())
        contradicted.append(table.replace_schema_metadata(None).add_column(0, "synthetic_set", name))
    return Outcome(rows=rows, tables={"contradictions": pa.concat_tables(contradicted)}, notes=notes)
