"""The search on Ray: brute force's answer in float64, whatever the blocks, stripes, workers, crashes and storage."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fixtures.deadly import DeadlyStorage

from chexray.engine import search as stage
from chexray.engine import tasks as tasks_module
from chexray.engine.blocks import blocks_of_array
from chexray.engine.progress import Progress
from chexray.engine.search import NearestRows, Search, search
from chexray.errors import ResourceError, StorageError
from chexray.storage import Storage, join

WIDTH = 24
RNG = np.random.default_rng(5)
REFERENCES = (RNG.standard_normal((700, WIDTH)) + 30).astype(np.float32)
QUERIES = (RNG.standard_normal((300, WIDTH)) + 30).astype(np.float32)
QUERIES[::10] = REFERENCES[100:130] + np.float32(1e-3)
QUERIES[5] = REFERENCES[7]
REFERENCES[400] = REFERENCES[7]
QUERY_CODES, REFERENCE_CODES = np.arange(300) % 90, np.arange(700) % 90


def brute(queries: np.ndarray, codes: tuple[np.ndarray, np.ndarray] | None = None) -> NearestRows:
    difference = queries[:, None].astype(np.float64) - REFERENCES
    squared = np.einsum("ijk,ijk->ij", difference, difference)
    if codes:
        squared[codes[0][:, None] == codes[1]] = np.inf
    row = squared.argmin(1)
    found = squared[np.arange(len(row)), row]
    return NearestRows(found, np.where(np.isinf(found), -1, row))


def assert_same(found: NearestRows, expected: NearestRows) -> None:
    np.testing.assert_array_equal(found.row, expected.row)
    np.testing.assert_allclose(found.squared, expected.squared, rtol=1e-13)


def assert_identical(a: NearestRows, b: NearestRows) -> None:
    assert (a.squared.tobytes(), a.row.tobytes()) == (b.squared.tobytes(), b.row.tobytes())


def make(root: str, storage: Storage | None = None, *, block_rows: int = 128, **options) -> Search:
    storage = storage or Storage()
    return Search(
        blocks_of_array(QUERIES, join(root, f"queries-{block_rows}"), storage, block_rows=block_rows),
        blocks_of_array(REFERENCES, join(root, f"references-{block_rows}"), storage, block_rows=block_rows),
        **options,
    )


def run(root: str, storage: Storage | None = None, *, workers: int = 2, **searches: Search):
    progress = Progress("search", "images", 0, stream=io.StringIO())
    return search(searches, root=root, storage=storage or Storage(), workers=workers, progress=progress), progress


def stripes(root: str, storage: Storage | None = None) -> dict[str, str]:
    return {stat.uri: stat.version for stat in (storage or Storage()).list(join(root, "search"))}


@pytest.fixture
def tasks(ray_cluster, monkeypatch) -> None:
    """Every search is done by tasks, in stripes of 64 queries."""
    monkeypatch.setattr(stage, "SMALL_FLOP", 0.0)
    monkeypatch.setattr(stage, "STRIPE_ROWS", 64)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_it_finds_what_brute_force_finds(tasks, tmp_path, request, where) -> None:
    s3 = request.getfixturevalue("s3") if where == "s3" else None
    root, storage = (s3.bucket, s3.storage) if s3 else (str(tmp_path), Storage())
    plain = make(root, storage)
    rows = RNG.permutation(300)[:70]
    signs = np.where(np.arange(WIDTH) % 3 == 0, -1, 1).astype(np.float32)
    searches = {
        "plain": plain,
        "again": plain,
        "strangers": dataclasses.replace(plain, query_codes=QUERY_CODES, reference_codes=REFERENCE_CODES),
        "some": dataclasses.replace(plain, query_rows=rows),
        "none": dataclasses.replace(plain, query_rows=rows[:0]),
        "mirrored": dataclasses.replace(plain, signs=signs),
        "nobody": dataclasses.replace(
            plain, query_codes=np.zeros(300, np.int64), reference_codes=np.zeros(700, np.int64)
        ),
    }
    found, progress = run(root, storage, **searches)
    everything = brute(QUERIES)
    assert_same(found["plain"], everything)
    assert_identical(found["plain"], found["again"])
    assert found["plain"].row[5] == 7  # of two equal references the lower
    assert found["plain"].squared[5] == 0
    assert_same(found["strangers"], brute(QUERIES, (QUERY_CODES, REFERENCE_CODES)))
    assert_same(found["some"], NearestRows(everything.squared[rows], everything.row[rows]))
    assert found["none"].row.shape == found["none"].squared.shape == (0,)
    assert_same(found["mirrored"], brute(QUERIES * signs))
    assert set(found["nobody"].row) == {-1}
    assert np.all(np.isinf(found["nobody"].squared))
    assert progress.done == progress.total == 4 * 300 + 70
    assert len(stripes(root, storage)) == 4 * 5 + 2


def test_blocks_stripes_workers_and_place_reach_no_bit(ray_cluster, monkeypatch, tmp_path) -> None:
    codes = {"query_codes": QUERY_CODES, "reference_codes": REFERENCE_CODES}
    here = run(str(tmp_path), a=make(str(tmp_path), **codes))[0]["a"]
    monkeypatch.setattr(stage, "SMALL_FLOP", 0.0)
    for number, (block_rows, stripe_rows, workers) in enumerate([(50, 64, 1), (1024, 17, 2), (333, 1000, 3)]):
        monkeypatch.setattr(stage, "STRIPE_ROWS", stripe_rows)
        root = str(tmp_path / str(number))
        there = run(root, workers=workers, a=make(root, block_rows=block_rows, **codes))[0]["a"]
        assert_identical(here, there)


def test_a_committed_stripe_is_not_searched_again(tasks, tmp_path) -> None:
    root = str(tmp_path)
    first = run(root, a=make(root))[0]["a"]
    before = stripes(root)
    lost = sorted(before)[3]
    Path(lost).unlink()
    again, progress = run(root, a=make(root))
    after = stripes(root)
    assert {uri for uri in before if before[uri] != after[uri]} == {lost}
    assert progress.done == 64
    assert_identical(first, again["a"])
    _, progress = run(root, a=make(root))
    assert progress.done == 0


def test_a_worker_killed_in_the_middle_changes_no_bit(tasks, tmp_path) -> None:
    calm = run(str(tmp_path / "calm"), a=make(str(tmp_path / "calm")))[0]["a"]
    mark = tmp_path / "killed-once"
    deadly = DeadlyStorage(at="block-00003.parquet", mark=str(mark), spare=os.getpid())
    killed = run(str(tmp_path / "killed"), a=make(str(tmp_path / "killed"), deadly))[0]["a"]
    assert mark.exists()
    assert_identical(calm, killed)


def test_what_stops_a_task_reaches_the_user_in_one_line(tasks, tmp_path) -> None:
    root = str(tmp_path)
    full = DeadlyStorage(at="block-00002.parquet", error="block-00002.parquet: disk on fire.", spare=os.getpid())
    with pytest.raises(StorageError, match="disk on fire") as raised:
        run(root, a=make(root, full))
    assert len(str(raised.value).splitlines()) == 1


def test_a_worker_that_always_dies_ends_the_run(tasks, monkeypatch, tmp_path) -> None:
    root = str(tmp_path)
    monkeypatch.setattr(tasks_module, "MAX_RETRIES", 1)
    deadly = DeadlyStorage(at="block-00001.parquet", spare=os.getpid())
    with pytest.raises(ResourceError, match=r"worker processes died 2 times.*ray\.num_cpus.*same command resumes"):
        run(root, a=make(root, deadly, query_rows=np.arange(10)))


def test_a_broken_stripe_says_what_to_do(tasks, tmp_path) -> None:
    root = str(tmp_path)
    run(root, a=make(root))
    Path(sorted(stripes(root))[1]).write_bytes(b"PAR1 but not really")
    with pytest.raises(StorageError, match=r"stripe-00001\.parquet.*Delete it"):
        run(root, a=make(root))


def test_the_key_is_over_all_that_reaches_a_value(tmp_path) -> None:
    one = make(str(tmp_path))
    signs = np.ones(WIDTH, np.float32)
    others = [
        one,
        make(str(tmp_path), block_rows=64),
        dataclasses.replace(one, queries=one.references, references=one.queries),
        dataclasses.replace(one, query_codes=QUERY_CODES, reference_codes=REFERENCE_CODES),
        dataclasses.replace(one, query_codes=QUERY_CODES + 1, reference_codes=REFERENCE_CODES),
        dataclasses.replace(one, query_rows=np.arange(3)),
        dataclasses.replace(one, query_rows=np.arange(4)),
        dataclasses.replace(one, signs=signs),
        dataclasses.replace(one, signs=-signs),
    ]
    assert len({each.key for each in others}) == len(others)
    assert dataclasses.replace(one, query_rows=np.array([2, 0, 1])).key == others[5].key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query_codes": QUERY_CODES}, "both sides"),
        ({"query_codes": QUERY_CODES[1:], "reference_codes": REFERENCE_CODES}, "codes for 300 rows"),
        ({"query_rows": np.array([300])}, "rows of a set of 300"),
        ({"query_rows": np.array([1, 1])}, "distinct"),
        ({"signs": np.zeros(WIDTH)}, r"values of \+1 or -1"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(tmp_path, change, words) -> None:
    with pytest.raises(ValueError, match=words):
        make(str(tmp_path), **change)


FORGED = {
    "text": {"row": pa.array(["0"] * 300)},
    "float32": {"squared": pa.array(np.zeros(300, np.float32))},
    "no value": {"squared": pa.array([None] * 300, pa.float64())},
    "NaN": {"squared": pa.array([float("nan")] * 300)},
    "negative": {"squared": pa.array([-1.0] * 300)},
    "a reference that is not there": {"reference": pa.array([10**6] * 300)},
    "one row again and again": {"row": pa.array([0] * 300)},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED.keys())
def test_a_stripe_that_no_search_wrote_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(stage, "SMALL_FLOP", 1e12)
    storage, asked = Storage(), make(str(tmp_path))
    run(str(tmp_path), storage, a=asked)
    (uri,) = stripes(str(tmp_path), storage)
    table = storage.read_parquet(uri)
    storage.write_parquet(uri, pa.table({name: change.get(name, table[name]) for name in table.column_names}))
    with pytest.raises(StorageError, match=r"stripe-00000\.parquet .*Delete it"):
        run(str(tmp_path), storage, a=asked)
