"""What each number of the privacy suite is: its direction, its range, what it says and what it cannot see.

Families are the sections of the privacy report; a role is the place of a number in its section:

flagged images      count: images of a set that any part of the suite flags
memorisation        share, excess: what the search of one encoder flags, as it is and beyond chance
planted copies      found: share of altered copies of training images that the run planted and found again
other tools         numbers of other papers; they are for comparison and decide nothing
duplicates          exact training, near training, exact within, near within
re-identification   mean, mean of extremes, extreme, count, calibrated count; of the network: auc, threshold,
                    false positives
pair distances      mean, mean of extremes, extreme, upstream
filter test         one change, all changes, unseen patients, same verdict
"""

from __future__ import annotations

from functools import partial

from chexray.outputs import Output
from chexray.privacy.augmentations import ALTERATIONS, ALTERED, AUGMENTATIONS
from chexray.privacy.pair_outputs import pair_outputs

BOTH = ("n_real", "n_synthetic")

_share = partial(Output, low=0.0, high=1.0)

FLAGGED = Output(
    "images_flagged", moves_with=("n_synthetic",), low=0.0, unit="images", family="flagged images", role="count",
    says="Images of the set that any part of the privacy suite flags.",
    cannot_see="how many of them chance explains: each search tests that",
)  # fmt: skip

_memorised = partial(
    Output, better="lower", high=1.0, paper="conformal p-values: Vovk et al. 2005", family="memorisation",
)  # fmt: skip
SHARE = _memorised(
    "memorised_share", low=0.0, needs_floor=True, role="share", rank=1, judges="nearest training image",
    says="Share of synthetic images that are nearer to a training image than unseen real images are.",
    cannot_see="a copy altered so much that this encoder finds it no nearer than unseen images; parts of an image",
)  # fmt: skip
EXCESS = _memorised(
    "memorised_excess", low=-1.0, role="excess", rank=2,
    says="Share of flagged images beyond the share that chance flags.",
    cannot_see="which images are copies, and shares below smallest_share_noticed; each image has its own p-value",
)  # fmt: skip

_BLIND_DISTANCE = "whether anything is copied: alarms falsely on a generator of low diversity; names no copy"
_other_tool = partial(Output, family="other tools")
CLOSER = _other_tool(
    "closer_to_training", "lower", low=0.0, high=1.0, needs_floor=True,
    says="Share of synthetic images nearer to training than to as many held-out images; 0.5 without copies.",
    cannot_see="a few copies among many images: 1 % of copies moves it by .005",
)  # fmt: skip
_distance_to_closest = partial(
    _other_tool, better="higher", moves_with=("n_real",), needs_floor=True, low=0.0, cannot_see=_BLIND_DISTANCE
)
Q01, Q05 = (
    _distance_to_closest(
        f"dcr_q{percent:02d}",
        unit="feature distance",
        says=f"Distance to the nearest training image that {percent} % of synthetic images stay below.",
    )
    for percent in (1, 5)
)
BELOW = _other_tool(
    "dcr_below_null", "lower", low=0.0, high=1.0, needs_floor=True,
    says="Share of synthetic images nearer to training than nearly all unseen real images.",
    cannot_see=_BLIND_DISTANCE,
)  # fmt: skip
MEMORISATION = (SHARE, EXCESS, CLOSER, Q01, Q05, BELOW)

AUTHENTICITY = _other_tool(
    "authenticity", "higher", moves_with=("n_real",), needs_floor=True, low=0.0, high=1.0, paper="Alaa et al. 2022",
    says="Share of synthetic images farther from their nearest training image than that one is from other patients'.",
    cannot_see="whether anything is copied: a quarter to a half is 'not authentic' without a copy, more so at low "
    "diversity, where it alarms falsely; 1 % of copies moves it by less than .01",
)  # fmt: skip
C_T = _other_tool(
    "c_t", "higher", moves_with=BOTH, paper="Meehan et al. 2020",
    says="z-score of synthetic against held-out distances to training; far below 0 where synthetic images lie nearer.",
    cannot_see="a few copies among many images; alarms falsely (strongly negative) on a generator of low diversity",
)  # fmt: skip
C_T_PCA64 = _other_tool(
    "c_t_pca64", "higher", moves_with=BOTH, paper="Meehan et al. 2020; Stein et al. 2023",
    says="The same on 64 principal components, as dgm-eval computes it.",
    cannot_see="whatever lies outside 64 principal components of the training set; otherwise as c_t, from which it "
    "can differ in sign",
)  # fmt: skip
NNAA_LOSS = _other_tool(
    "nnaa_loss", "lower", low=-1.0, high=1.0, paper="Yale et al. 2020",
    says="How much better a nearest neighbour tells held-out images from synthetic ones than training images; 0 "
    "without copies.",
    cannot_see="a few copies among many images: 1 % of copies moves it by .005; names no copy",
)  # fmt: skip
OTHER_TOOLS = (AUTHENTICITY, C_T, C_T_PCA64, NNAA_LOSS)

