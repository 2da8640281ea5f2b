"""Maximum mean discrepancy from kernel row sums: exact, by tiles, with its jackknife error.

KID is the unbiased MMD^2 with the cubic kernel (x.y/d + 1)^3 (Binkowski et al. 2018); CMMD the biased one with a
Gaussian kernel (Jayasumana et al. 2024). Both values, and every delete-one value of a jackknife, are functions of the
sums of the kernel over rows and columns, so one pass of tiles gives the number, its error and the influence of each
image. Nothing of size n x n is ever held.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from chexray.stats import tiles
from chexray.stats.related import Related
from chexray.stats.tiles import CUDA_TILE, STRIPE, TILE, Mapper, TileBuffer, as_tensor, full_precision, spans, threaded

OFFSET_RATIO = 100.0
"""|mean|^2 over total variance from which products are taken in float64. Inception, RAD-DINO and pixels: 1 to 20."""

LARGE_SQUARE, HUGE_SQUARE = 1e11, 1e30
"""Mean square of a feature from which a cube may not fit float32 (3e38), and from which it is refused as too large."""


@dataclass(frozen=True)
class Cubic:
    """k(x, y) - 1 with k = (x.y/d + 1)^3; the constant leaves every MMD as it is. Features must not be centred.

    Written as u (u (u + 3) + 3) with u = x.y/d: features of a scale of 1e-4 keep their digits, which 1 + u would round
    away.
    """

    def __call__(self, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Fills `out`, (len(x), len(y)), with k - 1, in their dtype."""
        torch.mm(x, y.T, out=out).mul_(1 / x.shape[1])
        return out.mul_((out + 3).mul_(out).add_(3))

    def needs_float64(self, *sets: np.ndarray) -> bool:
        """Whether float32 products of these rows lose the differences between them, or overflow when cubed.

        Rounding is relative to the mean square of rows, 6e-8 of it, and differences to their variance: from a mean of
        ten standard deviations on, the error would be 1e-5 of the spread of k and more.
        """
        n = sum(map(len, sets))
        mean = np.sum([x.sum(0, dtype=np.float64) for x in sets], axis=0) / n
        square = sum(float(np.vdot(x, x)) for x in sets) / n  # in float32: its size is asked for, and inf is large
        offset = float(mean @ mean)
        apart = offset > OFFSET_RATIO * max(square - offset, 0.0) or square > LARGE_SQUARE * len(mean)
        return apart and square < HUGE_SQUARE * len(mean)


