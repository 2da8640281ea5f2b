"""The findings: how each reshapes the body, what opacity it adds, and which lines it draws.

Every drawing function takes (frame, sign, rng); `rng` is the sign's own stream, so that a finding looks the same
whatever else the image shows. Opacity is clipped to the lungs where the disease is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chexray.phantom.anatomy import LEFT, RIGHT, SIDES, Body, Cage, Frame, lung_width
from chexray.phantom.canvas import Line, axes, bell, clouds, edge, spline

ZONES = {"upper": -0.42, "mid": -0.08, "lower": 0.24}
DEVICES = ("pacemaker", "central venous catheter", "endotracheal tube", "nasogastric tube", "sternal wires")


@dataclass(frozen=True)
class Sign:
    """One finding as it is drawn. severity: 0 (just visible) to 1. sides: of the patient, RIGHT and LEFT."""

    finding: str
    severity: float
    sides: tuple[int, ...]
    zone: str
    device: str
    seed: int

    @classmethod
    def sample(cls, finding: str, rng: np.random.Generator) -> Sign:
        severity, toss = float(rng.random()), rng.random()
        both = 0.3 if finding == "Pleural Effusion" else 0.0
        sides = SIDES if toss < both or finding == "Edema" else (RIGHT,) if rng.random() < 0.5 else (LEFT,)
        zone = tuple(ZONES)[int(rng.integers(3))]
        device = DEVICES[int(rng.integers(len(DEVICES)))]
        return cls(finding, severity, sides, zone, device, int(rng.integers(2**31)))

    @property
    def stream(self) -> np.random.Generator:
        """A fresh generator of the sign's own randomness."""
        return np.random.Generator(np.random.PCG64(self.seed))


def reshape(body: Body, signs: Sequence[Sign], strength: float) -> None:
    """Changes the anatomy in place: a large heart, a wide mediastinum, congestion, a raised diaphragm."""
    for sign in signs:
        much = sign.severity
        if sign.finding == "Cardiomegaly":
            body.heart *= 1 + strength * (0.22 + 0.20 * much)
        elif sign.finding == "Enlarged Cardiomediastinum":
            body.mediastinum *= 1 + strength * (0.45 + 0.50 * much)
        elif sign.finding == "Edema":
            body.congestion = strength * (0.5 + 0.5 * much)
        elif sign.finding == "Atelectasis":
            for side in sign.sides:
                body.dome[side] -= strength * (0.05 + 0.08 * much)


def _in_lung(frame: Frame, sign: Sign, rng: np.random.Generator, spread: float = 0.05) -> tuple[float, float]:
    """A place in the middle of the sign's zone of the lung."""
    y = float(ZONES[sign.zone] + spread * rng.standard_normal())
    low = frame.body.dome[sign.sides[0]] - 0.12
    y = float(np.clip(y, frame.body.apex + 0.25, low))
    width = float(lung_width(np.array([y]), frame.body.apex, frame.body.lung_width)[0])
    return sign.sides[0] * width * float(rng.uniform(0.56, 0.72)), y


