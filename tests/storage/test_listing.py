"""Listings of a hundred thousand keys: one request a page, each page tried again by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fixtures.faults import Share
from fixtures.s3 import proxy_to, reach
from fixtures.stub_s3 import StubS3, key

from chexray.storage import Storage, join, s3_session
from chexray.storage import s3 as s3_module

KEYS = 100_000


@pytest.fixture(scope="module")
def stub() -> Iterator[StubS3]:
    with StubS3(KEYS) as stub:
        yield stub


@pytest.fixture(scope="module")
def storage(stub: StubS3) -> Storage:
    return reach(stub.url, "s3://many").storage


@pytest.mark.slow
def test_100000_keys_come_in_100_pages(stub: StubS3, storage: Storage):
    stub.asked.clear()
    found = storage.list("s3://many/images")
    assert len(stub.asked) == 100
    assert [entry.uri for entry in found] == [f"s3://many/{key(number)}" for number in range(KEYS)]
    assert [entry.size for entry in found] == list(range(1, KEYS + 1))
    assert len({entry.version for entry in found}) == KEYS


def test_a_fifth_of_all_requests_fails_and_no_page_is_listed_twice():
    with StubS3(20_000) as stub, proxy_to(stub.url) as proxy:
        proxy.share = Share(seed=4, share=0.2, kinds={"503": 1, "500": 1, "reset": 1, "lost": 1, "truncate": 1})
        found = reach(proxy.url, "s3://many", proxy).storage.list("s3://many/images")
        assert [entry.uri for entry in found] == [f"s3://many/{key(number)}" for number in range(20_000)]
        assert len(proxy.struck()) >= 3
        assert len(proxy.seen) == 20 + proxy.struck().total()


def test_many_keys_are_looked_up_by_page_and_the_missing_are_told(stub: StubS3, storage: Storage):
    stub.asked.clear()
    names = [f"s3://many/{key(number)}" for number in range(40_000, 60_000, 3)]
    found = storage.stat([*names, "s3://many/images/none.png", "s3://many/images/00050000.jpg"])
    assert [entry.size if entry else 0 for entry in found] == [*range(40_001, 60_001, 3), 0, 0]
    assert len(stub.asked) <= 20 + s3_module.THREADS + 2


def test_a_few_keys_far_apart_take_one_page_each(stub: StubS3, storage: Storage):
    stub.asked.clear()
    names = [f"s3://many/{key(number)}" for number in range(0, KEYS, 5_000)]
    assert [entry.size for entry in storage.stat(names) if entry] == list(range(1, KEYS, 5_000))
    assert len(stub.asked) == 20


def test_times_are_read_in_every_form():
    text, number = "2024-01-02T03:04:05.000Z", 1704164645
    assert {s3_session.moment(form).timestamp() for form in (text, number, "Tue, 02 Jan 2024 03:04:05 GMT")} == {number}


def test_entries_are_those_of_botocores_own_parser(s3, monkeypatch: pytest.MonkeyPatch):
    """Also of keys with every sign that a service escapes."""
    for name in ("a b.png", "ä&<>.png", "50%25.png", "a+b.png", "empty", "folder/"):
        s3.storage.write(join(s3.bucket, "odd", name) + ("/" if name.endswith("/") else ""), name.encode())
    quick = s3.storage.list(s3.bucket)
    monkeypatch.setattr("chexray.storage.s3_session.with_plain_entries", lambda parser: parser)
    assert replace(s3.storage, retries=1).list(s3.bucket) == quick
    assert len(quick) == 5