@dataclass(frozen=True)
class Gaussian:
    """k(x, y) - 1 with k = exp(-|x - y|^2 / 2 sigma^2); the constant leaves every MMD as it is.

    Between unit vectors and with sigma = 10, k lies in [0.98, 1]: float32 keeps k - 1 to 7 digits and k itself to 5,
    so the exponential is taken by expm1. The diagonal is 0, as it must be.
    """

    sigma: float

    def __call__(self, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Fills `out`, (len(x), len(y)), with k - 1."""
        x_squared, y_squared = (t.double().square().sum(1).to(out.dtype) for t in (x, y))
        torch.mm(x, y.T, out=out).mul_(-2).add_(x_squared[:, None]).add_(y_squared)
        return out.clamp_(min=0).mul_(-1 / (2 * self.sigma**2)).expm1_()

    def needs_float64(self, *sets: np.ndarray) -> bool:
        """Never: rows are given centred, which moves no distance."""
        return False


Kernel = Cubic | Gaussian


@dataclass(frozen=True)
class KernelSums:
    """Row sums of the three kernel matrices, float64.

    xx: (n,), of each x over the *other* x; yy: (m,), of each y over the other y. xy: (n,), of each x over all y; yx:
    (m,), of each y over all x. related: the parts of these four that come from related pairs, which are not in them;
    None when pairs were not told apart.
    """

    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    yx: np.ndarray
    related: KernelSums | None = None

    @property
    def whole(self) -> KernelSums:
        """The sums over all pairs."""
        if self.related is None:
            return self
        rest = self.related
        return KernelSums(self.xx + rest.xx, self.yy + rest.yy, self.xy + rest.xy, self.yx + rest.yx)


def kernel_sums(
    x: np.ndarray,
    y: np.ndarray,
    kernel: Kernel,
    *,
    related: Related | None = None,
    mapper: Mapper = threaded,
    device: str | None = None,
    stripe_rows: int = STRIPE,
) -> KernelSums:
    """Sums of `kernel` over all pairs of rows of x, (n, d), and y, (m, d), float32; those of `related` pairs apart.

    float32 products in IEEE arithmetic (float64 where the kernel needs them), float64 sums. Costs 4 n^2 d flop for
    n = m, as the symmetric matrices are walked above their diagonal only; the memory beside x and y is a tile or two
    and the sums. `device`, by default that of `on_device`: "cpu" or a CUDA device, which then has to hold x and y.
    Measured at n = 2000, d = 768: within 2e-8 of float64 in KID.
    """
    sizes = {"xx": len(x), "yy": len(y), "xy": len(x)}
    dtype = torch.float64 if kernel.needs_float64(x, y) else torch.float32
    items = [
        (pair, start, stop, kernel, device, dtype)
        for pair, n in sizes.items()
        for start, stop in spans(0, n, stripe_rows)
    ]  # fmt: skip
    n, m = len(x), len(y)
    parts = [KernelSums(np.zeros(n), np.zeros(m), np.zeros(n), np.zeros(m)) for _ in range(2 if related else 1)]
    for (pair, start, stop, *_), found in zip(items, mapper(_stripe, items, x, y, related), strict=True):
        for sums, (rows, columns) in zip(parts, found, strict=True):
            getattr(sums, pair)[start:stop] += rows
            if pair == "xy":
                sums.yx[:] += columns
            else:
                getattr(sums, pair)[start:] += columns
    return replace(parts[0], related=parts[1]) if related else parts[0]


Item = tuple[str, int, int, Kernel, str | None, torch.dtype]


def _stripe(item: Item, x: np.ndarray, y: np.ndarray, related: Related | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums over rows start:stop of one matrix, and over the columns from `start` on (all columns for "xy").

    First those over unrelated pairs, then, where pairs are told apart, those over related ones. Of a symmetric matrix
    only tiles on and above the diagonal are filled; each is then summed in both directions.
    """
    pair, start, stop, kernel, device, dtype = item
    device = device or tiles.present_device()
    symmetric = pair != "xy"
    left, right = (as_tensor(x if side == "x" else y, device) for side in pair)
    first = start if symmetric else 0
    tile_size = TILE if device == "cpu" else CUDA_TILE
    sums = [
        tuple(torch.zeros(n, dtype=torch.float64, device=device) for n in (stop - start, len(right) - first))
        for _ in range(2 if related else 1)
    ]
    with full_precision():
        buffer = TileBuffer(tile_size, device, dtype)
        for r0, r1 in spans(start, stop, tile_size):
            for c0, c1 in spans(r0 if symmetric else 0, len(right), tile_size):
                tile = kernel(left[r0:r1].to(dtype), right[c0:c1].to(dtype), buffer.shaped(r1 - r0, c1 - c0))
                on_diagonal = symmetric and c0 == r0
                if on_diagonal:
                    tile.fill_diagonal_(0)
                mask = None if related is None else _mask(related, pair, slice(r0, r1), slice(c0, c1), device)
                for (rows, columns), part in zip(sums, _parted(tile, mask), strict=False):
                    # r1 <= c1: what lies right of the square on the diagonal is summed in both directions.
                    beyond = r1 - r0 if on_diagonal else 0
                    columns[c0 + beyond - first : c1 - first] += part[:, beyond:].sum(0, dtype=torch.float64)
                    rows[r0 - start : r1 - start] += part.sum(1, dtype=torch.float64)
    return [(rows.cpu().numpy(), columns.cpu().numpy()) for rows, columns in sums]


def _parted(tile: torch.Tensor, mask: torch.Tensor | None) -> list[torch.Tensor]:
    """The tile with 0 for related pairs, and its related pairs alone; only the tile where it holds none."""
    if mask is None:
        return [tile]
    apart = torch.where(mask, tile, 0)
    return [tile.masked_fill_(mask, 0), apart]


def _mask(related: Related, pair: str, rows: slice, columns: slice, device: str) -> torch.Tensor | None:
    """Which entries of a tile are of related pairs, or None when none is. Most tiles hold none: ids sort by patient."""
    mask = None
    for x, y in (related.patients, related.prompts):
        own, other = (as_tensor((x if side == "x" else y)[at]) for side, at in zip(pair, (rows, columns), strict=True))
        if torch.isin(own, other).any():
            equal = own.to(device)[:, None] == other.to(device)
            mask = equal if mask is None else mask.logical_or_(equal)
    return mask


@dataclass(frozen=True)
class Mmd:
    """A squared MMD and, per image, how far it moves it.

    influence_x: (n,) float64, (n - 1) (value - value without image i) less its mean; the same for y. Positive where the
    image raises the discrepancy. The standard error of its mean is the exact delete-one jackknife error of `value` for
    one side; the squares of both sides add. None where a side is too small to leave one out.
    """

    value: float
    influence_x: np.ndarray | None
    influence_y: np.ndarray | None


def mmd(sums: KernelSums, *, biased: bool) -> Mmd:
    """The squared MMD as a U-statistic, or as a V-statistic when `biased`.

    Unbiased: pairs of an image with itself are left out; may be negative, and is 0 in the mean when the sets agree.
    Biased: they count, as 0, so the kernel's diagonal must be 0 (Gaussian); never negative but for rounding, and too
    large by a multiple of 1/n + 1/m. Needs two rows a side, of which the biased one makes do with one.
    """
    same = 0 if biased else 1
    n, m = len(sums.xx), len(sums.yy)
    xx, yy, xy = (total(part) for part in (sums.xx, sums.yy, sums.xy))
    within_x, within_y = xx / (n * (n - same)), yy / (m * (m - same))

    def influence(own: np.ndarray, total: float, cross: np.ndarray, n: int, m: int, rest: float) -> np.ndarray | None:
        if n < 2 + same:
            return None
        without = (total - 2 * own) / ((n - 1) * (n - 1 - same)) + rest - 2 * (xy - cross) / ((n - 1) * m)
        return (n - 1) * (without.mean() - without)

    return Mmd(
        within_x + within_y - 2 * xy / (n * m),
        influence(sums.xx, xx, sums.xy, n, m, within_y),
        influence(sums.yy, yy, sums.yx, m, n, within_x),
    )


def total(sums: np.ndarray) -> float:
    """The correctly rounded sum, whatever the order; NaN when float32 overflowed."""
    return math.fsum(sums) if np.isfinite(sums).all() else math.nan


def permutation_p_value(
    x: np.ndarray, y: np.ndarray, kernel: Kernel, *, rng: np.random.Generator, permutations: int = 499
) -> float:
    """Share of random relabellings of the pooled rows, the true one included, whose unbiased MMD is at least as large.

    The test of "same distribution": the jackknife error says nothing there, as the statistic is degenerate. Holds the
    float64 kernel matrix of all len(x) + len(y) rows: give it a subsample, of independent images.
    """
    n, m = len(x), len(y)
    pooled = torch.from_numpy(np.concatenate([x, y]).astype(np.float64))
    matrix = kernel(pooled, pooled, torch.empty(n + m, n + m, dtype=torch.float64)).fill_diagonal_(0)
    labels = np.zeros((n + m, permutations + 1))
    labels[:n, 0] = 1
    for column in range(1, permutations + 1):
        labels[rng.permutation(n + m)[:n], column] = 1
    in_x = torch.from_numpy(labels)
    from_x = matrix @ in_x
    xx = (from_x * in_x).sum(0)
    xy = from_x.sum(0) - xx
    yy = matrix.sum() - xx - 2 * xy
    values = (xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)).numpy()
    # A relabelling that swaps nothing must count as equal, whatever the order of its sums.
    ties = 1e-12 * float(np.abs(matrix.numpy()).mean())
    return float(np.mean(values >= values[0] - ties))


