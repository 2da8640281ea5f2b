"""Images with their targets, and which synthetic ones may be trained on: not a copy, not a twin of who judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from chexray.data.labels import targets
from chexray.data.manifest import Manifest
from chexray.data.matching import is_in
from chexray.data.pairs import Pairs
from chexray.errors import ConfigError
from chexray.utility.loop.fit_spec import Sample
from chexray.utility.mixtures import labelled, without_twins_of

TELLING = 5
"""Real images up to which a prompt that they share tells whose it is; "no acute findings" of many tells nobody."""


Accepted: TypeAlias = "Collection[str] | pa.Array"
"""image_keys of images that could be read."""


@dataclass(frozen=True)
class Examples:
    """The images of one set that training or testing can use. table: their rows of the manifest, in its order."""

    manifest: Manifest
    table: pa.Table
    sample: Sample

    @classmethod
    def of(cls, manifest: Manifest, policy: tuple[str, str], accepted: Accepted | None = None) -> Examples:
        """Of a manifest. policy: what uncertain and unmentioned labels count as. accepted: keys that could be read."""
        table = manifest.table
        if accepted is not None:
            known = accepted if isinstance(accepted, pa.Array) else pa.array(list(accepted), pa.string())
            table = table.filter(pa.array(is_in(table["image_key"], known)))
        ids, keys = (np.array(table[name].to_pylist(), dtype=str) for name in ("sample_id", "image_key"))
        return cls(manifest, table, Sample(ids, keys, targets(table["labels"], *policy)))

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def subjects(self) -> np.ndarray:
        """(n,) object: patient ids; the file's where no patient is known, so that one file is on one side."""
        columns = (self.table[name].to_pylist() for name in ("subject_id", "image_key"))
        return np.array(
            [f"file {key}" if who in (None, "") else who for who, key in zip(*columns, strict=True)], object
        )

    def where(self, mask: np.ndarray) -> Examples:
        """The images of the mask, (n,) bool."""
        return Examples(self.manifest, self.table.filter(pa.array(mask)), self.sample.take(mask))

    def check_labelled(self, consequence: str) -> None:
        """Raises ConfigError when no image of the set has a label that counts."""
        if not labelled(self.sample).any():
            synthetic = self.manifest.origin == "synthetic"
            further = " Or give prompts that are those of the training set." if synthetic else ""
            raise ConfigError(
                f"{self.name}: no image has a label, so {consequence}. {self.manifest.name_labels}{further}"
            )


@dataclass(frozen=True)
class Trainable:
    """The synthetic images that may be trained on. twin: (n,) int64, the place in the training set of the image that
    each was made for, -1 where unknown. notes: what was left out, and what could not be known."""

    sample: Sample
    twin: np.ndarray
    notes: tuple[str, ...]


def trainable(
    examples: Examples, real: Examples, test: Examples, validates: np.ndarray, twins: Pairs, test_twins: Pairs
) -> Trainable:
    """Those of a synthetic set that have a label and were not made for, and are not, a test or validation image.

    real: the whole training set; validates: (n_real,) bool, its images of patients that validate. twins, test_twins:
    pairs of the synthetic set with either. Raises ConfigError when none is left.
    """
    name, n = examples.name, len(examples)
    with_labels = labelled(examples.sample)
    named, of_test = made_for(twins, examples, real), made_for(test_twins, examples, test)
    leaked = with_labels & (of_test >= 0) & (named < 0)
    apart, _ = without_twins_of(validates, named)
    apart &= ~_of_prompts(examples, real, validates)
    is_one = np.isin(examples.sample.keys, real.sample.keys[validates])
    keep = with_labels & ~leaked & apart & ~is_one
    if not keep.any():
        unlabelled, tested = int((~with_labels).sum()), int(leaked.sum())
        raise ConfigError(
            f"{name}: none of {n} images is left to train on: {unlabelled} have no label, {tested} were made for test "
            f"images and {n - unlabelled - tested} for validation images. Give images of training prompts, or keep the "
            "set out with suites: [fidelity]."
        )
    said = (
        (~with_labels, "images without labels are not used for training"),
        (leaked, f"of {n} images were made for test images and are not used for training"),
        (~apart, "images were made for validation images and are not used for training"),
        (is_one & apart, "images are validation images themselves and are not used for training"),
    )
    notes = [f"{name}: {int(mask.sum())} {what}" for mask, what in said if mask.any()]
    unknown = int((named[keep] < 0).sum())
    if unknown:
        which = "source images" if unknown == keep.sum() else f"the source images of {unknown} of {keep.sum()} images"
        notes.append(f"{name}: {which} are unknown; look-alikes of validation images may be in the training set")
    return Trainable(examples.sample.take(keep), named[keep], tuple(notes))


def _of_prompts(synthetic: Examples, real: Examples, validates: np.ndarray) -> np.ndarray:
    """(n_synthetic,) bool: made from the prompt of a validation image, also where pairing names another image of it."""
    prompts = real.table["prompt"].to_pylist()
    shared = Counter(prompts)
    telling = {prompt for prompt, held in zip(prompts, validates, strict=True) if held and shared[prompt] <= TELLING}
    telling -= {None, ""}
    return np.array([prompt in telling for prompt in synthetic.table["prompt"].to_pylist()], bool)


def made_for(pairs: Pairs, synthetic: Examples, real: Examples) -> np.ndarray:
    """(n_synthetic,) int64: place in `real` of the image a synthetic one is paired with, -1 for none."""
    place = {identity: index for index, identity in enumerate(real.sample.ids.tolist())}
    columns = (pairs.table[name].to_pylist() for name in ("synthetic_id", "real_id"))
    found = {made: place.get(of, -1) for made, of in zip(*columns, strict=True)}
    return np.array([found.get(identity, -1) for identity in synthetic.sample.ids.tolist()], np.int64)
