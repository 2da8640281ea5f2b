"""What the utility suite trains on what: the patients set aside, the twins kept apart, the mixture of each setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from chexray.config import UtilityConfig
from chexray.data.labels import targets
from chexray.data.manifest import Manifest
from chexray.data.pairs import Pairs
from chexray.data.subsets import Subset
from chexray.encoders.weights import ResolvedWeights
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.utility.fit import Sample
from chexray.utility.mixtures import (
    Mixture,
    Sources,
    labelled,
    needs_synthetic,
    parse_setting,
    phases_of,
    renumbered,
    settings_with,
    without_twins_of,
)
from chexray.utility.recipe import Recipe
from chexray.utility.splits import findings_without_both, validation_patients

IMAGES = "utility_images"
"""Label of the encoder that keeps the resized images."""


@dataclass(frozen=True)
class Examples:
    """The images of one set that training or testing can use. table: their rows of the manifest, in its order."""

    manifest: Manifest
    table: pa.Table
    sample: Sample

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def subjects(self) -> np.ndarray:
        """(n,) object: patient ids; the file's where no patient is known, so that one file is on one side."""
        columns = (self.table[name].to_pylist() for name in ("subject_id", "image_key"))
        return np.array(
            [f"file {key}" if who in (None, "") else who for who, key in zip(*columns, strict=True)], object
        )

    def where(self, mask: np.ndarray) -> Examples:
        return Examples(self.manifest, self.table.filter(pa.array(mask)), self.sample.take(mask))


@dataclass(frozen=True)
class Training:
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
    trainings: tuple[Training, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class UtilityPlan:
    """The utility part of a plan: `config` has the protocol's settings in it, and what labels of -1 and null count as.

    twins, test_twins: {synthetic set: its pairs with training and with test images}. groups: subgroups of the test set.
    has_head: whether the weights bring a classifier of the 14 findings.
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
        shared = {name: getattr(config, name) for name in set(Recipe.__dataclass_fields__) & set(_taken(config))}
        shared |= {"model": config.model.name, "precision": precision}
        if self.weights is None:
            return Recipe(**shared, weights="none")
        return Recipe(**shared, weights=self.weights.reference, weights_sha256=self.weights.sha256)

    def cohorts(self, accepted: Collection[str] | None = None) -> Cohorts:
        """Everything the settings train and test on. accepted: image_keys that could be read; None for all.

        Raises ConfigError when a setting has too few images for what it asks.
        """
        config = self.config
        everyone = self._examples(self.training, accepted)
        validation = validation_patients(
            everyone.sample.ids, everyone.subjects, config.validation_fraction, seed=self.seed
        )
        notes = _notes_on_real(everyone, validation)
        usable = labelled(everyone.sample)
        training = everyone.where(~validation & usable)
        held = everyone.where(validation & usable)
        lacking = findings_without_both(held.sample.labels)
        if lacking:
            names = ", ".join(FINDINGS[k] for k in lacking)
            notes.append(
                f"the validation patients show one class only of {names}: no epoch or threshold follows from it"
            )
        synthetic: dict[str, Examples] = {}
        sources: dict[str, Sources] = {}
        for manifest in self.synthetic:
            examples, trained_on, twin, said = self._synthetic(
                manifest, everyone, validation, ~validation & usable, accepted
            )
            synthetic[manifest.name] = examples
            sources[manifest.name] = Sources(training.sample, trained_on, twin, manifest.name)
            notes += said
        trainings = []
        for setting in self.settings:
            sets = self.synthetic if needs_synthetic(setting) else (None,)
            for manifest in sets:
                given = sources[manifest.name] if manifest else next(iter(sources.values()))
                mixture = phases_of(setting, given, seed=self.seed, pretrain_share=config.pretrain_share)
                trainings.append(Training(setting, manifest, mixture))
        notes += self._small_epochs(len(training), trainings)
        return Cohorts(training, held, self._examples(self.test, accepted), synthetic, tuple(trainings), tuple(notes))

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

    def _examples(self, manifest: Manifest, accepted: Collection[str] | None) -> Examples:
        table = manifest.table
        if accepted is not None:
            table = table.filter(pa.array([key in accepted for key in table["image_key"].to_pylist()], pa.bool_()))
        labels = targets(table["labels"], *self.policy)
        ids, keys = (np.array(table[name].to_pylist(), dtype=str) for name in ("sample_id", "image_key"))
        return Examples(manifest, table, Sample(ids, keys, labels))

    def _synthetic(
        self,
        manifest: Manifest,
        everyone: Examples,
        validation: np.ndarray,
        kept: np.ndarray,
        accepted: Collection[str] | None,
    ) -> tuple[Examples, Sample, np.ndarray, list[str]]:
        """The images with labels of a set; those that may be trained on; whose twins these are; and notes.

        validation, kept: (n_training,) bool, the images that validate and those that train.
        """
        examples = self._examples(manifest, accepted)
        notes = []
        with_labels = labelled(examples.sample)
        if not with_labels.any():
            raise ConfigError(
                f"{manifest.name}: no image has a label, so no classifier can be trained on it. Give a labels column, "
                "or prompts that are those of the training set."
            )
        if not with_labels.all():
            notes.append(f"{manifest.name}: {int((~with_labels).sum())} images without labels are not trained on")
        named = self._named(self.twins[manifest.name], examples, everyone)
        of_test = self._named(self.test_twins[manifest.name], examples, self._examples(self.test, None))
        leaked = with_labels & (of_test >= 0) & (named < 0)
        if leaked.any():
            notes.append(
                f"{manifest.name}: {int(leaked.sum())} of {len(examples)} images were made for test images and are "
                "not trained on"
            )
        keep, _ = without_twins_of(validation, named)
        if (~keep).any():
            notes.append(f"{manifest.name}: {int((~keep).sum())} twins of validation images are kept out of training")
        keep &= with_labels & ~leaked
        if not keep.any():
            raise ConfigError(
                f"{manifest.name}: all {len(examples)} images were made for test or validation images, and none is "
                "left to train on. Give images of training prompts, or keep the set out with suites: [fidelity]."
            )
        return examples.where(with_labels), examples.sample.take(keep), renumbered(kept, named[keep]), notes

    @staticmethod
    def _named(pairs: Pairs, synthetic: Examples, real: Examples) -> np.ndarray:
        """(n_synthetic,) int64: position of the real image a synthetic one is paired with, -1 for none."""
        place = {identity: index for index, identity in enumerate(real.sample.ids.tolist())}
        columns = (pairs.table[name].to_pylist() for name in ("synthetic_id", "real_id"))
        made_for = {made: place.get(of, -1) for made, of in zip(*columns, strict=True)}
        return np.array([made_for.get(identity, -1) for identity in synthetic.sample.ids.tolist()], np.int64)

    def _small_epochs(self, n_real: int, trainings: Sequence[Training]) -> list[str]:
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


def _taken(config: UtilityConfig) -> list[str]:
    return list(type(config).model_fields)


def _notes_on_real(everyone: Examples, validation: np.ndarray) -> list[str]:
    notes = []
    unknown = everyone.table["subject_id"].null_count
    if unknown == len(everyone) > 0:
        notes.append(
            f"{everyone.manifest.name} names no patients: validation is split by image, and a patient may be on both "
            "sides. Name the column in columns: {subject_id: ...}"
        )
    lost = int((~labelled(everyone.sample)).sum())
    if lost:
        notes.append(f"{everyone.manifest.name}: {lost} images without labels are not trained on")
    return notes
