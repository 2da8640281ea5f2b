"""Web servers, the hub and Google's storage through faults of network and service, as `test_faults` has for S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from fixtures.faults import FaultProxy, Rule
from fixtures.kept_places import QUICK, azure, google, hub, web
from fixtures.s3 import proxy_to
from storage.contract import BODY, Place

from chexray.storage import Storage, StorageFailure, fsspec_files

KINDS = {"web": web, "hub": hub, "google": google, "azure": azure}
VERBS: dict[str, Callable[[Storage, str], object]] = {
    "read": lambda storage, uri: storage.read(uri) == BODY,
    "range": lambda storage, uri: storage.read_range(uri, 100, 50) == BODY[100:150],
    "stat": lambda storage, uri: [entry.size for entry in storage.stat([uri])] == [len(BODY)],
}
STALL_S = 0.3


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def way(request: pytest.FixtureRequest, kind: str) -> Iterator[tuple[Place, FaultProxy]]:
    """A place with one file, and the proxy that it is reached through."""
    with ExitStack() as stack:
        proxies = []

        def by(url: str) -> str:
            proxies.append(stack.enter_context(proxy_to(url)))
            return proxies[0].url

        how = {"large": False} if kind == "hub" else {}
        place = stack.enter_context(KINDS[kind](request, by=by, **how))
        place.storage = replace(QUICK, retries=4)
        place.put("a.bin", BODY)
        yield place, proxies[0]


def test_what_passes_is_waited_out(way: tuple[Place, FaultProxy], kind: str):
    place, proxy = way
    for verb, action in VERBS.items():
        for fault in ("503", "500", "reset", "truncate"):
            if (verb, fault) != ("stat", "truncate"):
                proxy.rules = [Rule(fault, times=2)]
                assert action(place.storage, place.uri("a.bin")), (verb, fault)
                assert not any(rule.times for rule in proxy.rules), (verb, fault)


def test_what_does_not_pass_is_named(way: tuple[Place, FaultProxy], kind: str):
    """With the object and the next move, and without what the service said, its token or its address."""
    place, proxy = way
    uri = place.uri("a.bin")
    for fault, code, transient in (
        ("503", "unavailable", True),
        ("reset", "unavailable", True),
        ("403", "denied", False),
    ):
        for verb, action in VERBS.items():
            proxy.rules, before = [Rule(fault, times=1000)], len(proxy.seen)
            with pytest.raises(StorageFailure) as failure:
                action(place.storage, uri)
            assert (failure.value.code, failure.value.transient) == (code, transient), (verb, fault)
            text = str(failure.value)
            assert uri in text
            assert not any(
                word in text for word in ("hidden", "injected", "\n", "127.0.0.1" if kind != "web" else "\n")
            )
            assert len(text) < 400
            assert failure.value.__cause__ is None
            assert len(proxy.seen) - before <= 20, (verb, fault)


def test_one_that_stalls_is_given_up(way: tuple[Place, FaultProxy], kind: str):
    place, proxy = way
    proxy.rules = [Rule("stall", method="GET", path="resolve" if kind == "hub" else "")]
    hasty = replace(place.storage, timeout_s=STALL_S, retries=20)  # a busy machine stalls, too
    fsspec_files._open.clear()
    assert VERBS["read"](hasty, place.uri("a.bin"))


def test_ranges_bring_no_more_than_is_asked_for(request: pytest.FixtureRequest, kind: str):
    """In one request, or one to learn where the file lies: no lookup before each read, no read ahead."""
    with KINDS[kind](request) as place:
        place.put("large.bin", BODY * 1000)
        uri = place.uri("large.bin")
        place.storage.read_range(uri, 0, 1)
        server = place.server
        sent, asked = server.sent, len(server.asked)
        for start in range(0, 100_000, 10_000):
            assert len(place.storage.read_range(uri, start, 1000)) == 1000
        assert server.sent - sent <= 10_000
        assert len(server.asked) - asked == 10


@pytest.mark.parametrize("front", ["datasets/owner/none", "datasets/owner/name@none", "owner/name", "datasets"])
def test_a_repository_that_is_missing_is_named(request: pytest.FixtureRequest, front: str):
    with hub(request):
        for action in (QUICK.read, QUICK.is_dir, QUICK.list, QUICK.exists):
            with pytest.raises(StorageFailure, match=rf"^hf://{front}.*(no such repository|refused by)") as failure:
                action(f"hf://{front}/a.png")
            assert "hidden" not in str(failure.value)


def test_a_revision_may_have_a_slash(request: pytest.FixtureRequest):
    with hub(request) as place:
        place.put("a.bin", b"x")
        assert QUICK.read("hf://datasets/owner/name@refs%2Fpr%2F1/root/a.bin") == b"x"


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    import sys

    for name in ("gcsfs", "gcsfs.core", "adlfs", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "chexray.storage.hub_files", raising=False)
    monkeypatch.setattr(fsspec_files, "_open", {})
    for name in ("gs", "az", "abfs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    for uri, extra in (
        ("gs://b/x", "gcs"),
        ("az://b/x", "azure"),
        ("abfss://b@c.dfs.core.windows.net/x", "azure"),
        ("hf://datasets/o/n/x", "hf"),
    ):
        with pytest.raises(StorageFailure, match=rf"needs the package \w+, .* pip install 'chexray\[{extra}\]'"):
            QUICK.read(uri)
    with pytest.raises(StorageFailure, match=r"chexray\[gcs\]"):
        QUICK.check_place("gs://bucket/out")
