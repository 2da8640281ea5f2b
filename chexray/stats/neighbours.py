"""Distances to the k-th nearest neighbour, exact in float64, found with float32 matrix products.

A float32 product finds candidates and a proven bound on its rounding says which of them are in doubt; those alone are
computed again in float64 from differences. Without that second look near-duplicates are lost: with features offset by
30 and copies 1e-3 away, float32 gives a density of 0.58 where the truth is 0.24.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from chexray.stats.tiles import TILE, Mapper, TileBuffer, as_tensor, full_precision, product, spans, threaded

LANE = 32
"""Entries of a tile looked at together: only where the largest of them passes a bound are they looked at one by one."""

SPARE = 3
"""Neighbours kept beyond the k-th. When rounding might have hidden a nearer one, the row is done again in float64."""

PAIRS = 2048
"""Pairs of rows whose float64 differences are held at once, fewer beyond d = 768: 25 MiB with the gathered rows."""


@dataclass(frozen=True)
class Cloud:
    """Rows ready for float32 products: centred, scaled by a power of two, shuffled, padded to a multiple of LANE.

    points: (n_padded, d) float32, at most about 1 in size. half_squares: (n_padded,) float32, |point|^2 / 2, infinite
    for padding, which is then infinitely far from everything. order: (n,) int64, the original row of each point.

    The shuffle (fixed) makes any block of rows a random sample, so that its neighbours bound those in the whole set
    well; ids sorted by patient or class would not. No result depends on it.
    """

    points: np.ndarray
    half_squares: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, centre: np.ndarray, scale: float) -> Cloud:
        """The rows of x, (n, d), less `centre`, (d,) float64, times `scale`."""
        n, d = x.shape
        order = np.random.default_rng(0).permutation(n)
        points = np.zeros((-(-n // LANE) * LANE, d), dtype=np.float32)
        half_squares = np.full(len(points), np.inf, dtype=np.float32)
        for start, stop in spans(0, n, TILE):
            block = (x[order[start:stop]] - centre) * scale
            points[start:stop] = block
            half_squares[start:stop] = 0.5 * np.einsum("ij,ij->i", block, block)
        return cls(points, half_squares, order)


def centre_and_scale(*sets: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean row of all sets, (d,) float64, and a power of two that brings the centred entries to about 1.

    Centring costs nothing and saves digits: distances do not move, norms shrink, and rounding grows with the norms.
    """
    n = sum(len(x) for x in sets)
    centre = np.sum([x.sum(0, dtype=np.float64) for x in sets], axis=0) / n
    largest = max(float(np.abs(x[start:stop] - centre).max()) for x in sets for start, stop in spans(0, len(x), TILE))
    return centre, 2.0 ** -np.ceil(np.log2(largest)) if largest > 0 else 1.0


def rounding_bound(d: int, unit: float = 2.0**-24) -> float:
    """e such that a float32 value of -|x - y|^2/2 on centred points is off by at most e (|x|^2 + |y|^2).

    The textbook bound of a dot product of length d, d u |x||y| with u = 2^-24 (Higham 2002, 3.1), plus the roundings of
    centring, of the squares and of their addition. Observed errors are some ten times smaller. `unit`: another u.
    """
    return unit * (d / 2 + 8)


