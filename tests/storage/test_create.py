"""Of two writers one creates: locally by a link, on S3 by a condition, elsewhere by a look before."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from fixtures.s3 import S3

from chexray.curation.judged_run import ReadOnlyStorage
from chexray.errors import StorageError
from chexray.storage import Storage, join


def check_creates_once(storage: Storage, root: str) -> None:
    uri = join(root, "folder", "model")
    assert storage.create(uri, b"first")
    assert not storage.create(uri, b"second")
    assert storage.read(uri) == b"first"
    assert [found.uri for found in storage.list(join(root, "folder"))] == [uri]


def test_a_local_file_is_created_once(tmp_path):
    check_creates_once(Storage(), str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["model"]
    assert (tmp_path / "folder" / "model").stat().st_mode & 0o777 == 0o640


def test_an_object_is_created_once(s3: S3):
    check_creates_once(s3.storage, s3.bucket)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links(tmp_path, monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    check_creates_once(Storage(), str(tmp_path))
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_a_service_that_knows_no_condition(s3: S3, monkeypatch):
    from botocore.exceptions import ClientError

    from chexray.storage.s3 import Buckets

    real = Buckets.write

    def write(self, uri: str, data: bytes, **condition: str) -> None:
        if condition:
            answer = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
            raise ClientError(answer, "PutObject")  # pyright: ignore[reportArgumentType]
        real(self, uri, data)

    monkeypatch.setattr(Buckets, "write", write)
    check_creates_once(s3.storage, s3.bucket)


def test_one_of_many_writers_creates(tmp_path):
    uri, won = str(tmp_path / "model"), []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if Storage().create(uri, bytes([number]) * 100_000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Path(uri).read_bytes() == bytes(won) * 100_000
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_kept_is_not_written_again(tmp_path):
    uri, storage = str(tmp_path / "image"), Storage()
    storage.keep(uri, b"one")
    before = storage.stat([uri])
    storage.keep(uri, b"one")
    assert storage.stat([uri]) == before
    storage.keep(uri, b"other")
    assert storage.read(uri) == b"other"


def test_a_storage_for_reading_creates_nothing(tmp_path):
    for verb in ("create", "keep", "write"):
        with pytest.raises(StorageError, match="the filter writes no set"):
            getattr(ReadOnlyStorage(), verb)(str(tmp_path / "x"), b"")
    assert not list(tmp_path.iterdir())
