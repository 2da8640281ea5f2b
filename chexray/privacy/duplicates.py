"""Exact and near duplicates of images, from digests of their pixels and Hamming distances of perceptual hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.outputs import Output
from chexray.privacy.alarm import FALSE_ALARM, precedence_p_value
from chexray.privacy.outputs import DUPLICATES, EXACT_TRAINING, EXACT_WITHIN, NEAR_TRAINING, NEAR_WITHIN
from chexray.privacy.shares import effective_n, share_interval

NULL_SHARE = 0.001
"""Share of unseen real images that may pass for near duplicates of a training image."""


@dataclass(frozen=True)
class Hamming:
    """bits: (n,) float64, Hamming distance of each hash to its nearest reference, inf where there is none. row: (n,)
    int64, that reference, -1 where there is none."""

    bits: np.ndarray
    row: np.ndarray

    @classmethod
    def of_signs(cls, squared: np.ndarray, row: np.ndarray) -> Hamming:
        """From squared distances between hashes of -1 and 1: a differing bit adds 4, a 0 beside a sign 1."""
        return cls(np.asarray(squared, dtype=np.float64) / 4, row)


@dataclass(frozen=True)
class Nearest:
    """The nearer of an image and its mirror image. mirrored: (n,) bool, where the mirror image is strictly nearer."""

    bits: np.ndarray
    row: np.ndarray
    mirrored: np.ndarray


def nearer(plain: Hamming, mirrored: Hamming | None = None) -> Nearest:
    """Per image the nearer of the two searches; without the second, the first."""
    if mirrored is None:
        return Nearest(plain.bits, plain.row, np.zeros(len(plain.bits), dtype=bool))
    flipped = mirrored.bits < plain.bits
    return Nearest(np.where(flipped, mirrored.bits, plain.bits), np.where(flipped, mirrored.row, plain.row), flipped)


@dataclass(frozen=True)
class Bits:
    """The largest Hamming distance that counts as near, and what it lets pass.

    bits: -1 where even equal hashes are too common among real images, so that nothing counts as near. default_bits:
    asked for. null_share: share of held-out images with a training image of another patient within `bits`, None
    without a null, in which case the default stands unchecked. n_null: held-out images.
    """

    bits: int
    default_bits: int
    null_share: float | None
    n_null: int


def calibrated_bits(null_bits: np.ndarray | None, default_bits: int, *, most: float = NULL_SHARE) -> Bits:
    """The default, lowered until at most a share `most` of held-out images has a training image within it.

    null_bits: (m,) distances of held-out images to the nearest training image of another patient, the nearer of plain
    and mirrored. Below 1/most images that is none at all.
    """
    null = np.empty(0) if null_bits is None else np.asarray(null_bits, dtype=np.float64)
    if not len(null):
        return Bits(default_bits, default_bits, None, 0)
    allowed = int(most * len(null) + 1e-9)
    # The first null image too many lies at this distance: stay below it.
    first = np.partition(null, allowed)[allowed] if allowed < len(null) else np.inf
    bits = default_bits if first > default_bits else int(np.ceil(first)) - 1
    return Bits(bits, default_bits, float(np.mean(null <= bits)), len(null))


@dataclass(frozen=True)
class Duplicates:
    """What each of n synthetic images is a duplicate of.

    exact_training: (n,) int64, lowest row of the training images with the same digest, or -1. near_training: (n,) bool,
    within `bits` of training_row (n,) int64 at training_bits (n,) float64, as its mirror image where
    training_mirrored; exact duplicates are near ones too. exact_within: (n,) int64, lowest row of the synthetic images
    with this digest where there are several, or -1. near_within: (n,) bool, within `bits` of within_row, another one.
    """

    exact_training: np.ndarray
    near_training: np.ndarray
    training_row: np.ndarray
    training_bits: np.ndarray
    training_mirrored: np.ndarray
    exact_within: np.ndarray
    near_within: np.ndarray
    within_row: np.ndarray
    within_bits: np.ndarray
    within_mirrored: np.ndarray


def find_duplicates(
    digests: np.ndarray,
    training_digests: np.ndarray,
    to_training: Nearest,
    within: Nearest,
    bits: Bits,
    bits_within: Bits | None = None,
) -> Duplicates:
    """The duplicates of n synthetic images among N training images and among themselves, in O((n + N) log(n + N)).

    digests, training_digests: (n, k), (N, k) float32, equal rows for equal images. to_training, within: nearest
    training image, nearest other synthetic image. bits_within: what is near among these, `bits` by default. Whole sets
    of equal images cost no more than distinct ones.
    """
    n, known = len(digests), len(training_digests)
    if not n == len(to_training.bits) == len(within.bits):
        raise ValueError(f"{n} digests, {len(to_training.bits)} and {len(within.bits)} nearest neighbours")
    first, _ = first_equal(np.concatenate([training_digests, digests]))
    own, count = first_equal(digests)
    return Duplicates(
        exact_training=np.where(first[known:] < known, first[known:], -1),
        near_training=to_training.bits <= bits.bits,
        training_row=to_training.row,
        training_bits=to_training.bits,
        training_mirrored=to_training.mirrored,
        exact_within=np.where(count > 1, own, -1),
        near_within=within.bits <= (bits_within or bits).bits,
        within_row=within.row,
        within_bits=within.bits,
        within_mirrored=within.mirrored,
    )


def first_equal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest index among the rows equal to each of (n, k) rows, and how many those are: (n,), (n,) int64.

    Bytes are compared, so NaN equals NaN; -0 is taken as 0.
    """
    if not rows.size:
        return np.arange(len(rows)), np.ones(len(rows), dtype=np.int64)
    rows = np.ascontiguousarray(rows + rows.dtype.type(0))
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
    _, first, inverse, count = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    return first[inverse], count[inverse]


