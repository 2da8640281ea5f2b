"""What every place of files promises, as laws that `test_contract.py` checks on each place that can be started here.

Every place keeps the laws of READING; LISTING, WRITING and NOT_WRITING are for those that promise them.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from chexray.errors import StorageError
from chexray.storage import Storage, StorageFailure, basename, inside, join, parent

BODY = bytes(range(251)) * 40
NAMES = ["a b.png", "50%25.png", "100%.png", "a#b.png", "x?y.png", "ä 象.png", "a+b&c=d.png", "(1) [2].png", "a'b.png"]
"""As cells of a table name them."""


@dataclass
class Place:
    """root: of the place's files. put: writes one of them. lists: whether listings are given. server: that sends the
    bytes, where it is one of `fixtures.web`."""

    storage: Storage
    root: str
    put: Callable[[str, bytes], None]
    lists: bool = True
    secret: str = "hidden"
    server: Any = None

    def uri(self, name: str) -> str:
        return inside(self.root, name)


def what_was_written_is_read(place: Place) -> None:
    for data in (b"", b"x", BODY):
        place.put("folder/a.bin", data)
        assert place.storage.read(place.uri("folder/a.bin")) == data


def ranges_are_exact(place: Place) -> None:
    place.put("a.bin", BODY)
    uri = place.uri("a.bin")
    for start, length in ((0, 1), (0, 10), (5, 100), (len(BODY) - 3, 3), (0, len(BODY))):
        assert place.storage.read_range(uri, start, length) == BODY[start : start + length]
    assert place.storage.read_range(uri, 7, 0) == b""


def a_range_ends_with_the_file(place: Place) -> None:
    place.put("a.bin", BODY)
    place.put("none.bin", b"")
    uri = place.uri("a.bin")
    assert place.storage.read_range(uri, len(BODY) - 3, 100) == BODY[-3:]
    assert place.storage.read_range(uri, len(BODY), 100) == b""
    assert place.storage.read_range(uri, 2 * len(BODY), 100) == b""
    assert place.storage.read_range(place.uri("none.bin"), 0, 100) == b""


def what_is_missing_is_not_found(place: Place) -> None:
    place.put("folder/a.bin", BODY)
    uri = place.uri("folder/none.bin")
    assert place.storage.stat([uri, place.uri("folder"), place.uri("folder/a.bin/x")]) == [None, None, None]
    assert not place.storage.exists(uri)
    for action in (lambda: place.storage.read(uri), lambda: place.storage.read_range(uri, 0, 5)):
        with pytest.raises(StorageFailure) as failure:
            action()
        assert (failure.value.code, failure.value.transient) == ("not_found", False)
        assert uri in str(failure.value)
        assert place.secret not in str(failure.value)


def a_listing_is_sorted_whole_and_fresh(place: Place) -> None:
    names = [f"set/{n % 3}/{n:03}.png" for n in range(30)]
    for name in reversed(names):
        place.put(name, name.encode())
    place.put("set2.png", b"is no part of the folder")
    found = place.storage.list(place.uri("set"))
    assert [entry.uri for entry in found] == sorted(place.uri(name) for name in names)
    assert [entry.size for entry in found] == [len(basename(entry.uri)) + 6 for entry in found]
    assert found == place.storage.stat([entry.uri for entry in found])
    place.put("set/new.png", b"new")
    assert len(place.storage.list(place.uri("set"))) == 31
    assert place.storage.list(place.uri("none")) == []


def folders_below_are_named(place: Place) -> None:
    for name in ("runs/b 1#/x/y.json", "runs/b 1#/z.json", "runs/a/x.json", "runs/x.json", "runs2/x.json"):
        place.put(name, b"{}")
    assert place.storage.folders(place.uri("runs")) == [place.uri("runs/a"), place.uri("runs/b 1#")]
    assert place.storage.folders(place.uri("runs/a")) == place.storage.folders(place.uri("none")) == []


def names_mean_what_they_say(place: Place) -> None:
    for name in NAMES:
        place.put(f"odd/{name}", name.encode())
    uris = [place.uri(f"odd/{name}") for name in NAMES]
    assert [place.storage.read(uri).decode() for uri in uris] == NAMES
    assert [entry and entry.uri for entry in place.storage.stat(uris)] == uris
    assert [place.storage.read_range(uri, 0, 3).decode(errors="ignore")[:1] for uri in uris] == [n[0] for n in NAMES]
    if place.lists:
        assert [entry.uri for entry in place.storage.list(place.uri("odd"))] == sorted(uris)


def many_files_are_known_at_once(place: Place) -> None:
    """Also those that are looked up in a listing, with duplicates, and in the order asked for."""
    names = [f"many/{n % 7}/{n}.png" for n in range(300)]
    for name in names:
        place.put(name, name.encode())
    uris = [place.uri(name) for name in names] + [place.uri("many/none.png"), place.uri("many/0/0.png")]
    found = place.storage.stat(uris)
    assert [entry and entry.size for entry in found] == [*map(len, names), None, len(names[0])]


def of_eight_writers_one_creates(place: Place) -> None:
    uri, won, start = place.uri("race/model"), [], threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if place.storage.create(uri, bytes([number]) * 10_000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.storage.read(uri) == bytes(won) * 10_000
    assert [entry.uri for entry in place.storage.list(parent(uri))] == [uri]


def an_empty_file_is_created_once(place: Place) -> None:
    uri = place.uri("folder/empty")
    assert place.storage.create(uri, b"")
    assert not place.storage.create(uri, b"")
    assert not place.storage.create(uri, b"more")
    assert place.storage.read(uri) == b""
    assert place.storage.exists(uri)


def what_is_missing_is_deleted(place: Place) -> None:
    uri = place.uri("folder/a.bin")
    place.storage.delete(uri)
    place.storage.write(uri, BODY)
    place.storage.delete(uri)
    place.storage.delete(uri)
    assert not place.storage.exists(uri)
    assert place.storage.list(place.uri("folder")) == []


def a_file_is_overwritten_whole(place: Place) -> None:
    """Readers see one content or the other, of whatever length."""
    uri, odd, stop = place.uri("folder/a.bin"), [], threading.Event()
    contents = [bytes([number]) * (50_000 - 40_000 * (number % 2)) for number in range(12)]
    place.storage.write(uri, contents[0])

    def read() -> None:
        while not stop.is_set():
            data = place.storage.read(uri)
            if data not in contents:
                odd.append(len(data))

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents:
        place.storage.write(uri, content)
    stop.set()
    reader.join()
    assert not odd
    assert place.storage.read(uri) == contents[-1]


def a_version_is_of_the_content(place: Place) -> None:
    uri = place.uri("a.bin")
    place.put("a.bin", b"one")
    one, again = place.storage.stat([uri]), place.storage.stat([uri])
    place.put("a.bin", b"two")
    two = place.storage.stat([uri])
    assert one == again != two
    assert one[0].version != two[0].version


def folders_are_told_from_files(place: Place) -> None:
    place.put("folder/inner/a.bin", BODY)
    found = [place.storage.is_dir(place.uri(name)) for name in ("folder", "folder/inner", "folder/inner/a.bin", "none")]
    assert found == [True, True, False, False]
    assert place.storage.is_dir(place.root)


def a_large_file_is_read_in_parts(place: Place) -> None:
    data = zlib.compress(bytes(1000)) * 200_000
    place.put("large.bin", data)
    with place.storage.open(place.uri("large.bin")) as file:
        assert file.seek(0, 2) == len(data)
        for start in (len(data) - 10, 0, 1_000_000):
            file.seek(start)
            assert file.read(70_000) == data[start : start + 70_000]


def a_table_comes_back(place: Place) -> None:
    import pyarrow as pa

    from chexray.storage.parquet import to_bytes

    table = pa.table({"n": list(range(1000)), "text": ["x" * (n % 50) for n in range(1000)]})
    place.put("t.parquet", to_bytes(table))
    assert place.storage.read_parquet(place.uri("t.parquet")).equals(table)
    with place.storage.open_parquet(place.uri("t.parquet")) as file:
        assert file.read(["n"]).column("n").to_pylist() == list(range(1000))


def nothing_is_written(place: Place) -> None:
    uri = place.uri("new.bin")
    for verb in ("write", "create", "keep"):
        with pytest.raises(
            StorageFailure, match=r"is only read from, because .* Write to a folder, s3://, gs:// or az"
        ):
            getattr(place.storage, verb)(uri, b"x")
    with pytest.raises(StorageError, match="only read from"):
        place.storage.delete(uri)
    with pytest.raises(StorageError, match=r"cannot write below .*only read from"):
        place.storage.check_place(place.root)
    with pytest.raises(StorageError, match="only read from"):
        place.storage.check_writable(place.root)


def a_folder_is_found_writable(place: Place) -> None:
    folder = join(place.root, "out")
    place.storage.check_writable(folder)
    assert place.storage.list(folder) == []


READING = [
    what_was_written_is_read, ranges_are_exact, a_range_ends_with_the_file, what_is_missing_is_not_found,
    names_mean_what_they_say, many_files_are_known_at_once, a_version_is_of_the_content, folders_are_told_from_files,
    a_large_file_is_read_in_parts, a_table_comes_back,
]  # fmt: skip
LISTING = [a_listing_is_sorted_whole_and_fresh, folders_below_are_named]
WRITING = [
    of_eight_writers_one_creates, an_empty_file_is_created_once, what_is_missing_is_deleted,
    a_file_is_overwritten_whole, a_folder_is_found_writable,
]  # fmt: skip
NOT_WRITING = [nothing_is_written]
