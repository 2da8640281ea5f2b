"""Privacy loss of the nearest-neighbour adversarial accuracy (Yale et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from chexray.metrics.base import Mapper, Score
from chexray.metrics.common import Error, Floor, measured, nulls
from chexray.privacy.outputs import NNAA_LOSS
from chexray.stats.nearest import NearestRows, nearest
from chexray.stats.resampling import clustered_std_error
from chexray.stats.tiles import threaded


def nnaa_loss(
    training: np.ndarray,
    heldout: np.ndarray,
    synthetic: np.ndarray,
    *,
    n_most: int = 2000,
    training_subjects: np.ndarray | None = None,
    heldout_subjects: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
    seed: int = 0,
    mapper: Mapper = threaded,
) -> Score:
    """Privacy loss of the nearest-neighbour adversarial accuracy (Yale et al. 2020): about 0, positive where copied.

    How much easier held-out images are told from synthetic ones than training images are, by a nearest neighbour:
    AA(held-out, synthetic) - AA(training, synthetic), AA(R, S) = (share of R nearer to R than to S + share of S nearer
    to S than to R) / 2. (n, d) float32 features. Within a set the nearest neighbour is one of another patient; training
    and held-out images are never compared, and no patient may be in both. AA depends on n and on how many images
    patients have, so equally many patients with equally many images each are drawn from both real sets, and as many
    synthetic images, at most `n_most`: 7 searches of n x n. *_subjects: (n,) int64 patient codes, each side its own.
    synthetic_groups: codes of synthetic images that resemble each other (of one prompt).

    Error: the spread of the terms, by patient with the synthetic images that are nearest to it, patients that are each
    other's nearest together, and by group. Perfect generators, 1 to 4 images a patient, 200 to 600 training and
    held-out images in 8 and 32 dimensions, 60 to 100 draws: mean -.004 to .007, error .8 to 1.1 times the true one,
    interval above 0 in 0 to 5 % of draws, the 5 % with 50 patients of 4 images. Stays about 0 at low diversity.
    """
    rng = np.random.default_rng(seed)
    sets = (training, heldout)
    codes = _codes(training, training_subjects, heldout, heldout_subjects)
    drawn = _alike(codes, min(n_most, len(synthetic)), rng)
    n = len(drawn[0])
    if n < 2 or min(len(np.unique(own[index])) for own, index in zip(codes, drawn, strict=True)) < 2:
        return nulls([NNAA_LOSS], "too_few", "each of the three sets needs at least 2 images, of 2 patients")[0]
    picked = np.sort(rng.choice(len(synthetic), n, replace=False))
    t, e, s = (
        np.ascontiguousarray(rows[index], dtype=np.float32)
        for rows, index in zip((*sets, synthetic), (*drawn, picked), strict=True)
    )
    patients = [own[index] for own, index in zip(codes, drawn, strict=True)]
    # Per image, 1 where its own set is nearer than the other one; of synthetic images, held-out less training.
    own = [_within(x, codes, mapper) for x, codes in zip((t, e), patients, strict=True)]
    of_training = _distance(t, s, mapper) > own[0].squared
    of_heldout = _distance(e, s, mapper) > own[1].squared
    within_s = _within(s, np.arange(n), mapper).squared
    n_patients = len(np.unique(patients[0]))
    patients = [_pairs(each, codes) for each, codes in zip(own, patients, strict=True)]
    found = [nearest(s, real, mapper=mapper) for real in (e, t)]
    terms = [(each.squared > within_s).astype(float) for each in found]
    of_synthetic = terms[0] - terms[1]
    value = 0.5 * float(of_heldout.mean() - of_training.mean() + of_synthetic.mean())
    sides = list(zip((1, -1), (of_heldout, of_training), reversed(patients), terms, found, strict=True))
    groups = None if synthetic_groups is None else synthetic_groups[picked]
    error = _error(sides, of_synthetic, groups, min(len(np.unique(codes)) for codes in patients))
    known = {} if training_subjects is None else {"n_patients": n_patients}
    about = {"cannot_see": NNAA_LOSS.cannot_see, "n_each": n, **known}
    return measured(NNAA_LOSS, value, error, Floor(0.0), about=about)


def _error(
    sides: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray, NearestRows]],
    of_synthetic: np.ndarray,
    groups: np.ndarray | None,
    units: int,
) -> Error:
    """sides: (sign, terms of the real images, their patients, terms of the synthetic ones, whom these met) of held-out
    and training images. of_synthetic: (n,) their difference; groups: (n,) codes; units: patients of the smaller side.
    """
    joint = [_by_patient(sign * own, codes, sign * term, codes[each.row]) for sign, own, codes, term, each in sides]
    apart = [clustered_std_error(own, codes) for _, own, codes, _, _ in sides]
    alone = clustered_std_error(of_synthetic)
    apart.append(max(alone, math.hypot(*(clustered_std_error(t, codes[each.row]) for _, _, codes, t, each in sides))))
    if groups is not None:  # what images of one group share beyond what they share with a patient
        more = math.sqrt(max(0.0, clustered_std_error(of_synthetic, groups) ** 2 - alone**2))
        joint, apart = [*joint, more], [*apart, more]
    # Few patients: the normal interval of this error is then that of Student's t.
    wider = float(student.ppf(0.975, units - 1) / norm.ppf(0.975)) if units > 1 else math.nan
    return Error.of(0.5 * wider * max(math.hypot(*joint), math.hypot(*apart)), "influence")


def _by_patient(own: np.ndarray, codes: np.ndarray, met: np.ndarray, met_codes: np.ndarray) -> float:
    """Standard error of mean(own) + mean(met) when what decides both are patients: own, (n,) of their images, `codes`;
    met, (n,) of synthetic images, `met_codes` the patient of the nearest one. NaN for a single patient."""
    known, inverse = np.unique(np.concatenate([codes, met_codes]), return_inverse=True)
    if len(known) < 2:
        return math.nan
    deviation = np.concatenate([own - own.mean(), met - met.mean()])
    sums = np.bincount(inverse.reshape(-1), weights=deviation)
    return math.sqrt(len(known) / (len(known) - 1) * float(sums @ sums)) / len(own)


def _codes(
    training: np.ndarray, training_subjects: np.ndarray | None, heldout: np.ndarray, heldout_subjects: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Patient codes of both sides; each image its own patient where a side names none."""
    first = np.arange(len(training)) if training_subjects is None else np.asarray(training_subjects)
    second = np.arange(len(heldout)) if heldout_subjects is None else np.asarray(heldout_subjects)
    return first, second


