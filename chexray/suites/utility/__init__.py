"""Utility: what are synthetic images worth to a classifier that will meet real patients?

Every setting trains the same network on another mixture of real and synthetic images, under one budget, and all meet
one real test set; differences between settings are paired over its patients. The classifier of real images also says
whether synthetic ones show what was asked for.
"""

from __future__ import annotations

from chexray.engine.pools import plan_train_pool
from chexray.engine.scaling import growth, released, settled
from chexray.engine.train import train
from chexray.engine.train_task import Task
from chexray.log import say
from chexray.plan.utility import IMAGES
from chexray.storage import join
from chexray.suites.common import Context, Outcome, with_set_names
from chexray.suites.utility.comparison import comparison
from chexray.suites.utility.faithful import faithfulness_of
from chexray.suites.utility.planned_fits import Trained, trained_settings
from chexray.suites.utility.rows import failed_row
from chexray.suites.utility.score_rows import score_settings
from chexray.suites.utility.side_tables import files_of, tables_of


def evaluate_utility(context: Context) -> Outcome:
    """The utility rows of every setting and synthetic set, side tables, and figures. Trains what is not trained yet."""
    plan = context.plan.utility
    assert plan is not None
    spec, done = context.plan.encoders[IMAGES][1], context.done[IMAGES]
    cohorts = plan.cohorts(done.places.keys)
    resources = settled(growth(context.plan.config), context.resources)
    pool = plan_train_pool(plan.config, resources)
    settings = trained_settings(plan, cohorts, spec, pool.device)
    fits = [fit for each in settings for fit in each.fits]
    root, run_id = join(context.store.root, "fits"), context.plan.run_id
    task = Task(tuple(fits), context.store, spec, done, plan.weights, pool, root, run_id)
    say(f"{len(fits)} trainings; {pool.describe()}")
    failed = train(task, resources, context.progress)
    released()

    read = [Trained.read(each, cohorts, task) for each in settings if not each.failures(failed)]
    rows, tables = score_settings(context, plan, cohorts, read)
    for each in settings:
        rows += failed_row(context, plan, cohorts, each, each.failures(failed))
    faithful = faithfulness_of(context, plan, cohorts, read, tables, task) if plan.config.faithfulness else Outcome()
    side = {**tables_of(plan, cohorts, read), "comparison": comparison(rows)}
    new = [note for note in cohorts.notes if note not in context.plan.notes]
    notes = [f"without the images that could not be read: {note}" for note in new]
    files = files_of(plan, side, read)
    outcome = Outcome(rows=rows, tables=side, files=files, notes=notes, failures=list(failed.values()))
    outcome.add(faithful)
    return with_set_names(context.plan, outcome)
