"""What a network is trained to do. The loop knows nothing else of targets, losses and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from chexray.encoders.weights import ResolvedWeights
    from chexray.storage import Storage
    from chexray.utility.loop.recipe import Recipe

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""(b, width) float32 outputs, (b, ...) targets as `Head.batch` gives them -> scalar float32, lower is better."""


class Head(Protocol):
    """A task: from outputs of a network, (n, width) a batch, to a loss and a score. Frozen and picklable."""

    identity: ClassVar[str]
    """What tells fits of this head from those of others: part of their fingerprint. "" for classification, whose fits
    were stored before there were others."""

    width: ClassVar[int]
    """Numbers that the network returns for an image."""

    predicted: ClassVar[str]
    """The column of stored predictions, such as "logits"."""

    score: ClassVar[str]
    """What `judge` returns, in one word, such as "auroc": names columns of the history."""

    better: ClassVar[str]
    """The better direction of the score: "higher" or "lower"."""

    def build(self, recipe: Recipe, weights: ResolvedWeights | None, *, seed: int, storage: Storage) -> nn.Module:
        """The untrained network, (n, 3, side, side) -> (n, width), on the CPU in float32: `weights`, fetched to this
        machine, and the rest filled from the seed."""
        ...

    def batch(self, labels: np.ndarray) -> np.ndarray:
        """Targets of n images, (n, ...), from the labels of their sample."""
        ...

    def loss(self, recipe: Recipe, labels: np.ndarray, device: torch.device) -> Loss:
        """The loss of a phase, for training and validation. labels: of all images of the phase."""
        ...

    def counts(self, labels: np.ndarray) -> bool:
        """Whether a validation set of these labels can be judged at all."""
        ...

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """(n, width) float32 outputs of the network -> (n, width) float32, what is stored of them."""
        ...

    def judge(self, predicted: np.ndarray, labels: np.ndarray) -> float | None:
        """The score of a validation set, from finite predictions; None where it is undefined."""
        ...
