"""Each verb of Storage through each fault of network and service: what passes is waited out, the rest is named."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fixtures.faults import Rule
from fixtures.s3 import S3, make_bucket, proxy_to, reach

from chexray.errors import StorageError
from chexray.storage import Storage, join, parent, s3

BODY = bytes(range(250)) * 40
STALL_S = 0.3
"""A wait that these tests do pay, where nothing but its end can be waited for."""


def seek_and_read(storage: Storage, uri: str) -> bytes:
    with storage.open(uri) as file:
        file.seek(-300, io.SEEK_END)
        return file.read(100)


VERBS = {
    "read": ("GET", lambda storage, uri: storage.read(uri), BODY),
    "read_range": ("GET", lambda storage, uri: storage.read_range(uri, 100, 50), BODY[100:150]),
    "open": ("GET", seek_and_read, BODY[-300:-200]),
    "stat": ("HEAD", lambda storage, uri: storage.stat([uri])[0].size, len(BODY)),
    "list": ("GET", lambda storage, uri: [entry.size for entry in storage.list(parent(uri))], [len(BODY)]),
    "is_dir": ("GET", lambda storage, uri: storage.is_dir(parent(uri)), True),
    "write": ("PUT", lambda storage, uri: storage.write(uri, BODY), None),
    "delete": ("DELETE", lambda storage, uri: storage.delete(uri), None),
}
FAULTS = {
    "503": set(VERBS),
    "500": set(VERBS),
    "reset": set(VERBS),
    "lost": set(VERBS),
    "truncate": {"read", "read_range", "open", "list", "is_dir"},
    "stall": set(VERBS),
}
CASES = [(verb, fault) for fault, verbs in FAULTS.items() for verb in VERBS if verb in verbs]


@pytest.fixture(scope="module")
def way(s3_server: str) -> Iterator[S3]:
    """One connection for all tests, since to make one costs more than most of them."""
    with proxy_to(s3_server) as proxy:
        found = reach(proxy.url, make_bucket(s3_server, "each-fault"), proxy)
        yield found


@pytest.fixture
def bucket(way: S3) -> S3:
    """A bucket with one object "folder/a.bin", behind a proxy."""
    way.proxy.rules = []
    way.storage.write(join(way.bucket, "folder/a.bin"), BODY)
    way.proxy.seen.clear()
    way.waits.clear()
    return way


def hasty(bucket: S3) -> Storage:
    """A storage that gives up waiting early. On a busy machine it may do so without a cause, and so it tries often."""
    return replace(bucket.storage, timeout_s=STALL_S, retries=10)


@pytest.mark.parametrize(("verb", "fault"), CASES)
def test_each_verb_survives_each_fault(bucket: S3, verb: str, fault: str):
    method, action, expected = VERBS[verb]
    times, uri = (1 if fault == "stall" else 3), join(bucket.bucket, "folder/a.bin")
    bucket.proxy.rules = [Rule(fault, times=times, method=method)]
    assert action(hasty(bucket) if fault == "stall" else bucket.storage, uri) == expected
    assert bucket.proxy.struck() == {fault: times}
    assert bucket.storage.exists(uri) == (verb != "delete")


@pytest.mark.parametrize("verb", ["read", "stat", "list", "write"])
def test_a_stall_without_end_is_given_up(bucket: S3, verb: str):
    method, action, _ = VERBS[verb]
    bucket.proxy.rules = [Rule("stall", times=99, method=method)]
    with pytest.raises(StorageError, match=r"stalled for 0.3 s. .* timeout_s") as caught:
        action(replace(hasty(bucket), retries=1), join(bucket.bucket, "folder/a.bin"))
    assert (caught.value.code, caught.value.transient) == ("unavailable", True)
    assert bucket.proxy.struck() == {"stall": 2}
    assert len(bucket.waits) == 1


def test_an_upload_that_nobody_reads_is_given_up(bucket: S3, monkeypatch):
    monkeypatch.setattr(s3, "SLOWEST", 1 << 26)
    bucket.proxy.rules = [Rule("stall", times=1, method="PUT")]
    data = bytes(16 << 20)  # more than the sockets hold
    hasty(bucket).write(join(bucket.bucket, "large.bin"), data)
    assert bucket.proxy.struck() == {"stall": 1}
    assert bucket.storage.stat([join(bucket.bucket, "large.bin")])[0].size == len(data)


def test_a_large_transfer_may_take_longer_than_a_small_one(bucket: S3):
    connection = s3.buckets(bucket.storage)  # timeout_s is 30
    assert connection._patience(0) == 35
    assert connection._patience(100 << 20) == 3035


def test_bursts_are_outlasted_by_many_threads(bucket: S3):
    uris = [join(bucket.bucket, f"{number:02}.bin") for number in range(32)]
    bucket.proxy.rules = [Rule("503", times=4, path=f"/{number:02}.bin") for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: bucket.storage.write(uri, uri.encode()), uris))
    assert bucket.proxy.struck() == {"503": 128}
    assert len(bucket.waits) == 128
    bucket.proxy.rules = [Rule("503", times=4, path=f"/{number:02}.bin") for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(bucket.storage.read, uris)) == [uri.encode() for uri in uris]


def test_waits_double_and_differ_and_end(bucket: S3):
    bucket.proxy.rules = [Rule("503", times=99)]
    for name in ("a", "b"):
        with pytest.raises(StorageError, match=r"busy or failing .503 SlowDown."):
            bucket.storage.read(join(bucket.bucket, name))
    first, second = bucket.waits[:4], bucket.waits[4:]
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for waits in (first, second) for n, wait in enumerate(waits))
    assert first != second
    patient = replace(bucket.storage, retries=20)
    bucket.waits.clear()
    bucket.proxy.rules = [Rule("503", times=99)]
    with pytest.raises(StorageError, match="busy"):
        patient.read(join(bucket.bucket, "a"))
    assert len(bucket.waits) == 20
    assert sum(bucket.waits) <= 8 * 20


ANSWERS = [
    ("404", "not_found", "no such object"),
    ("403", "denied", r"denied .AccessDenied.. Check the credentials and what they may do in bucket 'each-fault'"),
    ("expired", "denied", r"denied .ExpiredToken.. The session token has expired: get a new one and run again"),
    ("region", "failed", r"is in another region .AuthorizationHeaderMalformed.. Set region to eu-west-1"),
    ("redirect", "failed", r"is in another region .PermanentRedirect.. Set region to eu-west-1"),
]


@pytest.mark.parametrize(("answer", "code", "words"), ANSWERS)
@pytest.mark.parametrize("verb", ["read", "list", "write"])
def test_answers_that_no_retry_changes(bucket: S3, verb: str, answer: str, code: str, words: str):
    method, action, _ = VERBS[verb]
    bucket.proxy.rules = [Rule(answer, times=99, method=method)]
    uri = join(bucket.bucket, "folder/a.bin")
    with pytest.raises(StorageError, match=words) as caught:
        action(bucket.storage, uri)
    assert (caught.value.code, caught.value.transient) == (code, False)
    assert bucket.bucket in str(caught.value)
    assert bucket.endpoint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert bucket.waits == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("403", "denied .403."),
        ("expired", "Check the region, and whether the session token has expired"),
        ("region", "region"),
        ("redirect", "region"),
    ],
)
def test_answers_to_head_have_no_body_to_say_more(bucket: S3, answer: str, words: str):
    bucket.proxy.rules = [Rule(answer, times=99)]
    with pytest.raises(StorageError, match=words) as caught:
        bucket.storage.stat([join(bucket.bucket, "folder/a.bin")])
    assert not caught.value.transient
    assert bucket.waits == []


def test_something_may_be_done_while_a_request_is_on_its_way(bucket: S3):
    """What tests of killed workers use: the third write waits until the function has returned."""
    seen_then: list[int] = []
    bucket.proxy.call_at(
        "PUT", "part-", 3, lambda: seen_then.append(len(bucket.storage.list(bucket.bucket + "/parts")))
    )
    for number in range(5):
        bucket.storage.write(join(bucket.bucket, f"parts/part-{number}"), b"x")
    assert seen_then == [2]
