"""Measures the filter of the privacy suite, as a diagnostic test is measured, after arXiv 2510.01793.

plan                    the filter as a config has it
specimens               planted copies, images of unseen patients, augmented twins
evaluate                the specimens as synthetic sets, by the very code that judges a generator's
score                   sensitivity, specificity, consistency; which part of the filter saw what

"No copy found" holds at the sensitivity that is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chexray.config import RunConfig
from chexray.curation.scoring import audit_rows
from chexray.curation.specimens import make_specimens
from chexray.errors import ConfigError
from chexray.metrics.base import Score
from chexray.plan import make_plan
from chexray.results import judged_by
from chexray.results import rows as results
from chexray.run.evaluation import evaluate_plan, said_if_slow
from chexray.storage import join
from chexray.suite_names import PRIVACY

if TYPE_CHECKING:
    import pandas as pd

FILE = "audit"
"""Stem of the files that hold an audit's numbers, in the folder of its run."""


@dataclass(frozen=True)
class FilterTest:
    """A finished audit. uri: the folder of its run, with audit.parquet, .csv and .json, and verdicts.parquet image by
    image. scores: those of `chexray.privacy.audit`; table: the same as rows of the results. exit_code: 1 when a part of
    the filter failed, so that the numbers are those of the others."""

    uri: str
    run_id: str
    scores: list[Score]
    table: pd.DataFrame
    notes: list[str]
    exit_code: int


def audit(config: RunConfig, n_images: int = 100, *, verbose: bool = False) -> FilterTest:
    """Sensitivity, specificity and consistency of the filter that a config of the privacy suite makes.

    n_images: training images to plant copies of, those whose ids hash lowest, and synthetic images to make twins of.
    The held-out set is halved by patient: one half is the null, the other half the unseen patients. So the null is half
    as large as in the config's own run, and what is measured is a little less than that run's filter.
    Resumes by itself, as every run does. Raises ConfigError without the privacy suite or a held-out set, and as
    `evaluate` does.
    """
    if PRIVACY not in config.suite:
        raise ConfigError(
            f"suite is {', '.join(config.suite)}: the filter test needs the privacy suite. Give --set "
            "suite=privacy, and the generator's training set as real or training."
        )
    if n_images < 1:
        raise ConfigError(f"n_images is {n_images}: expected at least 1 image to plant.")
    with said_if_slow("plan: reading sets and weights"):
        plan = make_plan(config)
    with said_if_slow("filter test: planting copies"):
        specimens = make_specimens(plan, n_images)
    run = evaluate_plan(specimens.plan, verbose=verbose)
    storage = plan.storage
    scores, rows, notes = audit_rows(specimens, run, storage.read_parquet(join(run.uri, "verdicts.parquet")))
    results.write(run.uri, rows, storage, FILE)
    failed = {line for manifest in specimens.plan.synthetic for line in judged_by.parts(run.results, manifest.name)[1]}
    notes += [f"NOT JUDGED by {line}" for line in sorted(failed)]
    frame = results.to_table(rows).to_pandas()
    return FilterTest(run.uri, run.run_id, scores, frame, [*specimens.notes, *notes], run.exit_code)
