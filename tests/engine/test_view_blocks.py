"""Blocks of views: made of what the store holds, by tasks or here alike, and written once."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.encoders.pixels import Pixels
from chexray.encoders.views import VIEWS, SmallImages, view_features
from chexray.engine import blocks as stage
from chexray.engine.blocks import Stored, write_view_blocks
from chexray.engine.features import FeatureStore
from chexray.phantom import draw
from chexray.storage import Storage, join

N = 24
ENCODER, SMALL = Pixels(side=8), SmallImages()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [draw(i, seed=6, size=64).image for i in range(N)]


def fill(root: str, storage: Storage, images: list[np.ndarray]) -> tuple[FeatureStore, list[str]]:
    store, keys = FeatureStore(root, storage), [f"key-{i:02d}" for i in range(N)]
    for encoder in (ENCODER, SMALL):
        store.commit(encoder.resolve(), keys, encoder.encode(np.stack([encoder.prepare(each) for each in images])), [])
    return store, keys[::-1]


def write(store: FeatureStore, keys: list[str]):
    plain = Stored(ENCODER.resolve(), store.done(ENCODER.resolve()))
    small = Stored(SMALL.resolve(), store.done(SMALL.resolve()), "image")
    return write_view_blocks(store, ENCODER, plain, small, keys, workers=2)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_each_row_holds_the_views_of_its_image(ray_cluster, monkeypatch, tmp_path, request, images, where):
    s3 = request.getfixturevalue("s3") if where == "s3" else None
    root, storage = (join(s3.bucket, "features"), s3.storage) if s3 else (str(tmp_path), Storage())
    monkeypatch.setattr(stage, "BLOCK_ROWS", 7 * len(VIEWS))
    monkeypatch.setattr(stage, "HERE_IMAGES", 0 if where == "local" else 1000)
    store, keys = fill(root, storage, images)
    blocks = write(store, keys)
    assert (blocks.n, blocks.width, blocks.n_blocks) == (N, 64 * len(VIEWS), 4)
    plain = ENCODER.encode(np.stack([ENCODER.prepare(each) for each in images[::-1]]))["features"]
    pictures = np.stack([SMALL.prepare(each).ravel() for each in images[::-1]])
    np.testing.assert_array_equal(blocks.take(np.arange(N)), view_features(ENCODER, plain, pictures))
    before = {stat.uri: stat.version for stat in storage.list(blocks.folder)}
    assert write(store, keys).digest == blocks.digest
    assert {stat.uri: stat.version for stat in storage.list(blocks.folder)} == before
    assert write(store, keys[1:]).digest != blocks.digest
