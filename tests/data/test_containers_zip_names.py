"""Names of zip members: UTF-8 with and without its flag, the Unicode path field, the code page of DOS, NFC and NFD."""

from __future__ import annotations

import struct
import unicodedata
import zipfile
import zlib

import numpy as np
import pytest
from data.test_containers_tar import write as write_tar
from data.test_containers_zip import picture, read
from data.test_containers_zip import write as write_zip

from chexray.data.images import load_images
from chexray.storage import Storage

NAME = "Gr\u00f6\u00dfe.png"


def with_extra(path, name, kind, content):
    info = zipfile.ZipInfo(name)
    info.extra = struct.pack("<HH", kind, len(content)) + content
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("up\u00fc\u0001\u0001.txt", b"x")
        archive.writestr(info, picture(1))
    return path


def the_one(path):
    table = read(path)
    assert isinstance(load_images(table["uri"].to_pylist(), Storage())[0], np.ndarray)
    return table["sample_id"].to_pylist()


def test_utf8_without_its_flag(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: picture(1)})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        assert data[data.index(mark) + place] == 8
        data[data.index(mark) + place] = 0
    path.write_bytes(data)
    assert the_one(path) == [NAME]


@pytest.mark.parametrize(("crc", "expected"), [(0, NAME), (1, "Gr__e.png")])
def test_the_unicode_path_field_counts_where_it_belongs_to_the_name(tmp_path, crc, expected):
    field = struct.pack("<BI", 1, zlib.crc32(b"Gr__e.png") ^ crc) + NAME.encode()
    assert the_one(with_extra(tmp_path / "a.zip", "Gr__e.png", 0x7075, field)) == [expected]


@pytest.mark.parametrize("field", [b"", b"\1", b"\2" + bytes(9), b"\1" + bytes(4)])
def test_a_short_or_foreign_field_is_left_alone(tmp_path, field):
    assert the_one(with_extra(tmp_path / "a.zip", "x.png", 0x7075, field)) == ["x.png"]


def test_two_names_that_differ_by_composition_alone_stay_two(tmp_path):
    names = [unicodedata.normalize(form, NAME) for form in ("NFC", "NFD")]
    found = read(write_zip(tmp_path / "a.zip", {**{name: picture(1) for name in names}, "x.png": picture(2)}))
    assert found["sample_id"].to_pylist() == [*names, "x.png"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_decomposed_names_meet_composed_ones(tmp_path, write):
    """macOS decomposes the names of files, and no editor those in a table."""
    apart = unicodedata.normalize("NFD", NAME)
    table = f"path,prompt\n{NAME},p\n".encode()
    for more in ({"m.csv": table}, {NAME.replace(".png", ".txt"): b"p"}):
        found = read(write(tmp_path / "a.archive", {apart: picture(1), **more}).rename(
            tmp_path / ("a.zip" if write is write_zip else "a.tar")))  # fmt: skip
        assert found["sample_id"].to_pylist() == [NAME]
        assert found["prompt"].to_pylist() == ["p"]
        assert isinstance(load_images(found["uri"].to_pylist(), Storage())[0], np.ndarray)
