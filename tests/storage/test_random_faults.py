"""Done when a tenth of all requests fails at random and 600 images still end in the bits of a run on local disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures.faults import Share
from fixtures.s3 import KEY, S3, SECRET, make_bucket, proxy_to, reach

from chexray import evaluate, parse_config, read_results

SEED = 28
"""With 5 attempts an operation fails for good once in 100,000: of such runs, with their 700 operations, one in 150
would end early. Lots are drawn from the names of objects, which this test keeps, so that every run of it has the same
faults; new names (those of parts follow from the bytes of the images and the version of chexray) draw new ones."""
TIMEOUT_S = 2.0
"""What each stall costs; the default of 30 s is for networks."""


@pytest.fixture
def unsteady(s3_server: str) -> Iterator[S3]:
    """A bucket of a fixed name behind a proxy; the storage of the fixture goes to the server itself."""
    with proxy_to(s3_server) as proxy:
        found = reach(s3_server, make_bucket(s3_server, "random-faults"), proxy)
        yield found
        for entry in found.storage.list(f"{found.bucket}/out"):
            found.storage.delete(entry.uri)


def config(place: str, output: str, storage: dict):
    return parse_config(
        {
            "real": {"path": f"{place}/real", "name": "real"},
            "synthetic": [{"path": f"{place}/synthetic", "name": "synthetic"}],
            "encoders": [{"name": "pixels", "side": 4}],
            "metrics": ["fid", "kid", "prdc"],
            "output": output,
            "floor": False,
            "storage": storage,
        }
    )


def numbers(frame) -> list:
    kept = ["metric", "subset", "value", "std_error", "ci_low", "ci_high", "n_real", "n_synthetic"]
    return [[str(value) for value in row] for row in frame[kept].values.tolist()]


def test_600_images_with_a_tenth_of_all_requests_faulted(ray_cluster, write_images, unsteady: S3, tmp_path: Path):
    folders = [write_images("real", 300, seed=1), write_images("synthetic", 300, seed=2, offset=4)]
    here = evaluate(config(str(tmp_path), str(tmp_path / "out"), {}))
    images = [path for folder in folders for path in folder.glob("*.png")]
    uris = [f"{unsteady.bucket}/{path.parent.name}/{path.name}" for path in images]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(unsteady.storage.write, uris, [path.read_bytes() for path in images]))

    proxy = unsteady.proxy
    assert proxy is not None
    proxy.share = Share(SEED)
    keys = {"key": KEY, "secret": SECRET, "region": "us-east-1"}
    settings = {**keys, "endpoint_url": proxy.url, "timeout_s": TIMEOUT_S}
    remote = evaluate(config(unsteady.bucket, f"{unsteady.bucket}/out", settings))

    struck = proxy.struck()
    assert set(struck) == set(proxy.share.kinds)
    assert struck.total() >= 0.09 * len(proxy.seen) > 0.09 * 600, struck
    assert len(remote.rejects) == 0
    assert set(remote.results["n_real"]) == set(remote.results["n_synthetic"]) == {300}
    assert numbers(remote.results) == numbers(here.results)
    assert numbers(read_results(remote.uri, unsteady.storage)) == numbers(here.results)
    status = json.loads(unsteady.storage.read(f"{remote.uri}/status.json"))
    assert (status["state"], status["exit_code"]) == ("done", 0)
    for entry in unsteady.storage.list(f"{unsteady.bucket}/out"):
        assert SECRET.encode() not in unsteady.storage.read(entry.uri), entry.uri
