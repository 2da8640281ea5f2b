"""Weights drawn from a seed, the same on every machine: for tests, demos and measurements, never for results.

Each tensor is filled from its own PCG64 stream, seeded by a hash of (seed, key name), so the order of the keys, the
number of tensors and the version of torch do not matter. Only raw bits and IEEE arithmetic are used: numpy freezes the
raw PCG64 stream (NEP 19), not the streams of its distributions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np

FILL_VERSION = 1
"""Raised whenever `fill` returns other numbers for the same seed: features stored from random networks then expire."""

_TOKENS = ("token", "tokens", "pos_embed", "position_embedding", "position_embeddings", "reg_tokens")


def uniform(seed: int, key: str, size: int) -> np.ndarray:
    """(size,) float64, mean 0 and variance 1, uniform on ±sqrt(3)."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()
    raw = np.random.PCG64(int.from_bytes(digest, "little")).random_raw(size)
    return ((raw >> np.uint64(11)) * 2.0**-53 - 0.5) * math.sqrt(12)


def fill(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """float32 arrays for the named shapes; a network filled so neither collapses nor explodes with depth.

    Matrices have variance 1/fan_in and convolutions 2/fan_in (He et al. 2015), which keeps the scale through linear
    and ReLU layers. Gains are 1 ± 0.17, shifts small, batch statistics those of standardised data, and learned tokens
    and positions 0.2, large enough to matter and small enough to leave the image visible.
    """
    return {key: _fill_one(key, tuple(shape), seed) for key, shape in shapes.items()}


def _fill_one(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_mean":
        return np.zeros(shape, np.float32)
    if leaf == "running_var":
        return np.ones(shape, np.float32)
    values = uniform(seed, key, math.prod(shape)).reshape(shape)
    if leaf.endswith(_TOKENS) or (len(shape) == 3 and shape[0] == 1):
        values *= 0.2
    elif len(shape) >= 2:
        values *= math.sqrt((2 if len(shape) == 4 else 1) / math.prod(shape[1:]))
    elif leaf in ("weight", "gamma", "lambda1") and len(shape) == 1:
        values = 1 + 0.1 * values
    else:
        values *= 0.05
    return values.astype(np.float32)


def digest(seed: int, architecture: object) -> str:
    """64 hex digits that stand for the weights `fill` would draw: a hash of the recipe, so nothing has to be drawn."""
    recipe = {"fill": FILL_VERSION, "seed": seed, "architecture": architecture}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
