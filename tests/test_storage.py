"""Local storage: atomic writes, errors in words, names that cannot leave their root."""

from __future__ import annotations

import errno
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.errors import StorageError
from chexray.storage import Storage, absolute, basename, inside, is_remote, join, local, parent


@pytest.fixture
def storage():
    return Storage(sleep=lambda seconds: None)


def test_what_is_written_is_read_listed_and_deleted(storage, tmp_path):
    uri = join(str(tmp_path), "new", "folder", "a.bin")
    storage.write(uri, b"0123456789")
    assert storage.read(uri) == b"0123456789"
    assert storage.read_range(uri, 7, 10) == b"789"
    assert storage.exists(uri)
    assert not storage.exists(parent(uri))
    assert storage.is_dir(parent(uri))
    assert not storage.is_dir(uri)
    assert [(entry.uri, entry.size) for entry in storage.list(str(tmp_path))] == [(uri, 10)]
    storage.delete(uri)
    storage.delete(uri)
    assert not storage.exists(uri)
    assert storage.list(str(tmp_path)) == []
    assert storage.list(str(tmp_path / "nowhere")) == []


def test_file_uris_are_local_paths(storage, tmp_path):
    storage.write(f"file://{tmp_path}/a%20b", b"x")
    assert (tmp_path / "a b").read_bytes() == b"x"
    assert absolute(f"file://{tmp_path}/a%20b") == f"{tmp_path}/a b"


def test_another_scheme_is_refused_by_name(storage):
    with pytest.raises(StorageError, match=r"only local paths and s3://, .* are read"):
        storage.read("ftp://bucket/a")