def duplicate_scores(
    found: Duplicates,
    bits: Bits,
    *,
    bits_within: Bits | None = None,
    heldout_exact: np.ndarray | None = None,
    prompts: np.ndarray | None = None,
    n_sets: int = 1,
) -> list[Score]:
    """The four numbers of DUPLICATES, in order: counts of synthetic images. Lower is better.

    The floor of near duplicates of training images is how many of as many held-out images there would be. That of exact
    ones needs heldout_exact, (m,) bool: which held-out images equal a training image of another patient. Sets of
    synthetic images have no real counterpart here, so no floor. bits_within: as for find_duplicates. Intervals are for
    another n images of this generator, clustered by `prompts`, (n,) int64 codes; counts within the set come without, as
    they grow with the square of n.
    about["significant"] of the near ones: more of them than among as many held-out images, by an exact test over the
    n_sets synthetic sets of the audit. The bits may lie just below the nearest held-out image, and one synthetic image
    below that is no surprise.
    """
    n = len(found.near_training)
    if not n:
        return nulls(DUPLICATES, "too_few", "0 synthetic images, and at least 1 is needed")
    exact_floor = None if heldout_exact is None or not len(heldout_exact) else n * float(np.mean(heldout_exact))
    near_floor = None if bits.null_share is None else n * bits.null_share
    n_mirrored = int((found.near_training & found.training_mirrored).sum())
    method, about = _threshold(bits)
    about |= {"n_mirrored": n_mirrored, **_alarm(found.near_training, bits, prompts, n_sets)}
    return [
        _count(EXACT_TRAINING, found.exact_training >= 0, exact_floor, prompts),
        _count(NEAR_TRAINING, found.near_training, near_floor, prompts, method, about),
        _count_within(EXACT_WITHIN, found.exact_within >= 0),
        _count_within(NEAR_WITHIN, found.near_within, *_threshold(bits_within or bits)),
    ]


def _threshold(bits: Bits) -> tuple[dict[str, Any], dict[str, Any]]:
    """(method, about) of a number of near duplicates: what near means, and how it was found."""
    about: dict[str, Any] = {"null_share": bits.null_share, "n_null": bits.n_null}
    if bits.null_share is None:
        about["note"] = f"{bits.bits} bits unchecked: no held-out images tell how often unrelated images agree so far"
    elif bits.bits < bits.default_bits:
        about["note"] = (
            f"near means at most {bits.bits} bits, not {bits.default_bits}: unrelated real images agree so far"
            if bits.bits >= 0
            else "nothing counts as near: even equal hashes are common among unrelated real images"
        )
    return {"default_bits": bits.default_bits, "bits": bits.bits}, about


def _alarm(hit: np.ndarray, bits: Bits, prompts: np.ndarray | None, n_sets: int) -> dict[str, Any]:
    """Whether `hit`, (n,) bool, are more than the null explains; nothing without a null."""
    if bits.null_share is None:
        return {}
    n = effective_n(hit, prompts)
    count = int(float(hit.mean()) * n + 1e-9)
    # With j null images within the bits, k of n come before the (j + 1)-th: Fisher's exact test.
    rank = round(bits.null_share * bits.n_null) + 1
    p_value = min(1.0, n_sets * precedence_p_value(count, rank, max(1, int(n)), bits.n_null))
    return {"p_value": p_value, "significant": p_value <= FALSE_ALARM}


def _count_within(
    output: Output, hit: np.ndarray, method: dict[str, Any] | None = None, about: dict[str, Any] | None = None
) -> Score:
    why = "this is a count of pairs' members and grows with the square of n"
    told = {"cannot_see": output.cannot_see, "std_error_reason": why, **(about or {})}
    return Score(output, float(hit.sum()), method=method or {}, about=told)


def _count(
    output: Output,
    hit: np.ndarray,
    floor: float | None,
    prompts: np.ndarray | None,
    method: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> Score:
    n = len(hit)
    low, high = share_interval(float(hit.mean()), effective_n(hit, prompts))
    return Score(
        output, float(hit.sum()),
        ci_low=n * low, ci_high=n * high, std_error_method="clopper_pearson", real_floor=floor,
        method=method or {}, about={"cannot_see": output.cannot_see, **(about or {})},
    )  # fmt: skip
