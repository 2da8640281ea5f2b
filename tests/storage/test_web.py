"""What a web server may not make chexray do: ask another host, take a whole file for a part, or repeat credentials."""

from __future__ import annotations

import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from fixtures.kept_places import QUICK
from fixtures.web import Web
from storage.contract import BODY

from chexray.storage import FileStat, StorageFailure, web_files


@pytest.fixture
def server() -> Iterator[Web]:
    with Web() as server:
        server.files["/a.bin"] = BODY
        yield server


@pytest.fixture
def other() -> Iterator[Web]:
    """Another port is another server, such as the metadata service of a pod."""
    with Web() as server:
        server.files["/secret"] = b"token"
        yield server


def refusal(action) -> str:
    with pytest.raises(StorageFailure) as failure:
        action()
    assert not failure.value.transient
    assert len(str(failure.value)) < 400
    return str(failure.value)


def test_no_redirect_leads_to_another_host(server: Web, other: Web):
    port = other.url.rpartition(":")[2]
    for number, target in enumerate(
        [f"{other.url}/secret", f"//127.0.0.1:{port}/secret", f"http://localhost:{port}/secret", f"http://user:hidden@127.0.0.1:{port}/secret",
         "file:///etc/passwd", "ftp://127.0.0.1/secret", "http://169.254.169.254/latest", "https://127.0.0.1/", "http://["]
    ):  # fmt: skip
        name = f"/{number}.bin"
        server.redirects[name] = target
        uri = server.url + name
        for action in (
            lambda uri=uri: QUICK.read(uri),
            lambda uri=uri: QUICK.read_range(uri, 0, 5),
            lambda uri=uri: QUICK.stat([uri]),
            lambda uri=uri: QUICK.is_dir(uri),
        ):
            text = refusal(action)
            assert "redirects to another host" in text or "ValueError" in text or "InvalidURL" in text
            assert "hidden" not in text
    assert not other.asked


def test_a_redirect_within_the_host_is_followed(server: Web):
    server.redirects |= {"/old.bin": "/a.bin", "/older.bin": f"{server.url}/old.bin", "/ring.bin": "/ring.bin"}
    assert QUICK.read(f"{server.url}/older.bin") == BODY
    assert QUICK.read_range(f"{server.url}/older.bin", 5, 10) == BODY[5:15]
    assert QUICK.stat([f"{server.url}/old.bin"])[0].size == len(BODY)
    assert "more than 5 redirects" in refusal(lambda: QUICK.read(f"{server.url}/ring.bin"))


def test_a_server_without_ranges_sends_no_large_file_for_each_part(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web_files, "SKIPPED_BYTES", len(BODY))
    with Web(ranges=False) as server:
        server.files |= {"/small.bin": BODY, "/large.bin": BODY + b"x"}
        assert QUICK.read_range(f"{server.url}/small.bin", 5, 10) == BODY[5:15]
        text = refusal(lambda: QUICK.read_range(f"{server.url}/large.bin", 5, 10))
        assert "sends whole files where a part is asked for" in text
        assert QUICK.read(f"{server.url}/large.bin") == BODY + b"x"


@pytest.mark.parametrize("told", ["bytes 0-9/10040", "bytes 6-15/10040", "bytes 5-15/10040", "", "bytes */10040"])
def test_other_bytes_than_asked_for_are_refused(server: Web, monkeypatch: pytest.MonkeyPatch, told: str):
    monkeypatch.setattr(server, "content", lambda data, headers: (206, {"Content-Range": told}, data[5:15]))
    assert "other bytes came than bytes=5-14" in refusal(lambda: QUICK.read_range(f"{server.url}/a.bin", 5, 10))


def test_a_file_without_a_version_is_no_file_of_a_set():
    with Web(versions=False) as server:
        server.files["/a.bin"] = BODY
        assert "tells neither ETag nor Last-Modified" in refusal(lambda: QUICK.stat([f"{server.url}/a.bin"]))


def test_credentials_of_an_address_are_in_no_message(server: Web):
    host = server.url.removeprefix("http://")
    for uri in (
        f"http://user:hidden@{host}/a.bin",
        f"{server.url}/none.bin?sig=hidden",
        f"{server.url}/a.bin?token=hidden",
    ):
        for action in (
            lambda uri=uri: QUICK.read(uri),
            lambda uri=uri: QUICK.list(uri),
            lambda uri=uri: QUICK.write(uri, b""),
            lambda uri=uri: QUICK.open(uri),
            lambda uri=uri: QUICK.check_place(uri),
        ):
            with pytest.raises(StorageFailure) as failure:
                action()
            assert "hidden" not in "".join(traceback.format_exception_only(failure.value))
    assert not any("hidden" in str(asked) and "?" in asked[1] for asked in server.asked)


