"""Where a table's images may lie: below a named folder in any spelling of their paths, and nowhere else."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from chexray.data import schema
from chexray.data.keys import Origin, setting
from chexray.data.sources import _places
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.storage import FileStat, Storage

STORAGE = Storage()


def images(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def table_of(path, *paths):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("path\n" + "".join(f"{each}\n" for each in paths))
    return path


def uris(path, origin="real", **options):
    return Table(str(path), **options).read(origin, STORAGE)["uri"].to_pylist()


def where(path, origin="real", **options):
    table = Table(str(path), **options).read(origin, STORAGE)
    return json.loads(table.schema.metadata[schema.METADATA_KEY])["images"]


def refusal(path, origin="real", **options):
    with pytest.raises(ManifestError) as caught:
        uris(path, origin, **options)
    return str(caught.value)


@pytest.fixture
def world(tmp_path):
    images(tmp_path, "data/a/1.png", "data/2.png", "private/3.png", "tables/own.png")
    return tmp_path


class TestNamed:
    def test_absolute_relative_and_above(self, world):
        path = table_of(
            world / "tables" / "t.csv", f"{world}/data/a/1.png", "../data/2.png", f"file://{world}/data/2.png"
        )
        assert uris(path, image_root=str(world)) == [f"{world}/data/{each}" for each in ("a/1.png", "2.png", "2.png")]
        assert (
            uris(path, image_root=str(world / "data"))
            == uris(path, image_root=str(world))
            == uris(path, image_root="/")
        )

    def test_relative_paths_start_from_the_root_or_the_tables_folder_below_it(self, world):
        path = table_of(world / "tables" / "t.csv", "data/2.png")
        assert uris(path, image_root=str(world)) == [f"{world}/data/2.png"]
        path = table_of(world / "tables" / "t.csv", "own.png")
        assert uris(path, image_root=str(world)) == [f"{world}/tables/own.png"]
        assert "paths start from the table's folder" in where(path, image_root=str(world))

    def test_a_folder_of_the_run_serves_every_set_without_its_own(self, world):
        origin = Origin("synthetic", "synthetic.1", str(world / "data"))
        path = table_of(world / "tables" / "t.csv", f"{world}/data/2.png")
        assert uris(path, origin) == [f"{world}/data/2.png"]
        assert where(path, origin) == f"below {world}/data (as image_root of the run says)"
        beside = table_of(world / "tables" / "u.csv", "own.png")
        assert where(beside, origin) == f"below {world}/tables (the table's own folder)"
        assert where(path, origin, image_root=str(world)) == f"below {world} (as synthetic.1.image_root says)"
        gone = Origin("real", "heldout", str(world / "gone"))
        assert "heldout.image_root (or --image-root): " in refusal(path, gone)

    def test_the_folder_of_absolute_paths_is_told(self, world):
        path = table_of(world / "tables" / "t.csv", f"{world}/data/a/1.png", f"{world}/data/2.png")
        text = refusal(path, Origin("synthetic", "synthetic.0"))
        assert "which leaves the image root" in text
        assert (
            f"set synthetic.0.image_root (or --synthetic-image-root) to {world}/data, in which all of them lie" in text
        )
        assert uris(path, image_root=f"{world}/data")

    def test_roots_that_are_links_are_what_they_lead_to(self, world):
        os.symlink(world / "data", world / "link")
        path = table_of(world / "tables" / "t.csv", f"{world}/data/2.png", f"{world}/link/2.png")
        assert [os.path.realpath(uri) for uri in uris(path, image_root=str(world / "link"))] == [
            f"{world}/data/2.png"
        ] * 2


@pytest.mark.parametrize(
    "image",
    [
        "../private/3.png",
        "../data/../private/3.png",
        "a/../../private/3.png",
        "{world}/private/3.png",
        "{world}/data/../private/3.png",
        "file://{world}/private/3.png",
        "%2e%2e/private/3.png",
        "{world}/data/%2e%2e/private/3.png",
        "..%2fprivate/3.png",
        "../data/out/3.png",
        "../data/3.png",
        "../tables/hop/3.png",
        "//etc/passwd",
        "s3://bucket/3.png",
        "\\\\server\\share\\3.png",
        "http://169.254.169.254/3.png",
    ],
)
@pytest.mark.parametrize("root", ["data", None])
def test_nothing_outside_a_named_folder_is_read(world, image, root):
    """`out`, `3.png` and `hop` are links that lead out of the folder; the path is not written as being below it."""
    os.symlink(world / "private", world / "data" / "out")
    os.symlink(world / "private" / "3.png", world / "data" / "3.png")
    os.symlink(world / "private", world / "tables" / "hop")
    path = table_of(world / "tables" / "t.csv", image.format(world=world))
    options = {} if root is None else {"image_root": str(world / root)}
    text = refusal(path, **options)
    assert "leaves the image root" in text or "on a network" in text or "backslashes" in text or "not below" in text


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("ftp://host/x.png", "an address that is not read (s3://, "),
        ("images\\x.png", "a path with backslashes, as on Windows. Write it with /"),
        ("C:\\images\\x.png", "a path with backslashes, as on Windows. Write it with /"),
        ("D:/images/x.png", "a path with backslashes, as on Windows. Write it with /"),
    ],
)
def test_paths_that_no_folder_makes_right(world, image, words):
    assert words in refusal(table_of(world / "tables" / "t.csv", image))


class Bucket(Storage):
    """A bucket in memory."""

    def list(self, uri):
        return [FileStat(name, 1, "v") for name in sorted(NAMES) if name.startswith(f"{uri.rstrip('/')}/")]

    def stat(self, names):
        return [FileStat(name, 1, "v") if name in NAMES else None for name in names]

    def is_dir(self, uri):
        return any(name.startswith(f"{uri.rstrip('/')}/") for name in NAMES)


NAMES = {"s3://b/data/2.png", "s3://b/data/a/1.png", "s3://c/data/9.png"}


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("s3://b/data/2.png", "s3://b/data/2.png"),
        ("../data/a/1.png", "s3://b/data/a/1.png"),
        ("../../data/2.png", None),
        ("../../../c/data/9.png", None),
        ("s3://c/data/9.png", None),
        ("../data/../tables/t.csv", None),
        ("/etc/passwd", None),
    ],
)
def test_paths_in_a_bucket(image, found):
    root = _places.Root("s3://b/data", "", "s3://b/data", "s3://b/tables", named=True)
    assert root.place(image) == found


def test_keys_travel_with_the_kind_of_a_set():
    origin = pickle.loads(pickle.dumps(Origin("real", "heldout", "/data")))
    assert (origin, origin.key, origin.image_root) == ("real", "heldout", "/data")
    assert setting(origin, "split") == "heldout.split"
    assert setting("synthetic", "split") == "synthetic.split"
