"""Searches among several vectors an image: brute force's answer, by tasks and here, with keys of their own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from chexray.engine import search as stage
from chexray.engine.blocks import blocks_of_array
from chexray.engine.progress import Progress
from chexray.engine.search import NearestRows, Search, search
from chexray.storage import Storage

WIDTH, VIEWS, N, M = 12, 3, 70, 90
RNG = np.random.default_rng(8)
REFERENCES = RNG.standard_normal((M, VIEWS, WIDTH)).astype(np.float32)
QUERIES = RNG.standard_normal((N, WIDTH)).astype(np.float32)
CODES, REFERENCE_CODES = np.arange(N) % 9, np.arange(M) % 9
ORDER = np.arange(WIDTH)[::-1].copy()


def brute(order: np.ndarray | None, codes: bool) -> NearestRows:
    queries = QUERIES if order is None else QUERIES[:, order]
    apart = queries[:, None, None].astype(np.float64) - REFERENCES
    squared = (apart**2).sum(-1)
    if codes:
        squared[CODES[:, None] == REFERENCE_CODES] = np.inf
    flat = squared.reshape(N, -1)
    return NearestRows(flat.min(1), flat.argmin(1))


def run(folder: Path, **options) -> NearestRows:
    queries = blocks_of_array(QUERIES, str(folder / "queries"), Storage(), block_rows=16)
    references = blocks_of_array(REFERENCES.reshape(M, -1), str(folder / "references"), Storage(), block_rows=16)
    progress = Progress("search", "images", 0, stream=io.StringIO())
    made = Search(queries, references, views=VIEWS, **options)
    return search({"one": made}, root=str(folder), storage=Storage(), workers=2, progress=progress)["one"]


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("order", [None, ORDER], ids=["plain", "mirrored"])
def test_it_finds_what_brute_force_finds(tmp_path, order, codes):
    given = {"query_codes": CODES, "reference_codes": REFERENCE_CODES} if codes else {}
    found, expected = run(tmp_path, order=order, **given), brute(order, codes)
    np.testing.assert_array_equal(found.row, expected.row)
    np.testing.assert_allclose(found.squared, expected.squared, rtol=1e-12)


def test_tasks_find_what_this_process_finds(ray_cluster, monkeypatch, tmp_path):
    here = run(tmp_path / "here")
    monkeypatch.setattr(stage, "SMALL_FLOP", 0.0)
    monkeypatch.setattr(stage, "STRIPE_ROWS", 16)
    there = run(tmp_path / "tasks")
    assert (here.squared.tobytes(), here.row.tobytes()) == (there.squared.tobytes(), there.row.tobytes())


def test_order_and_views_are_part_of_the_key(tmp_path):
    queries = blocks_of_array(QUERIES, str(tmp_path / "queries"), Storage())
    wide = blocks_of_array(REFERENCES.reshape(M, -1), str(tmp_path / "wide"), Storage())
    plain = blocks_of_array(REFERENCES[:, 0].copy(), str(tmp_path / "plain"), Storage())
    made = [Search(queries, wide, views=VIEWS), Search(queries, wide, views=VIEWS, order=ORDER), Search(queries, plain)]
    made += [Search(queries, plain, order=ORDER)]
    assert len({each.key for each in made}) == len(made)


def test_widths_and_orders_that_do_not_fit_are_refused(tmp_path):
    queries = blocks_of_array(QUERIES, str(tmp_path / "queries"), Storage())
    with pytest.raises(ValueError, match="width 12, references 12 for 2 views"):
        Search(queries, queries, views=2)
    with pytest.raises(ValueError, match="permutation"):
        Search(queries, queries, order=np.zeros(WIDTH, np.int64))
