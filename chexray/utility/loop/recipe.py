"""How a classifier is trained: everything that determines a fit but its images and its seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

FIT_VERSION = 1
"""Raised whenever the same recipe, images and seed give another classifier: stored fits are then trained anew."""


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a multi-label classifier of the 14 findings.

    model: a timm name. weights: "none", or the reference of the weights it starts from, with their weights_sha256.
    image_size: pixels a side. batch_size: images a step, over all workers together.
    epochs, budget: with "images" an epoch presents as many images as the real training set has, whatever the setting's
    own set holds, so that every setting sees equally many; with "epochs" it is one pass over the setting's own set.
    schedule: "cosine" to 0, "plateau" (times plateau_factor after plateau_patience epochs without a lower validation
    loss), or "constant". patience: epochs without a better validation AUROC after which training stops; 0 for never.
    loss: "bce", "focal" (Lin et al. 2017) or "asymmetric" (Ridnik et al. 2021). pos_weight: "none", or "balanced" for
    negatives over positives of each finding, at most 20.
    augment: "none", "standard" (shifts, turns, zooms, contrast; no flip, which would move the heart to the other side)
    or "chexgenbench" (upstream's: half the images mirrored, all turned by up to 10 degrees).
    select: the epoch that is kept, "auroc" for the highest macro AUROC on validation, "loss" for the lowest loss.
    precision: "fp32", or autocast in "bf16" or "fp16" on a GPU. grad_clip: largest gradient norm; 0 for no limit.
    """

    model: str = "resnet50"
    weights: str = "none"
    weights_sha256: str = ""
    image_size: int = 224
    epochs: int = 20
    batch_size: int = 64
    budget: str = "images"
    optimizer: str = "adamw"
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    schedule: str = "cosine"
    plateau_factor: float = 0.1
    plateau_patience: int = 2
    patience: int = 0
    loss: str = "bce"
    pos_weight: str = "none"
    augment: str = "standard"
    precision: str = "fp32"
    grad_clip: float = 0.0
    select: str = "auroc"

    @property
    def fingerprint(self) -> str:
        """10 hex digits over every field that changes a classifier: the hash of the weights, not their wording."""
        fields = {**asdict(self), "fit_version": FIT_VERSION}
        if self.weights_sha256:
            del fields["weights"]
        if self.select == "auroc":  # the only way when fits were first stored
            del fields["select"]
        return hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=5).hexdigest()
