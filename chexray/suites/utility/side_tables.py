"""What lies beside the rows: predictions, curves and histories as tables; figures and TensorBoard events as files."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from chexray.figures import figure_files
from chexray.figures.tensorboard import event_files
from chexray.plan.training import AGE_COLUMNS, GROUP_COLUMNS
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.spelling import fold
from chexray.suites.utility.planned_fits import Trained
from chexray.utility.classification.curves import curves_table, predictions_table

GROUPING = frozenset((*GROUP_COLUMNS, *AGE_COLUMNS))


def tables_of(plan: UtilityPlan, cohorts: Cohorts, trained: Sequence[Trained]) -> dict[str, pa.Table]:
    """predictions, curves and history of every setting."""
    test = cohorts.test.table
    named = {subset.column for subset in plan.groups}
    # Only what groups are made of: any other column may name a patient, and joins by sample_id.
    further = test.select([name for name in test.column_names if name in named or fold(name) in GROUPING])
    tables = {
        "predictions": [
            predictions_table(
                each.setting, each.synthetic_name, cohorts.test.sample.ids, each.predictions, further, each.seeds
            )
            for each in trained
        ],
        "curves": [curves_table(each.setting, each.synthetic_name, each.predictions, each.seeds) for each in trained],
        "history": [_history(each) for each in trained],
    }
    return {name: pa.concat_tables(parts, promote_options="permissive") for name, parts in tables.items()}


def _history(each: Trained) -> pa.Table:
    """One row an epoch of each training: settings, seed, then what the training recorded."""
    rows = [
        {"setting": each.setting, "synthetic_set": each.synthetic_name, "seed": fit.seed, **epoch}
        for fit, epochs in zip(each.asked.fits, each.histories, strict=True)
        for epoch in epochs
    ]
    if not rows:
        return pa.table({name: pa.array([], pa.string()) for name in ("setting", "synthetic_set")})
    return pa.Table.from_pylist(rows)


def files_of(plan: UtilityPlan, tables: dict[str, pa.Table], trained: Sequence[Trained]) -> dict[str, bytes]:
    """{path below the run's folder: content} of figures and event files, where they are asked for."""
    files: dict[str, bytes] = {}
    if plan.config.figures:
        title = f"{plan.config.model.name}, tested on {plan.test.name}"
        drawn = figure_files(tables["curves"], tables["history"], title=title)
        files |= {f"figures/{name}": content for name, content in drawn.items()}
    if plan.config.tensorboard:
        histories = {
            fit.title: epochs for each in trained for fit, epochs in zip(each.asked.fits, each.histories, strict=True)
        }
        files |= {f"tensorboard/{name}": content for name, content in event_files(histories).items()}
    return files
