"""Real images in the place of synthetic ones: what a perfect generator would give, one image a patient.

A perfect generator draws each image independently. Real images of one patient resemble each other, so only one of them
may stand for an independent image, or as many as the synthetic set has images of one prompt (or patient).
"""

from __future__ import annotations

import numpy as np

from chexray.metrics.base import Rows


def repetition(synthetic: Rows) -> int:
    """Images of one prompt or one patient in the synthetic set, on average, rounded; 1 where neither is known."""
    most = 1.0
    for codes in (synthetic.subjects, synthetic.prompts):
        if codes is not None and len(codes):
            alone = int((codes < 0).sum())
            units = alone + len(np.unique(codes[codes >= 0]))
            most = max(most, len(codes) / units)
    return round(most)


def draws_of(n: int) -> int:
    """How many draws of n stand-ins a floor is averaged over: more where they are small."""
    return 10 if n <= 200 else 3


def units(synthetic: Rows) -> np.ndarray:
    """Codes (m,) of synthetic images, equal for those of one prompt, or of one patient where there are no prompts."""
    codes = synthetic.subjects if synthetic.prompts is None else synthetic.prompts
    if codes is None:
        return np.arange(len(synthetic))
    alone = np.flatnonzero(codes < 0)
    codes = codes.copy()
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(len(alone))
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def n_patients(rows: Rows) -> int:
    """Independent units of a set: its patients, or its images where patients are unknown."""
    return len(rows) if rows.subjects is None else len(np.unique(rows.subjects))


def stand_ins(real: Rows, n: int, repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Up to n sorted indices of real images, at most `repeats` of a patient, patients drawn as images would be.

    Fewer than n where there are not as many patients. A patient's chance grows with the number of its images.
    """
    order = rng.permutation(len(real))
    if real.subjects is not None:
        # Taking images in random order, and of each patient the first few, draws patients by their size.
        codes = real.subjects[order]
        by_patient = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[by_patient], prepend=codes.min() - 1))
        place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
        turn = np.empty(len(codes), np.int64)
        turn[by_patient] = place
        order = order[turn < repeats]
    return np.sort(order[:n])
