"""Zip archives read in place: the directory by two ranges, each member by one, everything checked."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from chexray.data.containers import zip as zips
from chexray.data.containers.addresses import split_member
from chexray.data.containers.members import runs
from chexray.data.decoding import decode
from chexray.data.images import Reject, load_images
from chexray.data.sources.archive import Archive
from chexray.data.values import file_of
from chexray.errors import ManifestError
from chexray.storage import Storage
from chexray.storage.traffic import taken

STORAGE = Storage()


def picture(i: int, size: int = 24) -> bytes:
    grey = (np.arange(size * size).reshape(size, size) * 7 * (i + 1) % 256).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(grey).save(sink, "PNG")
    return sink.getvalue()


def write(path, members, method=zipfile.ZIP_STORED, comment=b""):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
        archive.comment = comment
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_decode_as_files_do(tmp_path, method):
    members = {f"images/{i:03d}.png": picture(i) for i in range(9)}
    path = write(tmp_path / "a.zip", members, method)
    table = zips.index(str(path), STORAGE)
    assert table["name"].to_pylist() == list(members)
    assert table["size"].to_pylist() == [len(data) for data in members.values()]
    assert {file_of(uri) for uri in table["uri"].to_pylist()} == {str(path)}
    for name, data in members.items():
        (tmp_path / name.replace("/", "-")).write_bytes(data)
    loose = load_images([str(tmp_path / name.replace("/", "-")) for name in members], STORAGE)
    for ours, theirs in zip(load_images(table["uri"].to_pylist(), STORAGE), loose, strict=True):
        assert np.array_equal(ours, theirs)


def read(path, **options):
    return Archive(str(path), **options).read("synthetic", STORAGE)


def notes(table):
    return json.loads(table.schema.metadata[b"chexray"])["notes"]


def member_of(path, row=0):
    return zips.index(str(path), STORAGE)["uri"][row].as_py()


def reject_of(path, row=0, **options):
    (found,) = load_images([member_of(path, row)], STORAGE, **options)
    assert isinstance(found, Reject), found
    return found


def test_the_directory_takes_two_ranges_and_a_member_one(tmp_path):
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) + bytes(200_000) for i in range(20)})
    taken()
    uris = zips.index(str(path), STORAGE)["uri"].to_pylist()
    n_bytes, n_reads = taken()
    assert n_reads == 2
    assert n_bytes < 70_000
    load_images(uris[3:4], STORAGE)
    n_bytes, n_reads = taken()
    assert n_reads == 1
    assert n_bytes < 202_000


def test_neighbours_come_with_one_range(tmp_path):
    path = write(tmp_path / "a.zip", {f"{i:02d}.png": picture(i) for i in range(40)})
    uris = zips.index(str(path), STORAGE)["uri"].to_pylist()
    taken()
    load_images(uris[::-1], STORAGE)
    assert taken()[1] == 1
    load_images(uris[::4], STORAGE)  # most of a common range would be nobody's
    assert taken()[1] == 10


def test_zip64_prefix_and_comment(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50)  # every size and offset goes to the extra fields
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(5)}, comment=b"not PK\5\6 an end")
    path.write_bytes(b"#!/bin/sh\n" * 50 + path.read_bytes())
    table = zips.index(str(path), STORAGE)
    loaded = load_images(table["uri"].to_pylist(), STORAGE)
    assert [image.shape for image in loaded] == [(24, 24)] * 5
    assert table["name"].to_pylist() == [f"{i}.png" for i in range(5)]


def test_sizes_behind_the_data(tmp_path):
    class Pipe(io.RawIOBase):  # cannot seek, so that zipfile writes data descriptors
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    write(pipe, {"a.png": picture(1), "b.png": picture(2)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "a.zip").write_bytes(pipe.data)
    uris = zips.index(str(tmp_path / "a.zip"), STORAGE)["uri"].to_pylist()
    assert all(isinstance(image, np.ndarray) for image in load_images(uris, STORAGE))


def test_names_are_ids_and_never_paths(tmp_path):
    names = ["../../etc/x.png", "/abs/y.png", "a\\b\\z.png", "Röntgen 1.png", "a#b&c=d%20.png", "\u202egnp.png"]
    path = write(tmp_path / "a.zip", [(name, picture(i)) for i, name in enumerate(names)])
    table = read(path)
    assert table["sample_id"].to_pylist() == [
        "etc/x.png", "abs/y.png", "a/b/z.png", "Röntgen 1.png", "a#b&c=d%20.png", "\\u202egnp.png"
    ]  # fmt: skip
    assert {file_of(uri) for uri in table["uri"].to_pylist()} == {str(path)}
    assert all(isinstance(image, np.ndarray) for image in load_images(table["uri"].to_pylist(), STORAGE))


def test_names_of_dos(tmp_path):
    path = write(tmp_path / "a.zip", {"R_ntgen.png": picture(1)})
    path.write_bytes(path.read_bytes().replace(b"R_ntgen", b"R\x94ntgen"))
    table = read(path)
    assert table["sample_id"].to_pylist() == ["Röntgen.png"]
    assert isinstance(load_images(table["uri"].to_pylist(), STORAGE)[0], np.ndarray)


def test_what_is_no_image_is_left_out_and_counted(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    folder = zipfile.ZipInfo("images.png/")
    members = [
        (folder, b""), (link, b"a.png"), ("a.png", picture(1)), ("__MACOSX/a.png", b"x"), ("._a.png", b"x"),
        ("notes.txt", b"x"), ("a.png", picture(2)), ("n" * 1200 + ".png", picture(3)),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = write(tmp_path / "a.zip", members)
    table = read(path)
    assert table["sample_id"].to_pylist() == ["a.png"]
    assert np.array_equal(load_images(table["uri"].to_pylist(), STORAGE)[0], decode(picture(2)))  # the last counts
    assert sorted(notes(table)) == [
        "1 left out: members with names of more than 1,024 bytes",
        "1 left out: older members of a name that occurs again, of which the last counts",
        "1 left out: symbolic links",
        "2 left out: files of an operating system (__MACOSX, names with a point in front)",
        "not in the set: 1 other member",
    ]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda data: data.replace(b"IDAT", b"IDAx", 1), "corrupt", "checksum"),
        (lambda data: data.replace(b"PK\3\4", b"PK\3\5", 1), "corrupt", "another thing"),
        (lambda data: data.replace(b"0.png", b"9.png", 1), "corrupt", "another thing"),
        (lambda data: b"PK\3\4" + bytes([20, 0, 1]) + data[7:], "unsupported", "encrypted"),
    ],
)
def test_a_broken_member_is_a_reject_and_the_others_are_read(tmp_path, change, code, words):
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)})
    path.write_bytes(change(path.read_bytes()))
    uris = zips.index(str(path), STORAGE)["uri"].to_pylist()
    reject, *others = load_images(uris, STORAGE)
    assert reject.code == code
    assert words in reject.detail
    assert not reject.transient
    assert all(isinstance(image, np.ndarray) for image in others)


def central(data: bytes, offset: int, value: bytes, member: int = 0) -> bytes:
    """The archive with other bytes in the record of a member of its directory."""
    at = -1
    for _ in range(member + 1):
        at = data.index(b"PK\1\2", at + 1)
    return data[: at + offset] + value + data[at + offset + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (10, b"\x09\x00", "unsupported"),  # method
        (16, b"\0\0\0\0", "corrupt"),  # CRC
        (20, b"\x08\0\0\0", "corrupt"),  # compressed size
        (24, b"\xff\xff\xff\x7f", "too_large"),  # size
        (24, b"\x10\0\0\0", "corrupt"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_directory_that_lies_of_a_member_costs_that_member(tmp_path, offset, value, code, method):
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)}, method)
    path.write_bytes(central(path.read_bytes(), offset, value))
    found = load_images(zips.index(str(path), STORAGE)["uri"].to_pylist(), STORAGE, max_pixels=1_000_000)
    assert found[0].code == code
    assert all(isinstance(image, np.ndarray) for image in found[1:])


def test_a_method_that_is_not_read_is_named(tmp_path):
    path = write(tmp_path / "a.zip", {"0.png": picture(0)}, zipfile.ZIP_LZMA)
    assert "LZMA" in reject_of(path).detail


def test_a_bomb_is_not_inflated(tmp_path):
    path = write(tmp_path / "a.zip", {"0.png": bytes(60_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 70_000
    assert reject_of(path, max_pixels=1_000).code == "too_large"
    # One whose directory announces less stops where it was to end.
    path.write_bytes(central(path.read_bytes(), 24, b"\x10\x27\0\0"))
    tracemalloc.start()
    assert "expands beyond" in reject_of(path).detail
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_bombs_side_by_side_are_inflated_one_after_the_other(tmp_path):
    members = {f"{i}.png": bytes(70_000_000) for i in range(3)}
    path = write(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED)
    uris = zips.index(str(path), STORAGE)["uri"].to_pylist()
    assert len(runs([(split_member(uri), 0) for uri in uris])) == 3
    tracemalloc.start()
    assert {found.code for found in load_images(uris, STORAGE)} == {"not_an_image"}
    assert tracemalloc.get_traced_memory()[1] < 180_000_000
    tracemalloc.stop()


def test_addresses_that_lie_are_rejects(tmp_path):
    path = write(tmp_path / "a.zip", {"0.png": picture(0)})
    uri = member_of(path)
    front, _, at = uri.partition("&at=")
    start, end, *rest = at.split(":")
    for numbers in (
        [end, start, *rest], [start, "9" * 18, *rest], ["9" * 18, "9" * 18, *rest],
        [start, end, "0", "0", "00000000", "0"], [start, "5"], ["9" * 18, "9" * 18],
    ):  # fmt: skip
        (found,) = load_images([f"{front}&at={':'.join(numbers)}"], STORAGE)
        assert isinstance(found, Reject)
    assert split_member(f"{front}&at={'9' * 19}:{'9' * 19}") is None


def end(data: bytes, offset: int, value: bytes) -> bytes:
    at = data.rindex(b"PK\5\6") + offset
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-40], "its end, where the directory stands, is missing"),
        (lambda data: data[: len(data) // 2], "is missing"),
        (lambda data: b"", "is missing"),
        (lambda data: data[-60:], "out of bounds"),
        (lambda data: end(data, 10, b"\x02\0"), "take .* bytes of a directory"),
        (lambda data: end(data, 10, b"\x09\0"), "out of bounds|ends after"),
        (lambda data: end(data, 12, b"\xff\xff\xff\x7f"), "announces 2,147,483,647 bytes"),
        (lambda data: end(data, 4, b"\x01\0"), "one part of a split zip"),
        (lambda data: central(data, 0, b"PK\1\3"), "has no signature"),
        (lambda data: central(data, 42, b"\0\0\0\0", 1), "zip bomb"),
        (lambda data: central(data, 20, b"\xff\xff\0\0"), "zip bomb"),
        (lambda data: central(data, 42, b"\xff\xff\xff\x00"), "places outside of it"),
    ],
)
def test_a_broken_directory_is_one_line(tmp_path, change, words):
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ManifestError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_archive_without_images_is_one_line(tmp_path):
    for members, words in (
        ({}, "no member matches .*found no file"),
        ({"a.txt": b"x", "b.txt": b"y"}, "found 2 other files, such as a.txt"),
        ({"a.zip": b"x"}, "holds 1 archive, such as a.zip, and no image.*unpack the outer one"),
    ):
        with pytest.raises(ManifestError, match=words):
            read(write(tmp_path / "a.zip", members))


def test_an_encrypted_archive_is_one_line(tmp_path):
    path = write(tmp_path / "a.zip", {"0.png": picture(0)})
    path.write_bytes(central(path.read_bytes(), 8, b"\1\0"))
    with pytest.raises(ManifestError, match="all it holds, 1 member, is encrypted"):
        read(path)


def test_an_archive_that_went_away_or_shrank_gives_rejects(tmp_path):
    path = write(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)})
    uris = zips.index(str(path), STORAGE)["uri"].to_pylist()
    path.write_bytes(path.read_bytes()[:100])
    assert {reject.code for reject in load_images(uris, STORAGE)} == {"truncated"}
    path.unlink()
    assert {reject.code for reject in load_images(uris, STORAGE)} == {"not_found"}


def test_many_members_leave_no_objects_behind(tmp_path):
    data = picture(0)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3_000):
            archive.writestr(f"images/SyntheticImg_{i:08d}-a3f0.png", data)
    tracemalloc.start()
    table = zips.index(str(path), STORAGE)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 3_000
    assert held < 100_000
    assert table.nbytes < 3_000 * 250
