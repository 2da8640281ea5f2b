"""Parquet files that chexray writes carry checksums: a flipped byte is an error with a name, wherever it flipped."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.faults import Rule
from fixtures.s3 import S3

from chexray.encoders.base import EncoderSpec
from chexray.engine.features import FeatureStore
from chexray.errors import StorageError
from chexray.storage import Storage, join

SMALL, LARGE = 200, 4000
"""Rows of 128 float32: below and above the size that is read by one GET."""


def table(rows: int) -> pa.Table:
    values = np.random.default_rng(rows).normal(size=rows * 128).astype(np.float32)
    keys = [f"s3://bucket/images/{row:06}.png|1234|abcdef" for row in range(rows)]
    return pa.table({"image_key": keys, "features": pa.FixedSizeListArray.from_arrays(pa.array(values), 128)})


def bits(found: pa.Table) -> bytes:
    return found["features"].combine_chunks().flatten().to_numpy().tobytes()


def flipped(data: bytes) -> bytes:
    """One bit inverted in the middle, which is in the pages of features."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_a_flipped_byte_is_found_on_disk_and_in_a_bucket(s3: S3, tmp_path, rows: int, plain: bool):
    for storage, uri in ((Storage(), str(tmp_path / "part.parquet")), (s3.storage, join(s3.bucket, "part.parquet"))):
        storage.write_parquet(uri, table(rows), plain=plain)
        assert bits(storage.read_parquet(uri)) == bits(table(rows))
        storage.write(uri, flipped(storage.read(uri)))  # with a stored checksum of the flipped bytes
        with pytest.raises(
            StorageError, match=r"part\.parquet is damaged: a page does not match its checksum"
        ) as found:
            storage.read_parquet(uri)
        assert (found.value.code, found.value.transient) == ("corrupt", False)
        assert "\n" not in str(found.value)
        assert storage.read_parquet(uri, ["image_key"]).num_rows == rows  # its pages are sound
    assert len(s3.waits) == s3.storage.retries


def test_a_byte_that_flips_on_its_way_is_read_again(faulty_s3: S3):
    small, large = join(faulty_s3.bucket, "small.parquet"), join(faulty_s3.bucket, "large.parquet")
    faulty_s3.storage.write_parquet(small, table(SMALL))
    faulty_s3.storage.write_parquet(large, table(LARGE), plain=True)
    for uri, rows in ((small, SMALL), (large, LARGE)):
        faulty_s3.waits.clear()
        # Ranges have no checksum of the service's; only the pages' own can tell.
        faulty_s3.proxy.rules = [Rule("flip", times=2, method="GET", path=uri.removeprefix("s3://"))]
        assert bits(faulty_s3.storage.read_parquet(uri, ["features"])) == bits(table(rows))
        assert len(faulty_s3.waits) in (1, 2)


def test_small_files_take_one_get(faulty_s3: S3):
    uri = join(faulty_s3.bucket, "small.parquet")
    faulty_s3.storage.write_parquet(uri, table(SMALL))
    faulty_s3.proxy.seen.clear()
    faulty_s3.storage.read_parquet(uri, ["image_key"])
    assert [method for method, _, _ in faulty_s3.proxy.seen] == ["HEAD", "GET"]


def test_a_stored_checksum_that_does_not_match_is_final_for_a_part(faulty_s3: S3):
    uri = join(faulty_s3.bucket, "small.parquet")
    faulty_s3.storage.write_parquet(uri, table(SMALL))
    faulty_s3.proxy.rules = [Rule("flip", times=99, method="GET")]
    with pytest.raises(StorageError, match=r"small\.parquet .*do not match its stored checksum") as found:
        faulty_s3.storage.read_parquet(uri)
    assert (found.value.code, found.value.transient) == ("corrupt", False)


def test_files_without_checksums_are_read_as_before(s3: S3, tmp_path):
    for rows in (SMALL, LARGE):
        sink = io.BytesIO()
        pq.write_table(table(rows), sink)
        for storage, uri in ((Storage(), str(tmp_path / "old.parquet")), (s3.storage, join(s3.bucket, "old.parquet"))):
            storage.write(uri, sink.getvalue())
            assert bits(storage.read_parquet(uri)) == bits(table(rows))


def test_a_damaged_part_of_the_feature_store_says_what_to_delete(s3: S3):
    spec = EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": 4}, (8, 8), "uint8", 1, {})
    store = FeatureStore(join(s3.bucket, "features"), s3.storage)
    features = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    keys = [f"key-{row}" for row in range(500)]
    store.commit(spec, keys, {"features": features}, [])
    done = store.done(spec)
    assert (store.read(spec, "features", keys, done) == features).all()
    (part,) = [entry.uri for entry in s3.storage.list(s3.bucket) if "part-" in entry.uri]
    s3.storage.write(part, flipped(s3.storage.read(part)))
    with pytest.raises(StorageError, match=r"part-\w+\.parquet is damaged: .* Delete this part of the feature store"):
        store.read(spec, "features", keys, done)


def test_every_object_chexray_writes_has_a_stored_checksum(s3: S3):
    from chexray.storage.s3 import buckets

    s3.storage.write(join(s3.bucket, "a"), b"x" * 1000)
    answer = buckets(s3.storage)._call("head_object", s3.bucket, Key="a", ChecksumMode="ENABLED")
    assert answer["ChecksumCRC32"]
