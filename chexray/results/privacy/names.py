"""The numbers of the privacy suite by section, and what they are called on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADLINE = ("memorised_share", "memorised_excess")
FLAGGED = "images_flagged"
"""Images of a set that any part of the suite flags."""
PEERS = (
    "closer_to_training",
    "dcr_q01",
    "dcr_q05",
    "dcr_below_null",
    "authenticity",
    "c_t",
    "c_t_pca64",
    "nnaa_loss",
)
"""What other tools report. They overlook a few copies or alarm without any, and so come last and dim."""

DUPLICATES = {
    "duplicates_exact_training": "the same as a training image",
    "duplicates_near_training": "nearly a training image",
    "duplicates_exact_within": "the same as another synthetic one",
    "duplicates_near_within": "nearly another synthetic one",
}
REID_SCORES = {
    "reid_mean": "mean score",
    "reid_max_mean": "mean of the maxima",
    "reid_max": "maximum",
}
COUNT_PREFIX, FPR_PREFIX = "reid_count_", "reid_fpr_"
CALIBRATION = ("reid_auc", "reid_threshold")
"""With the rows of FPR_PREFIX: about the network and real pairs, whatever the synthetic set they are filed under."""

PLANTED_PREFIX = "planted_found_"
"""Shares of altered copies that the run planted itself and found again, whatever the synthetic set."""

DISTANCES = {
    "latent_distance": "mean",
    "latent_distance_min_mean": "mean of the minima",
    "latent_distance_min": "minimum",
    "pixel_distance": "mean",
    "pixel_distance_min_mean": "mean of the minima",
    "pixel_distance_min": "minimum",
}
EXTREMES = {"reid_max": "maxima", "latent_distance_min": "minima", "pixel_distance_min": "minima"}
WITHIN = frozenset({"duplicates_exact_within", "duplicates_near_within"})
"""Numbers that never have an error estimate, and what they are."""

UPSTREAM_PIXELS = "pixel_distance_upstream"
WRAPS = "WRONG: differences wrap modulo 256"
"""Stands wherever a value of UPSTREAM_PIXELS is shown: two images one grey level apart score 255 or 1."""


def calibrates(row: Mapping[str, Any]) -> bool:
    """Whether the row is about a network and real pairs, or about planted copies, and so about no synthetic set."""
    return row["metric"] in CALIBRATION or row["metric"].startswith((FPR_PREFIX, PLANTED_PREFIX))
