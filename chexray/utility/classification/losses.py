"""Losses of a multi-label classifier, as a mean over the labels that count: -1 is left out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from chexray.errors import ConfigError
from chexray.utility.loop.head import Loss

GAMMA_FOCAL = 2.0
GAMMA_NEGATIVE, GAMMA_POSITIVE, CLIP = 4.0, 1.0, 0.05
POS_WEIGHT_LIMIT = 20.0
"""A finding seen twice in 20,000 images would otherwise weigh 10,000 and make one batch of steps."""


def loss_function(name: str, pos_weight: Tensor | None = None) -> Loss:
    """The loss of that name: "bce", "focal" (Lin et al. 2017) or "asymmetric" (Ridnik et al. 2021).

    pos_weight: (14,) float32 on the device of the logits; multiplies the loss of positive labels, in every loss.
    logits (b, 14) float, labels (b, 14) int8 of 1, 0, -1; 0 with a gradient of 0 when every label is -1.
    Everything is computed in float32, also when the logits come out of autocast. Raises ConfigError for another name.
    """
    known = {"bce": _bce, "focal": _focal, "asymmetric": _asymmetric}
    if name not in known:
        raise ConfigError(f"utility.loss is {name!r}; expected one of {', '.join(known)}.")
    per_label = known[name]

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        counts = labels >= 0
        positive = (labels > 0).float()
        values = per_label(logits.float(), positive)
        if pos_weight is not None:
            values = values * torch.where(labels > 0, pos_weight, torch.ones_like(pos_weight))
        # where, not a product: a logit of a masked label may be infinite, and 0 * inf is NaN.
        return torch.where(counts, values, 0.0).sum() / counts.sum().clamp(min=1)

    return loss


def _bce(logits: Tensor, positive: Tensor) -> Tensor:
    """(b, 14): cross-entropy of each label, softplus(-x) for a positive and softplus(x) for a negative."""
    return F.binary_cross_entropy_with_logits(logits, positive, reduction="none")


def _focal(logits: Tensor, positive: Tensor) -> Tensor:
    """(b, 14): cross-entropy times (1 - p_true)^2; no alpha, which `pos_weight` takes the place of."""
    wrong = torch.sigmoid(torch.where(positive > 0, -logits, logits))
    return wrong.pow(GAMMA_FOCAL) * _bce(logits, positive)


def _asymmetric(logits: Tensor, positive: Tensor) -> Tensor:
    """(b, 14): -(1 - p) log p for a positive, -q^4 log(1 - q) for a negative with q = max(p - 0.05, 0).

    Negatives below a probability of 0.05 count for nothing: with 14 findings almost every label is an easy negative.
    """
    as_positive = torch.sigmoid(-logits).pow(GAMMA_POSITIVE) * F.softplus(-logits)
    shifted = (torch.sigmoid(logits) - CLIP).clamp(min=0)
    as_negative = -shifted.pow(GAMMA_NEGATIVE) * torch.log1p(-shifted)
    return torch.where(positive > 0, as_positive, as_negative)


def balanced_pos_weight(labels: Tensor) -> Tensor:
    """(14,) float32: negatives over positives of each finding, within [1/20, 20]; 1 where one of the two is absent.

    labels: (n, 14) int8 of the training images; -1 counts as neither.
    """
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    ratio = (negatives / positives.clamp(min=1)).clamp(1 / POS_WEIGHT_LIMIT, POS_WEIGHT_LIMIT)
    return torch.where((positives > 0) & (negatives > 0), ratio, torch.ones_like(ratio)).float()
