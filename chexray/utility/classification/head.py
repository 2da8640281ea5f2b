"""Classification of the 14 findings as a head of the training loop: masked losses, macro AUROC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from chexray.findings import FINDINGS
from chexray.stats.ranking import roc_auc
from chexray.utility.classification.classifier import build, fetch_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from chexray.encoders.weights import ResolvedWeights
    from chexray.storage import Storage
    from chexray.utility.loop.head import Loss
    from chexray.utility.loop.recipe import Recipe


@dataclass(frozen=True)
class Classification:
    """Labels are (n, 14) int8 in the order of FINDINGS: 1, 0, or -1 where loss and score leave the cell out."""

    identity: ClassVar[str] = ""
    width: ClassVar[int] = len(FINDINGS)
    predicted: ClassVar[str] = "logits"
    score: ClassVar[str] = "auroc"
    better: ClassVar[str] = "higher"

    def build(self, recipe: Recipe, weights: ResolvedWeights | None, *, seed: int, storage: Storage) -> nn.Module:
        """See `classifier.build`."""
        here = fetch_weights(recipe.model, weights, storage)
        return build(recipe.model, here, seed=seed, image_size=recipe.image_size)

    def batch(self, labels: np.ndarray) -> np.ndarray:
        """The labels themselves."""
        return np.ascontiguousarray(labels, np.int8)

    def loss(self, recipe: Recipe, labels: np.ndarray, device: torch.device) -> Loss:
        """The loss of the recipe, its positives weighted by the labels of the whole phase where it says so."""
        import torch

        from chexray.utility.classification.losses import balanced_pos_weight, loss_function

        balanced = recipe.pos_weight == "balanced"
        return loss_function(
            recipe.loss, balanced_pos_weight(torch.from_numpy(labels)).to(device) if balanced else None
        )

    def counts(self, labels: np.ndarray) -> bool:
        """Whether any label counts."""
        return bool((labels >= 0).any())

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Logits are stored as they are."""
        return outputs

    def judge(self, predicted: np.ndarray, labels: np.ndarray) -> float | None:
        """Macro AUROC; higher is better."""
        return macro_auroc(predicted, labels)


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean AUROC over the findings with both classes; None when no finding has them.

    logits (n, 14); labels (n, 14) of 1, 0 and -1 for cells left out.
    """
    areas = [
        roc_auc(logits[labels[:, k] == 1, k], logits[labels[:, k] == 0, k])
        for k in range(labels.shape[1])
        if (labels[:, k] == 1).any() and (labels[:, k] == 0).any()
    ]
    return float(np.mean(areas)) if areas else None
