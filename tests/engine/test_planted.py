"""Planted copies: every change of every original in its place, made once, and no image written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexray.encoders.patches import Patches
from chexray.encoders.pixels import Pixels
from chexray.engine.planted import planted_blocks
from chexray.errors import StorageError
from chexray.phantom import draw
from chexray.storage import Storage

CHANGES = {"exact": lambda image, rng: image, "lighter": lambda image, rng: image // 2 + np.uint8(rng.integers(1, 100))}
ENCODERS = {"pixels": Pixels(side=8), "patches": Patches(side=16)}


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[tuple[str, str, None]]:
    folder = tmp_path_factory.mktemp("originals")
    for i in range(3):
        Image.fromarray(draw(i, seed=1, size=320 if i else 64).image).save(folder / f"{i}.png")
    return [(f"key-{i}", str(folder / f"{i}.png"), None) for i in range(3)]


def plant(folder: Path, originals, **changed):
    options = {"root": str(folder), "storage": Storage(), "seed": 4, "max_pixels": 10**6, "io_threads": 2}
    encoders = {label: (encoder, encoder.resolve()) for label, encoder in ENCODERS.items()}
    return planted_blocks(originals, CHANGES, encoders, **{**options, **changed})


def test_rows_are_originals_times_changes(tmp_path, originals):
    blocks = plant(tmp_path, originals)
    for label, encoder in ENCODERS.items():
        found = blocks[label].take(np.arange(6))
        for i, (_, uri, _) in enumerate(originals):
            image = np.asarray(Image.open(uri))
            expected = encoder.encode(encoder.prepare(image)[None])["features"][0]
            # 320 pixels are reduced to 256 first: a mean of the same greys, rounded.
            np.testing.assert_allclose(found[2 * i], expected, atol=0 if i == 0 else 0.2)
            assert not np.allclose(found[2 * i], found[2 * i + 1], atol=0.01)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} == {".parquet"}
    assert len(written) == len(ENCODERS)


def test_a_second_call_reads_no_image(tmp_path, originals):
    first = plant(tmp_path, originals)["pixels"].take(np.arange(6))
    gone = [(key, f"{uri}.gone", None) for key, uri, _ in originals]
    np.testing.assert_array_equal(plant(tmp_path, gone)["pixels"].take(np.arange(6)), first)


def test_a_change_depends_on_its_image_alone(tmp_path, originals):
    whole = plant(tmp_path / "whole", originals)["pixels"].take(np.arange(6))
    part = plant(tmp_path / "part", originals[1:])["pixels"].take(np.arange(4))
    np.testing.assert_array_equal(part, whole[2:])
    other = plant(tmp_path / "seed", originals, seed=5)["pixels"].take(np.arange(6))
    np.testing.assert_array_equal(other[::2], whole[::2])
    assert not np.array_equal(other[1::2], whole[1::2])


def test_an_original_that_is_gone_is_said(tmp_path, originals):
    with pytest.raises(StorageError, match="cannot be read again to plant copies"):
        plant(tmp_path, [*originals, ("key-9", str(tmp_path / "absent.png"), None)])
