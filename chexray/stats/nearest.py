"""The nearest reference of each query, exact in float64, while the references stream by in blocks.

The kernel of the memorisation search. A float32 product ranks the references of a tile, a proven bound on its rounding
says which could be the nearest, and those alone are compared in float64 from differences: a copy lies at distance 0
exactly, and the answer is the same whatever the blocks, their order and the tiles.

Only the likeliest reference of each row is looked up before the bound is drawn again, so that references that come
nearer and nearer cost one look-up a row and tile. Where float32 leaves more than a few in doubt (a tight cluster far
from the rest), a float64 product of those rows narrows them down first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from chexray.stats.neighbours import LANE, above, rounding_bound, squared_distances
from chexray.stats.tiles import TILE, Mapper, TileBuffer, as_tensor, full_precision, product, spans, threaded

CROWD = 32
"""References of a tile in doubt for a row, beyond which a float64 product with the tile is cheaper than differences."""

BLOCK = 8192
"""References of a block in `nearest`: 24 MiB at d = 768."""

QUERIES = 2048
"""Queries of a stripe in `nearest`: with fewer, preparing the tiles of references costs over 5 % of the products."""

HEADROOM = 2.0**30
"""How far scaled entries may exceed 1 before the scale is chosen anew; their squares stay far below 2^128."""

UNDERFLOW = 2.0**-90
"""More than underflow can cost an entry's share of a float32 product, 2^-126 HEADROOM each, flushed to zero or not."""


@dataclass(frozen=True)
class Block:
    """Some references. features: (m, d) float32. rows: (m,) int64, their numbers, unique over all blocks and at least
    0. codes: (m,) int64, e.g. of their patients, or None."""

    features: np.ndarray
    rows: np.ndarray
    codes: np.ndarray | None = None


@dataclass(frozen=True)
class NearestRows:
    """squared: (n,) float64, squared distance from each query to its nearest reference. row: (n,) int64, that
    reference, the lowest number among equals. inf and -1 where no reference was allowed."""

    squared: np.ndarray
    row: np.ndarray


def nearest_in_blocks(
    x: np.ndarray, blocks: Iterable[Block], *, codes: np.ndarray | None = None, centre: np.ndarray | None = None
) -> NearestRows:
    """The nearest reference of each row of x, (n, d) float32, in one pass over `blocks`.

    `codes`: (n,) int64; references of the same code are left out (those of the same patient; or, where code is row,
    the query itself). `centre`: (d,) float64, a point amid the data, by default the mean of the first block: it changes
    the time, never the result. Costs 2 n m d flop on torch's present threads, best one; holds one block, a centred copy
    of x and some 40 MiB. Raises ValueError on features that are not finite, of another width, or without codes.
    """
    search = _Search(x, codes, centre)
    for block in blocks:
        with full_precision():
            search.add(block)
    return NearestRows(search.squared, search.row)


def nearest(
    x: np.ndarray,
    y: np.ndarray,
    *,
    x_codes: np.ndarray | None = None,
    y_codes: np.ndarray | None = None,
    mapper: Mapper = threaded,
) -> NearestRows:
    """The nearest row of y, (m, d) float32, to each row of x, (n, d) float32, both in memory; see nearest_in_blocks."""
    items = list(spans(0, len(x), QUERIES))
    parts = list(mapper(_stripe, items, x, y, x_codes, y_codes)) or [
        NearestRows(np.empty(0), np.empty(0, dtype=np.int64))
    ]
    return NearestRows(np.concatenate([part.squared for part in parts]), np.concatenate([part.row for part in parts]))


def _stripe(
    item: tuple[int, int], x: np.ndarray, y: np.ndarray, x_codes: np.ndarray | None, y_codes: np.ndarray | None
) -> NearestRows:
    start, stop = item
    blocks = (
        Block(y[first:last], np.arange(first, last), None if y_codes is None else y_codes[first:last])
        for first, last in spans(0, len(y), BLOCK)
    )
    return nearest_in_blocks(x[start:stop], blocks, codes=None if x_codes is None else x_codes[start:stop])


@dataclass(frozen=True)
class _Columns:
    """One tile's references, centred and scaled, padded to a multiple of LANE by repeating them.

    points: (c, d) float32. half: (c,) float32, |point|^2/2, infinite for references that another one stands for.
    block, positions: where they come from. by_code: (c,) int64, an order that sorts their codes.
    """

    block: Block
    positions: np.ndarray
    points: torch.Tensor
    half: torch.Tensor
    by_code: np.ndarray | None


