"""Which real images validate a classifier: whole patients, chosen by a hash of who they are, never by row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS
from chexray.text import quoted


@dataclass(frozen=True)
class Named:
    """One set by name, to be compared with another. All (n,): ids str, for messages; keys str image_keys.

    subjects: (n,) objects, None where the patient is not known; None when the set names no patients at all.
    """

    name: str
    ids: np.ndarray
    keys: np.ndarray
    subjects: np.ndarray | None = None


def hash_order(names: Sequence[str], seed: int) -> np.ndarray:
    """(n,) int64: the places of `names` from the lowest hash of (seed, name) to the highest.

    A shuffle in which two names stand in the same order whatever other names there are and whichever comes first.
    """
    digests = [hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=8).digest() for name in names]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), np.int64)


def validation_patients(ids: np.ndarray, subjects: np.ndarray | None, fraction: float, seed: int) -> np.ndarray:
    """(n,) bool: the images that validate, about `fraction` of all, and every image of a patient or none.

    ids: (n,) str. subjects: (n,) objects, None where the patient is not known: such an image is a patient of its own.
    Patients are taken in the order of their hashes up to the number of images closest to fraction * n (the smaller
    number of two equally close), at least one patient on either side. Where the line falls depends on n; the order
    does not, so rows in another order change nothing and new images move none but patients at the line.
    Raises ConfigError when `fraction` is not between 0 and 1, or when there are not two patients to divide.
    """
    if not 0 < fraction < 1:
        raise ConfigError(
            f"validation fraction {fraction} is not between 0 and 1. 0.1 holds out a tenth of the images."
        )
    patients, patient_of = np.unique(_patients(ids, subjects), return_inverse=True)
    if len(patients) < 2:
        raise ConfigError(
            f"the training set holds {len(ids)} images of {len(patients)} patients, and validation needs patients of "
            "its own: at least 2. Add images of other patients, or check training.columns.subject_id."
        )
    order = hash_order(patients.tolist(), seed)
    n_held_out = np.cumsum(np.bincount(patient_of)[order])[:-1]
    n_chosen = 1 + int(np.abs(n_held_out - fraction * len(ids)).argmin())
    chosen = np.zeros(len(patients), bool)
    chosen[order[:n_chosen]] = True
    return chosen[patient_of]


def check_disjoint(training: Named, test: Named) -> None:
    """Returns when no image and no patient is in both sets.

    Patients that are not known match nobody. Raises ManifestError with the counts and the first image by id.
    """
    shared_keys = set(training.keys.tolist()) & set(test.keys.tolist())
    shared_subjects = set(_known(training.subjects)) & set(_known(test.subjects))
    if not shared_keys and not shared_subjects:
        return
    found = [_in_both(images, shared_keys, shared_subjects) for images in (training, test)]
    first, n_test = min(found[0]), len(found[1])
    same = "its file" if first in _in_both(training, shared_keys, set()) else "its patient"
    raise ManifestError(
        f"{training.name} (training) and {test.name} (test) share {len(shared_keys)} images and "
        f"{len(shared_subjects)} patients, which touches {n_test} of {len(test.ids)} test images: {quoted(first)} is "
        f"in training and {same} is in the test set as well. Take these patients out of one of the two tables; if "
        "equal subject ids mean different people, make them distinct."
    )


def findings_without_both(labels: np.ndarray) -> list[int]:
    """The findings, by place in FINDINGS, of which these images show no positive or no negative.

    labels: (n, 14) int8: 1, 0, or -1 where it is left out. No AUROC exists for them.
    """
    both = (labels == 1).any(0) & (labels == 0).any(0)
    return [finding for finding in range(len(FINDINGS)) if not both[finding]]


def _patients(ids: np.ndarray, subjects: np.ndarray | None) -> list[str]:
    """A name for the patient of each image. The first word keeps an image called "7" apart from a patient "7"."""
    if subjects is None:
        return [f"image {image}" for image in ids.tolist()]
    return [
        f"image {image}" if _unknown(subject) else f"subject {subject}"
        for image, subject in zip(ids.tolist(), subjects.tolist(), strict=True)
    ]


def _known(subjects: np.ndarray | None) -> list[str]:
    return [] if subjects is None else [str(subject) for subject in subjects.tolist() if not _unknown(subject)]


def _unknown(subject: object) -> bool:
    """None, and what tables write in its place: an empty text, or NaN, which alone differs from itself."""
    return subject is None or subject == "" or subject != subject


def _in_both(images: Named, keys: set[str], subjects: set[str]) -> list[str]:
    """The ids of the images whose file or patient is among those given."""
    patients = [None] * len(images.ids) if images.subjects is None else images.subjects.tolist()
    rows = zip(images.ids.tolist(), images.keys.tolist(), patients, strict=True)
    return [
        image for image, key, patient in rows if key in keys or (not _unknown(patient) and str(patient) in subjects)
    ]
