"""Losses: parity with torch, torchvision and the formula of the paper; what is masked counts for nothing."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from chexray.errors import ConfigError
from chexray.utility.classification.losses import balanced_pos_weight, loss_function

LOSSES = ("bce", "focal", "asymmetric")


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(9, 14, generator=rng)
    labels = torch.randint(-1, 2, (9, 14), generator=rng, dtype=torch.int8)
    return logits, labels


def asymmetric_of_the_paper(p, y):
    """Ridnik et al. 2021, equations 4 to 7, with gamma- 4, gamma+ 1 and a margin of 0.05."""
    shifted = (p - 0.05).clamp(min=0)
    return -(y * (1 - p) * p.log() + (1 - y) * shifted**4 * (1 - shifted).log())


@pytest.mark.parametrize("weighted", [False, True])
def test_bce_is_that_of_torch_over_the_labels_that_count(batch, weighted):
    logits, labels = batch
    weight = torch.linspace(0.1, 12, 14) if weighted else None
    counts = labels >= 0
    each = torch.nn.BCEWithLogitsLoss(pos_weight=weight, reduction="none")(logits, labels.clamp(min=0).float())
    torch.testing.assert_close(loss_function("bce", weight)(logits, labels), each[counts].mean(), atol=1e-6, rtol=0)


def test_focal_is_that_of_torchvision(batch):
    logits, labels = batch
    each = sigmoid_focal_loss(logits, labels.clamp(min=0).float(), alpha=-1, gamma=2)
    torch.testing.assert_close(loss_function("focal")(logits, labels), each[labels >= 0].mean(), atol=1e-6, rtol=0)


def test_asymmetric_is_that_of_the_paper(batch):
    logits, labels = batch
    each = asymmetric_of_the_paper(torch.sigmoid(logits.double()), labels.clamp(min=0).double())
    found = loss_function("asymmetric")(logits, labels).double()
    torch.testing.assert_close(found, each[labels >= 0].mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_masked_label_changes_neither_value_nor_gradient(batch, name):
    logits, labels = batch
    loss = loss_function(name)

    def value_and_gradient(masked_logit):
        given = torch.where(labels < 0, masked_logit, logits).requires_grad_()
        value = loss(given, labels)
        value.backward()
        return value.detach(), given.grad

    value, gradient = value_and_gradient(0.0)
    other, gradient_there = value_and_gradient(float("inf"))
    assert torch.equal(value, other)
    assert not gradient[labels < 0].any()
    assert torch.equal(gradient[labels >= 0], gradient_there[labels >= 0])


@pytest.mark.parametrize("name", LOSSES)
def test_everything_masked_is_zero_and_can_still_be_stepped_with(name):
    logits = torch.randn(3, 14, requires_grad=True)
    value = loss_function(name)(logits, torch.full((3, 14), -1, dtype=torch.int8))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 14))


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_and_half_precision_logits_stay_finite(name):
    logits = torch.tensor([[-500.0, 500.0] * 7, [500.0, -500.0] * 7], dtype=torch.bfloat16, requires_grad=True)
    value = loss_function(name)(logits, torch.tensor([[1, 0] * 7] * 2, dtype=torch.int8))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_an_unknown_loss_is_named():
    with pytest.raises(ConfigError, match="'hinge'; expected one of bce, focal, asymmetric"):
        loss_function("hinge")


def test_balanced_weights_are_negatives_over_positives_within_limits():
    labels = torch.zeros(100, 14, dtype=torch.int8)
    labels[:10, 0] = 1  # 90 / 10
    labels[:1, 1] = 1  # 99, too many
    labels[:99, 2] = 1  # 1 / 99, too few
    labels[:, 3] = 1  # no negative; finding 4 and the rest have no positive
    labels[:20, 5], labels[20:60, 5] = 1, -1  # 40 / 20: masked labels are neither
    weight = balanced_pos_weight(labels)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight[:6], torch.tensor([9.0, 20.0, 0.05, 1.0, 1.0, 2.0]))
    assert (weight[6:] == 1).all()
    assert torch.equal(balanced_pos_weight(labels[:0]), torch.ones(14))
