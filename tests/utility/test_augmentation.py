"""Augmentation: repeatable, within its limits, and never a mirror image unless asked for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chexray.errors import ConfigError
from chexray.utility.loop import augmentation
from chexray.utility.loop.augmentation import augment


def chests(n: int, side: int = 48) -> torch.Tensor:
    """(n, side, side) uint8: the same chest, its large heart to the right of the picture's middle as on a PA film."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    lungs = sum(torch.exp(-(((x - c) / 0.25) ** 2) - (y / 0.6) ** 2) for c in (-0.45, 0.45))
    heart = torch.exp(-(((x - 0.3) / 0.25) ** 2) - ((y - 0.25) / 0.35) ** 2)
    return (110 - 50 * lungs + 130 * heart).clamp(0, 255).to(torch.uint8).expand(n, -1, -1).contiguous()


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = (v.flatten(1).double() - v.flatten(1).double().mean(1, keepdim=True) for v in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def test_none_is_the_batch_itself():
    batch = chests(2)
    assert augment(batch, "none", rng()) is batch


@pytest.mark.parametrize("kind", ["standard", "chexgenbench"])
@pytest.mark.parametrize("shape", [(5, 48, 48), (5, 1, 48, 48)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_same_generator_gives_the_same_images(kind, shape, dtype):
    batch = chests(5).reshape(shape).to(dtype)
    once, again, other = (augment(batch, kind, rng(seed)) for seed in (1, 1, 2))
    assert once.shape == shape
    assert once.dtype == torch.float32
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(once.float(), augment(batch.float(), kind, rng(1)).float())


def test_the_batch_is_left_as_it_was():
    batch = chests(4).float()
    before = batch.clone()
    for kind in ("standard", "chexgenbench"):
        augment(batch, kind, rng())
    assert torch.equal(batch, before)


def test_standard_leaves_the_heart_on_its_side():
    batch = chests(200)
    moved = augment(batch, "standard", rng(7))
    assert (correlation(moved, batch) > correlation(moved, batch.flip(-1)) + 0.05).all()


def test_upstreams_mirrors_half_of_the_images_and_turns_them(monkeypatch):
    batch = chests(400)
    moved = augment(batch, "chexgenbench", rng(7))
    assert float(moved[:, 0, 0].min()) == 0  # black corners come in
    monkeypatch.setattr(augmentation, "UPSTREAM_TURN_DEGREES", 0.0)
    moved = augment(batch, "chexgenbench", rng(7))
    mirrored = (moved == batch.flip(-1)).all((1, 2))
    assert (mirrored | (moved == batch).all((1, 2))).all()
    assert 150 < int(mirrored.sum()) < 250


def test_standard_stays_in_the_range_and_repeats_the_border():
    white = torch.full((50, 32, 32), 255, dtype=torch.uint8)
    black = torch.zeros(50, 32, 32, dtype=torch.uint8)
    for batch in (white, black):
        moved = augment(batch, "standard", rng(5))
        assert float(moved.min()) >= 0
        assert float(moved.max()) <= 255
        assert float((moved - moved[:, :1, :1]).abs().max()) < 1e-3  # no edge comes in from outside


def test_standard_moves_every_image_differently_but_little():
    batch = chests(200)
    moved = augment(batch, "standard", rng(9))
    agree = correlation(moved, batch)
    assert float(agree.min()) > 0.5
    assert float(agree.mean()) > 0.85
    assert len({tuple(row.tolist()) for row in moved.mean(1)}) == 200


def test_positions_are_those_of_affine_grid_within_the_limits():
    affine = augmentation._affine(torch.rand(4, 300, generator=rng()))
    matrices = affine.T.reshape(-1, 2, 3).contiguous()
    grid = F.affine_grid(matrices, [300, 1, 20, 20], align_corners=False)
    torch.testing.assert_close(augmentation._grid(affine, 20), grid, atol=1e-6, rtol=0)
    zoom = 1 / torch.linalg.det(matrices[:, :, :2]).sqrt()
    turn = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    for values, limit in ((zoom - 1, 0.07), (turn, 7.0), (matrices[:, 0, 2] / 2, 0.06), (matrices[:, 1, 2] / 2, 0.06)):
        assert float(values.abs().max()) <= limit * 1.0001
        assert float(values.max()) > 0.9 * limit  # both ends are reached
        assert float(values.min()) < -0.9 * limit


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match="'rotate'; expected one of none, standard, chexgenbench"):
        augment(chests(1), "rotate", rng())
