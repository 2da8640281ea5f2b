"""What each number of pairs of a real image and what its prompt gave is, and of the network that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chexray.outputs import Output, Upstream

EXTREMES = ("n_seeds_max",)
"""What the mean of extremes over the seeds of a prompt moves with."""
EXTREME = ("n_seeds_max", "n_prompts")
"""What one extreme over all seeds and prompts moves with, and a count of prompts by their extremes."""

_CHEXGENBENCH = "Dutta et al. 2025 (CheXGenBench)"
_reid = partial(Output, low=0.0, high=1.0, family="re-identification")
_reid_score = partial(
    _reid, better="lower", needs_floor=True, paper=_CHEXGENBENCH,
    cannot_see="copies of images that the prompt does not belong to",
)  # fmt: skip
_siamese = partial(Upstream, encoder="siamese_reid", route="cgb224")
REID = (
    _reid_score(
        "reid_mean",
        says="Mean score of a real image and the images generated from its prompt; 1 looks like one patient.",
        role="mean",
        label="mean score",
        rank=1,
        upstream=_siamese("avg_reid"),
    ),
    _reid_score(
        "reid_max_mean",
        moves_with=EXTREMES,
        says="Mean over prompts of the highest score among a prompt's images.",
        role="mean of extremes",
        label="mean of the maxima",
    ),
    _reid_score(
        "reid_max",
        moves_with=EXTREME,
        says="Highest score of any pair.",
        role="extreme",
        label="maximum",
        upstream=_siamese("max_reid"),
    ),
)
THRESHOLDS = (0.5, 0.85, 0.95)
"""The paper's thresholds on the re-identification score."""
CALIBRATED = "calibrated"
"""In place of a threshold: the one found on pairs of real images."""


def reid_count(threshold: str) -> Output:
    """Prompts whose highest score is above a threshold, as text: "0.85", or CALIBRATED."""
    found = threshold == CALIBRATED
    return Output(
        f"reid_count_{threshold}", "lower", moves_with=EXTREME, needs_floor=True, low=0.0, unit="prompts",
        paper=_CHEXGENBENCH, family="re-identification", role="calibrated count" if found else "count",
        label=f"prompts above {'the calibrated threshold' if found else threshold}",
        judges="re-identification" if found else "",
        says=f"Prompts whose highest score is above {f'the {CALIBRATED} threshold' if found else threshold}.",
        cannot_see="whether a score is a match: read it beside the false-positive rate of its threshold",
    )  # fmt: skip


_of_network = partial(_reid, of_encoder=True)
REID_AUC = _of_network(
    "reid_auc", "higher", role="auc",
    says="How well the network tells pairs of one patient from pairs of two, on real images; 0.5 is chance.",
    cannot_see="anything about synthetic images",
)  # fmt: skip
REID_THRESHOLD = _of_network(
    "reid_threshold", role="threshold",
    says="Score that few pairs of real images of two patients exceed.",
    cannot_see="anything about synthetic images",
)  # fmt: skip


def reid_fpr(threshold: float) -> Output:
    """Share of real pairs of two patients that score above a fixed threshold."""
    return _of_network(
        f"reid_fpr_{threshold:g}", "lower", role="false positives",
        says=f"Share of pairs of real images of two patients that score above {threshold:g}.",
        cannot_see="anything about synthetic images",
    )  # fmt: skip


_distance = partial(
    Output, better="higher", needs_floor=True, low=0.0, paper=_CHEXGENBENCH, family="pair distances",
    cannot_see="copies of images that the prompt does not belong to",
)  # fmt: skip


def _distances(name: str, space: str, unit: str, upstream: Upstream | None = None) -> tuple[Output, ...]:
    """The mean, the mean of the minima and the minimum, in that order."""
    of = partial(_distance, unit=unit)
    return (
        of(
            name, role="mean", label="mean", rank=1, upstream=upstream,
            says=f"Mean {space} distance of a real image and the images generated from its prompt.",
        ),
        of(
            f"{name}_min_mean", moves_with=EXTREMES, role="mean of extremes", label="mean of the minima",
            says=f"Mean over prompts of the smallest {space} distance among a prompt's images.",
        ),
        of(
            f"{name}_min", moves_with=EXTREME, role="extreme", label="minimum",
            says=f"Smallest {space} distance of any pair.",
        ),
    )  # fmt: skip


LATENT = _distances("latent_distance", "feature", "root mean square", Upstream("avg_latent_distance", route="cgb512"))
PIXEL = _distances("pixel_distance", "pixel", "grey levels, root mean square")
PIXEL_UPSTREAM = _distance(
    "pixel_distance_upstream", role="upstream", never_compared="WRONG: differences wrap modulo 256",
    says="Mean pixel distance as CheXGenBench computes it.",
)  # fmt: skip


def pair_outputs(thresholds: Sequence[float] = THRESHOLDS) -> tuple[Output, ...]:
    """All of them. thresholds: fixed ones on the re-identification score."""
    return (
        *REID, *(reid_count(f"{cut:g}") for cut in thresholds), reid_count(CALIBRATED), REID_AUC, REID_THRESHOLD,
        *map(reid_fpr, thresholds), *LATENT, *PIXEL, PIXEL_UPSTREAM,
    )  # fmt: skip
