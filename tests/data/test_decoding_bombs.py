"""Images that expand: sizes are read before bytes, and what one process holds at once is bounded."""

from __future__ import annotations

import io
import struct
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures import hostile_images as hostile
from fixtures.peak import measured
from PIL import Image

from chexray.data import decoding, memory
from chexray.data.dicom_frames import expanded
from chexray.data.images import Reject, decode, embedded_uri, load_and, load_images
from chexray.data.jpeg2000 import read_codestream
from chexray.data.memory import Budget
from chexray.storage import Storage

HOSTILE = {**hostile.files(), **hostile.dicoms()}
LARGE = ["png transparent", "webp transparent", "tiff float", "jpeg cmyk"]
LARGE += ["tiff predicted", "dicom 32 bits", "dicom 16 bits", "dicom ybr"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")


@pytest.fixture(scope="module")
def attacked() -> dict[str, dict]:
    return measured("hostile")


@pytest.fixture(scope="module")
def honest() -> dict[str, dict]:
    return measured("large")


@linux
@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_no_more_than_its_bytes(attacked, name):
    found = attacked[name]
    assert found["code"] in HOSTILE[name][1], found
    assert found["mb"] < 32, found
    assert found["seconds"] < 10, found


@linux
@pytest.mark.slow
def test_no_decoder_writes_to_stderr(attacked):
    assert attacked[""]["stderr"] == ""


@linux
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_image_needs_what_the_budget_counts(honest, name):
    """16 million pixels at 16 bytes are 256 MB, so 64 million are 1 GB; part of them is copied before the fork."""
    assert honest[name]["shape"] == [4000, 4000]
    assert honest[name]["mb"] < memory.BYTES_PER_PIXEL * 16 + 16, honest[name]


@linux
@pytest.mark.slow
@pytest.mark.parametrize(("name", "bytes_per_pixel"), [("png rgb 16", 24), ("tiff rgb 16", 18), ("tiff float64", 24)])
def test_a_large_image_of_many_bits_needs_what_the_budget_counts(honest, name, bytes_per_pixel):
    assert honest[name]["shape"] == [4000, 4000]
    assert honest[name]["mb"] < bytes_per_pixel * 16 + 16, honest[name]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 48, 15, 3), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8), None, np.zeros(4)],
)
def test_whatever_a_decoder_returns_is_one_grey_image_or_a_reject(monkeypatch, wrong):
    monkeypatch.setattr(decoding, "_by_format", lambda *_: wrong)
    assert decode(b"x").code == "corrupt"


def test_a_decoder_that_returns_more_pixels_than_its_header_is_refused(monkeypatch):
    monkeypatch.setattr(decoding, "_by_format", lambda *_: np.zeros((100, 100), np.uint8))
    assert decode(b"x", max_pixels=9_999).code == "too_large"


@pytest.mark.parametrize(("name", "data"), hostile.honest().items(), ids=list(hostile.honest()))
def test_bands_change_no_pixel(monkeypatch, name, data):
    whole = decode(data)
    monkeypatch.setattr("chexray.data.bands.BAND_PIXELS", 200)
    np.testing.assert_array_equal(decode(data), whole)


def test_rejects_are_one_short_visible_line():
    detail = Reject("corrupt", "a\nb\x1b[2J\u202e" + "x" * 10_000).detail
    assert len(detail) <= 500
    assert detail.isprintable()


def test_rle_lengths_are_those_pydicom_decodes():
    from pydicom.pixels.decoders.rle import _rle_decode_segment

    rng = np.random.default_rng(5)
    for size in rng.integers(0, 300, 200):
        segment = rng.integers(0, 256, size).astype(np.uint8).tobytes()
        assert expanded(segment, 10**6) == len(_rle_decode_segment(segment))
    assert expanded(b"\x81\0" * 10**6, 1000) <= 1000 + 128


