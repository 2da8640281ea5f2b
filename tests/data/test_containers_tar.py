"""Tar archives read in place: the headers walked once, each member by one range; what is cut is said."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from data.test_containers_zip import picture

from chexray.data.containers import tar
from chexray.data.decoding import decode
from chexray.data.images import Reject, load_images
from chexray.data.sources.archive import Archive
from chexray.errors import ManifestError
from chexray.storage import Storage
from chexray.storage.traffic import taken

STORAGE = Storage()
LONG = "folder/" * 30 + "x.png"


def write(path, members, form=tarfile.PAX_FORMAT):
    """members: (name or TarInfo, data) pairs, or a mapping."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def member(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def read(path, **options):
    return Archive(str(path), **options).read("synthetic", STORAGE)


def notes(table):
    return json.loads(table.schema.metadata[b"chexray"])["notes"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_decode_as_files_do(tmp_path, form):
    members = {f"images/{i:03d}.png": picture(i) for i in range(5)}
    if form != tarfile.USTAR_FORMAT:
        members |= {LONG: picture(7), "Röntgen.png": picture(8)}
    table = tar.index(str(write(tmp_path / "a.tar", members, form)), STORAGE)
    assert table["name"].to_pylist() == list(members)
    assert table["size"].to_pylist() == [len(data) for data in members.values()]
    for ours, data in zip(load_images(table["uri"].to_pylist(), STORAGE), members.values(), strict=True):
        assert np.array_equal(ours, decode(data))


def test_the_index_reads_headers_only(tmp_path):
    path = write(tmp_path / "a.tar", {f"{i}.png": picture(i) + bytes(300_000) for i in range(20)})
    taken()
    uris = tar.index(str(path), STORAGE)["uri"].to_pylist()
    n_bytes, n_reads = taken()
    assert n_reads <= 23
    assert n_bytes <= 23 * 4096
    load_images(uris[4:5], STORAGE)
    assert taken()[1] == 1


def test_links_folders_and_devices(tmp_path):
    members = [
        (member("d", tarfile.DIRTYPE), b""), ("d/a.png", picture(1)),
        (member("b.png", tarfile.LNKTYPE, "d/a.png"), b""),
        (member("c.png", tarfile.LNKTYPE, "nowhere"), b""), (member("e.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("f.png", tarfile.FIFOTYPE), b""), ("._a.png", b"x"), ("d/a.png", picture(2)),
    ]  # fmt: skip
    table = read(write(tmp_path / "a.tar", members))
    assert table["sample_id"].to_pylist() == ["b.png", "d/a.png"]
    linked, last = load_images(table["uri"].to_pylist(), STORAGE)
    assert np.array_equal(linked, decode(picture(1)))
    assert np.array_equal(last, decode(picture(2)))
    assert sorted(notes(table)) == [
        "1 left out: devices and other special members",
        "1 left out: files of an operating system (__MACOSX, names with a point in front)",
        "1 left out: hard links to no earlier member",
        "1 left out: older members of a name that occurs again, of which the last counts",
        "1 left out: symbolic links",
    ]


def test_archives_that_were_joined(tmp_path):
    parts = [write(tmp_path / f"{n}.tar", {f"{n}{i}.png": picture(i) for i in range(3)}) for n in "ab"]
    (tmp_path / "c.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    table = read(tmp_path / "c.tar")
    assert table["sample_id"].to_pylist() == ["a0.png", "a1.png", "a2.png", "b0.png", "b1.png", "b2.png"]
    assert all(isinstance(image, np.ndarray) for image in load_images(table["uri"].to_pylist(), STORAGE))


def test_what_stands_behind_the_end_is_said(tmp_path):
    path = write(tmp_path / "a.tar", {"a.png": picture(1)})
    path.write_bytes(path.read_bytes() + b"x" * 700)
    assert notes(read(path)) == ["bytes behind the end mark of the archive are left out"]


def test_what_stands_behind_many_zeros_is_said(tmp_path):
    one, other = (write(tmp_path / f"{n}.tar", {f"{n}.png": picture(1)}).read_bytes() for n in "ab")
    (tmp_path / "c.tar").write_bytes(one + bytes(3 << 20) + other)
    table = read(tmp_path / "c.tar")
    assert table["sample_id"].to_pylist() == ["a.png"]
    assert [note[:68] for note in notes(table)] == [
        "the archive ends after 1 member with more than 2,097,152 zero bytes:"
    ]


def whole(n=4):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for i in range(n):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = 1000
            archive.addfile(info, io.BytesIO(bytes([i + 1]) * 1000))
    return sink.getvalue()


ONE = 512 + 1024


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (whole()[: 2 * ONE + 900], "it is cut: the member after 2 whole ones would end at byte 4,584 of 3,972"),
        (whole()[: 2 * ONE + 100], "it ends within a header after 2 whole members"),
        (whole()[:ONE] + b"x" + whole()[ONE + 1 :], "the header after 1 whole member .* checksum"),
        (b"x" * 2000, "does not begin with a header"),
        (b"\x1f\x8b" + bytes(2000), r"compressed tar.*\(gunzip\), or write a zip"),
        (b"", "found no file"),
        (bytes(10240), "found no file"),
    ],
)
def test_a_broken_archive_is_one_line(tmp_path, data, words):
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_archive_without_its_end_mark_is_said(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(whole()[: 3 * ONE])
    assert notes(read(path)) == ["the archive has no end mark behind its 3 members: it may be cut"]


def test_an_archive_that_shrank_gives_rejects(tmp_path):
    path = write(tmp_path / "a.tar", {f"{i}.png": picture(i) for i in range(2)})
    uris = tar.index(str(path), STORAGE)["uri"].to_pylist()
    path.write_bytes(path.read_bytes()[:600])
    assert [found.code for found in load_images(uris, STORAGE) if isinstance(found, Reject)] == ["truncated"] * 2