class _Search:
    """The nearest seen so far of each row of x: `squared` (n,) float64 and `row` (n,) int64.

    Inside, values are v = x.y - |y|^2/2 of centred and scaled points, |x|^2/2 above -|x - y|^2/2: the larger, the
    nearer. `_half` holds |x|^2/2, (n,) float64, `_points` x as float32.
    """

    def __init__(self, x: np.ndarray, codes: np.ndarray | None, centre: np.ndarray | None):
        self.squared, self.row = np.full(len(x), np.inf), np.full(len(x), -1, dtype=np.int64)
        if x.dtype != np.float32:
            raise ValueError(f"queries are {x.dtype}, expected float32")
        self._x, self._codes = x, codes
        self._largest, self._scale = _largest(as_tensor(x), "queries"), np.inf
        self._centre = None if centre is None else self._checked_centre(centre)
        # Pieces of memory written to by every tile in turn: fresh pages cost as much as what is written to them.
        self._buffer, self._gathered = TileBuffer(TILE), torch.empty(TILE, x.shape[1])
        if codes is not None and len(codes) != len(x):
            raise ValueError(f"{len(codes)} codes for {len(x)} queries")

    def add(self, block: Block) -> None:
        """Takes one block into account."""
        m, d = block.features.shape
        expected = len(block.rows), self._x.shape[1]
        if (m, d) != expected or block.features.dtype != np.float32:
            found = f"references are {(m, d)} {block.features.dtype}"
            raise ValueError(f"{found}, expected {expected} float32: one for each row number, as wide as the queries")
        if self._codes is not None and (block.codes is None or len(block.codes) != m):
            raise ValueError("queries have codes, so every reference needs one")
        if not m:
            return
        if self._centre is None:
            _largest(as_tensor(block.features), "references")  # a mean would hide what is not finite
            self._centre = self._checked_centre(block.features.mean(0, dtype=np.float64))
        # References sorted by nearness would make every tile a new record; shuffled, few are. No result depends on it.
        order = np.random.default_rng(0).permutation(m)
        for c0, c1 in spans(0, m, TILE):
            columns = self._columns(block, order[c0:c1])
            for start, stop in spans(0, len(self._x), TILE):
                points = self._points[start:stop]
                values = self._buffer.shaped(len(points), len(columns.points))
                product(points, columns.points, values).sub_(columns.half)
                self._settle(values, np.arange(start, stop), self._half[start:stop], columns)

    def _checked_centre(self, centre: np.ndarray) -> torch.Tensor:
        """The centre in float32: any point will do, and differences from this one are rounded once."""
        if centre.shape != self._x.shape[1:] or not (np.abs(centre) <= np.finfo(np.float32).max).all():
            raise ValueError(f"the centre of shape {centre.shape} is not {self._x.shape[1]} finite float32 values")
        return torch.from_numpy(centre.astype(np.float32))

    def _columns(self, block: Block, positions: np.ndarray) -> _Columns:
        features = as_tensor(block.features)
        positions = np.resize(positions, -(-len(positions) // LANE) * LANE)
        raw = self._gathered[: len(positions)]
        torch.index_select(features, 0, torch.from_numpy(positions), out=raw)
        self._fit_scale(_largest(raw, "references"))
        points, half = self._centred(raw)
        half[_stood_for(block, positions, half.numpy())] = torch.inf
        by_code = None if block.codes is None else np.argsort(block.codes[positions], kind="stable")
        return _Columns(block, positions, points, half.float(), by_code)

    def _fit_scale(self, largest: float) -> None:
        """Chooses a power of two that keeps entries up to `largest` in the range of float32, and their squares."""
        assert self._centre is not None
        if largest * self._scale <= HEADROOM:
            return
        largest = max(largest, self._largest) + float(self._centre.abs().max())
        self._scale = 2.0 ** float(np.clip(-np.ceil(np.log2(largest)), -100, 100)) if largest > 0 else 1.0
        self._points, half = self._centred(as_tensor(self._x).clone())
        self._half = half.numpy()

    def _centred(self, raw: torch.Tensor, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows less the centre, scaled, in `dtype`, in the memory of `raw`; and half their squares in float64."""
        assert self._centre is not None
        points = raw.to(dtype).mul_(self._scale).sub_(self._centre.to(dtype).mul(self._scale))
        return points, torch.cat([part.double().square().sum(1) for part in points.split(LANE)]).div_(2)

    def _settle(self, values: torch.Tensor, rows: np.ndarray, half: np.ndarray, columns: _Columns) -> None:
        """Compares every reference that `values`, (rows, columns), float32 or float64, cannot rule out.

        half: (rows,) float64, |x|^2/2 of the points that the values were computed from.
        """
        self._exclude(values, rows, columns)
        lanes = values.unflatten(1, (LANE, -1))
        peak, group = lanes.amax(1).max(1)
        hit = torch.nonzero(peak > self._limit(rows, half, values.dtype))[:, 0]
        if not len(hit):
            return
        rows, half = rows[hit.numpy()], half[hit.numpy()]
        likeliest = lanes[hit, :, group[hit]].argmax(1) * lanes.shape[2] + group[hit]
        self._compare(rows, likeliest.numpy(), columns)
        values = values[hit]
        values[torch.arange(len(hit)), likeliest] = -torch.inf
        row, column, _ = (part.numpy() for part in above(values, self._limit(rows, half, values.dtype)))
        if values.dtype == torch.float32:
            crowded = np.bincount(row, minlength=len(rows)) > CROWD
            row, column = row[~crowded[row]], column[~crowded[row]]
            self._settle_in_float64(rows[crowded], columns)
        self._compare(rows[row], column, columns)

    def _settle_in_float64(self, rows: np.ndarray, columns: _Columns) -> None:
        if len(rows):
            x, x_half = self._centred(as_tensor(self._x[rows]), torch.float64)
            y, y_half = self._centred(as_tensor(columns.block.features[columns.positions]), torch.float64)
            y_half[columns.half.isinf()] = torch.inf
            self._settle(torch.mm(x, y.T).sub_(y_half), rows, x_half.numpy(), columns)

    def _exclude(self, values: torch.Tensor, rows: np.ndarray, columns: _Columns) -> None:
        if self._codes is None or columns.block.codes is None or columns.by_code is None:
            return
        own, codes = self._codes[rows], columns.block.codes[columns.positions[columns.by_code]]
        first = np.searchsorted(codes, own, "left")
        count = np.searchsorted(codes, own, "right") - first
        place = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
        values[np.repeat(np.arange(len(rows)), count), columns.by_code[place]] = -torch.inf

    def _limit(self, rows: np.ndarray, half: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        """The value, (r,), below which no reference is as near as the nearest so far; -inf where there is none.

        With w = -|x - y|^2/2 at its least, |y|^2 <= 2|x|^2 + 2|x - y|^2 turns the rounding e (|x|^2 + |y|^2) into
        e (3|x|^2 - 4w). The 1 % covers the rounding of w itself.
        """
        d = self._x.shape[1]
        least = -0.5 * self._scale**2 * self.squared[rows]
        if dtype == torch.float32:
            error, underflow = rounding_bound(d), UNDERFLOW * d
        else:  # twice: here |x|^2 and |y|^2 too are sums in the precision of the product
            error, underflow = 2 * rounding_bound(d, 2.0**-53), 0.0
        limit = torch.from_numpy(least + half - 1.01 * (error * (6 * half - 4 * least) + underflow)).to(dtype)
        return limit.nextafter(torch.tensor(-torch.inf, dtype=dtype))

    def _compare(self, rows: np.ndarray, column: np.ndarray, columns: _Columns) -> None:
        """Looks at pairs of a row and a column in float64 and keeps what is nearer, or as near with a lower number."""
        position = columns.positions[column]
        squared = squared_distances(self._x, columns.block.features, rows, position)
        reference = columns.block.rows[position]
        order = np.lexsort((reference, squared, rows))
        best = order[np.flatnonzero(np.diff(rows[order], prepend=-1))]
        rows, squared, reference = rows[best], squared[best], reference[best]
        better = (squared < self.squared[rows]) | ((squared == self.squared[rows]) & (reference < self.row[rows]))
        self.squared[rows[better]], self.row[rows[better]] = squared[better], reference[better]


def _largest(features: torch.Tensor, what: str) -> float:
    """The largest magnitude, 0 when there are no features. Raises ValueError when it is not finite."""
    largest = max(map(abs, map(float, torch.aminmax(features)))) if features.numel() else 0.0
    if not np.isfinite(largest):
        raise ValueError(f"some features of the {what} are not finite; drop those rows")
    return largest


def _stood_for(block: Block, positions: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Which references need no look, (c,) bool: those equal to another that no query can prefer them to.

    Of equal rows the lowest wins, or, for queries of its code, the lowest of another code. Without this, a thousand
    blank images at the least distance would be a thousand ties.
    """
    needless = np.zeros(len(positions), dtype=bool)
    known, inverse, count = np.unique(half, return_inverse=True, return_counts=True)
    if len(known) == len(half):
        return needless
    tied = np.flatnonzero(count[inverse] > 1)
    content = np.ascontiguousarray(block.features[positions[tied]])
    group = np.unique(content.view(f"V{content.itemsize * content.shape[1]}").ravel(), return_inverse=True)[1]
    rows = block.rows[positions[tied]]
    codes = np.zeros_like(rows) if block.codes is None else block.codes[positions[tied]]
    order = np.lexsort((rows, group))
    start = np.diff(group[order], prepend=-1) != 0
    lead = order[np.maximum.accumulate(np.where(start, np.arange(len(order)), 0))]
    other = order[codes[order] != codes[lead]]
    second = other[np.unique(group[other], return_index=True)[1]]
    needless[tied] = True
    needless[tied[order[start]]] = False
    needless[tied[second]] = False
    return needless
