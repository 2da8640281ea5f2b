"""An address that no run can join is one line with the form that works, before Ray is asked."""

from __future__ import annotations

import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from chexray.config import RayConfig
from chexray.config.addresses import check_joinable, ray_address
from chexray.doctor import cluster as looking
from chexray.doctor.case import Case
from chexray.doctor.checks import perform
from chexray.engine import joining
from chexray.engine.authentication import Answer, asked, asks_for_token
from chexray.engine.cluster import cluster
from chexray.errors import ResourceError

REFUSED = {
    "ray://head:10001": ["Ray Client", "--address http://head:8265", "head:6379"],
    "http://head:8265": ["is a dashboard", "chexray submit CONFIG --address http://head:8265", "host:6379"],
    "https://head/ray/": ["is a dashboard"],
    "tcp://head:6379": ["'tcp://head:6379'", "host:port"],
    "redis://head:6379": ["expected host:port of the head, such as head:6379, or auto"],
    "head": ["'head'", "host:port"],
    "head:": ["host:port"],
    ":6379": ["host:port"],
    "head:6379/": ["host:port"],
    "head:0": ["host:port"],
    "head:65536": ["host:port"],
    "head:99999999": ["host:port"],
    "head:port": ["host:port"],
    "he ad:6379": ["host:port"],
    "::1:6379": ["host:port"],
    "/tmp/ray": ["host:port"],
    "Auto": ["or auto"],
}


@pytest.mark.parametrize("address", REFUSED)
def test_what_cannot_be_joined_is_refused_by_run_and_doctor(monkeypatch, address) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    monkeypatch.setattr(ray, "shutdown", lambda *_: None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ResourceError) as raised, cluster(RayConfig()):
        pass
    (line,) = [perform(check).line for check in looking.pending(Case(None, environment={"RAY_ADDRESS": address}))]
    assert line.startswith(("FAIL", "note"))
    for words in REFUSED[address]:
        assert words in str(raised.value)
    if not address.startswith("http"):  # the doctor asks a dashboard for its version
        assert str(raised.value) in line


@pytest.mark.parametrize("address", ["head:6379", "10.0.0.1:6379", "[fd00::1]:6379", "head-svc.ns.svc:6379", "auto"])
def test_what_can_be_joined_passes(address) -> None:
    check_joinable(address, "RAY_ADDRESS")


def test_a_password_in_an_address_is_not_repeated() -> None:
    for address in ("ray://me:t0ps3cret@head:10001", "me:t0ps3cret@head:6379", "http://head?token=t0ps3cret"):
        with pytest.raises(ResourceError) as raised:
            check_joinable(address, "RAY_ADDRESS")
        assert "t0ps3cret" not in str(raised.value)


def test_blanks_and_rays_word_for_a_local_one() -> None:
    assert ray_address(None, {}) == ("", "")
    assert ray_address(" ", {"RAY_ADDRESS": "\t"}) == ("", "")
    assert ray_address(None, {"RAY_ADDRESS": "local"}) == ("", "")
    assert ray_address("local", {"RAY_ADDRESS": "head:6379"}) == ("", "")
    assert ray_address(None, {"RAY_ADDRESS": " head:6379\n"}) == ("head:6379", "RAY_ADDRESS")
    assert ray_address("a:1", {"RAY_ADDRESS": "head:6379"}) == ("a:1", "ray.address")


@contextmanager
def a_web_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def another_grpc_server():
    """Such as Ray Client's, at 10001."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize("served", [a_web_server, another_grpc_server])
def test_a_port_of_something_else_is_one_line_at_once(served, monkeypatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked, and is silent for minutes"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # Ray goes through no proxy, and neither does the question
    with served() as port:
        with pytest.raises(ResourceError, match=r"listens, but is not the head of a Ray cluster \(its port is 6379"):
            joining.join(f"127.0.0.1:{port}", "RAY_ADDRESS", {}, False)
        assert asks_for_token(f"127.0.0.1:{port}") is None


def test_a_silent_port_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(joining, "ANSWER_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert asked(address, 0.2) is Answer.SILENT
        with pytest.raises(ResourceError, match=r"gave no answer in 0\.3 s"):
            joining.join(address, "ray.address", {}, False)
