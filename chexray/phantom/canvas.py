"""Drawing primitives on a square canvas: soft edges, clouds and strokes.

Lengths are half-widths of the finished image: x runs from -EXTENT (image left, the patient's right) to EXTENT, y
likewise from top to bottom. The canvas is larger than the image, so that an image can be turned without showing the
canvas's border. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

EXTENT = 1.15

Points = Sequence[tuple[float, float]] | np.ndarray
Line = tuple[Points, float, float]
"""Points of a polyline, its width, and its weight from 0 to 1."""


@cache
def axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres: x as (1, size) and y as (size, 1). Read-only, shared by all images."""
    centres = (((np.arange(size) + 0.5) * (2.0 / size) - 1.0) * EXTENT).astype(np.float32)
    centres.setflags(write=False)
    return centres[None, :], centres[:, None]


def edge(distance: np.ndarray, width: float) -> np.ndarray:
    """0 below -width/2, 1 above width/2, a smooth step between."""
    t = distance * np.float32(1.0 / width)
    t += np.float32(0.5)
    np.clip(t, 0.0, 1.0, out=t)
    cubic = t * np.float32(-2.0)
    cubic += np.float32(3.0)
    cubic *= t
    cubic *= t
    return cubic


def radius(size: int, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """(size, size) squared elliptic radius about (cx, cy): 1 on the ellipse. `angle` in radians turns +x towards +y."""
    x, y = axes(size)
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    a = dx * np.float32(c / rx) + dy * np.float32(s / rx)
    b = dx * np.float32(-s / ry) + dy * np.float32(c / ry)
    a *= a
    b *= b
    a += b
    return a


def ellipse(
    size: int, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, soft: float = 0.05
) -> np.ndarray:
    """A filled ellipse with an edge about `soft` wide, 0 to 1."""
    r = radius(size, cx, cy, rx, ry, angle)
    np.subtract(1.0, r, out=r)
    return edge(r, 4.0 * soft / (rx + ry))


def bell(size: int, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """A Gaussian of standard deviations rx and ry, 1 at its centre."""
    r = radius(size, cx, cy, rx, ry, angle)
    r *= np.float32(-0.5)
    return np.exp(r, out=r)


def enlarge(values: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bilinear interpolation of a smaller square array."""
    if len(values) == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))


def clouds(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth noise of standard deviation about 0.7 whose lumps are 1/cells of the canvas."""
    return enlarge(rng.standard_normal((cells, cells), dtype=np.float32), size)


def strokes(size: int, lines: Sequence[Line]) -> np.ndarray:
    """Antialiased polylines, the later over the earlier: (size, size), 0 to 1."""
    fine = 2 * size
    scale = size / EXTENT
    sheet = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(sheet)
    for points, width, weight in lines:
        path = ((np.asarray(points) + EXTENT) * scale).ravel().tolist()
        pen.line(path, fill=round(255 * weight), width=max(1, round(width * scale)))
    return np.asarray(sheet.reduce(2)) * np.float32(1 / 255)


@cache
def _catmull_rom(steps: int) -> np.ndarray:
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    return 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])


def spline(*knots: tuple[float, float], steps: int = 8) -> np.ndarray:
    """(m, 2) points of a smooth (Catmull-Rom) curve through the knots."""
    k = np.array([knots[0], *knots, knots[-1]])
    basis = _catmull_rom(steps)
    return np.concatenate([*(basis @ k[i : i + 4] for i in range(len(k) - 3)), k[-1:]])


def place(image: Image.Image, size: int, *, turn: float, zoom: float, shift: tuple[float, float]) -> Image.Image:
    """The image cut out of the canvas: turned by `turn` radians, enlarged by `zoom`, moved by `shift`; bilinear."""
    mid = image.width / 2
    scale = image.width / (size * EXTENT * zoom)
    c, s = float(np.cos(turn)) * scale, float(np.sin(turn)) * scale
    ox, oy = (1 + shift[0]) * size / 2, (1 + shift[1]) * size / 2
    matrix = (c, s, mid - c * ox - s * oy, -s, c, mid + s * ox - c * oy)
    return image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
