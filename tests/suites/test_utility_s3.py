"""A utility run with images, fits and results on S3: the bits of a local run, through faults, showing no secret."""

from __future__ import annotations

from fixtures.classroom import Classroom, tables
from fixtures.faults import Rule
from fixtures.s3 import S3, SECRET

from chexray import evaluate
from chexray.run.evaluation import Run

SETTINGS = ["real", "synthetic"]
NAMED_BY_PLACE = ["run_id", "real_set", "synthetic_set", "method"]
"""Fingerprints of sets hold where their images lie."""


def upload(classroom: Classroom, s3: S3) -> None:
    """The sets of the run below their names."""
    tables = [classroom.training, classroom.test, classroom.drawn]
    images = [path for part in ("training/*", "test/*", "generated/drawn-*") for path in classroom.folder.glob(part)]
    for path in sorted([*tables, *images]):
        s3.storage.write(f"{s3.bucket}/{path.relative_to(classroom.folder)}", path.read_bytes())


def test_a_utility_run_through_a_faulty_s3_has_the_bits_of_a_local_one(
    lesson: Run, classroom: Classroom, faulty_s3: S3
) -> None:
    upload(classroom, faulty_s3)
    place, proxy = faulty_s3.bucket, faulty_s3.proxy
    assert proxy is not None
    proxy.rules = [
        Rule("503", times=2, method="GET", path="training/t003.png"),
        Rule("reset", times=1, method="GET", path="test/u007.png"),
        Rule("503", times=2, method="PUT", path="checkpoint.pt"),
        Rule("reset", times=1, method="PUT", path="model.safetensors"),
        Rule("truncate", times=1, method="GET", path="model.safetensors"),
        Rule("503", times=1, method="PUT", path="model.safetensors"),
        Rule("reset", times=1, method="PUT", path="predictions-"),
        Rule("503", times=1, method="GET", path="predictions-"),
    ]
    remote = evaluate(
        classroom.config(
            f"{place}/out",
            settings=SETTINGS,
            real=f"{place}/test.csv",
            training=f"{place}/training.csv",
            synthetic=[{"path": f"{place}/drawn.csv", "image_root": f"{place}/generated"}],
            feature_store=None,
            storage={
                "endpoint_url": faulty_s3.endpoint,
                "region": "us-east-1",
                "key": "AKIATESTING",
                "secret": SECRET,
                "retries": 3,
                "timeout_s": 10,
            },
        )
    )
    struck = [(fault, path) for _, path, fault in proxy.seen if fault]
    assert len(struck) == 10, struck
    assert len(remote.rejects) == 0

    here = tables(lesson, SETTINGS)
    for name in ("results", "predictions", "curves", "history", "contradictions"):
        found = faulty_s3.storage.read_parquet(f"{remote.uri}/{name}.parquet").to_pandas()
        expected = here[name].drop(columns=NAMED_BY_PLACE, errors="ignore")
        assert found[[column for column in expected if column != "setting"]].equals(
            expected.drop(columns="setting", errors="ignore")
        ), name
    for file in faulty_s3.storage.list(place):
        assert SECRET.encode() not in faulty_s3.storage.read(file.uri), file.uri
