"""Blocks hold the store's features bit for bit, are written once, and are checked when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chexray.encoders.base import EncoderSpec
from chexray.engine import blocks as stage
from chexray.engine.blocks import FeatureBlocks, Stored, blocks_of_array, write_blocks
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.errors import StorageError
from chexray.storage import Storage, join

SPEC = EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": 5, "logits": 2}, (8, 8), "uint8", 1, {})


def fill(root: str, storage: Storage, n: int) -> tuple[FeatureStore, list[str], np.ndarray]:
    """A store of n images in parts of 16, the keys in another order than that of the parts, and their features."""
    store = FeatureStore(root, storage)
    features = np.random.default_rng(n).standard_normal((n, 5), dtype=np.float32)
    keys = [f"key-{i:04d}" for i in range(n)]
    for start in range(0, n, 16):
        part = slice(start, start + 16)
        columns = {"features": features[part], "logits": features[part, :2] + 1}
        store.commit(SPEC, keys[part], columns, [])
    order = np.random.default_rng(1).permutation(n)
    return store, [keys[i] for i in order], features[order]


def gathered(blocks: FeatureBlocks) -> np.ndarray:
    whole = np.full((blocks.n, blocks.width), np.nan, np.float32)
    for i in range(blocks.n_blocks):
        whole[blocks.rows_of(i)] = blocks.read(i)
    return whole


def versions(blocks: FeatureBlocks) -> dict[str, str]:
    return {stat.uri: stat.version for stat in blocks.storage.list(blocks.folder)}


@pytest.mark.parametrize("where", ["local", "s3"])
def test_blocks_hold_the_features_of_the_store(ray_cluster, monkeypatch, tmp_path, request, where) -> None:
    s3 = request.getfixturevalue("s3") if where == "s3" else None
    root, storage = (join(s3.bucket, "features"), s3.storage) if s3 else (str(tmp_path), Storage())
    store, keys, features = fill(root, storage, 100)
    monkeypatch.setattr(stage, "BLOCK_ROWS", 32)
    monkeypatch.setattr(stage, "GATHER_BYTES", 2 * 32 * 5 * 4)  # two blocks a task
    blocks = write_blocks(store, Stored(SPEC, store.done(SPEC), "features"), keys, workers=2)
    assert (blocks.n, blocks.width, blocks.n_blocks) == (100, 5, 4)
    np.testing.assert_array_equal(gathered(blocks), features)
    rows = np.array([99, 0, 3, 3, 57])
    np.testing.assert_array_equal(blocks.take(rows), features[rows])
    assert blocks.take(rows[:0]).shape == (0, 5)
    assert not np.array_equal(np.concatenate([blocks.rows_of(i) for i in range(4)]), np.arange(100))
    other = write_blocks(store, Stored(SPEC, store.done(SPEC), "logits"), keys, workers=2)
    np.testing.assert_array_equal(gathered(other), features[:, :2] + 1)


def test_only_missing_blocks_are_gathered(ray_cluster, monkeypatch, tmp_path) -> None:
    store, keys, features = fill(str(tmp_path), Storage(), 100)
    monkeypatch.setattr(stage, "BLOCK_ROWS", 32)
    done = store.done(SPEC)
    blocks = write_blocks(store, Stored(SPEC, done, "features"), keys, workers=2)
    before = versions(blocks)
    lost = sorted(before)[2]
    store.storage.delete(lost)
    again = write_blocks(store, Stored(SPEC, done, "features"), keys, workers=2)
    after = versions(blocks)
    assert again == blocks
    assert {uri for uri in before if before[uri] != after[uri]} == {lost}
    np.testing.assert_array_equal(gathered(again), features)


def test_one_block_is_gathered_without_ray_and_other_keys_lie_elsewhere(tmp_path) -> None:
    store, keys, features = fill(str(tmp_path), Storage(), 40)
    done = store.done(SPEC)
    blocks = write_blocks(store, Stored(SPEC, done, "features"), keys, workers=1)
    assert blocks.n_blocks == 1
    np.testing.assert_array_equal(gathered(blocks), features)
    fewer = write_blocks(store, Stored(SPEC, done, "features"), keys[:-1], workers=1)
    turned = write_blocks(store, Stored(SPEC, done, "features"), keys[::-1], workers=1)
    assert len({blocks.digest, fewer.digest, turned.digest}) == 3
    np.testing.assert_array_equal(turned.take(np.arange(40)), features[::-1])
    empty = write_blocks(store, Stored(SPEC, StoreIndex(), "features"), [], workers=1)
    assert (empty.n_blocks, empty.take(np.empty(0, np.int64)).shape) == (0, (0, 5))


def test_a_broken_or_foreign_block_says_what_to_do(tmp_path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    blocks = blocks_of_array(array, str(tmp_path), Storage(), block_rows=8)
    np.testing.assert_array_equal(gathered(blocks), array)
    first, second = sorted(Path(tmp_path).iterdir())[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(StorageError, match=r"block-00001\.parquet holds other rows than expected\. Delete it"):
        blocks.read(1)
    first.write_bytes(b"PAR1 but not really")
    with pytest.raises(StorageError, match=r"block-00000\.parquet.*Delete it"):
        blocks.read(0)
    with pytest.raises(IndexError, match="of a set of 20"):
        blocks.take(np.array([20]))
