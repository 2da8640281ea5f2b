"""The floor of pairs: for each, a real image of somebody else in place of the synthetic one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from chexray.data.manifest import Manifest
from chexray.data.matching import index_in, is_in
from chexray.data.pairs import UNPAIRED_SCHEMA, Pairs
from chexray.data.values import codes
from chexray.text import quoted


def draw_outside(groups: np.ndarray, low: np.ndarray, high: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """For each pair one of 0 .. n-1 outside its [low, high), uniformly, without repeats in a group where that can be.

    groups: (m,) int codes from 0. low, high: (m,) the span of one's own, shorter than n. Returns (m,) int64.
    """

    def uniform(rows: np.ndarray) -> np.ndarray:
        drawn = rng.integers(0, n - (high - low)[rows])
        return drawn + np.where(drawn >= low[rows], (high - low)[rows], 0)

    sizes = np.bincount(groups)[groups]
    crowded = np.bincount(groups, weights=2 * sizes > n - (high - low)) > 0
    dense = crowded[groups]
    out = uniform(np.arange(len(groups)))
    again = np.flatnonzero(~dense)
    while len(again):  # a pair drawn again finds at least half of the images free, so this ends soon
        order = np.lexsort((out, groups))
        same = (np.diff(groups[order]) == 0) & (np.diff(out[order]) == 0)
        again = order[1:][same & ~dense[order[1:]]]
        out[again] = uniform(again)
    for group in np.flatnonzero(crowded):
        left: list[int] = []
        for row in np.flatnonzero(groups == group):
            free = [place for place, image in enumerate(left) if not low[row] <= image < high[row]]
            if not free:
                left = rng.permutation(n).tolist()
                free = [place for place, image in enumerate(left) if not low[row] <= image < high[row]]
            out[row] = left.pop(free[0])
    return out


def other_patients(
    pairs: Pairs, real: Manifest, rng: np.random.Generator, among: Iterable[str] | None = None
) -> tuple[Pairs | None, str]:
    """The floor: each pair with a real image of another patient, drawn at random, in place of the synthetic one.

    Prompts and seeds stay, so a maximum over seeds is one over as many images. No image comes twice within a prompt
    unless there are fewer than it needs. among: sample_ids that may be drawn, by default all of the real set.
    (None, the reason) when the real set names no patients or all its images are of one.
    """
    subjects = real.table["subject_id"]
    known = subjects.is_valid().to_numpy()
    if not known.any():
        return None, f"the real set {quoted(real.name)} names no patients"
    patients = codes(subjects)
    allowed = known if among is None else known & is_in(real.table["sample_id"], pa.array(list(among), pa.string()))
    pool = np.flatnonzero(allowed)
    pool = pool[np.argsort(patients[pool], kind="stable")]
    own = index_in(pairs.table["real_id"], real.table["sample_id"])
    low, high = (np.searchsorted(patients[pool], patients[own], side) for side in ("left", "right"))
    usable = (own >= 0) & known[own] & (high - low < len(pool))
    if not usable.any():
        return None, f"the real set {quoted(real.name)} has no image of another patient to draw"
    table = pairs.table.filter(pa.array(usable))
    picked = pool[draw_outside(codes(table["prompt_id"]), low[usable], high[usable], len(pool), rng)]
    table = table.set_column(1, "synthetic_id", real.table["sample_id"].take(pa.array(picked)))
    n_lost = len(pairs) - len(table)
    notes = (f"{n_lost} of {len(pairs)} pairs have no floor: the patient of the real image is not known",)
    return Pairs("other_patients", table, UNPAIRED_SCHEMA.empty_table(), notes if n_lost else ()), ""