def _alike(codes: tuple[np.ndarray, np.ndarray], most: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of both sides, sorted, of equally many patients, the i-th of both with equally many images, at most `most`.

    Patients are drawn at random, paired by their number of images, and the larger of a pair is thinned.
    """
    n_patients = min(len(np.unique(side)) for side in codes)
    chosen = []
    for side in codes:
        known, sizes = np.unique(side, return_counts=True)
        some = rng.permutation(len(known))[:n_patients]
        chosen.append((known[some], sizes[some]))
    orders = [np.argsort(-sizes, kind="stable") for _, sizes in chosen]
    counts = np.minimum(*(sizes[order] for (_, sizes), order in zip(chosen, orders, strict=True)))
    pairs = rng.permutation(n_patients)
    pairs = pairs[np.cumsum(counts[pairs]) <= most]
    drawn = []
    for side, (known, _), order in zip(codes, chosen, orders, strict=True):
        place = np.full(int(side.max(initial=-1)) + 1, 0, dtype=np.int64)
        place[known[order[pairs]]] = counts[pairs]
        shuffled = rng.permutation(len(side))
        by_patient = shuffled[np.argsort(side[shuffled], kind="stable")]
        start = np.searchsorted(side[by_patient], side[by_patient], side="left")
        drawn.append(np.sort(by_patient[np.arange(len(side)) - start < place[side[by_patient]]]))
    return drawn


def _within(x: np.ndarray, codes: np.ndarray, mapper: Mapper) -> NearestRows:
    """The nearest row of another code."""
    return nearest(x, x, x_codes=codes, y_codes=codes, mapper=mapper)


def _pairs(found: NearestRows, codes: np.ndarray) -> np.ndarray:
    """(n,) codes, equal for patients that are each other's nearest: what one is compared with is the other."""
    known, patient = np.unique(codes, return_inverse=True)
    patient = patient.reshape(-1)
    order = np.lexsort((found.squared, patient))
    first = order[np.searchsorted(patient[order], np.arange(len(known)))]
    other = patient[found.row[first]]
    mutual = other[other] == np.arange(len(known))
    return np.where(mutual, np.minimum(other, np.arange(len(known))), np.arange(len(known)))[patient]


def _distance(x: np.ndarray, y: np.ndarray, mapper: Mapper) -> np.ndarray:
    """(n,) squared distances to the nearest row of y."""
    return nearest(x, y, mapper=mapper).squared
