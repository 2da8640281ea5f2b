"""Pictures as nested lists of numbers in Parquet: the same grey values as the same picture in a PNG."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.data import images, memory
from chexray.data.containers import array3d, parquet_rows
from chexray.data.depth import Facts
from chexray.data.images import Reject, embedded_uri, load_and, load_images
from chexray.storage import Storage
from chexray.storage.parquet import ParquetFile

STORAGE = Storage()
RNG = np.random.default_rng(0)


def nested(pictures, leaf=pa.uint8(), outer=pa.list_):
    """A column of pictures, each (h, w, c) or (h, w)."""
    stacked = np.stack(pictures)
    values = pa.array(stacked.reshape(-1)).cast(leaf)
    lists = pa.ListArray if outer is pa.list_ else pa.LargeListArray
    for side in stacked.shape[:0:-1]:
        values = lists.from_arrays(pa.array(np.arange(0, len(values) + 1, side)).cast(lists_offset(lists)), values)
    return values


def lists_offset(lists):
    return pa.int32() if lists is pa.ListArray else pa.int64()


def write(path, column, **options):
    pq.write_table(pa.table({"image": column}), path, **options)
    return [embedded_uri(str(path), "image", row) for row in range(len(column))]


def as_png(path, pixels):
    Image.fromarray(pixels).save(path)
    return str(path)


GREY = RNG.integers(0, 256, (5, 16, 20), dtype=np.uint8)
EQUAL = np.repeat(GREY[..., None], 3, axis=-1)
COLOUR = RNG.integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("pictures", [GREY, EQUAL, COLOUR], ids=["grey", "equal channels", "colour"])
@pytest.mark.parametrize("leaf", [pa.uint8(), pa.int32(), pa.int64()], ids=str)
def test_grey_values_are_those_of_the_png(tmp_path, pictures, leaf):
    uris = write(tmp_path / "a.parquet", nested(list(pictures), leaf), row_group_size=2)
    pngs = [as_png(tmp_path / f"{i}.png", picture) for i, picture in enumerate(pictures)]
    for ours, theirs in zip(load_images(uris[::-1], STORAGE), load_images(pngs[::-1], STORAGE), strict=True):
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs)


def test_other_layouts_of_the_same_lists(tmp_path):
    wanted = load_images([as_png(tmp_path / "x.png", COLOUR[0])], STORAGE)[0]
    fixed = pa.list_(pa.list_(pa.list_(pa.uint8(), 3), 20), 16)
    for number, column in enumerate(
        [
            nested([COLOUR[0]], outer=pa.large_list),
            pa.array([COLOUR[0].tolist()], fixed),
            nested([COLOUR[0].view(np.int8)], pa.int8()),
        ]
    ):
        (found,) = load_images(write(tmp_path / f"{number}.parquet", column), STORAGE)
        assert np.array_equal(found, wanted)


def test_one_channel_and_facts(tmp_path):
    uris = write(tmp_path / "a.parquet", nested([GREY[0][..., None]]))
    facts = [Facts()]
    (found,) = load_and(lambda _, pixels: pixels, uris, STORAGE, facts=facts)
    assert np.array_equal(found, GREY[0])
    assert (facts[0].container, facts[0].mode, facts[0].height, facts[0].width) == (
        "pixel array",
        "grey, 8 bits",
        16,
        20,
    )


@pytest.mark.parametrize(
    ("cell", "leaf", "code", "words"),
    [
        ([[[1, 2], [3, 4]]], pa.uint8(), "unsupported", "1 x 2 x 2"),
        ([[[1, 2, 3, 4]]], pa.uint8(), "unsupported", "1 or 3 channels last"),
        ([[[1], [2]], [[3]]], pa.uint8(), "corrupt", "differ in length"),
        ([[[1], [2]], [[3], [4, 5]]], pa.uint8(), "corrupt", "differ in length"),
        ([[[1], [None]]], pa.uint8(), "corrupt", "null"),
        ([[[1], None]], pa.uint8(), "corrupt", "null"),
        ([], pa.uint8(), "no_pixels", "pixel array of 0"),
        ([[]], pa.uint8(), "no_pixels", "1 x 0"),
        (None, pa.uint8(), "empty", "null"),
        ([[[256]]], pa.int32(), "unsupported", "from 256 to 256"),
        ([[[-1]]], pa.int16(), "unsupported", "0 to 255"),
    ],
)
def test_another_shape_or_value_is_a_reject(tmp_path, cell, leaf, code, words):
    good = [[[7], [8]]]
    column = pa.array([good, cell, good], pa.list_(pa.list_(pa.list_(leaf))))
    one, reject, two = load_images(write(tmp_path / "a.parquet", column), STORAGE)
    assert np.array_equal(one, [[7, 8]])
    assert np.array_equal(two, [[7, 8]])
    assert isinstance(reject, Reject)
    assert reject.code == code
    assert words in reject.detail


def test_a_picture_beyond_max_pixels_is_a_reject(tmp_path):
    uris = write(tmp_path / "a.parquet", nested([GREY[0]]))
    (reject,) = load_images(uris, STORAGE, max_pixels=100)
    assert reject.code == "too_large"


@pytest.mark.parametrize("leaf", [pa.uint8(), pa.int64()], ids=str)
def test_a_picture_beyond_max_pixels_is_not_expanded(tmp_path, monkeypatch, leaf):
    blank = np.zeros((300, 400), np.uint8)
    uris = write(tmp_path / "a.parquet", nested([blank, blank], leaf), row_group_size=1)
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    monkeypatch.setattr(ParquetFile, "batches", None)
    for reject in load_images(uris, STORAGE, max_pixels=119_999):
        assert (reject.code, reject.detail) == (
            "too_large",
            "rows of 120,000 numbers, more than the 119,999 of max_pixels",
        )
    monkeypatch.undo()
    assert all(isinstance(each, np.ndarray) for each in load_images(uris, STORAGE, max_pixels=120_000))


def test_three_channels_may_have_three_numbers_a_pixel(tmp_path):
    uris = write(tmp_path / "a.parquet", nested([COLOUR[0]]))
    assert isinstance(load_images(uris, STORAGE, max_pixels=320)[0], np.ndarray)
    assert load_images(uris, STORAGE, max_pixels=319)[0].code == "too_large"


def test_a_large_picture_among_small_ones_is_refused_before_its_numbers_are_copied(tmp_path, monkeypatch):
    small, large = [[0, 0]], np.zeros((40, 50), np.uint8).tolist()
    uris = write(tmp_path / "a.parquet", pa.array([small, large, small], pa.list_(pa.list_(pa.int64()))))
    monkeypatch.setattr(array3d, "_as_bytes", lambda flat: flat.astype(np.uint8) if flat.size < 5 else None)
    one, reject, two = load_images(uris, STORAGE, max_pixels=1999)
    assert (reject.code, one.shape, two.shape) == ("too_large", (1, 2), (1, 2))


def test_a_file_in_a_cell_beyond_what_is_read_is_not_expanded(tmp_path, monkeypatch):
    pq.write_table(pa.table({"image": [bytes(100_000)]}), tmp_path / "a.parquet", use_dictionary=False)
    monkeypatch.setattr(images, "FILE_OVERHEAD", 1000)
    monkeypatch.setattr(ParquetFile, "batches", None)
    (reject,) = load_images([embedded_uri(str(tmp_path / "a.parquet"), "image", 0)], STORAGE, max_pixels=100)
    assert reject.code == "too_large"
    assert "more than the 1,800 allowed" in reject.detail


def test_large_pictures_are_read_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "LARGE_ROW", 100)
    monkeypatch.setattr(parquet_rows, "VALUE_BYTES", memory.FILE_BYTES)
    held, batches = [], ParquetFile.batches

    def seen(self, *args):
        for each in batches(self, *args):
            held.append(memory.files.used)
            yield each

    monkeypatch.setattr(ParquetFile, "batches", seen)
    uris = [uri for i in range(4) for uri in write(tmp_path / f"{i}.parquet", nested([GREY[0]]))]
    assert all(isinstance(each, np.ndarray) for each in load_images(uris, STORAGE))
    assert held == [GREY[0].size * memory.FILE_BYTES] * 4  # larger than the budget, so with no other beside it
    assert memory.files.used == 0
