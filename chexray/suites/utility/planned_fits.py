"""Settings as trainings, and what their classifiers say once they are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from chexray.engine.train_task import Task
from chexray.plan.utility import Cohorts, PlannedTraining, UtilityPlan
from chexray.suites.common import own_codes
from chexray.utility.classification.estimates import Predictions, tuned_thresholds
from chexray.utility.classification.head import Classification
from chexray.utility.loop.fit_spec import Fit
from chexray.utility.loop.recipe import Recipe
from chexray.utility.loop.stream import phase_epochs

if TYPE_CHECKING:
    from chexray.encoders.base import EncoderSpec

REAL, AS_IS = "real", "as_is"
VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class TrainedSetting:
    """One setting of one generator: a fit a seed."""

    training: PlannedTraining
    recipe: Recipe
    fits: tuple[Fit, ...]

    @property
    def n_presented(self) -> int:
        """Images that a whole training shows, repeats counted."""
        phases, recipe, fit = self.training.mixture.phases, self.recipe, self.fits[0]
        epochs = phase_epochs(recipe.epochs, [phase.share for phase in phases])
        sizes = [fit.n_budget if recipe.budget == "images" else len(phase.sample) for phase in phases]
        return sum(n * size for n, size in zip(epochs, sizes, strict=True))

    def failures(self, failed: dict[str, str]) -> list[str]:
        """Why trainings of this setting have no classifier. failed: {title of a fit: reason} over all settings."""
        return [failed[fit.title] for fit in self.fits if fit.title in failed]


@dataclass(frozen=True)
class Trained:
    """A trained setting and its test predictions. histories: the epochs of each fit, in the order of the seeds."""

    asked: TrainedSetting
    predictions: Predictions
    histories: tuple[list[dict], ...]

    @property
    def setting(self) -> str:
        return self.asked.training.setting

    @property
    def synthetic_name(self) -> str:
        """The name of the synthetic set; empty for a setting without one."""
        synthetic = self.asked.training.synthetic
        return "" if synthetic is None else synthetic.name

    @property
    def seeds(self) -> list[int]:
        return [fit.seed for fit in self.asked.fits]

    @classmethod
    def read(cls, asked: TrainedSetting, cohorts: Cohorts, task: Task) -> Trained:
        """What is committed of a setting."""
        held = probabilities_of(asked.fits, VALIDATION, task)
        thresholds = np.stack([tuned_thresholds(cohorts.validation.sample.labels, one) for one in held])
        predictions = Predictions(
            cohorts.test.sample.labels,
            probabilities_of(asked.fits, TEST, task),
            thresholds,
            own_codes(cohorts.test.table["subject_id"]),
        )
        return cls(asked, predictions, tuple(task.folder(fit).history() for fit in asked.fits))


def trained_settings(plan: UtilityPlan, cohorts: Cohorts, spec: EncoderSpec, device: str) -> list[TrainedSetting]:
    """The fits of every setting. device: of the workers, which decides what `precision: auto` means."""
    precision = plan.config.precision
    if precision == "auto" or device == "cpu":
        precision = "bf16" if device == "cuda" else "fp32"
    recipe = plan.recipe(precision)
    return [_fits(each, plan, cohorts, spec, recipe) for each in cohorts.trainings]


def _fits(
    training: PlannedTraining, plan: UtilityPlan, cohorts: Cohorts, spec: EncoderSpec, recipe: Recipe
) -> TrainedSetting:
    score = {VALIDATION: cohorts.validation.sample.keys, TEST: cohorts.test.sample.keys}
    if training.setting == REAL and plan.config.faithfulness:
        score |= {f"synthetic {name}": examples.sample.keys for name, examples in cohorts.synthetic.items()}
    untrained = training.setting == AS_IS
    if untrained:
        recipe = replace(recipe, epochs=0)
    fits = tuple(
        Fit(
            training.title if plan.config.seeds == 1 or untrained else f"{training.title}, seed {seed}",
            Classification(),
            recipe,
            seed,
            training.mixture.phases,
            len(cohorts.training),
            cohorts.validation.sample,
            spec.fingerprint,
            score,
        )
        for seed in range(plan.seed, plan.seed + (1 if untrained else plan.config.seeds))
    )
    return TrainedSetting(training, recipe, fits)


def probabilities_of(fits: tuple[Fit, ...], name: str, task: Task) -> np.ndarray:
    """(seeds, n, 14) float64: what the classifiers of a setting say about a set they were asked to score."""
    logits = np.stack([task.folder(fit).read_predictions(fit.score[name]) for fit in fits]).astype(np.float64)
    # exp of a negative number on either side: no overflow, and no probability of exactly 1 for large logits.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)
