"""Decoding: what grey level each kind of file gives, and which words each kind of bad file gets."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.data.images import Reject, decode, embedded_uri, load_images, split_embedded
from chexray.storage import Storage, StorageFailure
from chexray.storage.parquet import ParquetFile

RAMP = np.arange(64 * 48, dtype=np.uint32).reshape(48, 64)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png_of(width: int, height: int, *, bits: int = 8, colour: int = 0, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG written chunk by chunk, for headers Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if extra:
        parts.insert(1, (extra[:4], extra[4:]))
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def code(data: bytes, **options) -> str:
    found = decode(data, **options)
    assert isinstance(found, Reject), "an image came out"
    return found.code


def test_grey_png_comes_out_as_it_went_in():
    pixels = (RAMP % 256).astype(np.uint8)
    found = decode(saved(Image.fromarray(pixels)))
    assert found.dtype == np.uint8
    assert found.flags["C_CONTIGUOUS"]
    assert found.flags["WRITEABLE"]
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_png_mode(mode):
    grey = np.full((8, 6), 255, np.uint8)
    grey[:, :3] = 0
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    np.testing.assert_array_equal(decode(saved(image)), grey)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_jpeg_mode(mode, progressive):
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    data = saved(Image.fromarray(grey).convert("RGB").convert(mode), "JPEG", quality=98, progressive=progressive)
    assert np.abs(decode(data).astype(int) - grey).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_single_frame_formats(kind):
    pixels = (RAMP % 200).astype(np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels), kind, **options)), pixels)


def test_colour_becomes_itu_r_601_luma():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    expected = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(saved(Image.fromarray(pixels))) - expected).max() <= 0.51


def test_transparency_lies_on_black():
    image = Image.new("RGBA", (4, 2), (255, 255, 255, 128))
    assert (decode(saved(image)) == 128).all()
    assert (decode(saved(Image.new("LA", (4, 2), (200, 0)))) == 0).all()
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([10, 10, 10, 200, 200, 200])
    assert (decode(saved(palette, transparency=1)) == 0).all()
    assert (decode(saved(palette, transparency=bytes([255, 128]))) == 100).all()
    assert (decode(saved(Image.new("L", (4, 2), 70), transparency=70)) == 0).all()


@pytest.mark.parametrize(
    ("top", "bits"), [(65535, 16), (32768, 16), (4095, 12), (2048, 12), (1023, 10), (255, 8), (3, 8)]
)
def test_deep_pixels_are_scaled_by_the_smallest_depth_that_holds_them(top, bits):
    pixels = np.linspace(0, top, 48 * 64).astype(np.uint16).reshape(48, 64)
    for kind in ("PNG", "TIFF"):
        expected = np.rint(pixels * (255 / (2**bits - 1)))
        np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels), kind)), expected)


def test_big_endian_and_32_bit_and_float():
    pixels = (RAMP * 5).astype(np.uint16)
    expected = np.rint(pixels / 16383 * 255)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels.astype(">u2")), "TIFF")), expected)
    wide = RAMP.astype(np.int32) * 100
    expected = np.rint(wide / (2**24 - 1) * 255)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(wide), "TIFF")), expected)
    ramp = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(ramp), "TIFF")), np.rint(ramp * 255))
    np.testing.assert_array_equal(
        decode(saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF")), np.rint(RAMP / 4095 * 255)
    )
    ramp[3, 3] = np.nan
    assert code(saved(Image.fromarray(ramp), "TIFF")) == "corrupt"
    assert code(saved(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF")) == "unsupported"


def test_empty_text_and_strangers():
    assert code(b"") == "empty"
    found = decode("patient Müller, 54 years, pneumonia\n".encode() * 30)
    assert (found.code, found.detail) == ("not_an_image", "a text file")
    assert code(b"BM is how this note begins, and a bitmap too") == "not_an_image"
    assert code(b"%!PS-Adobe-3.0 EPSF-3.0\n") == "not_an_image"
    assert code(np.random.default_rng(0).bytes(5000)) == "not_an_image"
    assert code(b"\0") == "not_an_image"


def test_animations_are_refused():
    frames = [Image.new("L", (8, 8), value) for value in (0, 100, 200)]
    for kind in ("PNG", "GIF", "TIFF", "WEBP"):
        assert code(saved(frames[0], kind, save_all=True, append_images=frames[1:])) == "animated", kind


def test_the_jpeg_of_a_phone_is_its_first_picture():
    """MPO: the picture, then previews and views of it."""
    frames = [Image.fromarray(np.full((16, 24), value, np.uint8)) for value in (90, 200)]
    found = decode(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert np.abs(found.astype(int) - 90).max() <= 1
    assert found.shape == (16, 24)


def test_a_bomb_is_measured_before_it_is_decoded():
    found = decode(png_of(30000, 30000))
    assert (found.code, "30000 x 30000" in found.detail) == ("too_large", True)
    assert code(saved(Image.new("L", (200, 100))), max_pixels=19_999) == "too_large"
    assert isinstance(decode(saved(Image.new("L", (200, 100))), max_pixels=20_000), np.ndarray)
    jpeg = bytearray(saved(Image.new("L", (16, 16)), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65000, 65000)
    assert code(bytes(jpeg)) == "too_large"
    text = png_of(8, 8, rows=bytes(72), extra=b"zTXtComment\0\0" + zlib.compress(bytes(100_000_000)))
    assert code(text) == "corrupt"  # refused by Pillow, which stops inflating at 1 MB


def test_no_pixels():
    assert code(png_of(0, 0)) == "no_pixels"
    assert code(png_of(10, 0)) == "no_pixels"
    jpeg = bytearray(saved(Image.new("L", (16, 16)), "JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = bytes(4)
    assert code(bytes(jpeg)) == "corrupt"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("TIFF", {}), ("WEBP", {})],
)
def test_a_cut_file_never_becomes_an_image(kind, options):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 52), np.uint8)  # 52: BMP rows without padding
    whole = saved(Image.fromarray(pixels), kind, **options)
    cuts = [*range(20, len(whole) - 1, 37), len(whole) - 2]
    codes = {code(whole[:cut]) for cut in cuts}
    assert codes <= {"truncated", "corrupt", "unsupported", "not_an_image"}
    if kind in ("PNG", "JPEG"):
        assert codes == {"truncated"}


def test_a_flipped_byte_in_a_png_is_found():
    whole = saved(Image.fromarray((RAMP % 251).astype(np.uint8)))
    for position in range(8, len(whole) - 12, 11):
        broken = bytearray(whole)
        broken[position] ^= 0x10
        assert isinstance(decode(bytes(broken)), Reject)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_garbage_after_a_signature_never_raises(kind):
    rng = np.random.default_rng(2)
    whole = saved(Image.fromarray((RAMP % 251).astype(np.uint8)), kind)
    for _ in range(150):
        broken = bytearray(whole)
        for position in rng.integers(4, len(whole), 6):
            broken[position] = rng.integers(256)
        found = decode(bytes(broken), max_pixels=1_000_000)
        assert isinstance(found, Reject) or (found.dtype == np.uint8 and found.ndim == 2)


def test_memory_that_runs_out_is_a_transient_reject(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("chexray.data.decoding._grey", fail)
    found = decode(saved(Image.new("L", (8, 8))))
    assert (found.code, found.transient) == ("out_of_memory", True)


def test_decoding_prints_nothing_and_is_thread_safe(capfd):
    frames = saved(Image.fromarray((RAMP % 256).astype(np.uint8)))
    palette = Image.new("P", (4, 2), 1)
    noisy = [frames, saved(palette, transparency=bytes([255, 128])), frames[:200], b"", b"x" * 50, png_of(30000, 30000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(decode, noisy * 40))
    assert all(isinstance(found[k], Reject) == isinstance(found[k + 6], Reject) for k in range(len(found) - 6))
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def storage():
    return Storage(sleep=lambda seconds: None)


def test_loading_keeps_order_and_says_why_each_failed(storage, tmp_path):
    for value in range(5):
        Image.new("L", (4, 3), value * 10).save(tmp_path / f"{value}.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    names = ["4.png", "text.png", "0.png", "none.png", "", "empty.png", "a\0b", "2.png"]
    found = load_images([name and str(tmp_path / name) for name in names], storage, threads=3)
    assert [image.code if isinstance(image, Reject) else int(image[0, 0]) for image in found] == [
        40,
        "not_an_image",
        0,
        "not_found",
        "unreadable",
        "empty",
        "unreadable",
        20,
    ]
    assert load_images([], storage) == []


def test_embedded_images_binary_and_hugging_face_struct(storage, tmp_path):
    images = [saved(Image.new("L", (4, 3), value)) for value in range(10)]
    structs = [{"bytes": data, "path": f"{k}.png"} for k, data in enumerate(images)]
    structs[4] = {"bytes": None, "path": "4.png"}
    structs[5] = None
    file = str(tmp_path / "set#1.parquet")
    table = pa.table({"image": images, "hf image": structs, "label": [str(k) for k in range(10)]})
    pq.write_table(table, file, row_group_size=3)
    rows = (9, 0, 4, 5, 3, 0)
    plain = load_images([embedded_uri(file, "image", row) for row in rows], storage)
    assert [int(image[0, 0]) for image in plain] == list(rows)
    nested = load_images([embedded_uri(file, "hf image", row) for row in rows], storage)
    assert [image.code if isinstance(image, Reject) else int(image[0, 0]) for image in nested] == [
        *(9, 0, "not_found", "empty", 3, 0)
    ]
    odd = [
        embedded_uri(file, "picture", 1),
        embedded_uri(file, "image", 10),
        embedded_uri(file, "label", 1),
        embedded_uri(str(tmp_path / "none.parquet"), "image", 1),
        embedded_uri(file, "image", 1),
    ]
    found = load_images(odd, storage)
    assert [image.code for image in found[:4]] == ["not_found", "not_found", "not_an_image", "not_found"]
    assert "Its columns: image, hf image, label" in found[0].detail
    assert "10 rows" in found[1].detail
    assert int(found[4][0, 0]) == 1


def test_each_row_group_is_read_once(storage, tmp_path, monkeypatch):
    file = str(tmp_path / "set.parquet")
    images = [saved(Image.new("L", (4, 3), value)) for value in range(12)]
    pq.write_table(pa.table({"image": images}), file, row_group_size=4)
    read: list[int] = []
    real = ParquetFile.batches
    monkeypatch.setattr(ParquetFile, "batches", lambda self, i, *rest: (read.append(i), real(self, i, *rest))[1])
    load_images([embedded_uri(file, "image", row) for row in (11, 1, 10, 0, 8)], storage)
    assert sorted(read) == [0, 2]


def test_a_broken_parquet_rejects_its_rows_only(storage, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100))
    Image.new("L", (4, 3), 7).save(tmp_path / "good.png")
    found = load_images([embedded_uri(str(tmp_path / "bad.parquet"), "image", 0), str(tmp_path / "good.png")], storage)
    assert found[0].code == "corrupt"
    assert int(found[1][0, 0]) == 7


def test_storage_failures_keep_their_kind(storage, monkeypatch):
    def fail(self, uri):
        kind = uri.rsplit("/", 1)[1]
        raise {"m": MemoryError(), "d": StorageFailure("no", code="denied"), "x": RuntimeError("x")}[kind]

    monkeypatch.setattr(Storage, "read", fail)
    found = load_images(["/m", "/d", "/x"], storage)
    assert [(image.code, image.transient) for image in found] == [
        ("out_of_memory", True),
        ("denied", False),
        ("unreadable", False),
    ]


def test_embedded_uris_round_trip():
    assert split_embedded(embedded_uri("s3://b/a#1.parquet", "my image&x=é", 17)) == (
        "s3://b/a#1.parquet",
        "my image&x=é",
        17,
    )
    assert split_embedded("/a/b#c.png") is None