def test_a_runs_folder_sends_the_filter_to_no_server(server: Web):
    from chexray.curation.judged_run import read_only
    from chexray.errors import StorageError

    for action in ("read", "exists", "is_dir", "open"):
        with pytest.raises(StorageError, match="no server is asked because a run's folder names it"):
            getattr(read_only(QUICK), action)(f"{server.url}/a.bin")
    assert not server.asked


def test_an_answer_without_an_end_is_given_up(server: Web, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web_files, "LARGEST", 3 * len(BODY))
    server.endless = 1000
    assert "more than 30,120 bytes" in refusal(lambda: QUICK.read(f"{server.url}/a.bin"))


def test_an_answer_in_drops_is_given_up(server: Web):
    """Each byte comes in time, and the whole does not."""
    server.files["/a.bin"] = b"x"
    server.endless, server.pause_s = 200, 0.02
    with pytest.raises(StorageFailure, match="no answer within") as failure:
        replace(QUICK, timeout_s=0.3, retries=0).read(f"{server.url}/a.bin")
    assert failure.value.transient


def test_no_answer_is_taken_for_a_file_that_is_missing(server: Web):
    server.statuses["/a.bin"] = 503
    for action in (lambda: QUICK.exists(f"{server.url}/a.bin"), lambda: QUICK.read(f"{server.url}/a.bin")):
        with pytest.raises(StorageFailure, match=r"busy or failing \(503\)") as failure:
            action()
        assert failure.value.transient


def endless_part(server: Web, monkeypatch: pytest.MonkeyPatch, status: int, told: dict[str, str]) -> None:
    """10 MB for whatever is asked for, in chunks, without a length."""
    server.endless = 1000
    monkeypatch.setattr(server, "content", lambda data, headers: (status, told, data[:10] * 1000))


def test_of_an_answer_that_goes_on_behind_its_part_no_more_is_read(server: Web, monkeypatch: pytest.MonkeyPatch):
    blocks = []
    read = web_files.aiohttp.StreamReader.readany
    monkeypatch.setattr(web_files.aiohttp.ClientResponse, "read", never)

    async def counted(self):
        blocks.append(await read(self))
        return blocks[-1]

    monkeypatch.setattr(web_files.aiohttp.StreamReader, "readany", counted)
    endless_part(server, monkeypatch, 206, {"Content-Range": "bytes 0-9/100000"})
    assert "other bytes came than bytes=0-9" in refusal(lambda: QUICK.read_range(f"{server.url}/a.bin", 0, 10))
    assert sum(map(len, blocks)) < 1_000_000


async def never(*_):
    raise AssertionError("read to the end")


@pytest.mark.parametrize("endless", [0, 1000])
def test_a_file_longer_than_who_asks_can_use_is_not_read(server: Web, endless: int):
    server.files["/a.bin"] = bytes(100_000)
    server.endless = endless
    with pytest.raises(StorageFailure, match="a file of more than 99,999 bytes") as failure:
        QUICK.read(f"{server.url}/a.bin", most=99_999)
    assert (failure.value.code, failure.value.transient) == ("too_large", False)
    server.endless = 0
    assert len(QUICK.read(f"{server.url}/a.bin", most=100_000)) == 100_000


def test_an_image_that_never_ends_is_a_reject(server: Web, monkeypatch: pytest.MonkeyPatch):
    from chexray.data import images

    monkeypatch.setattr(images, "FILE_OVERHEAD", 1000)
    server.endless = 1000
    (reject,) = images.load_images([f"{server.url}/a.bin"], QUICK, max_pixels=100)
    assert (reject.code, reject.transient) == ("too_large", False)


def test_a_version_that_is_no_text_is_escaped(server: Web, monkeypatch: pytest.MonkeyPatch):
    from chexray.data.manifest import image_key

    versions = []
    for sign in ("\xe9", "\xe8"):
        monkeypatch.setattr(server, "content", lambda data, _, sign=sign: (200, {"ETag": f'"{sign}"'}, data))
        versions.append(QUICK.stat([f"{server.url}/a.bin"])[0].version)
    assert versions == ['"\\udce9"', '"\\udce8"']
    assert len(image_key("x", 1, FileStat("x", 1, "\ud800").version)) == 32


def test_headers_in_drops_are_given_up(monkeypatch: pytest.MonkeyPatch):
    """Each byte comes in time, and the answer does not."""
    monkeypatch.setattr(web_files, "CONNECT_TIMEOUT_S", 0.1)
    stop = threading.Event()

    def drip() -> None:
        with server.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not stop.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        patience = replace(QUICK, timeout_s=0.3, retries=0)
        with pytest.raises(StorageFailure, match="no answer within") as failure:
            patience.stat([f"http://127.0.0.1:{server.getsockname()[1]}/a.bin"])
        stop.set()
        thread.join()
    assert failure.value.transient
