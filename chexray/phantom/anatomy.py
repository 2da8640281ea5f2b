"""The normal chest: what differs between patients and studies, and the radiopacity it casts.

Lengths are half-widths of the image, y grows downwards, the patient's right is image left (side -1). Radiopacities add
up along the ray, as attenuation does; `develop` (generators.py) turns their sum into grey.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from chexray.phantom.canvas import Line, axes, bell, edge, ellipse, strokes

RIGHT, LEFT = -1, 1
SIDES = (RIGHT, LEFT)


@dataclass
class Body:
    """One patient on one day. Findings reshape it before it is drawn."""

    sex: str
    age: int
    apex: float
    lung_width: float
    shoulder: float
    torso: float
    habitus: float
    rib_gap: float
    rib_phase: float
    rib_droop: float
    rib_contrast: float
    clavicle: float
    heart: float
    heart_tilt: float
    mediastinum: float
    knob: float
    spine_bend: float
    breast: tuple[float, float, float]
    vessel_seed: int
    vessels: float
    view: str = "PA"
    dome: dict[int, float] = field(default_factory=dict)
    stomach: float = 0.0
    scapula: float = 0.0
    congestion: float = 0.0

    @classmethod
    def sample(cls, who: np.random.Generator, day: np.random.Generator, variety: float) -> Body:
        """Anatomy from the patient's stream `who`, posture and inspiration from the study's stream `day`.

        `variety` scales every deviation from the population's mean: 1 for real patients, less for a timid generator.
        """

        def vary(rng: np.random.Generator, mean: float, spread: float) -> float:
            return mean + variety * spread * float(np.clip(rng.standard_normal(), -2.2, 2.2))

        sex = "F" if who.random() < 0.48 else "M"
        age = int(np.clip(who.normal(58, 17), 18, 92))
        woman, old = sex == "F", (age - 58) / 17
        body = cls(
            sex=sex,
            age=age,
            apex=vary(who, -0.74, 0.035),
            lung_width=vary(who, 0.70 if woman else 0.74, 0.03),
            shoulder=vary(who, -0.66 if woman else -0.70, 0.045),
            torso=vary(who, 0.94, 0.05),
            habitus=vary(who, 0.0, 1.0),
            rib_gap=vary(who, 0.165, 0.010),
            rib_phase=float(who.random()),
            rib_droop=vary(who, 0.0, 0.05),
            rib_contrast=vary(who, 1.0 - 0.08 * old, 0.15),
            clavicle=vary(who, -0.53, 0.035),
            heart=vary(who, 1.0 + 0.02 * old, 0.055),
            heart_tilt=vary(who, 0.62, 0.10),
            mediastinum=vary(who, 1.0 + 0.03 * old, 0.09),
            knob=vary(who, 0.085 + 0.012 * old, 0.012),
            spine_bend=vary(who, 0.0, 0.015),
            breast=(vary(who, 0.42, 0.03), vary(who, 0.36, 0.07), vary(who, 0.26, 0.05)),
            vessel_seed=int(who.integers(2**31)),
            vessels=vary(who, 1.0, 0.15),
        )
        lying = day.random() < 0.45 + 0.12 * old
        body.view = "AP" if lying else "PA"
        right = vary(day, 0.40 if lying else 0.47, 0.05) + vary(who, 0.0, 0.03)
        body.dome = {RIGHT: right, LEFT: right + vary(who, 0.055, 0.02)}
        body.stomach = float(day.random()) if day.random() < 0.55 else 0.0
        body.scapula = vary(day, 0.60 if lying else 0.76, 0.03)
        if lying:  # the heart lies farther from the detector and the lungs are less full
            body.heart *= 1.13
            body.mediastinum *= 1.12
            body.clavicle -= 0.06
        return body


@dataclass
class Cage:
    """The thorax at one resolution. Arrays are float32 and broadcast to (size, size)."""

    size: int
    body: Body
    across: np.ndarray
    """|x| over the half-width of the thorax at that height: 1 at the inner chest wall."""


@dataclass
class Frame(Cage):
    """The thorax and what lies in it: the shapes that findings are placed by."""

    floor: np.ndarray
    """(1, size) height of the diaphragm."""
    belly: np.ndarray
    """1 below the diaphragm."""
    lung: np.ndarray
    """1 in aerated lung, 0 outside, softly."""
    spine: np.ndarray
    """(size, 1) x of the midline at each height."""


def lung_width(y: np.ndarray, apex: float, width: float) -> np.ndarray:
    """Half-width of the lungs at height y: a dome about |x| = 0.3 at the apex that opens to `width` at the base."""
    t = np.clip((y - apex) / 1.2, 0.0, 1.0)
    return (0.31 + (width - 0.31) * np.power(1.0 - (1.0 - t) ** 2.3, 0.60)).astype(np.float32)


def cage_of(body: Body, size: int) -> Cage:
    """The outline of the thorax."""
    x, y = axes(size)
    wall = lung_width(y, body.apex, body.lung_width) + np.float32(0.012)
    return Cage(size, body, np.abs(x) * (np.float32(1.0) / wall))


def frame_of(body: Body, size: int) -> Frame:
    """The outlines of lungs, diaphragm and spine."""
    x, y = axes(size)
    lateral = np.abs(x)
    outer = lung_width(y, body.apex, body.lung_width)
    inner = (0.11 + 0.20 * np.exp(-np.clip(y - body.apex, 0.0, None) / 0.09)).astype(np.float32)
    floor = np.concatenate([_dome(x[:, : size // 2], body, RIGHT), _dome(x[:, size // 2 :], body, LEFT)], axis=1)
    belly = edge(y - floor, 0.035)
    lung = edge(outer - lateral, 0.035)
    lung *= edge(lateral - inner, 0.06)
    lung *= edge(y - np.float32(body.apex), 0.03)
    lung *= np.float32(1.0) - belly
    spine = np.float32(body.spine_bend) * np.sin(np.float32(2.2) * y + np.float32(0.4))
    return Frame(size, body, cage_of(body, size).across, floor, belly, lung, spine)


def _dome(x: np.ndarray, body: Body, side: int) -> np.ndarray:
    """Height of one half of the diaphragm over x: a dome that falls steeply to the costophrenic angle."""
    t = (np.abs(x) - 0.34) / 0.36
    return (body.dome[side] + np.where(t > 0, 0.26 * np.clip(t, 0, 1.4) ** 2.2, 0.05 * t**2)).astype(np.float32)


def soft_tissue(frame: Frame) -> np.ndarray:
    """Skin, muscle, fat, breasts and abdomen, with the lungs' air taken out."""
    body, size = frame.body, frame.size
    x, y = axes(size)
    arm = 0.30 if body.view == "AP" else 0.14
    top = body.shoulder
    heights = [-1.2, -0.95, top - 0.12, top - 0.03, top + 0.10, top + 0.30, 0.0, 0.35, 1.2]
    widths = [0.24, 0.27, 0.50, 0.74, 0.98, 1.04 + arm, 0.97 + arm / 2, 0.95, 0.97]
    outline = np.interp(y[:, 0], heights, np.array(widths) - 0.94 + body.torso + 0.02 * body.habitus)
    span = max(3, size // 14)
    outline = np.convolve(np.pad(outline, span, mode="edge"), np.full(span, 1 / span), mode="same")[span:-span]
    depth = outline.astype(np.float32)[:, None] - np.abs(x)
    thick = np.sqrt(np.clip(depth * np.float32(1.8), 0.0, 1.0))
    tissue = edge(depth, 0.03) * (np.float32(0.36) + np.float32(0.42 + 0.05 * body.habitus) * thick)
    air = np.sqrt(np.clip(np.float32(1.0) - frame.across, 0.0, 1.0))
    air *= np.float32(0.20)
    air += np.float32(0.52 - 0.03 * body.habitus)
    air *= frame.lung
    tissue *= np.float32(1.0) - air
    lower = frame.belly * edge(depth - np.float32(0.16), 0.34)
    lower *= np.float32(0.40 + 0.03 * body.habitus)
    tissue += lower
    if body.stomach:
        bubble = ellipse(size, 0.40, body.dome[LEFT] + 0.12, 0.13, 0.04 + 0.03 * body.stomach, 0.1, soft=0.05)
        tissue -= np.float32(0.36) * bubble
    if body.sex == "F":
        bx, by, br = body.breast
        fold = edge(y - np.float32(by - 0.25), 0.45)
        for side in SIDES:
            tissue += np.float32(0.14) * fold * ellipse(size, side * bx, by - 0.16, br + 0.06, br + 0.03, soft=0.05)
    return tissue


def heart_and_mediastinum(frame: Frame) -> np.ndarray:
    """Heart, great vessels, trachea and vertebrae."""
    body, size = frame.body, frame.size
    x, y = axes(size)
    off = np.abs(x - frame.spine)
    h, wide = min(body.heart, 1.6), body.mediastinum
    cy = 0.5 * (body.dome[RIGHT] + body.dome[LEFT]) - 0.155 * h
    heart = ellipse(size, 0.145 * h, cy, 0.36 * h, 0.235 * h, body.heart_tilt, soft=0.045)
    heart = np.maximum(heart, ellipse(size, -0.055, cy - 0.06, 0.15 * h, 0.255 * h, -0.15, soft=0.045))
    above = np.float32(1.0) - np.float32(0.8) * frame.belly
    heart *= above
    heart *= edge(np.float32(0.985) - frame.across, 0.05)
    upper = ((0.10 + 0.05 * np.clip(y + 0.2, 0.0, 0.6)) * wide).astype(np.float32)
    column = edge(upper - off, 0.06)
    for cx, cy, rx, ry in (
        (0.085 * wide, -0.30, body.knob * wide, body.knob * 1.15),  # aortic arch
        (0.09 * wide, -0.09, 0.095 * wide, 0.15),  # pulmonary trunk
        (-0.07 * wide, -0.22, 0.075 * wide, 0.30),  # superior vena cava
    ):
        column = np.maximum(column, ellipse(size, cx, cy, rx, ry, soft=0.04))
    column *= np.float32(0.62) + np.float32(0.38) * edge(y + np.float32(0.55), 0.5)
    column *= above
    shade = np.maximum(np.float32(0.50) * heart, np.float32(0.40) * column)
    shade += np.float32(0.16) * heart * column
    windpipe = edge(np.float32(0.034) - np.abs(x - np.float32(0.012)), 0.03) * edge(np.float32(-0.17) - y, 0.06)
    shade -= np.float32(0.20) * windpipe
    discs = (0.72 + 0.28 * np.tanh(3.0 * np.cos(44.0 * y) + 1.5)).astype(np.float32)
    bone = edge(np.float32(0.085) - off, 0.03) * discs
    bone += np.float32(0.4) * edge(np.float32(0.014) - np.abs(np.float32(0.073) - off), 0.02)
    shade += np.float32(0.13) * bone
    return shade


def vessels(frame: Frame) -> np.ndarray:
    """Hila and the pulmonary vessels, a tree grown from each hilum; congestion thickens it."""
    body, size = frame.body, frame.size
    rng = np.random.Generator(np.random.PCG64(body.vessel_seed))
    side = np.repeat(np.array(SIDES), 8)
    angle = np.tile(np.linspace(-1.25, 1.35, 8), 2)
    start = np.stack([side * 0.17, np.where(side == LEFT, -0.07, -0.01)], axis=1)
    width = 0.025 * (1 + 0.25 * body.congestion)
    lines: list[Line] = []
    for _ in range(4):  # generations of branches
        turn = rng.normal(0, 0.22, (len(side), 2))
        length = rng.uniform(0.09, 0.17, len(side))
        path = [start]
        for bend in turn.T:  # two limbs, so that a vessel curves
            angle = angle + bend
            path.append(path[-1] + 0.5 * length[:, None] * np.stack([side * np.cos(angle), np.sin(angle)], axis=1))
        lines += [(points, width, min(1.0, 0.22 + 24 * width)) for points in np.stack(path, axis=1)]
        keep = np.abs(path[-1][:, 0]) < 0.66
        spread = rng.uniform(0.18, 0.42, len(side))
        angle = np.concatenate([(angle + spread)[keep], (angle - spread)[keep]])
        start, side, width = np.tile(path[-1][keep], (2, 1)), np.tile(side[keep], 2), width * 0.66
        if len(side) > 36:  # prune: the periphery is bare
            chosen = rng.permutation(len(side))[:36]
            angle, start, side = angle[chosen], start[chosen], side[chosen]
    shade = strokes(size, lines)
    shade *= np.float32(0.22 * body.vessels * (1 + 0.3 * body.congestion))
    return shade


def hila(frame: Frame) -> np.ndarray:
    """The soft density of the lung roots."""
    return np.float32(0.13) * (bell(frame.size, -0.20, 0.0, 0.07, 0.12) + bell(frame.size, 0.20, -0.05, 0.07, 0.11))
