"""Augmentation of training images on the device they are trained on, the same on every device for the same generator.

All random numbers are drawn on the CPU: generators of a GPU give other numbers, and a fit should not depend on where a
step happened to run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from chexray.errors import ConfigError

TURN_DEGREES = 7.0
SHIFT = 0.06
ZOOM = (0.93, 1.07)
CONTRAST = (0.85, 1.15)
BRIGHTNESS = 0.08
UPSTREAM_TURN_DEGREES = 10.0


def augment(batch: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augmented images in the shape of `batch`: (b, side, side) or (b, 1, side, side), greys 0..255, uint8 or float.

    kind: "none" returns the batch itself. "standard" returns float32 in 0..255, not rounded, because interpolation and
    normalisation are float anyway: each image is turned by up to 7 degrees, shifted by up to 6 % of the side, zoomed
    by 0.93 to 1.07 with the border repeated outwards, its contrast about the image's mean times 0.85 to 1.15 and its
    brightness moved by up to 8 % of the range; never mirrored, which would move the heart to the other side.
    "chexgenbench" is upstream's: mirrored left to right with probability 0.5, then turned by up to 10 degrees, nearest
    pixel, black outside; float32.
    generator: on the CPU. Draws a fixed count of numbers for each image, so the next step's do not depend on values.
    """
    if kind == "none":
        return batch
    if kind not in ("standard", "chexgenbench"):
        raise ConfigError(f"utility.augment is {kind!r}; expected one of none, standard, chexgenbench.")
    draws = torch.rand(6, len(batch), generator=generator)
    images = batch.reshape(len(batch), 1, *batch.shape[-2:]).float()
    if kind == "chexgenbench":
        return _flipped_and_turned(images, draws).reshape(batch.shape)
    grid = _grid(_affine(draws[:4]).to(batch.device), images.shape[-1])
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast, brightness = (value.to(batch.device).view(-1, 1, 1, 1) for value in _tone(draws[4:]))
    mean = moved.mean((1, 2, 3), keepdim=True)
    return (moved * contrast).add_(mean * (1 - contrast) + brightness).clamp_(0, 255).reshape(batch.shape)


def _flipped_and_turned(images: Tensor, draws: Tensor) -> Tensor:
    """RandomHorizontalFlip and RandomRotation(10) of upstream's downstream_classification.py. images: (b, 1, s, s)."""
    most = math.radians(UPSTREAM_TURN_DEGREES)
    turn = _between(draws[0], -most, most)
    cos, sin, zero = torch.cos(turn), torch.sin(turn), torch.zeros_like(turn)
    side = 1 - 2 * (draws[1] < 0.5).float()  # -1 reads from the other side
    affine = torch.stack((side * cos, -side * sin, zero, sin, cos, zero)).to(images.device)
    grid = _grid(affine, images.shape[-1])
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draws


def _affine(draws: Tensor) -> Tensor:
    """(6, b) float32, rows of a 2 x 3 matrix: for an output position in -1..1, the input position to read.

    draws: (4, b) in 0..1.
    """
    turn = _between(draws[0], -math.radians(TURN_DEGREES), math.radians(TURN_DEGREES))
    zoom = _between(draws[1], *ZOOM)
    right, down = (_between(draw, -2 * SHIFT, 2 * SHIFT) for draw in draws[2:])  # -1..1 is two units a side
    cos, sin = torch.cos(turn) / zoom, torch.sin(turn) / zoom
    return torch.stack((cos, -sin, right, sin, cos, down))


def _grid(affine: Tensor, side: int) -> Tensor:
    """(b, side, side, 2) positions (x, y) for `grid_sample`: `F.affine_grid` of square images, without its product.

    The product takes twice as long on a CPU, and on a GPU TF32 would blur positions by a tenth of a pixel.
    """
    centres = (2 * torch.arange(side, device=affine.device) + 1) / side - 1
    across, along = centres.view(1, 1, -1), centres.view(1, -1, 1)
    xx, xy, x, yx, yy, y = affine.view(6, -1, 1, 1)
    return torch.stack((xx * across + (xy * along + x), yx * across + (yy * along + y)), -1)


def _tone(draws: Tensor) -> tuple[Tensor, Tensor]:
    """(b,) contrast factors and (b,) brightness in greys of 255; draws: (2, b) in 0..1."""
    return _between(draws[0], *CONTRAST), 255 * _between(draws[1], -BRIGHTNESS, BRIGHTNESS)
