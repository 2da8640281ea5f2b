"""The sets of the privacy suite as it reads them: accepted images, and patients told apart across sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.manifest import Manifest
from chexray.data.matching import index_in, is_in
from chexray.suite_names import PRIVACY
from chexray.suites.common import Context, own_codes


@dataclass(frozen=True)
class ImageSet:
    """The images of one set that every encoder of the suite has encoded, in the order of their sample_ids.

    table: their rows of the manifest. patients: (n,) int64, equal for one patient in this set and in the other real
    set, or None when no row of either names one; a row without a patient is one of its own.
    """

    manifest: Manifest
    table: pa.Table
    patients: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.table)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def ids(self) -> list[str]:
        return self.table["sample_id"].to_pylist()

    @property
    def keys(self) -> pa.StringArray:
        return self.table["image_key"].combine_chunks()

    @property
    def known_patients(self) -> np.ndarray | None:
        """The same with -1 where the patient is not known."""
        if self.patients is None:
            return None
        return np.where(self.table["subject_id"].is_valid().to_numpy(), self.patients, -1)

    def uris_of(self, ids: pa.Array | pa.ChunkedArray) -> pa.StringArray:
        """The uri of each of these sample_ids. Raises KeyError for one that the set does not hold."""
        rows = index_in(ids, self.table["sample_id"])
        if (rows < 0).any():
            raise KeyError(ids[int(np.argmin(rows))].as_py())
        return pc.call_function("take", [self.table["uri"].combine_chunks(), pa.array(rows)])


@dataclass(frozen=True)
class Sets:
    """What the suite compares. heldout is None without one; notes: lines to show the user."""

    training: ImageSet
    heldout: ImageSet | None
    synthetic: tuple[ImageSet, ...]
    notes: tuple[str, ...]


def read_sets(context: Context) -> Sets:
    """The sets of a run. Held-out images whose patient or whose very file is also in training are left out, with a
    note: the baseline is made of unseen patients."""
    plan = context.plan
    assert plan.training is not None
    training = _accepted(context, plan.training)
    synthetic = tuple(ImageSet(manifest, _accepted(context, manifest)) for manifest in plan.synthetic_of(PRIVACY))
    notes = []
    if plan.heldout is None:
        codes = own_codes(training["subject_id"])
        return Sets(
            ImageSet(plan.training, training, codes), None, synthetic, tuple(_without_patients(codes, plan.training))
        )
    heldout = _accepted(context, plan.heldout)
    n = len(heldout)
    unseen = ~_in(heldout, training, "image_key")
    if training["subject_id"].null_count < len(training) and heldout["subject_id"].null_count < len(heldout):
        unseen &= ~_in(heldout, training, "subject_id")
    heldout = heldout if unseen.all() else heldout.filter(pa.array(unseen))
    if len(heldout) < n:
        notes.append(
            f"{n - len(heldout)} of {n} held-out images are left out of the baseline: they, or their patients, "
            f"are also in {plan.training.name}"
        )
    if not len(heldout):
        notes.append(
            f"no image of {plan.heldout.name} is left: the search for copies takes its baseline from the "
            "training patients"
        )
    both = pa.chunked_array([*training["subject_id"].chunks, *heldout["subject_id"].chunks], pa.string())
    codes = own_codes(both)
    cut = len(training)
    first, second = (None, None) if codes is None else (codes[:cut], codes[cut:])
    notes += _without_patients(codes, plan.training, plan.heldout)
    nameless = [
        manifest
        for manifest, images in ((plan.training, training), (plan.heldout, heldout))
        if codes is not None and images["subject_id"].null_count == len(images) > 0
    ]
    if nameless:
        notes.append(
            f"{nameless[0].name} names no patients: whether one of them is in both real sets cannot be seen. "
            f"Name the column in {nameless[0].setting('columns.subject_id')}"
        )
    return Sets(
        ImageSet(plan.training, training, first), ImageSet(plan.heldout, heldout, second), synthetic, tuple(notes)
    )


def _without_patients(codes: np.ndarray | None, *sets: Manifest) -> list[str]:
    if codes is not None:
        return []
    keys = " and ".join(each.setting("columns.subject_id") for each in sets)
    return [
        "the real images name no patients: errors are not clustered, the baseline may match a patient with themselves, "
        f"and re-identification cannot be calibrated. Name the column in {keys}"
    ]


def _accepted(context: Context, manifest: Manifest) -> pa.Table:
    stores = [context.done[label] for label in context.plan.encoders_of(PRIVACY)]
    keys = manifest.table["image_key"].combine_chunks()
    accepted = np.logical_and.reduce([store.encoded(keys) for store in stores]) if stores else np.ones(len(keys), bool)
    # A table of 237,388 rows is 160 MB, which is not copied where nothing is left out.
    return manifest.table if accepted.all() else manifest.table.filter(pa.array(accepted))


def _in(left: pa.Table, right: pa.Table, column: str) -> np.ndarray:
    """(n,) bool: whether the value of each row of `left` occurs in `right`; null never does."""
    return is_in(left[column], right[column])