def consolidation(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """A dense lobar patch with a ragged edge."""
    cx, cy = _in_lung(frame, sign, rng)
    size = 0.15 + 0.09 * sign.severity
    ragged = 1.25 - np.sqrt(_radius(frame, cx, cy, size * 1.15, size)) + 0.38 * clouds(rng, 12, frame.size)
    return np.float32(0.42 + 0.18 * sign.severity) * edge(ragged, 0.55) * frame.lung


def _radius(frame: Frame, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    """Squared elliptic radius about a place."""
    x, y = axes(frame.size)
    return np.square((x - np.float32(cx)) / np.float32(rx)) + np.square((y - np.float32(cy)) / np.float32(ry))


def pneumonia(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """Several ill-defined patches in one zone."""
    cx, cy = _in_lung(frame, sign, rng)
    shade = np.zeros((frame.size, frame.size), dtype=np.float32)
    for _ in range(4 + int(3 * sign.severity)):
        px, py = cx + 0.10 * rng.standard_normal(), cy + 0.12 * rng.standard_normal()
        r = rng.uniform(0.045, 0.085)
        shade = np.maximum(shade, bell(frame.size, px, py, r * 1.2, r))
    shade *= np.float32(0.85) + np.float32(0.35) * clouds(rng, 32, frame.size)
    return np.float32(0.40 + 0.18 * sign.severity) * shade * frame.lung


def edema(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """Bilateral perihilar haze, the bat's wing, sparing the periphery."""
    wing = sum(bell(frame.size, side * 0.33, 0.02, 0.19, 0.29, 0.15 * side) for side in SIDES)
    wing = wing * (np.float32(0.9) + np.float32(0.28) * clouds(rng, 26, frame.size))
    return np.float32(0.30 + 0.20 * sign.severity) * wing * frame.lung


def lung_opacity(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """A hazy opacity of no particular kind."""
    cx, cy = _in_lung(frame, sign, rng)
    haze = bell(frame.size, cx, cy, 0.15, 0.19) * (np.float32(0.9) + np.float32(0.2) * clouds(rng, 18, frame.size))
    return np.float32(0.24 + 0.16 * sign.severity) * haze * frame.lung


def lung_lesion(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """A round nodule or mass: the chord length through a ball."""
    cx, cy = _in_lung(frame, sign, rng, spread=0.09)
    r = 0.06 + 0.07 * sign.severity
    chord = np.sqrt(np.clip(1.0 - _radius(frame, cx, cy, r, r * rng.uniform(0.9, 1.1)), 0.0, 1.0))
    return np.float32(0.50 + 0.08 * sign.severity) * chord


def pleural_effusion(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """Fluid at the base with a meniscus that climbs the chest wall."""
    x, y = axes(frame.size)
    beside = edge(np.abs(x) - np.float32(0.13), 0.16)
    shade = np.zeros((frame.size, frame.size), dtype=np.float32)
    for side in sign.sides:
        height = (0.20 + 0.38 * sign.severity) * rng.uniform(0.8, 1.0)
        u = np.clip(frame.across, 0.0, 1.1)
        level = np.float32(frame.body.dome[side] + 0.10 - height * 0.55) - np.float32(0.55 * height) * (u * u * u)
        fluid = edge(y - level, 0.07) * edge(np.float32(1.0) - frame.across, 0.05)
        shade += fluid * (beside * (x * side > 0)) * (np.float32(1.0) - frame.belly)
    return np.float32(0.60) * shade


def _collapsed_edge(body: Body, sign: Sign, y: np.ndarray) -> np.ndarray:
    """Half-width of the collapsed lung at height y; the air is between it and the chest wall."""
    drop, shrink = 0.13 + 0.16 * sign.severity, 0.09 + 0.13 * sign.severity
    down = np.clip((body.dome[RIGHT] + 0.05 - y) / (body.dome[RIGHT] - body.apex), 0.0, 1.0)
    return lung_width(y, body.apex + drop, body.lung_width) - (shrink * np.sqrt(down)).astype(np.float32)


def pneumothorax(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """(size, size) mask of the air around a collapsed lung; the caller darkens it and wipes out its vessels."""
    x, y = axes(frame.size)
    side = sign.sides[0]
    gone = edge(np.abs(x) - _collapsed_edge(frame.body, sign, y), 0.02)
    gone = np.maximum(gone, edge(np.float32(frame.body.apex + 0.13 + 0.16 * sign.severity) - y, 0.02))
    return gone * frame.lung * (x * side > 0)


def pleural_other(frame: Frame, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """Pleural thickening: a wavy band along the chest wall and the apex."""
    x, y = axes(frame.size)
    thick = (0.10 + 0.08 * sign.severity) * (1 + 0.25 * np.sin(y * rng.uniform(7, 12) + rng.uniform(0, 6)))
    depth = np.float32(1.0) - frame.across
    band = edge(thick.astype(np.float32) - depth, 0.06) * edge(depth, 0.05)
    centre = rng.uniform(-0.2, 0.1)
    span = edge(np.float32(0.36) - np.abs(y - np.float32(centre)), 0.25)
    return np.float32(0.42) * band * span * (x * sign.sides[0] > 0) * (np.float32(1.0) - frame.belly)


OPACITY: dict[str, Callable[[Frame, Sign, np.random.Generator], np.ndarray]] = {
    "Consolidation": consolidation,
    "Edema": edema,
    "Lung Lesion": lung_lesion,
    "Lung Opacity": lung_opacity,
    "Pleural Effusion": pleural_effusion,
    "Pleural Other": pleural_other,
    "Pneumonia": pneumonia,
}


def rib_step(cage: Cage, sign: Sign, rng: np.random.Generator) -> np.ndarray:
    """What a fracture adds to the rib number: two or three neighbouring ribs slip outside the break."""
    x, y = axes(cage.size)
    place = float(rng.uniform(0.66, 0.80))
    cy = float(rng.uniform(-0.30, 0.02))
    window = edge(np.float32(0.26) - np.abs(y - np.float32(cy)), 0.12)
    slip = edge(cage.across - np.float32(place), 0.025) * window
    return np.float32(0.34 + 0.14 * sign.severity) * slip * (x * sign.sides[0] > 0)


def lines_of(body: Body, sign: Sign) -> list[Line]:
    """Fine lines that the sign draws at full resolution, weights relative to metal."""
    rng, side = sign.stream, sign.sides[0]
    if sign.finding == "Support Devices":
        return device_lines(body, sign.device, side, rng)
    if sign.finding == "Pneumothorax":
        y = np.linspace(body.apex + 0.15 + 0.16 * sign.severity, body.dome[RIGHT] - 0.05, 24)
        return [(np.stack([side * _collapsed_edge(body, sign, y), y], axis=1), 0.014, 0.34)]
    if sign.finding == "Atelectasis":
        low = body.dome[side] - 0.09
        bands = range(1 + int(2.6 * sign.severity))
        return [
            (spline((side * 0.24, low - 0.10 * k + tilt), (side * 0.40, low - 0.10 * k - 0.02),
                    (side * 0.60, low - 0.10 * k + 0.02 - tilt)), 0.024 + 0.010 * sign.severity, 0.46)
            for k, tilt in zip(bands, rng.uniform(-0.05, 0.05, 4), strict=False)
        ]  # fmt: skip
    if sign.finding == "Edema":  # Kerley B lines: short, horizontal, at the lateral bases
        base = min(body.dome.values())
        return [
            (((s * 0.60, base - k * 0.035), (s * 0.70, base - k * 0.035)), 0.009, 0.16) for s in SIDES for k in range(5)
        ]
    if sign.finding == "Fracture":
        place, cy = float(rng.uniform(0.66, 0.80)), float(rng.uniform(-0.30, 0.02))
        callus = []
        for y in (cy - 0.12, cy, cy + 0.12):
            x = side * place * float(lung_width(np.array([y]), body.apex, body.lung_width)[0])
            callus.append((((x, y - 0.03), (x, y + 0.03)), 0.03, 0.22))
        return callus
    return []


def device_lines(body: Body, device: str, side: int, rng: np.random.Generator) -> list[Line]:
    """Wires, tubes and the box of one device, and on half of the images a monitoring lead."""
    wobble = float(rng.uniform(-0.02, 0.02))
    lines: list[Line] = []
    if device == "pacemaker":
        cx, cy = side * 0.58, -0.44 + wobble
        lines = [(((cx - 0.085, cy), (cx + 0.085, cy)), 0.145, 1.0)]
        lines += [(spline((cx - side * 0.06, cy - 0.05), (side * 0.30, -0.58), (-0.02, -0.42), (-0.09, -0.05),
                          (-0.03, 0.20), (0.17 + wobble, tip)), 0.018, 0.9) for tip in (0.32, 0.10)]  # fmt: skip
    elif device == "central venous catheter":
        course = spline((side * 0.24, -1.0), (side * 0.17, -0.72), (-0.03, -0.45), (-0.085, -0.15 + wobble))
        lines = [(course, 0.022, 0.75)]
    elif device == "endotracheal tube":
        lines = [(((x + wobble / 2, -1.1), (x + wobble / 2, -0.34)), 0.013, 0.75) for x in (-0.013, 0.035)]
        lines.append((((0.011 + wobble / 2, -0.36), (0.011 + wobble / 2, -0.33)), 0.05, 0.6))
    elif device == "nasogastric tube":
        lines = [(spline((0.03, -1.1), (0.035, -0.4), (0.06 + wobble, 0.2), (0.16, 0.52), (0.36, 0.64)), 0.022, 0.75)]
    else:
        for y in np.linspace(-0.42, 0.24, 6):
            ring = spline((-0.028, y), (0.0, y - 0.03), (0.034, y), (0.002, y + 0.03), (-0.03, y - 0.005), steps=4)
            lines.append((ring, 0.013, 0.95))
    if rng.random() < 0.5 or device == "sternal wires":
        for lead in SIDES:
            sx, sy = lead * float(rng.uniform(0.48, 0.66)), float(rng.uniform(-0.40, -0.15))
            lines.append((spline((sx, sy), (lead * 0.50, -0.05), (lead * 0.72, 0.35), (lead * 0.55, 1.1)), 0.011, 0.55))
            lines.append((((sx - 0.022, sy), (sx + 0.022, sy)), 0.045, 0.8))
    return lines