def squared_distances(x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """|x[i] - y[j]|^2 for each pair, (p,) float64, from float64 differences: exactly 0 for equal rows."""
    found = np.empty(len(i))
    for start, stop in spans(0, len(i), max(1, PAIRS * 768 // max(768, x.shape[1]))):
        difference = x[i[start:stop]].astype(np.float64)
        difference -= y[j[start:stop]]
        found[start:stop] = np.einsum("ij,ij->i", difference, difference)
    return found


def negative_half_squares(
    x: torch.Tensor, y: torch.Tensor, x_half: torch.Tensor, y_half: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """Fills `out`, (len(x), len(y)), with -|x - y|^2 / 2 up to rounding: the larger, the nearer."""
    return product(x, y, out).sub_(y_half).sub_(x_half[:, None])


Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def above(tile: torch.Tensor, bound: torch.Tensor) -> Found:
    """Row, column and value of the entries of `tile`, (r, c), that exceed the bound of their row, (r,); sorted by row.

    Looks at maxima over LANE columns first. They lie c / LANE apart, so that the maximum runs along memory.
    """
    lanes = tile.unflatten(1, (LANE, -1))
    row, group = torch.nonzero(lanes.amax(1) > bound[:, None], as_tuple=True)
    values = lanes[row, :, group]
    hit, lane = torch.nonzero(values > bound[row, None], as_tuple=True)
    return row[hit], lane * lanes.shape[2] + group[hit], values[hit, lane]


def above_in_columns(tile: torch.Tensor, bound: torch.Tensor) -> Found:
    """Column, row and value of the entries that exceed the bound of their column, (c,); sorted by column."""
    lanes = tile.unflatten(0, (LANE, -1))
    column, group = torch.nonzero((lanes.amax(0) > bound).T, as_tuple=True)
    values = lanes[:, group, column].T
    hit, lane = torch.nonzero(values > bound[column, None], as_tuple=True)
    return column[hit], lane * lanes.shape[1] + group[hit], values[hit, lane]


class Top:
    """The `width` largest values seen in each of n rows, with the column they came from."""

    def __init__(self, n: int, width: int):
        self.values = torch.full((n, width), -torch.inf)
        self.columns = torch.full((n, width), -1, dtype=torch.int32)

    def take(self, start: int, stop: int, found: Found, offset: int) -> None:
        """Merges (row, column, value), sorted by row, into rows start:stop; columns are counted from `offset`."""
        row, column, value = found
        if not len(row):
            return
        count = torch.bincount(row, minlength=stop - start)
        width = self.values.shape[1]
        place = torch.arange(len(row)) - (count.cumsum(0) - count)[row] + width
        values = torch.full((stop - start, width + int(count.max())), -torch.inf)
        columns = torch.full(values.shape, -1, dtype=torch.int32)
        values[:, :width], columns[:, :width] = self.values[start:stop], self.columns[start:stop]
        values[row, place], columns[row, place] = value, (column + offset).int()
        self._keep(start, stop, values, columns)

    def merge(self, start: int, values: np.ndarray, columns: np.ndarray) -> None:
        """Merges the lists of another Top into the rows from `start` on."""
        stop = start + len(values)
        self._keep(
            start,
            stop,
            torch.cat([self.values[start:stop], torch.from_numpy(values)], 1),
            torch.cat([self.columns[start:stop], torch.from_numpy(columns)], 1),
        )

    def _keep(self, start: int, stop: int, values: torch.Tensor, columns: torch.Tensor) -> None:
        best = values.topk(self.values.shape[1], 1)
        self.values[start:stop], self.columns[start:stop] = best.values, columns.gather(1, best.indices)


def kth_neighbour(x: np.ndarray, k: int, *, mapper: Mapper = threaded, tile: int = TILE) -> np.ndarray:
    """Squared distance from each row of x, (n, d) float32, to the k-th nearest *other* row: (n,) float64, n > k."""
    return nearest_neighbours(x, k, mapper=mapper, tile=tile)[0]


def nearest_neighbours(
    x: np.ndarray, k: int, *, mapper: Mapper = threaded, tile: int = TILE
) -> tuple[np.ndarray, np.ndarray]:
    """`kth_neighbour`, and which rows the k nearest are: (n, k) int64, in no order.

    The distances are exact; of two rows that are equally far up to float32 rounding, either may be named. "Other" is
    by position, so a duplicate is a neighbour at distance 0. Costs n^2 d flop in products over the upper triangle, and
    memory for one centred copy of x and n (k + 3) candidates. `tile`: a multiple of LANE.
    """
    n, d = x.shape
    centre, scale = centre_and_scale(x)
    cloud = Cloud.of(x, centre, scale)
    width = min(k + SPARE, n - 1)
    top = Top(len(cloud.points), width)
    # Blocks on the diagonal first: the neighbours within a block bound those in the whole set, and with a bound at hand
    # the other tiles are read once instead of being sorted.
    blocks = [(start, stop, width) for start, stop in spans(0, len(cloud.points), tile)]
    for (start, _, _), found in zip(blocks, mapper(_diagonal_block, blocks, cloud), strict=True):
        top.merge(start, *found)
    bound = top.values[:, -1].numpy().copy()
    for (start, _, _), found in zip(blocks, mapper(_stripe, blocks, cloud, bound), strict=True):
        top.merge(start, *found)
    squared, named = np.empty(n), np.empty((n, k), dtype=np.int64)
    squared[cloud.order] = _refine(x, cloud, top, k, scale, rounding_bound(d), mapper)
    named[cloud.order] = cloud.order[top.columns[:n, :k].numpy()]
    return squared, named


Lists = tuple[np.ndarray, np.ndarray]


def _diagonal_block(item: tuple[int, int, int], cloud: Cloud) -> Lists:
    """The `width` nearest to each row of a block within the block."""
    start, stop, width = item
    p, h = as_tensor(cloud.points[start:stop]), as_tensor(cloud.half_squares[start:stop])
    top = Top(len(p), width)
    with full_precision():
        tile = negative_half_squares(p, p, h, h, torch.empty(len(p), len(p))).fill_diagonal_(-torch.inf)
        best = tile.topk(min(width, len(p)), 1)
    found = best.values > -torch.inf
    top.values[:, : best.values.shape[1]] = best.values
    top.columns[:, : best.values.shape[1]] = torch.where(found, best.indices + start, -1).int()
    return top.values.numpy(), top.columns.numpy()


def _stripe(item: tuple[int, int, int], cloud: Cloud, bound: np.ndarray) -> Lists:
    """The nearest found right of the diagonal block start:stop, for its rows and, above `bound`, for all after it."""
    start, stop, width = item
    p, h = as_tensor(cloud.points[start:]), as_tensor(cloud.half_squares[start:])
    rows = stop - start
    top = Top(len(p), width)
    limit = torch.from_numpy(bound[start:].copy())
    buffer = TileBuffer(rows)
    with full_precision():
        for c0, c1 in spans(rows, len(p), rows):
            tile = negative_half_squares(p[:rows], p[c0:c1], h[:rows], h[c0:c1], buffer.shaped(rows, c1 - c0))
            top.take(0, rows, above(tile, limit[:rows]), c0 + start)
            top.take(c0, c1, above_in_columns(tile, limit[c0:c1]), start)
            torch.maximum(limit[:rows], top.values[:rows, -1], out=limit[:rows])
    return top.values.numpy(), top.columns.numpy()


def _refine(x: np.ndarray, cloud: Cloud, top: Top, k: int, scale: float, error: float, mapper: Mapper) -> np.ndarray:
    """The k-th squared distance of each point, in the order of the cloud, from candidates in float32.

    The k-th true value lies within twice the rounding of the k-th computed one. Candidates nearer than that stay
    nearer, those farther stay farther, and the few between are computed again.
    """
    n = len(cloud.order)
    value = top.values[:n].numpy().astype(np.float64)
    column = top.columns[:n].numpy()
    kth = value[:, k - 1]
    # |y|^2 <= 2|x|^2 + 2|x - y|^2 bounds the rounding for any y about as near as the k-th.
    slack = error * (6.0 * cloud.half_squares[:n] - 8.0 * np.minimum(kth, 0)) * 1.01
    band = 2 * slack
    hidden = np.zeros(n, dtype=bool) if value.shape[1] == n - 1 else value[:, -1] >= kth - band
    nearer = value > (kth + band)[:, None]
    between = (value >= (kth - band)[:, None]) & ~nearer & ~hidden[:, None]
    exact = np.where(nearer, -np.inf, np.inf)
    row, place = np.nonzero(between)
    exact[row, place] = squared_distances(x, x, cloud.order[row], cloud.order[column[row, place]])
    squared = np.partition(exact, k - 1, axis=1)[:, k - 1]
    rows = cloud.order[hidden]
    chunks = [(rows[start:stop], k) for start, stop in spans(0, len(rows), TILE // 2)]
    if chunks:
        squared[hidden] = np.concatenate(list(mapper(_float64_rows, chunks, x)))
    return squared


def _float64_rows(item: tuple[np.ndarray, int], x: np.ndarray) -> np.ndarray:
    """The k-th squared distance of some rows of x by float64 products over all of x: for rows with many near ties."""
    rows, k = item
    centre, _ = centre_and_scale(x)
    own = torch.from_numpy(x[rows] - centre)
    own_half = own.square().sum(1) / 2
    values, columns = torch.full((len(rows), 0), 0.0, dtype=torch.float64), torch.empty(len(rows), 0, dtype=torch.int64)
    for start, stop in spans(0, len(x), 2 * TILE):
        other = torch.from_numpy(x[start:stop] - centre)
        tile = negative_half_squares(
            own, other, own_half, other.square().sum(1) / 2, torch.empty(len(rows), stop - start, dtype=torch.float64)
        )
        inside = (rows >= start) & (rows < stop)
        tile[np.flatnonzero(inside), rows[inside] - start] = -torch.inf
        best = tile.topk(min(k + SPARE, stop - start), 1)
        values, columns = torch.cat([values, best.values], 1), torch.cat([columns, best.indices + start], 1)
        best = values.topk(min(k + SPARE, values.shape[1]), 1)
        values, columns = best.values, columns.gather(1, best.indices)
    places = columns.numpy()
    squared = squared_distances(x, x, np.repeat(rows, places.shape[1]), places.ravel()).reshape(places.shape)
    squared[~np.isfinite(values.numpy())] = np.inf
    return np.partition(squared, k - 1, axis=1)[:, k - 1]