_BLIND_EXACT = "a copy with one changed pixel: see the near duplicates"
_duplicates = partial(Output, better="lower", low=0.0, unit="images", family="duplicates")
EXACT_TRAINING = _duplicates(
    "duplicates_exact_training", moves_with=BOTH, role="exact training", label="the same as a training image",
    says="Synthetic images with the pixels of a training image.",
    cannot_see=_BLIND_EXACT,
)  # fmt: skip
NEAR_TRAINING = _duplicates(
    "duplicates_near_training", moves_with=BOTH, needs_floor=True, role="near training",
    label="nearly a training image", judges="duplicates",
    says="Synthetic images whose perceptual hash is within a few bits of a training image's, mirrored or not.",
    cannot_see="a copy altered more than the planted copies that this run found",
)  # fmt: skip
EXACT_WITHIN = _duplicates(
    "duplicates_exact_within", moves_with=("n_synthetic",), role="exact within",
    label="the same as another synthetic one",
    says="Synthetic images with the pixels of another synthetic image.",
    cannot_see=_BLIND_EXACT,
)  # fmt: skip
NEAR_WITHIN = _duplicates(
    "duplicates_near_within", moves_with=("n_synthetic",), role="near within", label="nearly another synthetic one",
    says="Synthetic images whose perceptual hash is within a few bits of another synthetic image's.",
    cannot_see="a copy turned, cropped or altered beyond what the hash forgives",
)  # fmt: skip
DUPLICATES = (EXACT_TRAINING, NEAR_TRAINING, EXACT_WITHIN, NEAR_WITHIN)

IDENTITY = "identity"
"""A copy without any change: scored by itself and left out of the mean, which it would only flatter."""


def planted_found(alteration: str) -> Output:
    """Share of copies of training images, altered as a key of ALTERATIONS says, that the run finds."""
    return _share(
        f"planted_found_{alteration}", "higher", family="planted copies", role="found", label=ALTERED[alteration],
        of_encoder=True,
        says=f"Share of planted copies of training images that the run finds: {ALTERED[alteration]}.",
        cannot_see="copies altered in other ways",
    )  # fmt: skip


_filter = partial(_share, better="higher", family="filter test", paper="arXiv 2510.01793")
SENSITIVITY = _filter(
    "audit_sensitivity", role="all changes", label="mean, identity left out", rank=1,
    says="Share of planted copies that the filter flags, mean over the changes other than none.",
    cannot_see="copies altered in other ways",
)  # fmt: skip
SPECIFICITY = _filter(
    "audit_specificity", role="unseen patients", rank=2,
    says="Share of images of unseen patients that the filter passes.",
    cannot_see="patients of another source",
)  # fmt: skip
CONSISTENCY = _filter(
    "audit_consistency", role="same verdict", rank=3,
    says="Share of synthetic images that get the same verdict as an altered version of them.",
    cannot_see="whether the verdicts are right: a filter that flags nothing is consistent",
)  # fmt: skip


def sensitivity_to(augmentation: str) -> Output:
    """Share of planted copies with one change, a key of AUGMENTATIONS, that the filter flags."""
    return _filter(
        f"{SENSITIVITY.name}_{augmentation}", role="one change", label=augmentation,
        says=f"Share of planted copies that the filter flags: {augmentation}.",
        cannot_see="copies altered in other ways",
    )  # fmt: skip


def privacy_outputs() -> tuple[Output, ...]:
    """Every number that the suite and its filter test can return."""
    return (
        FLAGGED, *MEMORISATION, *OTHER_TOOLS, *map(planted_found, ALTERATIONS), *DUPLICATES, *pair_outputs(),
        *map(sensitivity_to, AUGMENTATIONS), SENSITIVITY, SPECIFICITY, CONSISTENCY,
    )  # fmt: skip