@dataclass(frozen=True)
class SubsetMmd:
    """Unbiased MMD^2 on random subsets: `values`, (subsets,), and the influence of drawn images, (subsets, size)."""

    values: np.ndarray
    influence_x: np.ndarray | None
    influence_y: np.ndarray | None


def subset_indices(n: int, m: int, subsets: int, size: int, seed: int = 2020) -> list[tuple[np.ndarray, np.ndarray]]:
    """Index pairs drawn without replacement, x then y, in the order of torch-fidelity (whose seed is 2020)."""
    rng = np.random.RandomState(seed)  # the legacy generator: the published protocol is defined by it
    return [(rng.choice(n, size, replace=False), rng.choice(m, size, replace=False)) for _ in range(subsets)]


def subset_mmd(
    x: np.ndarray,
    y: np.ndarray,
    indices: Sequence[tuple[np.ndarray, np.ndarray]],
    kernel: Kernel,
    *,
    mapper: Mapper = threaded,
) -> SubsetMmd:
    """Unbiased MMD^2 between x[i] and y[j] for each (i, j) of `indices`, all of one size of at least 2."""
    found = list(mapper(_subset, [(i, j, kernel) for i, j in indices], x, y))
    x_influence, y_influence = ([getattr(mmd, name) for mmd in found] for name in ("influence_x", "influence_y"))
    return SubsetMmd(
        np.array([mmd.value for mmd in found]),
        None if x_influence[0] is None else np.stack(x_influence),
        None if y_influence[0] is None else np.stack(y_influence),
    )


def _subset(item: tuple[np.ndarray, np.ndarray, Kernel], x: np.ndarray, y: np.ndarray) -> Mmd:
    i, j, kernel = item
    return mmd(kernel_sums(x[i], y[j], kernel), biased=False)
