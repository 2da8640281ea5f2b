"""What the utility suite trains on what: the patients set aside, the twins kept apart, the mixture of each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from chexray.config import UtilityConfig
from chexray.data.manifest import Manifest
from chexray.data.pairs import Pairs
from chexray.data.subsets import Subset
from chexray.encoders.weights import ResolvedWeights
from chexray.findings import FINDINGS
from chexray.plan.examples import Accepted, Examples, trainable
from chexray.utility.loop.recipe import Recipe
from chexray.utility.mixtures import (
    Mixture,
    Sources,
    labelled,
    needs_synthetic,
    parse_setting,
    phases_of,
    renumbered,
    settings_with,
)
from chexray.utility.splits import findings_without_both, validation_patients

IMAGES = "utility_images"
"""Label of the encoder that keeps the resized images."""


@dataclass(frozen=True)
class PlannedTraining:
    """One setting of one generator. synthetic: None for a setting without synthetic images."""

    setting: str
    synthetic: Manifest | None
    mixture: Mixture

    @property
    def title(self) -> str:
        return self.setting if self.synthetic is None else f"{self.setting} ({self.synthetic.name})"


@dataclass(frozen=True)
class Cohorts:
    """Who trains, who chooses the epoch, who is tested. synthetic: {set: its images with a label}, of which a mixture
    leaves out those made for validation or test images; a classifier of real images may judge them all.

    notes: lines to show the user.
    """

    training: Examples
    validation: Examples
    test: Examples
    synthetic: dict[str, Examples]
    trainings: tuple[PlannedTraining, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class UtilityPlan:
    """The utility part of a plan: `config` has the protocol's settings in it, and what labels of -1 and null count as.

    twins, test_twins: {synthetic set: its pairs with training and with test images}. groups: subgroups of the test set.
    limited: `limit` thins every set by itself, so that mixtures replace what there is rather than what was asked for.
    """

    config: UtilityConfig
    seed: int
    training: Manifest
    test: Manifest
    synthetic: tuple[Manifest, ...]
    twins: Mapping[str, Pairs]
    test_twins: Mapping[str, Pairs]
    groups: tuple[Subset, ...] = ()
    weights: ResolvedWeights | None = None
    limited: bool = False
    remarks: tuple[str, ...] = field(default=())

    @property
    def sets(self) -> tuple[Manifest, ...]:
        return (self.training, self.test, *self.synthetic)

    @property
    def settings(self) -> tuple[str, ...]:
        """Every setting asked for, once, `fractions` among them."""
        named = [parse_setting(name).name for name in self.config.settings]
        return tuple(dict.fromkeys([*named, *settings_with(self.config.fractions)]))

    @property
    def policy(self) -> tuple[str, str]:
        """What uncertain and what unmentioned labels count as."""
        return str(self.config.uncertain), str(self.config.unmentioned)

    @cached_property
    def planned(self) -> Cohorts:
        """The cohorts if every image can be read."""
        return self.cohorts()

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.remarks, *self.planned.notes)

    def recipe(self, precision: str) -> Recipe:
        """How every setting is trained. precision: fp32, bf16 or fp16, once the device is known."""
        config = self.config
        taken = set(Recipe.__dataclass_fields__) & set(UtilityConfig.model_fields)
        shared = {name: getattr(config, name) for name in taken}
        shared |= {"model": config.model.name, "precision": precision}
        if self.weights is None:
            return Recipe(**shared, weights="none")
        return Recipe(**shared, weights=self.weights.reference, weights_sha256=self.weights.sha256)

    def cohorts(self, accepted: Accepted | None = None) -> Cohorts:
        """Everything the settings train and test on. accepted: image_keys that could be read; None for all.

        Raises ConfigError when a setting has too few images for what it asks.
        """
        config = self.config
        everyone = Examples.of(self.training, self.policy, accepted)
        test = Examples.of(self.test, self.policy, accepted)
        everyone.check_labelled("no classifier can be trained on it")
        test.check_labelled("nothing can be tested on it")
        validation = validation_patients(
            everyone.sample.ids, everyone.subjects, config.validation_fraction, seed=self.seed
        )
        usable = labelled(everyone.sample)
        training = everyone.where(~validation & usable)
        held = everyone.where(validation & usable)
        notes = self._notes_on_real(everyone, held)
        # The twin of an image that cannot be read still shows its patient, who may validate.
        whole, whole_test = (Examples.of(each, self.policy) for each in (self.training, self.test))
        patients = set(everyone.subjects[validation].tolist())
        validates = np.array([who in patients for who in whole.subjects.tolist()], bool)
        trains = np.isin(whole.sample.ids, training.sample.ids)
        synthetic: dict[str, Examples] = {}
        sources: dict[str, Sources] = {}
        for manifest in self.synthetic:
            name = manifest.name
            examples = Examples.of(manifest, self.policy, accepted)
            examples.check_labelled("no classifier can be trained on it")
            synthetic[name] = examples.where(labelled(examples.sample))
            if not any(needs_synthetic(setting) for setting in self.settings):  # it may be judged, and none trains
                nobody = np.empty(0, np.int64)
                sources[name] = Sources(training.sample, examples.sample.take(nobody), nobody, name)
                continue
            found = trainable(examples, whole, whole_test, validates, self.twins[name], self.test_twins[name])
            sources[name] = Sources(training.sample, found.sample, renumbered(trains, found.twin), name)
            notes += found.notes
        trainings = []
        for setting in self.settings:
            for manifest in self.synthetic if needs_synthetic(setting) else (None,):
                given = sources[manifest.name] if manifest else next(iter(sources.values()))
                mixture = phases_of(
                    setting,
                    given,
                    seed=self.seed,
                    pretrain_share=config.pretrain_share,
                    as_many_as_there_are=self.limited or accepted is not None,
                )
                trainings.append(PlannedTraining(setting, manifest, mixture))
                notes += [f"{trainings[-1].title}: {mixture.note}"] if mixture.note else []
        notes += self._small_epochs(len(training), trainings)
        return Cohorts(training, held, test, synthetic, tuple(trainings), tuple(notes))

    def describe(self) -> list[str]:
        """The utility part of the plan in lines for a person."""
        cohorts, recipe = self.planned, self.recipe("auto")
        start = "from scratch" if self.weights is None else f"from {recipe.weights} {recipe.weights_sha256[:12]}"
        lines = [
            f"classifier {recipe.model}, {start}; {recipe.image_size} px, {recipe.epochs} epochs of "
            f"{recipe.batch_size}, {recipe.optimizer} {recipe.learning_rate:g}, {recipe.loss}",
            f"           validation {len(cohorts.validation):,} of {self.training.name}, "
            f"test {len(cohorts.test):,} of {self.test.name}",
        ]
        seeds = f", {self.config.seeds} seeds" if self.config.seeds > 1 else ""
        lines += [
            f"train      {each.title}: {each.mixture.n_real:,} real + {each.mixture.n_synthetic:,} synthetic{seeds}"
            for each in cohorts.trainings
        ]
        return lines

    def _notes_on_real(self, everyone: Examples, held: Examples) -> list[str]:
        notes = []
        if everyone.table["subject_id"].null_count == len(everyone):
            notes.append(
                f"{everyone.name} has no patient ids: validation is split by image, a patient may be on both sides. "
                f"Name the column in {everyone.manifest.setting('columns.subject_id')}"
            )
        elif self.test.table["subject_id"].null_count == len(self.test):
            notes.append(f"{self.test.name} has no patient ids: overlap with the training patients cannot be checked")
        lost = int((~labelled(everyone.sample)).sum())
        if lost:
            notes.append(f"{everyone.name}: {lost} images without labels are not used for training")
        lacking = findings_without_both(held.sample.labels)
        if lacking:
            names = ", ".join(FINDINGS[k] for k in lacking)
            notes.append(
                f"{names}: the validation patients have only one class; not used for early stopping or thresholds"
            )
        return notes

    def _small_epochs(self, n_real: int, trainings: Sequence[PlannedTraining]) -> list[str]:
        """A note for the settings whose epochs are smaller than one batch."""
        shown = {}
        for each in trainings:
            sizes = [len(phase.sample) for phase in each.mixture.phases]
            n = n_real if self.config.budget == "images" else min(sizes, default=n_real)
            if n < self.config.batch_size and sizes:
                shown[each.title] = n
        if not shown:
            return []
        first = next(iter(shown))
        return [
            f"utility.batch_size is {self.config.batch_size}, and an epoch of {first} shows {shown[first]} images, "
            f"a single step (in {len(shown)} of {len(trainings)} settings). Lower it, or give more images"
        ]
