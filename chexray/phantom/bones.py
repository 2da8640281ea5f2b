"""Ribs, clavicles, scapulae and humeri."""

from __future__ import annotations

import numpy as np

from chexray.phantom.anatomy import RIGHT, SIDES, Body, Cage
from chexray.phantom.canvas import Line, axes, edge, spline, strokes


def _rib_profile(half: float, steps: int = 256) -> np.ndarray:
    """Radiopacity across one rib gap: a tube with bright cortex, its lower border the brighter. (steps,) float32."""
    t = np.abs((np.arange(steps) + 0.5) / steps - 0.5)
    below = np.arange(steps) >= steps // 2
    inside = 1 / (1 + np.exp((t - half) / 0.018))
    cortex = np.exp(-(((t - half + 0.03) / 0.03) ** 2))
    return (0.55 * inside + cortex * np.where(below, 0.55, 0.35)).astype(np.float32)


POSTERIOR, ANTERIOR = _rib_profile(0.20), _rib_profile(0.235)


def ribs(cage: Cage, *, wrong: float = 0.0, step: np.ndarray | None = None) -> np.ndarray:
    """All ribs at once: the rib number is a smooth function of place, and a profile repeats with it.

    `step` is added to the rib number (a fracture's displacement); `wrong` stretches the gaps, as a poor generator does.
    """
    body = cage.body
    x, y = axes(cage.size)
    inside = np.abs(x[0]) < body.lung_width + 0.03
    rows, cols = slice(int(np.searchsorted(y[:, 0], body.apex - 0.07)), None), slice(*_span(inside))
    x, y, u = x[:, cols], y[rows], cage.across[rows, cols]
    bow = u * u
    back = bow * (np.float32(0.26 + body.rib_droop) + np.float32(0.16) * bow)
    back -= np.float32(0.17 * (1 - wrong)) * u
    np.subtract(y, back, out=back)
    front = y + np.float32(0.62) * u
    front -= np.float32(0.30) * bow
    gap = body.rib_gap * (1 + wrong)
    shade = np.zeros_like(u)
    fade_back = np.float32(0.17 * body.rib_contrast) * edge(u - np.float32(0.16), 0.2)
    fade_front = np.float32(0.12 * body.rib_contrast) * edge(u - np.float32(0.62), 0.45)
    for number, scale, offset, profile, fade in (
        (back, gap, 0.0, POSTERIOR, fade_back),
        (front, gap * 1.12, 0.3, ANTERIOR, fade_front),
    ):
        number *= np.float32(256 / scale)
        number += np.float32(256 * (body.rib_phase + offset + 8)) + np.where(x < 0, np.float32(24), np.float32(0))
        if step is not None:
            number += np.float32(256) * step[rows, cols]
        fade *= profile.take(number.astype(np.int32) & 255, mode="clip")  # the fastest mode
        shade += fade
    shade *= edge(np.float32(1.035) - u, 0.04)
    low = np.float32(0.25) + np.float32(0.75) * edge(np.float32(body.dome[RIGHT] + 0.16) - y, 0.3)
    shade *= low * edge(y - np.float32(body.apex - 0.03), 0.06)
    whole = np.zeros((cage.size, cage.size), dtype=np.float32)
    whole[rows, cols] = shade
    return whole


def _span(mask: np.ndarray) -> tuple[int, int]:
    """First and one past the last true position."""
    where = np.flatnonzero(mask)
    return int(where[0]), int(where[-1]) + 1


def shoulder_girdle(body: Body, size: int) -> np.ndarray:
    """Clavicles, scapulae and humeri."""
    lines: list[Line] = []
    top, blade = body.shoulder, body.scapula
    for side in SIDES:
        end = top + 0.09
        bone = spline((side * 0.09, body.clavicle + 0.02), (side * 0.26, body.clavicle - 0.035),
                      (side * 0.52, 0.35 * body.clavicle + 0.65 * end + 0.02), (side * 0.80, end))  # fmt: skip
        lines.append((bone, 0.056, 0.6))
        lines += [(bone + np.array((0.0, drop)), 0.013, weight) for drop, weight in ((-0.025, 0.8), (0.025, 1.0))]
        outline = ((blade + 0.12, top + 0.16), (blade, top + 0.36), (blade + 0.05, -0.04),
                   (blade + 0.12, 0.06), (blade + 0.19, -0.12), (0.93, top + 0.26))  # fmt: skip
        lines.append((spline(*((side * px, py) for px, py in outline), steps=6), 0.016, 0.42))
        head = (side * 0.99, top + 0.24)
        lines += [((head, (side * 1.10, top + 0.75)), 0.15, 0.38), ((head, (side * 1.0, top + 0.25)), 0.21, 0.48)]
    shade = strokes(size, lines)
    shade *= np.float32(0.25)
    return shade
