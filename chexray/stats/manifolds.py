"""Which synthetic images lie in the balls around real ones, and the reverse, exact in float64, in one pass of tiles.

A set's manifold is the union of balls around its images that reach to their k-th neighbours (Kynkaanniemi et al. 2019).
Precision, recall, density and coverage (Naeem et al. 2020) count in-ball pairs; realism and rarity (Han et al. 2023)
rank single images by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from chexray.stats.neighbours import (
    Cloud,
    above,
    above_in_columns,
    centre_and_scale,
    negative_half_squares,
    rounding_bound,
    squared_distances,
)
from chexray.stats.resampling import independent_units
from chexray.stats.tiles import TILE, Mapper, TileBuffer, as_tensor, full_precision, spans, threaded

TINY = 1e-30
"""Squared radii below this, in units of the scaled cloud, count as 0 for realism: such a ball holds copies only."""

PENDING = 2**18
"""Candidates of a row of tiles that may wait for their float64 distance: 8 MiB."""


@dataclass(frozen=True)
class Side:
    """One set as the pass sees it: rows, (n, d) float32, their cloud, the squared radii of their balls, (n,), and the
    patient 0 .. G-1 of each row, (n,) int64."""

    rows: np.ndarray
    cloud: Cloud
    squared_radii: np.ndarray
    patients: np.ndarray

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers of positions in the cloud."""
        return self.cloud.order[positions]

    def bounds(self, scale: float) -> np.ndarray:
        """-r^2/2 for each position, (n_padded,) float32, lowered by more than its rounding; 0 for padding."""
        found = np.zeros(len(self.cloud.points), dtype=np.float32)
        found[: len(self.rows)] = -0.5 * (1 + 2.0**-20) * scale**2 * self.squared_radii[self.cloud.order]
        return found


@dataclass
class Balls:
    """Membership of n points in the balls of another set.

    count: (n,) int64, how many of the balls hold the point. patient_sum, patient_squares: (n,) int64, sums over those
    balls of the number of the patient whose image each is around: see `only_patient`.
    """

    count: np.ndarray
    patient_sum: np.ndarray
    patient_squares: np.ndarray

    @classmethod
    def none(cls, n: int) -> Balls:
        return cls(*(np.zeros(n, dtype=np.int64) for _ in range(3)))

    def add(self, points: np.ndarray, patients: np.ndarray) -> None:
        """Counts pairs of a point and a ball that holds it, by the patient of the ball."""
        n = len(self.count)
        self.count += np.bincount(points, minlength=n)
        self.patient_sum += np.bincount(points, weights=patients, minlength=n).astype(np.int64)
        self.patient_squares += np.bincount(points, weights=patients**2, minlength=n).astype(np.int64)

    @property
    def only_patient(self) -> np.ndarray:
        """(n,) int64, the patient around whose images alone there are balls that hold the point; -1 for none or
        several: numbers are equal where the sum of their squares is that of as many times their mean."""
        mean = self.patient_sum // np.maximum(self.count, 1)
        alone = (mean * self.count == self.patient_sum) & (mean**2 * self.count == self.patient_squares)
        return np.where(alone & (self.count > 0), mean, -1)


@dataclass
class Manifolds:
    """What one pass over all pairs of n real and m synthetic images says. Membership is strict: distance < radius.

    in_real: membership of synthetic images in real balls. holds_synthetic: the same pairs seen from the real balls, so
    `count` is the number of synthetic images in each. in_synthetic: membership of real images in synthetic balls.
    nearest: (m,) int64, the nearest real image, or one of several at the same distance. distance: (m,) float64, to it.
    realism: (m,) float64, the largest radius/distance over the real balls up to the median radius: at least 1 inside
    one of them, inf on an exact copy. rarity: (m,) float64, the smallest radius of the real balls that hold the image,
    NaN where none does.
    real_neighbours, synthetic_neighbours: (n, k) and (m, k) int64, the nearest others of the same set; None where
    whoever computed the radii did not keep them.
    """

    in_real: Balls
    holds_synthetic: Balls
    in_synthetic: Balls
    nearest: np.ndarray
    distance: np.ndarray
    realism: np.ndarray
    rarity: np.ndarray
    real_neighbours: np.ndarray | None = None
    synthetic_neighbours: np.ndarray | None = None

    @classmethod
    def none(cls, n: int, m: int) -> Manifolds:
        return cls(
            Balls.none(m), Balls.none(n), Balls.none(n),
            np.full(m, -1, dtype=np.int64), np.full(m, np.inf), np.zeros(m), np.full(m, np.inf),
        )  # fmt: skip


