"""Memorisation numbers of other papers, for comparison with them, each with what it cannot see.

AuthPct and C_T are averages of distances to the training set alone or of whole distributions: they alarm on a generator
that copies nothing but varies too little, and do not move for 1 % of copies. chexray's own answer is the per-image
ratio to a held-out null (ratio.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq
from scipy.stats import norm
from scipy.stats import t as student

from chexray.metrics.base import Mapper, Output, Score
from chexray.metrics.common import NO_FLOOR, Error, Floor, measured, nulls
from chexray.stats.nearest import Found, nearest
from chexray.stats.ranking import mann_whitney_z
from chexray.stats.resampling import clustered_std_error, jackknife_groups, jackknife_std_error
from chexray.stats.tiles import spans, threaded

AUTHENTICITY = Output("authenticity", "higher")
C_T = Output("c_t", "higher")
C_T_PCA64 = Output("c_t_pca64", "higher")
NNAA_LOSS = Output("nnaa_loss", "lower")

CANNOT_SEE = {
    AUTHENTICITY: "whether anything is copied: a quarter to a half is 'not authentic' without a copy, more so at low "
    "diversity, where it alarms falsely; 1 % of copies moves it by less than .01",
    C_T: "a few copies among many images; alarms falsely (strongly negative) on a generator of low diversity",
    C_T_PCA64: "whatever lies outside 64 principal components of the training set; otherwise as c_t, from which it can "
    "differ in sign",
    NNAA_LOSS: "a few copies among many images: 1 % of copies moves it by .005; names no copy",
}

MIN_IN_CELL = 20
GROUPS = 20
CELLS = 3
CELL_SAMPLE = 20_000


@dataclass(frozen=True)
class ToTraining:
    """distance: (n,) float64 to the nearest training image. row: (n,) int64, which one."""

    distance: np.ndarray
    row: np.ndarray


def authenticity(synthetic: ToTraining, training_spacing: np.ndarray, *, heldout: ToTraining | None = None) -> Score:
    """Share of synthetic images farther from their nearest training image t than t is from other training images.

    AuthPct / 100 (Alaa et al. 2022). Higher is better. training_spacing: (N,) float64, the distance of each training
    image to its nearest one of another patient; with one image a patient, or where patients are unknown, that is
    dgm-eval's number. Floor: the same share of held-out images, which
    is what a perfect generator gets and often .5 to .75. The error is that of other images of this generator beside the
    same training set; images with one nearest training image count as one.
    """
    if not len(synthetic.distance):
        return nulls([AUTHENTICITY], "too_few", "0 synthetic images, and at least 1 is needed")[0]
    if not len(training_spacing) > 1:
        reason = f"{len(training_spacing)} training images, and at least 2 are needed"
        return nulls([AUTHENTICITY], "too_few", reason)[0]
    authentic = _authentic(synthetic, training_spacing)
    error = Error.of(clustered_std_error(authentic, synthetic.row), "clustered")
    floor = NO_FLOOR
    if heldout is not None and len(heldout.row):
        floor = Floor(float(_authentic(heldout, training_spacing).mean()), method="held-out")
    return measured(
        AUTHENTICITY, float(authentic.mean()), error, floor, low=0.0, high=1.0,
        cannot_see=CANNOT_SEE[AUTHENTICITY],
    )  # fmt: skip


def _authentic(images: ToTraining, spacing: np.ndarray) -> np.ndarray:
    return images.distance > spacing[images.row]


def c_t(
    synthetic: np.ndarray,
    heldout: np.ndarray,
    synthetic_cells: np.ndarray | None = None,
    heldout_cells: np.ndarray | None = None,
    *,
    min_in_cell: int = MIN_IN_CELL,
    synthetic_groups: np.ndarray | None = None,
    heldout_subjects: np.ndarray | None = None,
    seed: int = 0,
) -> Score:
    """Data-copying statistic C_T (Meehan et al. 2020): far below 0 where synthetic images lie nearer than unseen ones.

    synthetic, heldout: (n,), (m,) distances to the nearest training image. Per cell the z-score of the Mann-Whitney U
    of the two, averaged with the cell's share of held-out images as weight. Cells with at most `min_in_cell` synthetic
    images or without held-out ones are skipped; without cell ids, (n,) and (m,) int64, all is one cell. About 0 for a
    perfect generator, positive for one that underfits. It grows with the root of the sample size: compare at equal n.

    Against dgm-eval (`c_t_pca64`, dgm_eval.py): distances to the whole training set rather than to that of the cell, no
    reduction to 64 principal components, which can change the sign, variance corrected for ties, no continuity
    correction of 1/2 (below 1e-3 in z). Error: jackknife over 20 blocks of each side, of whole patients and prompts.
    """
    x, y = np.asarray(synthetic, dtype=np.float64), np.asarray(heldout, dtype=np.float64)
    a = np.zeros(len(x), dtype=np.int64) if synthetic_cells is None else np.asarray(synthetic_cells)
    b = np.zeros(len(y), dtype=np.int64) if heldout_cells is None else np.asarray(heldout_cells)
    cells = [cell for cell in np.unique(b) if np.count_nonzero(a == cell) > min_in_cell]
    if not cells:
        reason = f"no cell with held-out images and more than {min_in_cell} of the {len(x)} synthetic ones"
        return nulls([C_T], "too_few", reason)[0]
    weights = np.array([np.count_nonzero(b == cell) for cell in cells], dtype=np.float64)
    value = _cell_mean(x, y, a, b, cells)
    error = two_sided_jackknife(x, y, a, b, cells, synthetic_groups, heldout_subjects, np.random.default_rng(seed))
    return measured(
        C_T, value, error, Floor(0.0),
        cannot_see=CANNOT_SEE[C_T], min_in_cell=min_in_cell, note_n_cells=len(cells),
        # The z of each cell has variance 1 where nothing is copied and images are independent.
        note_std_without_copies=float(np.sqrt(np.sum(weights**2)) / weights.sum()),
    )  # fmt: skip


def _cell_mean(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cells: list) -> float:
    sides = [(x[a == cell], y[b == cell]) for cell in cells]
    sides = [(mine, theirs) for mine, theirs in sides if len(mine) and len(theirs)]
    total = sum(len(theirs) for _, theirs in sides)
    return sum(len(theirs) * mann_whitney_z(mine, theirs) for mine, theirs in sides) / total if total else math.nan


def two_sided_jackknife(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cells: list,
    groups: np.ndarray | None, subjects: np.ndarray | None, rng: np.random.Generator,
) -> Error:  # fmt: skip
    """Blocks of one side left out in turn while the other stays whole; the two errors add as independent ones do."""
    without_x, without_y = [], []
    for block in jackknife_groups(len(x), groups, GROUPS, rng):
        keep = np.delete(np.arange(len(x)), block)
        without_x.append(_cell_mean(x[keep], y, a[keep], b, cells))
    for block in jackknife_groups(len(y), subjects, GROUPS, rng):
        keep = np.delete(np.arange(len(y)), block)
        without_y.append(_cell_mean(x, y[keep], a, b[keep], cells))
    error = math.hypot(*(jackknife_std_error(np.array(side)) for side in (without_x, without_y)))
    return Error.of(error, "jackknife")


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
    joint = [_by_patient(sign * own, codes, sign * term, codes[each.row]) for sign, own, codes, term, each in sides]
    apart = [clustered_std_error(own, codes) for _, own, codes, _, _ in sides]
    alone = clustered_std_error(of_synthetic)
    apart.append(max(alone, math.hypot(*(clustered_std_error(t, codes[each.row]) for _, _, codes, t, each in sides))))
    if synthetic_groups is not None:  # what images of one group share beyond what they share with a patient
        grouped = clustered_std_error(of_synthetic, synthetic_groups[picked])
        more = math.sqrt(max(0.0, grouped**2 - alone**2))
        joint, apart = [*joint, more], [*apart, more]
    # Few patients: the normal interval of this error is then that of Student's t.
    units = min(len(np.unique(codes)) for codes in patients)
    wider = float(student.ppf(0.975, units - 1) / norm.ppf(0.975)) if units > 1 else math.nan
    error = Error.of(0.5 * wider * max(math.hypot(*joint), math.hypot(*apart)), "influence")
    return measured(
        NNAA_LOSS, value, error, Floor(0.0), low=-1.0, high=1.0, cannot_see=CANNOT_SEE[NNAA_LOSS], n_each=n,
        n_patients=None if training_subjects is None else n_patients,
    )  # fmt: skip


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


def _within(x: np.ndarray, codes: np.ndarray, mapper: Mapper) -> Found:
    """The nearest row of another code."""
    return nearest(x, x, x_codes=codes, y_codes=codes, mapper=mapper)


def _pairs(found: Found, codes: np.ndarray) -> np.ndarray:
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


def fit_cells(features: np.ndarray, n_cells: int = CELLS, *, sample: int = CELL_SAMPLE, seed: int = 0) -> np.ndarray:
    """Centres of k-means cells of the training set, (k, d) float64, k <= n_cells, from at most `sample` rows.

    Started from distinct random rows (k-means++ spreads), so the same rows and seed give the same cells.
    """
    rng = np.random.default_rng(seed)
    index = np.sort(rng.choice(len(features), min(sample, len(features)), replace=False))
    rows = features[index].astype(np.float64)
    centres = [rows[rng.integers(len(rows))]]
    while len(centres) < n_cells:
        squared = vq(rows, np.array(centres))[1] ** 2
        if not squared.any():
            break
        centres.append(rows[rng.choice(len(rows), p=squared / squared.sum())])
    return np.asarray(kmeans2(rows, np.array(centres), iter=25, minit="matrix")[0])


def assign_cells(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) int64: the cell of each row, that of the nearest centre."""
    parts = [vq(features[start:stop].astype(np.float64), centres)[0] for start, stop in spans(0, len(features), 8192)]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts]).astype(np.int64)