def test_a_codestream_says_what_it_holds():
    stream = hostile._j2k(hostile.GREY.astype(np.uint16))
    found = read_codestream(stream)
    assert (found.width, found.height, found.components, found.bits, found.excess) == (64, 48, 1, 16, "")
    assert read_codestream(hostile.jp2(stream)) == found
    sink = io.BytesIO()
    Image.fromarray(np.dstack([hostile.GREY] * 3)).save(sink, "JPEG2000", tile_size=(16, 16), num_resolutions=3)
    assert (read_codestream(sink.getvalue()).components, read_codestream(sink.getvalue()).excess) == (3, "")
    # Decoders allocate from the origin on, whatever part of it the image shows.
    far = bytearray(stream)
    far[8:24] = struct.pack(">4I", 50_064, 50_048, 50_000, 50_000)
    assert read_codestream(bytes(far)) is None
    assert read_codestream(b"\xff\x4f\xff\x51") is None
    assert read_codestream(stream[:30]) is None


def test_a_line_of_millions_of_pixels_is_too_large():
    """Resizing takes memory by side as well as by area."""
    found = decode(hostile.saved(Image.new("L", (4_000_000, 1)), "PNG"))
    assert isinstance(found, Reject)
    assert found.code == "too_large"


def test_a_budget_shares_its_bytes_and_grants_a_larger_lease_alone():
    budget, order = Budget(10), []
    with budget.lease(4), budget.lease(6):
        assert budget.used == 10
        waiting = threading.Thread(target=lambda: budget.lease(25).__enter__() and order.append(budget.used))
        waiting.start()
        assert budget.used == 10
    waiting.join(10)
    assert order == [25]
    with pytest.raises(RuntimeError, match="once"), Budget(10).lease(4) as lease:
        lease.take(1)


def test_a_lease_is_given_back_whatever_happens():
    budget = Budget(10)
    with pytest.raises(ValueError, match="x"), budget.lease(4):
        raise ValueError("x")
    assert budget.used == 0


class Watched(Budget):
    """Remembers the most that was used at once."""

    most = 0

    def _take(self, size: int) -> None:
        super()._take(size)
        self.most = max(self.most, self.used)


def test_many_threads_stay_within_the_budget_of_the_process(monkeypatch, tmp_path):
    pixels = Watched(5 * 48 * 64 * memory.BYTES_PER_PIXEL)
    monkeypatch.setattr(memory, "pixels", pixels)
    for i in range(40):
        (tmp_path / f"{i}.png").write_bytes(hostile.honest()["grey"])
    held: list[int] = []

    def use(_: int, image: np.ndarray) -> int:
        held.append(pixels.used)
        return int(image[0, 1])

    found = load_and(use, [str(tmp_path / f"{i}.png") for i in range(40)], Storage(), threads=16)
    assert found == [1] * 40
    assert 0 < pixels.most <= pixels.capacity
    assert min(held) >= 48 * 64 * memory.BYTES_PER_PIXEL  # what is used counts until it is let go
    assert pixels.used == 0


def test_files_and_rows_that_wait_for_room_do_not_wait_for_each_other(monkeypatch, tmp_path):
    data = hostile.honest()["grey"]
    monkeypatch.setattr(memory, "files", Budget(len(data) + 1))
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(data)
    tables = [str(tmp_path / f"{i}.parquet") for i in range(3)]
    for file in tables:
        pq.write_table(pa.table({"image": [data] * 8}), file)
    rows = [embedded_uri(file, "image", row) for file in tables for row in range(8)]
    uris = [
        uri for pair in zip(rows[:12], (str(tmp_path / f"{i}.png") for i in range(12)), strict=True) for uri in pair
    ]
    found = load_images([*uris, *rows[12:]], Storage(), threads=2)
    assert len(found) == 36
    assert all(isinstance(image, np.ndarray) for image in found)


def test_a_file_too_long_for_any_image_is_not_read(monkeypatch, tmp_path):
    with open(tmp_path / "long.png", "wb") as file:
        file.truncate(10**10)
    monkeypatch.setattr(Storage, "read", lambda *_: pytest.fail("it was read"))
    (found,) = load_images([str(tmp_path / "long.png")], Storage())
    assert (found.code, "10000000000 bytes" in found.detail) == ("too_large", True)


def test_an_error_of_the_caller_is_the_callers(tmp_path):
    (tmp_path / "a.png").write_bytes(hostile.honest()["grey"])

    def use(*_):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        load_and(use, [str(tmp_path / "a.png")], Storage())
    assert memory.pixels.used == memory.files.used == 0
