"""A proxy of the environment that applies to a server nearby is named, with the host that no_proxy wants."""

from __future__ import annotations

import socket

import botocore.exceptions as boto
import pytest

from chexray.errors import ResourceError
from chexray.storage import Storage
from chexray.storage.proxies import proxy_hint
from chexray.storage.s3_failures import explain

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        ("http://head:8265", {}, ""),
        ("http://head:8265", {"HTTP_PROXY": PROXY}, "HTTP_PROXY applies to head"),
        ("http://head:8265", {"http_proxy": PROXY, "HTTP_PROXY": "http://other"}, "http_proxy applies to head"),
        ("http://head:8265", {"HTTPS_PROXY": PROXY}, ""),
        ("https://head", {"HTTPS_PROXY": PROXY}, "HTTPS_PROXY applies to head"),
        ("https://head", {"ALL_PROXY": PROXY}, "ALL_PROXY applies to head"),
        ("http://127.0.0.1:9000", {"HTTP_PROXY": PROXY}, "add 127.0.0.1 to no_proxy"),
        ("http://[::1]:9000", {"HTTP_PROXY": PROXY}, "add ::1 to no_proxy"),
        ("http://localhost:9000", {"HTTP_PROXY": PROXY, "no_proxy": "localhost,127.0.0.1"}, ""),
        ("http://localhost:9000", {"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, ""),
        ("http://minio.lab.example", {"HTTP_PROXY": PROXY, "NO_PROXY": ".lab.example"}, ""),
        ("http://minio.lab.example", {"HTTP_PROXY": PROXY, "NO_PROXY": "example.org"}, "add minio.lab.example to"),
        ("http://head", {"HTTP_PROXY": ""}, ""),
        ("AWS S3", {"HTTPS_PROXY": PROXY}, ""),
        ("http://[", {"HTTP_PROXY": PROXY}, ""),
    ],
)
def test_who_is_caught(address, environment, expected) -> None:
    found = proxy_hint(address, environment)
    assert expected in found if expected else found == ""


@pytest.fixture
def dead_proxy(monkeypatch) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "no_proxy", "NO_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", url)
    return url


def test_submit_and_doctor_name_no_proxy(dead_proxy, monkeypatch) -> None:
    from chexray.doctor.cluster import jobs_api
    from chexray.engine.job_api import Jobs

    with pytest.raises(
        ResourceError, match=r"no Ray dashboard answers .* HTTP_PROXY applies to localhost\..* to no_proxy"
    ):
        Jobs("http://localhost:8265")
    assert "add localhost to no_proxy" in jobs_api("http://localhost:8265", "RAY_ADDRESS").line
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(ResourceError) as raised:
        Jobs("http://localhost:1")
    assert "no_proxy" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        boto.EndpointConnectionError(endpoint_url="http://minio:9000"),
        boto.ProxyConnectionError(proxy_url=PROXY),
        TimeoutError(),
        ConnectionResetError(),
    ],
)
def test_s3_names_no_proxy(dead_proxy, error) -> None:
    told = str(explain(error, "s3://bucket/key", "bucket", "http://minio:9000", Storage(timeout_s=5.0)))
    assert "HTTP_PROXY applies to minio" in told
    assert "proxy.example" not in told  # it may hold a password
    assert "no_proxy" not in str(explain(error, "s3://bucket/key", "bucket", "AWS S3", Storage(timeout_s=5.0)))
