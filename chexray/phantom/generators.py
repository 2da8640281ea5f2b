"""The phantom generators: the reference world, and four that imitate it: closely, blurred, badly, and from memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from chexray.phantom.canvas import clouds, enlarge, place


@dataclass(frozen=True)
class Generator:
    """How a generator departs from the reference world, whose fields are the defaults.

    variety: share of the spread between patients and exposures that it reproduces.
    patients: 0 for a new patient whenever the world has one, else the number it keeps returning to (mode collapse).
    strength: how strongly findings show, 1 as in the world.
    gain, gamma: contrast of the developed film. noise: quantum noise in grey levels. blur: in half-widths of the image.
    texture: share of the fine grain of tissue.
    softness: standard deviation of a Gaussian over the finished film, noise included, in widths of the image.
    wrong_ribs: how far the rib gaps are stretched. offset: a constant brightness error in grey levels.
    copies: share of its images that repeat a training image, slightly altered, as a model that memorised would; one in
    each 1 / copies consecutive images, so that small sets have their share too. Such a generator needs a training set.
    """

    variety: float = 1.0
    patients: int = 0
    strength: float = 1.0
    gain: float = 1.0
    gamma: float = 1.0
    noise: float = 2.2
    texture: float = 1.0
    blur: float = 0.004
    softness: float = 0.0
    wrong_ribs: float = 0.0
    offset: float = 0.0
    copies: float = 0.0


_GOOD = Generator(variety=0.8, strength=0.9, gain=0.95, gamma=1.12, noise=1.8, blur=0.008, wrong_ribs=0.08)

GENERATORS: dict[str, Generator] = {
    "real": Generator(),
    "good": _GOOD,
    "poor": Generator(variety=0.4, patients=12, strength=0.35, gain=0.80, gamma=1.25, noise=1.0, texture=0.2,
                      blur=0.028, wrong_ribs=0.45, offset=6.0),
    "copier": replace(_GOOD, copies=0.05),
    "blurred": replace(_GOOD, softness=2 / 256),
}  # fmt: skip
"""Generators by name; a new one is a new entry. On 300 images and greys averaged over 8 x 8 cells, the reference world
scores FID 0.02-0.03, KID 0.0001-0.0007 and coverage 0.94-0.96 against itself, "good" 0.07-0.09, 0.005-0.008 and
0.90, "poor" 0.6-0.8, 0.06-0.07 and 0.3-0.4. "copier" is "good" but for its copies: of 20 among 400 images, the nearest
training image over the nearest held-out one finds 20 at 1 % false flags, on the same greys, at 64 to 256 pixels.
"blurred" is "good" seen through a Gaussian of 2 pixels of 256, which those greys do not show (the same KID to 1e-4); on
`wavelets` at side 256 "good" scores KID 0.001 and FID 0.07, "blurred" 0.08 and 2.1, "poor" 0.03 and 0.9."""


@dataclass(frozen=True)
class Exposure:
    """How one study was taken: position on the detector, exposure, and what surrounds the patient."""

    turn: float
    zoom: float
    shift: tuple[float, float]
    gain: float
    gamma: float
    fog: float
    grain: float
    collimation: tuple[float, float]
    marker: tuple[float, float]
    wide: float

    @classmethod
    def sample(cls, rng: np.random.Generator, view: str, variety: float) -> Exposure:
        """Portable AP films are turned, shifted and exposed less evenly than PA films."""
        z = variety * np.clip(rng.standard_normal(8), -2.2, 2.2)
        loose = 1.6 if view == "AP" else 1.0
        edges = rng.uniform(0.0, 0.12, 2) if rng.random() < 0.22 else np.zeros(2)
        return cls(
            turn=0.018 * loose * float(z[0]),
            zoom=(1.03 if view == "AP" else 0.97) * (1 + 0.035 * float(z[1])),
            shift=(0.025 * loose * float(z[2]), 0.02 + 0.03 * loose * float(z[3])),
            gain=1 + 0.07 * float(z[4]),
            gamma=float(np.exp(0.13 * z[5])) * (1.0 if view == "AP" else 1.1),
            fog=(0.035 if view == "AP" else 0.015) * float(np.exp(0.4 * z[6])),
            grain=float(np.exp(0.25 * z[7])),
            collimation=(float(edges[0]), float(edges[1])),
            marker=(0.84 + 0.05 * float(rng.uniform(-1, 1)), -0.80 + 0.10 * float(rng.uniform(-1, 1))),
            wide=float(rng.uniform(0.8, 1.2)),
        )


def develop(opacity: np.ndarray, exposure: Exposure, generator: Generator, rng: np.random.Generator) -> np.ndarray:
    """Radiopacity on the canvas to a film: saturating tone, placement, blur, noise, marker. (size, size) uint8."""
    size = len(opacity)
    cells = max(16, size // 4)
    grain = clouds(rng, 10, cells) * np.float32(0.020 * generator.variety)
    grain += clouds(rng, cells, cells) * np.float32(0.016 * generator.texture)
    grain = enlarge(grain + np.float32(1.0), size).copy()
    grain *= opacity
    np.clip(grain, 0.0, 1.999, out=grain)
    level = np.arange(1024) / 512
    tone = (1 - np.exp(-1.75 * exposure.gain * generator.gain * level)) ** (exposure.gamma * generator.gamma)
    tone = exposure.fog * 255 + generator.offset + (1 - exposure.fog) * 250 * tone
    table = np.clip(np.rint(tone), 0, 255).astype(np.uint8)
    film = Image.fromarray(table.take((grain * np.float32(512)).astype(np.int32), mode="clip"))
    film = place(film, size, turn=exposure.turn, zoom=exposure.zoom, shift=exposure.shift)
    if generator.blur * size >= 1.0:
        film = film.filter(ImageFilter.BoxBlur(generator.blur * size / 2))
    grey = rng.standard_normal((size, size), dtype=np.float32)
    grey *= np.float32(generator.noise * exposure.grain)
    grey += np.asarray(film)
    _mark(grey, exposure)
    return np.clip(np.rint(grey, out=grey), 0, 255).astype(np.uint8)


def soften(image: np.ndarray, generator: Generator) -> np.ndarray:
    """The finished film as the generator gives it back: through its Gaussian, (size, size) uint8."""
    if not generator.softness:
        return image
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(generator.softness * len(image))))


def near_copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image as a diffusion model that memorised it gives it back: the same shape, uint8.

    Moved along one axis by one or two pixels of an image 256 wide (the border is repeated), contrast 2 to 5 % up or
    down about the mean, fresh noise of 1.5 grey levels.
    """
    step = float(rng.integers(1, 3) * rng.choice([-1, 1])) * len(image) / 256
    axis, whole = int(rng.integers(2)), math.floor(step)
    near, far = (
        np.take(image, np.arange(len(image)) + move, axis=axis, mode="clip").astype(np.float32)
        for move in (whole, whole + 1)
    )
    grey = near + np.float32(step - whole) * (far - near)
    mean = grey.mean()
    gain = 1 + float(rng.uniform(0.02, 0.05) * rng.choice([-1, 1]))
    grey = mean + np.float32(gain) * (grey - mean)
    grey += np.float32(1.5) * rng.standard_normal(grey.shape, dtype=np.float32)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _mark(grey: np.ndarray, exposure: Exposure) -> None:
    """The lead letter L at the patient's left, and the black border of the collimator."""
    size = len(grey)
    row, col = (round((v + 1) * size / 2) for v in reversed(exposure.marker))
    tall, thick = max(3, size // 22), max(1, size // 90)
    grey[row : row + tall, col : col + thick] = 250
    grey[row + tall - thick : row + tall, col : col + tall * 2 // 3] = 250
    for share, axis in zip(exposure.collimation, (0, 1), strict=True):
        border = round(share * size / 2)
        if border:
            view = grey if axis == 0 else grey.T
            view[:border] = view[-border:] = 4