def manifolds(
    real: np.ndarray,
    synthetic: np.ndarray,
    real_squared_radii: np.ndarray,
    synthetic_squared_radii: np.ndarray,
    *,
    real_subjects: np.ndarray | None = None,
    synthetic_subjects: np.ndarray | None = None,
    mapper: Mapper = threaded,
    tile: int = TILE,
) -> Manifolds:
    """Compares real (n, d) with synthetic (m, d), float32, given the squared radii of both from `kth_neighbour`.

    Subjects, (n,) and (m,) codes: without them each image is a patient of its own.
    Costs 2 n m d flop in products, and memory for a centred copy of both sets. `tile`: a multiple of LANE.
    """
    centre, scale = centre_and_scale(real, synthetic)
    x = Side(real, Cloud.of(real, centre, scale), real_squared_radii, independent_units(len(real), real_subjects)[0])
    patients = independent_units(len(synthetic), synthetic_subjects)[0]
    y = Side(synthetic, Cloud.of(synthetic, centre, scale), synthetic_squared_radii, patients)
    whole = Manifolds.none(len(real), len(synthetic))
    items = [(start, stop, tile, scale) for start, stop in spans(0, len(y.cloud.points), tile)]
    for (start, stop, _, _), part in zip(items, mapper(_stripe, items, x, y), strict=True):
        rows = y.at(np.arange(start, min(stop, len(synthetic))))
        for name in ("nearest", "distance", "realism", "rarity"):
            getattr(whole, name)[rows] = getattr(part, name)[: len(rows)]
        for name in ("count", "patient_sum", "patient_squares"):
            getattr(whole.in_real, name)[rows] = getattr(part.in_real, name)[: len(rows)]
            for side in ("holds_synthetic", "in_synthetic"):
                getattr(getattr(whole, side), name)[x.cloud.order] += getattr(getattr(part, side), name)[: len(real)]
    whole.rarity[np.isinf(whole.rarity)] = np.nan
    return whole


def _stripe(item: tuple[int, int, int, float], x: Side, y: Side) -> Manifolds:
    """Everything about the synthetic positions start:stop, and their share in what is said of the real ones."""
    with full_precision():
        return _Stripe(*item, x, y).run()