def test_version_changes_with_the_content(storage, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    before = storage.stat([str(path)])[0]
    os.utime(path, ns=(1, 2))
    assert storage.stat([str(path)])[0].version != before.version


def test_stat_keeps_order_and_marks_the_missing(storage, tmp_path):
    for number in range(0, 600, 2):
        (tmp_path / str(number)).write_bytes(b"x" * number)
    found = storage.stat([str(tmp_path / str(number)) for number in [*range(599, -1, -1), 4]])
    assert [entry and entry.size for entry in found] == [
        *(number if number % 2 == 0 else None for number in range(599, -1, -1)),
        4,
    ]


def test_listing_is_sorted_follows_links_once_and_skips_unfinished_files(storage, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b").touch()
    (tmp_path / "set" / "a.d").mkdir()
    (tmp_path / "set" / "a.d" / "c").touch()
    (tmp_path / "set" / "a.d" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "set" / "a.d")
    (tmp_path / "set" / "dead").symlink_to(tmp_path / "nothing")
    (tmp_path / "set" / f".b.{'0' * 32}.tmp").touch()
    for uri in (f"{tmp_path}/set", f"file://{tmp_path}/set/"):
        names = [entry.uri.removeprefix(uri).lstrip("/") for entry in storage.list(uri)]
        assert names == ["a.d/c", "b", "link/c"]


def test_a_failed_write_leaves_the_old_content_and_no_litter(storage, tmp_path, monkeypatch):
    uri = str(tmp_path / "part")
    storage.write(uri, b"old")
    monkeypatch.setattr(os, "fsync", raising(OSError(errno.EFBIG, "File too large")))
    with pytest.raises(StorageError, match="file too large"):
        storage.write(uri, b"new")
    assert os.listdir(tmp_path) == ["part"]
    assert storage.read(uri) == b"old"


def raising(error):
    def raise_it(*_, **__):
        raise error

    return raise_it


class Full(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_create", lambda path: Full())
    with pytest.raises(StorageError, match=r"part: disk full .*write to another place") as caught:
        storage.write(str(tmp_path / "part"), b"x")
    assert caught.value.code == "disk_full"
    assert not caught.value.transient


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_as_the_kernel_says_it(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_create", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(StorageError, match="disk full"):
        storage.write(str(tmp_path / "part"), b"x")


@pytest.mark.parametrize(
    ("number", "words", "transient"),
    [
        (errno.EACCES, "permission denied. Check its owner", False),
        (errno.EROFS, "read-only file system", False),
        (errno.EDQUOT, "disk full", False),
        (errno.ESTALE, "stale", True),
        (errno.EIO, "input/output error", True),
    ],
)
def test_errors_in_words(tmp_path, monkeypatch, number, words, transient):
    waits: list[float] = []
    storage = Storage(sleep=waits.append)
    monkeypatch.setattr(local.LocalFiles, "open", raising(OSError(number, os.strerror(number))))
    with pytest.raises(StorageError, match=f"(?i){words}") as caught:
        storage.read(str(tmp_path / "a"))
    assert caught.value.transient is transient
    assert len(waits) == (4 if transient else 0)
    assert sum(waits) <= 7.5


def test_a_passing_failure_is_waited_out(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    waits: list[float] = []
    real = local.LocalFiles.open
    failures = iter([OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "io")])

    def sometimes(self, uri):
        for failure in failures:
            raise failure
        return real(self, uri)

    monkeypatch.setattr(local.LocalFiles, "open", sometimes)
    assert Storage(sleep=waits.append).read(str(tmp_path / "a")) == b"x"
    assert len(waits) == 2
    assert waits[0] < waits[1]


def test_missing_folder_and_odd_names(storage, tmp_path):
    for uri, words in [
        (str(tmp_path / "none"), "no such file"),
        (str(tmp_path), "is a folder"),
        ("a\0b", "not a path"),
        ("", "not a path"),
        (str(tmp_path / ("x" * 300)), "file name too long"),
    ]:
        with pytest.raises(StorageError, match=words):
            storage.read(uri)


def test_check_writable_names_the_folder(storage, tmp_path):
    storage.check_writable(str(tmp_path / "out"))
    assert storage.list(str(tmp_path)) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write below .*file: .*another output"):
        storage.check_writable(str(tmp_path / "file"))


def test_parquet_round_trip_by_columns(storage, tmp_path):
    uri = str(tmp_path / "t.parquet")
    table = pa.table({"id": ["a", "b"], "value": [1.5, 2.5]})
    storage.write_parquet(uri, table)
    assert storage.read_parquet(uri).equals(table)
    assert storage.read_parquet(uri, ["value"]).column_names == ["value"]
    with pytest.raises(StorageError, match=r"no column 'label'. Its columns: id, value"):
        storage.read_parquet(uri, ["label"])
    storage.write(uri, b"PAR1 but no more")
    with pytest.raises(StorageError, match="not a readable Parquet file"):
        storage.read_parquet(uri)
    with pytest.raises(StorageError, match="no such file"):
        storage.read_parquet(str(tmp_path / "none.parquet"))


def test_many_threads_write_one_file(storage, tmp_path):
    uri = str(tmp_path / "a")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: storage.write(uri, bytes([number]) * 10_000), range(64)))
    assert len(set(storage.read(uri))) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_results_are_readable_by_the_group_and_by_no_others(storage, tmp_path):
    before = os.umask(0o022)
    try:
        storage.write(str(tmp_path / "a"), b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_storage_travels_and_shows_no_secret():
    storage = Storage("http://host:1", key="KEY-ID", secret="SECRET-KEY", token="TOKEN")
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert not any(secret in repr(storage) for secret in ("KEY-ID", "SECRET-KEY", "TOKEN"))
    with pytest.raises(StorageError, match="endpoint_url holds") as caught:
        Storage("http://me:hunter2@host:1")
    assert "hunter2" not in str(caught.value)


def test_errors_travel_too(storage, tmp_path):
    with pytest.raises(StorageError) as caught:
        storage.read(str(tmp_path / "none"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.code, copy.transient) == (str(caught.value), "not_found", False)


@pytest.mark.parametrize(
    ("uri", "above", "name"),
    [
        ("/a/b.png", "/a", "b.png"),
        ("/a", "/", "a"),
        ("a/b/", "a", "b"),
        ("a", ".", "a"),
        ("s3://bucket/a/b", "s3://bucket/a", "b"),
        ("s3://bucket/a", "s3://bucket", "a"),
        ("s3://bucket", "s3://bucket", ""),
    ],
)
def test_parent_and_basename(uri, above, name):
    assert (parent(uri), basename(uri)) == (above, name)


def test_join_and_absolute():
    assert join("s3://b", "a", "b/c") == "s3://b/a/b/c"
    assert join("/", "a") == "/a"
    assert join("/x/", "/a/") == "/x/a"
    assert join("", "a") == "a"
    assert join("/x") == "/x"
    assert absolute("s3://b/../x") == "s3://b/../x"
    assert absolute("a") == os.path.join(os.getcwd(), "a")
    assert absolute("~/a") == os.path.expanduser("~/a")
    assert is_remote("s3://b")
    assert not is_remote("/s3:/b")


@pytest.mark.parametrize("root", ["/data/cxr", "/data/cxr/", "s3://bucket/cxr", "file:///data/cxr", "relative/cxr"])
@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "a/../../x.png",
        "..",
        "../cxr2/x.png",
        "../other/../cxr/x.png",
        "%2e%2e/x.png",
        "%252e%252e%252fx.png",
        "..\\x.png",
        "a\\..\\..\\x.png",
        "%2e%2e%5cx.png",
        "/etc/passwd",
        "//etc/passwd",
        "\\\\server\\share",
        "C:\\Windows\\x.png",
        "/data/cxr/../x.png",
        "/data/cxr2/x.png",
        "s3://other/x.png",
        "s3://bucket/cxr/../x.png",
        "file:///etc/passwd",
        "http://host/x.png",
        "x\0.png",
        "../cxr.parquet#column=a/../../cxr/b&row=1",
    ],
)
def test_nothing_leaves_its_root(root, name):
    with pytest.raises(StorageError, match="leaves its root"):
        inside(root, name)


@pytest.mark.parametrize("root", ["/data/cxr", "file:///data/cxr", "relative/cxr"])
def test_an_encoded_slash_in_front_leaves_a_local_root(root):
    for name in ("%2fetc/passwd", "%252Fetc/passwd", "%2f"):
        with pytest.raises(StorageError, match="leaves its root"):
            inside(root, name)


def test_an_encoded_slash_is_part_of_a_key():
    for name in ("%2F/a.png", "%2Fa.png", "%252F/a.png", "a%2Fb.png", "%2F%2F/a.png"):
        assert inside("s3://b/cxr", name) == inside("s3://b/cxr", f"s3://b/cxr/{name}") == f"s3://b/cxr/{name}"
        assert inside("s3://b", name) == f"s3://b/{name}"
    for name in ("%2F../x.png", "%2F%2e%2e/x.png", "%2F/../../x.png", "%2Fs3://other/x", "%2F..%5cx.png"):
        with pytest.raises(StorageError, match="leaves its root"):
            inside("s3://b/cxr", name)


def test_what_is_inside_stays_as_written():
    assert inside("/data", "a/b.png") == "/data/a/b.png"
    assert inside("/data", "./a//b/../c.png") == "/data/a/c.png"
    assert inside("/data", "50%2e.png") == "/data/50%2e.png"
    assert inside("/data", "a..b/...png") == "/data/a..b/...png"
    assert inside("/data", "/data/a.png") == "/data/a.png"
    assert inside("/data", "/data") == "/data"
    assert inside("/data", "file:///data/a.png") == "/data/a.png"
    assert inside("/", "/etc/x.png") == "/etc/x.png"
    assert inside("s3://b/cxr", "s3://b/cxr/a.png") == "s3://b/cxr/a.png"
    assert inside("s3://b", "a.png") == "s3://b/a.png"
    assert inside("/data", "x.parquet#column=image&row=17") == "/data/x.parquet#column=image&row=17"


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "/", "\\", "%2e", "%2f", "%5c", "%25", "2e"]), max_size=9))
def test_the_result_is_below_the_root_or_an_error(pieces):
    for name in ("".join(pieces), "/".join(pieces)):
        try:
            uri = inside("/data/root", name)
        except StorageError:
            continue
        assert os.path.normpath(uri) == uri
        assert uri == "/data/root" or uri.startswith("/data/root/")
        assert inside("s3://b/root", name).startswith("s3://b/root")  # what a folder may hold, a bucket may


def test_pipes_and_devices_are_refused_at_once(storage, tmp_path):
    os.mkfifo(tmp_path / "f.csv")
    for uri in (str(tmp_path / "f.csv"), "/dev/zero"):
        with pytest.raises(StorageError, match="is a device or a pipe"):
            storage.read(uri)
    with pytest.raises(StorageError, match="is a folder"):
        storage.read(str(tmp_path))
    assert storage.stat(["/" + "x" * 300, str(tmp_path / "f.csv")]) == [None, None]
