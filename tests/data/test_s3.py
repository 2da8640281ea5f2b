"""S3 through a moto server of our own, and through a proxy that fails on request (tests/fixtures)."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from fixtures.faults import Rule
from PIL import Image

from chexray.data.images import Reject, embedded_uri, load_images
from chexray.data.sources.table import Table
from chexray.errors import StorageError
from chexray.storage import Storage, join
from chexray.storage.s3 import buckets


def test_what_is_written_is_read_listed_and_deleted(s3):
    uri = join(s3.bucket, "new/folder/a b+%41.bin")
    s3.storage.write(uri, b"0123456789")
    assert s3.storage.read(uri) == b"0123456789"
    assert s3.storage.read_range(uri, 7, 10) == b"789"
    assert s3.storage.exists(uri)
    assert not s3.storage.exists(join(s3.bucket, "new"))
    assert s3.storage.is_dir(join(s3.bucket, "new"))
    assert not s3.storage.is_dir(join(s3.bucket, "ne"))
    assert not s3.storage.is_dir(uri)
    (entry,) = s3.storage.list(s3.bucket)
    assert (entry.uri, entry.size) == (uri, 10)
    assert s3.storage.stat([uri]) == [entry]
    s3.storage.delete(uri)
    s3.storage.delete(uri)
    assert s3.storage.list(s3.bucket) == []
    assert s3.storage.list(join(s3.bucket, "none")) == []


def test_an_object_that_is_too_large_for_an_image_is_not_read(s3, monkeypatch):
    from chexray.data import images
    from chexray.storage.traffic import taken

    monkeypatch.setattr(images, "FILE_OVERHEAD", 1000)
    uris = [join(s3.bucket, "large.png"), join(s3.bucket, "small.png")]
    for uri, size in zip(uris, (1801, 1800), strict=True):
        s3.storage.write(uri, bytes(size))
    taken()
    large, small = load_images(uris, s3.storage, max_pixels=100)
    assert (large.code, large.transient, small.code) == ("too_large", False, "not_an_image")
    assert taken() == (1800, 1)


def test_listing_a_folder_leaves_its_neighbours_out(s3):
    for name in ("a/1", "a/b/2", "ab/3", "a.txt", "a/"):
        s3.storage.write(f"{s3.bucket}/{name}", b"x")
    assert [entry.uri for entry in s3.storage.list(join(s3.bucket, "a"))] == [f"{s3.bucket}/a/1", f"{s3.bucket}/a/b/2"]


def test_listings_are_never_stale(s3):
    writer = pickle.loads(pickle.dumps(s3.storage))
    assert s3.storage.list(s3.bucket) == []
    writer.write(join(s3.bucket, "a"), b"1")
    first = s3.storage.list(s3.bucket)
    writer.write(join(s3.bucket, "a"), b"2")
    second = s3.storage.list(s3.bucket)
    assert [entry.size for entry in first + second] == [1, 1]
    assert first[0].version != second[0].version


def test_many_keys_are_listed_and_looked_up_in_pages(faulty_s3, s3, monkeypatch):
    monkeypatch.setattr("chexray.storage.s3.PAGE_KEYS", 40)
    names = [f"p{number // 7}/s{number}/img{number}.png" for number in range(110)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: s3.storage.write(join(s3.bucket, name), name.encode()), names))
    listed = faulty_s3.storage.list(faulty_s3.bucket)
    assert [entry.uri for entry in listed] == sorted(join(faulty_s3.bucket, name) for name in names)
    assert len(faulty_s3.proxy.seen) == 3

    faulty_s3.proxy.seen.clear()
    wanted = [join(faulty_s3.bucket, name) for name in [*names[::3], "p0/none.png", "zzz", "A", "p15/s107/img107.pnf"]]
    found = faulty_s3.storage.stat(wanted)
    known = {entry.uri: entry for entry in listed}
    assert found == [known.get(uri) for uri in wanted]
    assert len(faulty_s3.proxy.seen) <= 4
    few = [wanted[0], wanted[-1], wanted[5]]
    assert faulty_s3.storage.stat(few) == [known.get(uri) for uri in few]


def test_sixteen_threads_share_one_connection(s3):
    def turn(number: int) -> bytes:
        uri = join(s3.bucket, f"{number}.bin")
        s3.storage.write(uri, bytes([number]) * 1000)
        return s3.storage.read(uri)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(turn, range(64))) == [bytes([number]) * 1000 for number in range(64)]


def test_parquet_reads_only_what_it_needs(faulty_s3):
    uri = join(faulty_s3.bucket, "t.parquet")
    noise = np.random.default_rng(0).bytes(1 << 20)
    table = pa.table({"image": [noise, noise[::-1]], "id": ["a", "b"]})
    faulty_s3.storage.write_parquet(uri, table)
    assert faulty_s3.storage.read_parquet(uri).equals(table)
    faulty_s3.proxy.seen.clear()
    assert faulty_s3.storage.read_parquet(uri, ["id"]).column("id").to_pylist() == ["a", "b"]
    assert 0 < len(faulty_s3.proxy.seen) <= 6
    with pytest.raises(StorageError, match="no such object"):
        faulty_s3.storage.read_parquet(join(faulty_s3.bucket, "none.parquet"))


@pytest.mark.parametrize("fault", ["503", "500", "reset", "truncate"])
def test_a_read_survives_two_failures(faulty_s3, fault):
    uri = join(faulty_s3.bucket, "a.bin")
    faulty_s3.storage.write(uri, bytes(10_000))
    faulty_s3.proxy.rules = [Rule(fault, times=2, method="GET")]
    assert faulty_s3.storage.read(uri) == bytes(10_000)
    assert len(faulty_s3.waits) == (1 if fault == "reset" else 2)  # aiohttp itself repeats a request once after a reset
    assert [entry[2] for entry in faulty_s3.proxy.seen if entry[0] == "GET"] == [fault, fault, ""]


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_writes_listings_and_stats_survive_too(faulty_s3, fault):
    uri = join(faulty_s3.bucket, "a.bin")
    faulty_s3.proxy.rules = [Rule(fault, times=2, method=method) for method in ("PUT", "GET", "HEAD", "DELETE")]
    faulty_s3.storage.write(uri, b"x")
    assert faulty_s3.storage.exists(uri)
    assert [entry.uri for entry in faulty_s3.storage.list(faulty_s3.bucket)] == [uri]
    faulty_s3.storage.delete(uri)
    assert len(faulty_s3.waits) == (4 if fault == "reset" else 8)


@pytest.mark.parametrize("fault", ["503", "reset", "truncate"])
def test_a_lasting_failure_is_transient_and_bounded(faulty_s3, fault):
    uri = join(faulty_s3.bucket, "a.bin")
    faulty_s3.storage.write(uri, bytes(10_000))
    faulty_s3.proxy.rules = [Rule(fault, times=99, method="GET")]
    with pytest.raises(StorageError, match=r"a\.bin") as caught:
        faulty_s3.storage.read(uri)
    assert caught.value.transient
    assert len(faulty_s3.waits) == faulty_s3.storage.retries
    asked = sum(entry[0] == "GET" for entry in faulty_s3.proxy.seen)
    assert asked == (faulty_s3.storage.retries + 1) * (2 if fault == "reset" else 1)
    (reject,) = load_images([uri], faulty_s3.storage)
    assert isinstance(reject, Reject)
    assert (reject.code, reject.transient) == ("unavailable", True)


def test_a_flipped_byte_is_found_by_its_checksum(faulty_s3):
    uri = join(faulty_s3.bucket, "a.bin")
    faulty_s3.storage.write(uri, bytes(1000))
    faulty_s3.proxy.rules = [Rule("flip", method="GET")]
    assert faulty_s3.storage.read(uri) == bytes(1000)
    faulty_s3.proxy.rules = [Rule("flip", times=99, method="GET")]
    with pytest.raises(StorageError, match=r"a\.bin .*do not match its stored checksum") as caught:
        faulty_s3.storage.read(uri)
    assert caught.value.code == "corrupt"


def test_a_denied_bucket_is_named_and_not_retried(faulty_s3):
    faulty_s3.proxy.rules = [Rule("403", times=99)]
    for action in (
        lambda: faulty_s3.storage.read(join(faulty_s3.bucket, "a")),
        lambda: faulty_s3.storage.list(faulty_s3.bucket),
        lambda: faulty_s3.storage.stat([join(faulty_s3.bucket, "a")]),
        lambda: faulty_s3.storage.stat([join(faulty_s3.bucket, str(n)) for n in range(50)]),
        lambda: faulty_s3.storage.check_writable(join(faulty_s3.bucket, "out")),
    ):
        with pytest.raises(StorageError, match="denied") as caught:
            action()
        assert caught.value.code == "denied"
        assert faulty_s3.bucket.removeprefix("s3://") in str(caught.value)
        assert faulty_s3.proxy.url in str(caught.value)
    assert faulty_s3.waits == []


def test_stats_need_no_permission_to_list(faulty_s3):
    names = [join(faulty_s3.bucket, f"{number:02}") for number in range(20)]
    for name in names[:10]:
        faulty_s3.storage.write(name, b"x")
    faulty_s3.proxy.rules = [Rule("403", times=99, method="GET", path="list-type")]
    assert [entry is not None for entry in faulty_s3.storage.stat(names)] == [True] * 10 + [False] * 10


def test_check_writable_says_what_is_needed(s3, faulty_s3):
    s3.storage.check_writable(join(s3.bucket, "out"))
    assert s3.storage.list(s3.bucket) == []
    faulty_s3.proxy.rules = [Rule("403", method="PUT")]
    with pytest.raises(StorageError, match=r"cannot write below s3://.*s3:PutObject"):
        faulty_s3.storage.check_writable(join(faulty_s3.bucket, "out"))


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(StorageError, match=r"bucket 'nowhere-at-all' does not exist"):
        s3.storage.list("s3://nowhere-at-all/x")
    with pytest.raises(StorageError, match="does not exist"):
        s3.storage.check_writable("s3://nowhere-at-all/x")
    with pytest.raises(StorageError, match="Check URI, region and endpoint"):
        s3.storage.read("s3://not a bucket/x")


def test_an_endpoint_where_nobody_listens(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        waits: list[float] = []
        storage = Storage(endpoint, key="AKIATESTING", secret="s", sleep=waits.append)
        with pytest.raises(StorageError, match=rf"{endpoint}: cannot connect") as caught:
            storage.read("s3://bucket/a")
        assert caught.value.transient
        assert sum(waits) < 8
        with pytest.raises(StorageError, match=r"cannot write below s3://bucket/out.*cannot connect"):
            storage.check_writable("s3://bucket/out")


def test_credentials_and_endpoint_from_the_environment(s3, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    uri = join(s3.bucket, "a")
    with pytest.raises(StorageError, match=r"no usable credentials .*AWS_ACCESS_KEY_ID"):
        Storage(timeout_s=11).read(uri)
    with pytest.raises(StorageError, match=r"no usable credentials .ProfileNotFound"):
        Storage(profile="not-there").read(uri)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-environment")
    storage = Storage(timeout_s=12)
    storage.write(uri, b"x")
    assert storage.read(uri) == b"x"
    with pytest.raises(StorageError, match="denied"):
        Storage(anon=True).read(uri)
    buckets(s3.storage)._call("put_object_acl", uri, Key="a", ACL="public-read")
    assert Storage(anon=True).read(uri) == b"x"


def test_no_secret_in_messages_or_logs(faulty_s3, caplog):
    caplog.set_level(logging.INFO)
    faulty_s3.proxy.rules = [Rule("403", method="GET"), Rule("503", times=9, method="GET")]
    texts = []
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            faulty_s3.storage.read(join(faulty_s3.bucket, "a"))
        texts.append(str(caught.value))
    for text in [*texts, repr(faulty_s3.storage), caplog.text]:
        assert faulty_s3.storage.secret not in text
        assert faulty_s3.storage.key not in text


def png(value: int) -> bytes:
    sink = pa.BufferOutputStream()
    Image.new("L", (20, 10), value).save(sink, format="png")
    return sink.getvalue().to_pybytes()


def test_images_from_a_bucket_keep_their_order(faulty_s3):
    uris = []
    for value in range(20):
        uris.append(join(faulty_s3.bucket, f"{value}.png"))
        if value != 7:
            faulty_s3.storage.write(uris[-1], png(value))
    faulty_s3.proxy.rules = [Rule("503", times=2, path="/3.png"), Rule("403", times=2, path="/5.png")]
    images = load_images(uris, faulty_s3.storage)
    for value, image in enumerate(images):
        if value in (5, 7):
            assert isinstance(image, Reject)
            assert image.code == {5: "denied", 7: "not_found"}[value]
        else:
            assert image.shape == (10, 20)
            assert (image == value).all()


def test_embedded_images_are_read_by_row_group(faulty_s3):
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": [png(value) for value in range(12)]}), sink, row_group_size=4)
    file = join(faulty_s3.bucket, "set.parquet")
    faulty_s3.storage.write(file, sink.getvalue().to_pybytes())
    images = load_images([embedded_uri(file, "image", row) for row in (11, 0, 8, 1)], faulty_s3.storage)
    assert [int(image[0, 0]) for image in images] == [11, 0, 8, 1]

    faulty_s3.proxy.rules = [Rule("503", times=99, method="GET")]
    (reject,) = load_images([embedded_uri(file, "image", 0)], faulty_s3.storage)
    assert (reject.code, reject.transient) == ("unavailable", True)


def test_a_key_that_looks_encoded_is_read_as_it_is(s3):
    """As tools that encode twice leave them: S3 takes keys as they are."""
    uri = join(s3.bucket, "%2F/a b%2e.png")
    s3.storage.write(uri, b"image")
    s3.storage.write(join(s3.bucket, "table.csv"), b"path\n%2F/a b%2e.png\n")
    table = Table(join(s3.bucket, "table.csv")).read("real", s3.storage)
    assert table["uri"].to_pylist() == [uri]
    assert s3.storage.stat([uri])[0].size == 5
