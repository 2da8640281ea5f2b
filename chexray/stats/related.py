"""Which pairs of images are not independent: those of one patient, and those of one prompt.

An image resembles another of its patient more than a stranger's. A prompt is written from a real image, so an image
made for it resembles that one. An average over pairs that is to tell two populations apart leaves such pairs out, as
it leaves out an image with itself; otherwise it is biased by a multiple of their share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Codes = np.ndarray | None


@dataclass(frozen=True)
class Related:
    """Codes of n images x and m images y, all int64: a pair is related when its patients or its prompts are equal.

    patient_x, prompt_x: (n,); patient_y, prompt_y: (m,). An image whose patient or prompt is unknown has a code of its
    own, so that it is related to no other.
    """

    patient_x: np.ndarray
    patient_y: np.ndarray
    prompt_x: np.ndarray
    prompt_y: np.ndarray

    @classmethod
    def of(cls, n: int, m: int, patients: tuple[Codes, Codes], prompts: tuple[Codes, Codes]) -> Related | None:
        """From codes that mean the same on both sides, None where a side has none and -1 where an image has none.

        None when no two images are related.
        """
        found = cls(*_together(n, m, *patients), *_together(n, m, *prompts))
        return found if any(count.any() for count in found.counts()) else None

    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Related pairs of each image: x with other x, (n,); y with other y, (m,); x with y, (n,); y with x, (m,)."""
        totals = [np.zeros(len(side), np.int64) for side in (self.patient_x, self.patient_y) * 2]
        for x, y, sign in ((*self.patients, 1), (*self.prompts, 1), (*self.both, -1)):
            size = 1 + max(x.max(initial=0), y.max(initial=0))
            of_x, of_y = np.bincount(x, minlength=size), np.bincount(y, minlength=size)
            for total, part in zip(totals, (of_x[x] - 1, of_y[y] - 1, of_y[x], of_x[y]), strict=True):
                total += sign * part
        xx, yy, xy, yx = totals
        return xx, yy, xy, yx

    @property
    def patients(self) -> tuple[np.ndarray, np.ndarray]:
        return self.patient_x, self.patient_y

    @property
    def prompts(self) -> tuple[np.ndarray, np.ndarray]:
        return self.prompt_x, self.prompt_y

    @property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes of patient and prompt taken together."""
        pairs = np.stack([np.concatenate(self.patients), np.concatenate(self.prompts)], axis=1)
        codes = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        return codes[: len(self.patient_x)], codes[len(self.patient_x) :]


def _together(n: int, m: int, x: Codes, y: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Codes 0 ... of both sides; what has none gets its own."""
    known = [np.full(size, -1, np.int64) if side is None else side.astype(np.int64) for size, side in ((n, x), (m, y))]
    codes = np.concatenate(known)
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = codes.max(initial=-1) + 1 + np.arange(len(unknown))
    codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    return codes[:n], codes[n:]