class _Stripe:
    """One row of tiles: synthetic positions start:stop against all real ones, in the order of the clouds.

    i counts real positions and j synthetic ones from `start`. A tile holds *upper* bounds of -distance^2/2; less
    `slack(i, j)` they are lower bounds. What the two leave open is decided in float64.
    """

    def __init__(self, start: int, stop: int, tile: int, scale: float, x: Side, y: Side):
        self.start, self.stop, self.tile, self.scale, self.x, self.y = start, stop, tile, scale, x, y
        self.error = 2 * rounding_bound(x.rows.shape[1])
        self.x_half, self.y_half = as_tensor(x.cloud.half_squares), as_tensor(y.cloud.half_squares[start:stop])
        self.x_bound, self.y_bound = as_tensor(x.bounds(scale)), as_tensor(y.bounds(scale)[start:stop])
        self.result = Manifolds.none(len(self.x_half), len(self.y_half))
        self.closest, self.most_real = (_Best(len(self.y_half), len(y.rows) - start) for _ in range(2))
        # Realism looks at balls up to the median radius; divided by r^2, it too is a search for the largest entry.
        radii = np.sqrt(x.squared_radii)
        squared = x.squared_radii[x.cloud.order] * scale**2
        eligible = torch.from_numpy((radii[x.cloud.order] <= np.median(radii)) & (squared > TINY))
        self.weight, self.penalty = torch.ones(len(self.x_half)), torch.full((len(self.x_half),), -torch.inf)
        self.weight[: len(eligible)] = torch.from_numpy(1 / np.maximum(squared, TINY))
        self.penalty[: len(eligible)][eligible] = 0

    def run(self) -> Manifolds:
        points, rows = as_tensor(self.x.cloud.points), as_tensor(self.y.cloud.points[self.start : self.stop])
        x_up, y_up = self.x_half * (1 - self.error), self.y_half * (1 - self.error)
        buffers = TileBuffer(self.tile), TileBuffer(self.tile)
        for c0, c1 in spans(0, len(points), self.tile):
            tile, scaled = (buffer.shaped(len(rows), c1 - c0) for buffer in buffers)
            negative_half_squares(rows, points[c0:c1], y_up, x_up[c0:c1], tile)
            torch.addcmul(self.penalty[c0:c1], tile, self.weight[c0:c1], out=scaled)
            if c0 == 0:
                for best, values in ((self.closest, tile), (self.most_real, scaled)):
                    value, i = values.max(1)
                    best.raise_floor(torch.arange(len(rows)), value, self._slack(best, i, torch.arange(len(rows))))
            i, j, value = above_in_columns(tile, self.x_bound[c0:c1])
            self._count_in_real(i + c0, j, value)
            j, i, value = above(tile, torch.minimum(self.y_bound, self.closest.floor))
            self._count_in_synthetic(i + c0, j, value)
            self._offer(self.closest, i + c0, j, value)
            j, i, value = above(scaled, self.most_real.floor)
            self._offer(self.most_real, i + c0, j, value)
        for best in (self.closest, self.most_real):
            self._settle(best)
        self.result.nearest[:] = self.closest.index
        self.result.distance[:] = np.sqrt(-self.closest.score)
        self.result.realism[:] = np.sqrt(np.maximum(self.most_real.score, 0))
        return self.result

    def _slack(self, best: _Best | None, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        slack = 2 * self.error * (self.x_half[i] + self.y_half[j])
        return slack * self.weight[i] if best is self.most_real else slack

    def _squared(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return squared_distances(self.x.rows, self.y.rows, self.x.at(i), self.y.at(j + self.start))

    def _inside(self, i: torch.Tensor, j: torch.Tensor, value: torch.Tensor, squared_radii: np.ndarray) -> np.ndarray:
        """Which pairs are truly nearer than the radius: (p,) bool."""
        lower = (value.double() - self._slack(None, i, j)).numpy()
        inside = lower > -0.5 * self.scale**2 * squared_radii
        doubt = np.flatnonzero(~inside)
        inside[doubt] = self._squared(i.numpy()[doubt], j.numpy()[doubt]) < squared_radii[doubt]
        return inside

    def _count_in_real(self, i: torch.Tensor, j: torch.Tensor, value: torch.Tensor) -> None:
        ball = self.x.at(i.numpy())
        inside = self._inside(i, j, value, self.x.squared_radii[ball])
        i_in, j_in, ball = i.numpy()[inside], j.numpy()[inside], ball[inside]
        self.result.in_real.add(j_in, self.x.patients[ball])
        self.result.holds_synthetic.add(i_in, self.y.patients[self.y.at(j_in + self.start)])
        np.minimum.at(self.result.rarity, j_in, np.sqrt(self.x.squared_radii[ball]))

    def _count_in_synthetic(self, i: torch.Tensor, j: torch.Tensor, value: torch.Tensor) -> None:
        near = value > self.y_bound[j]  # the others are here for `closest`
        i, j, value = i[near], j[near], value[near]
        ball = self.y.at(j.numpy() + self.start)
        inside = self._inside(i, j, value, self.y.squared_radii[ball])
        self.result.in_synthetic.add(i.numpy()[inside], self.y.patients[ball[inside]])

    def _offer(self, best: _Best, i: torch.Tensor, j: torch.Tensor, value: torch.Tensor) -> None:
        best.raise_floor(j, value, self._slack(best, i, j))
        best.offer(i, j, value)
        if best.pending > PENDING:
            self._settle(best)

    def _settle(self, best: _Best) -> None:
        i, j = best.drain()
        squared = self._squared(i, j)
        score = -squared
        if best is self.most_real:
            with np.errstate(divide="ignore"):
                score = self.x.squared_radii[self.x.at(i)] / squared
        best.decide(j, self.x.at(i), score)
        best.floor[j[squared == 0]] = torch.inf  # nothing is nearer than a copy


class _Best:
    """The largest value of each row: narrowed by bounds in float32, then decided by a score in float64.

    floor: (r,) float32, a proven lower bound of the row's largest value; infinite in the padding below `n_valid`.
    """

    def __init__(self, n_rows: int, n_valid: int):
        self.floor = torch.full((n_rows,), -torch.inf)
        self.floor[n_valid:] = torch.inf
        self.score, self.index = np.full(n_rows, -np.inf), np.full(n_rows, -1, dtype=np.int64)
        self.pending = 0
        self._found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def raise_floor(self, j: torch.Tensor, value: torch.Tensor, slack: torch.Tensor) -> None:
        """Learns from values that exceed the truth by at most `slack`."""
        lower = value - slack - 2.0**-20 * value.abs() - 1e-37  # 2^-20: more than the scaling and this line round off
        self.floor.scatter_reduce_(0, j, lower, "amax")

    def offer(self, i: torch.Tensor, j: torch.Tensor, value: torch.Tensor) -> None:
        """Keeps the entries that may be the largest of their row."""
        keep = value >= self.floor[j]
        self._found.append((i[keep], j[keep], value[keep]))
        self.pending += len(self._found[-1][0])

    def drain(self) -> tuple[np.ndarray, np.ndarray]:
        """i and j of the entries still in the running, which are forgotten."""
        if not self._found:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        i, j, value = (torch.cat(parts) for parts in zip(*self._found, strict=True))
        self._found.clear()
        self.pending = 0
        keep = value >= self.floor[j]
        return i[keep].numpy(), j[keep].numpy()

    def decide(self, j: np.ndarray, index: np.ndarray, score: np.ndarray) -> None:
        """Takes the best score of each row, the smallest index among equals, if it beats what the row has."""
        order = np.lexsort((index, -score, j))
        j, index, score = j[order], index[order], score[order]
        first = np.flatnonzero(np.diff(j, prepend=-1))
        j, index, score = j[first], index[first], score[first]
        better = (score > self.score[j]) | ((score == self.score[j]) & (index < self.index[j]))
        self.score[j[better]], self.index[j[better]] = score[better], index[better]
