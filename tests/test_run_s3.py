"""A whole run with images, features and results on S3: the bits of a local run, through faults, showing no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.faults import Rule
from fixtures.s3 import KEY, S3, SECRET

from chexray import evaluate, parse_config, read_results
from chexray.errors import ChexrayError, RunFailed

TOKEN = "a-session-token-that-must-not-be-shown"


def config(place: str, output: str, s3: S3 | None = None):
    storage = {}
    if s3:
        storage = {"endpoint_url": s3.endpoint, "region": "us-east-1", "key": KEY, "secret": SECRET, "token": TOKEN}
    return parse_config(
        {
            "real": {"path": f"{place}/real", "name": "real"},
            "synthetic": [{"path": f"{place}/synthetic", "name": "synthetic"}],
            "encoders": [{"name": "pixels", "side": 4}],
            "metrics": ["fid", "kid", "prdc"],
            "output": output,
            "floor": False,
            "storage": {**storage, "retries": 3, "timeout_s": 10},
            "encode": {"chunk_size": 8, "batch_size": 4},
        }
    )


def upload(folder: Path, s3: S3) -> None:
    for path in sorted(folder.rglob("*.png")):
        s3.storage.write(f"{s3.bucket}/{path.parent.name}/{path.name}", path.read_bytes())


@pytest.fixture
def local(write_images) -> Path:
    write_images("real", 20, seed=1)
    return write_images("synthetic", 18, seed=2, offset=4).parent


def numbers(frame) -> list:
    return frame[["metric", "subset", "value", "std_error", "ci_low", "n_real"]].values.tolist()


def test_a_run_through_a_faulty_s3_has_the_bits_of_a_local_one(ray_cluster, local, faulty_s3, tmp_path) -> None:
    upload(local, faulty_s3)
    faulty_s3.proxy.rules = [
        Rule("503", times=2, method="GET", path="real/0003.png"),
        Rule("reset", times=1, method="GET", path="synthetic/0007.png"),
        Rule("truncate", times=1, method="GET", path="real/0011.png"),
        Rule("503", times=2, method="PUT", path="part-"),
    ]
    remote = evaluate(config(faulty_s3.bucket, f"{faulty_s3.bucket}/out", faulty_s3))
    assert {fault for _, _, fault in faulty_s3.proxy.seen} >= {"503", "reset", "truncate"}
    assert len(remote.rejects) == 0
    here = evaluate(config(str(local), str(tmp_path / "out")))
    assert numbers(remote.results) == numbers(here.results)
    assert numbers(read_results(remote.uri, faulty_s3.storage)) == numbers(here.results)
    for file in faulty_s3.storage.list(faulty_s3.bucket):
        data = faulty_s3.storage.read(file.uri)
        assert not [hidden for hidden in (KEY, SECRET, TOKEN) if hidden.encode() in data], file.uri


def test_an_object_that_stays_unavailable_is_a_transient_reject_and_is_tried_again(
    ray_cluster, local, faulty_s3
) -> None:
    upload(local, faulty_s3)
    faulty_s3.proxy.rules = [Rule("503", times=99, method="GET", path="real/0003.png")]
    plan = config(faulty_s3.bucket, f"{faulty_s3.bucket}/out", faulty_s3)
    with pytest.raises(RunFailed, match=r"1 of 20 images.*unavailable.*same command again"):
        evaluate(plan)
    faulty_s3.proxy.rules = []
    assert (evaluate(plan).results["n_real"] == 20).all()


def test_an_outage_stops_the_run_instead_of_rejecting_every_image(ray_cluster, local, faulty_s3) -> None:
    upload(local, faulty_s3)
    faulty_s3.proxy.rules = [Rule("503", times=9999, method="GET", path="synthetic/0")]
    plan = config(faulty_s3.bucket, f"{faulty_s3.bucket}/out", faulty_s3)
    fast = {"storage": plan.storage.model_copy(update={"retries": 0})}
    wide = {"encode": plan.encode.model_copy(update={"batch_size": 8})}
    with pytest.raises(ChexrayError, match=r"unavailable.*same command again") as error:
        evaluate(plan.model_copy(update={**fast, **wide}))
    assert not isinstance(error.value, RunFailed)
    faulty_s3.proxy.rules = []
    assert evaluate(plan).exit_code == 0


def test_a_denied_bucket_stops_before_anything_starts(local, faulty_s3) -> None:
    upload(local, faulty_s3)
    faulty_s3.proxy.rules = [Rule("403", times=999)]
    with pytest.raises(ChexrayError) as error:
        evaluate(config(faulty_s3.bucket, f"{faulty_s3.bucket}/out", faulty_s3))
    assert faulty_s3.bucket.removeprefix("s3://") in str(error.value)
    assert not [hidden for hidden in (KEY, SECRET, TOKEN) if hidden in str(error.value)]


def test_an_endpoint_that_is_not_there_is_named(local, s3) -> None:
    unreachable = config(s3.bucket, f"{s3.bucket}/out", S3("http://127.0.0.1:9", s3.bucket, s3.storage))
    with pytest.raises(ChexrayError, match=r"127\.0\.0\.1:9"):
        evaluate(unreachable.model_copy(update={"storage": unreachable.storage.model_copy(update={"retries": 0})}))
