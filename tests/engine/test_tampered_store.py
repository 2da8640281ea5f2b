"""A store whose parts are not what the encoder committed stops the run; it never gives other numbers in silence."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.encoders.base import EncoderSpec
from chexray.engine.features import FeatureStore, chunk_name
from chexray.errors import StorageError
from chexray.storage import Storage, join

WIDTH = 8
SPEC = EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": WIDTH}, (8, 8), "uint8", 1, {})
SIZES = dataclasses.replace(SPEC, output_dtype="uint8")
KEYS = [f"{i:032x}" for i in range(6)]


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    made = FeatureStore(str(tmp_path / "features"), Storage())
    rng = np.random.default_rng(0)
    for start in (0, 3):
        made.commit(SPEC, KEYS[start : start + 3], {"features": rng.normal(size=(3, WIDTH)).astype(np.float32)}, [])
    return made


def part_of(store: FeatureStore, keys: list[str], spec: EncoderSpec = SPEC) -> str:
    return join(store.folder(spec), f"part-{chunk_name(keys)}.parquet")


def put(uri: str, **columns: pa.Array) -> None:
    Path(uri).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), uri)


def read(store: FeatureStore, spec: EncoderSpec = SPEC) -> np.ndarray:
    return store.read(spec, "features", KEYS, store.done(spec))


def lists(values: np.ndarray, dtype: str = "float32") -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1).astype(dtype)), values.shape[1])


OTHERS = {
    "one column, which numpy would broadcast": lists(np.ones((3, 1))),
    "twice the width": lists(np.ones((3, 2 * WIDTH))),
    "int8": lists(np.ones((3, WIDTH)), "int8"),
    "float64": lists(np.ones((3, WIDTH)), "float64"),
    "float16": lists(np.ones((3, WIDTH)), "float16"),
    "lists of any length": pa.array([[1.0] * WIDTH] * 3, pa.list_(pa.float32())),
    "text": pa.array(["1"] * 3),
    "bytes": pa.array([bytes(4 * WIDTH)] * 3, pa.binary(4 * WIDTH)),
    "a null row": pa.array([[1.0] * WIDTH, None, [1.0] * WIDTH], pa.list_(pa.float32(), WIDTH)),
    "a null value": pa.array([[1.0] * WIDTH, [None] * WIDTH, [1.0] * WIDTH], pa.list_(pa.float32(), WIDTH)),
    "NaN": lists(np.full((3, WIDTH), np.nan)),
    "infinity": lists(np.full((3, WIDTH), np.inf)),
}


@pytest.mark.parametrize("column", OTHERS.values(), ids=OTHERS.keys())
def test_columns_of_another_type_width_or_without_values_are_refused(store: FeatureStore, column: pa.Array):
    put(part_of(store, KEYS[:3]), image_key=pa.array(KEYS[:3]), features=column)
    with pytest.raises(StorageError, match=r"part-\w+\.parquet .*Delete") as found:
        read(store)
    assert not found.value.transient


KEYS_OF = {
    "other images": pa.array(KEYS[3:]),
    "fewer": pa.array(KEYS[:2]),
    "one twice": pa.array([KEYS[0], KEYS[0], KEYS[1]]),
    "null": pa.array([KEYS[0], None, KEYS[2]]),
    "numbers": pa.array([1, 2, 3]),
    "binary": pa.array([key.encode() for key in KEYS[:3]]),
}


@pytest.mark.parametrize("keys", KEYS_OF.values(), ids=KEYS_OF.keys())
def test_the_images_of_a_chunk_are_those_of_its_name(store: FeatureStore, keys: pa.Array):
    put(part_of(store, KEYS[:3]), image_key=keys, features=lists(np.ones((len(keys), WIDTH))))
    with pytest.raises(StorageError, match=r"part-\w+\.parquet .*Delete"):
        read(store)


def test_a_further_part_overrides_nothing(store: FeatureStore):
    before = read(store)
    forged = {"image_key": pa.array(KEYS), "features": lists(np.zeros((6, WIDTH)))}
    # Folders below, and files that are no chunk, are no part of the store.
    put(join(store.folder(SPEC), "below", "part-0000000000000000.parquet"), **forged)
    put(join(store.folder(SPEC), "below", f"part-{chunk_name(KEYS)}.parquet"), **forged)
    put(join(store.folder(SPEC), "part-0.parquet"), **forged)
    np.testing.assert_array_equal(read(store), before)
    put(join(store.folder(SPEC), "part-0000000000000000.parquet"), **forged)
    with pytest.raises(StorageError, match="its images do not match its name"):
        read(store)


def test_two_chunks_of_one_image_must_agree(store: FeatureStore):
    """Two runs at once cut what is pending differently, so both chunks are right; and round differently."""
    before = read(store)
    store.commit(SPEC, KEYS[1:5], {"features": before[1:5] * np.float32(1 + 1e-6)}, [])
    np.testing.assert_allclose(read(store), before, rtol=1e-5)
    store.commit(SPEC, KEYS[1:4], {"features": np.zeros((3, WIDTH), np.float32)}, [])
    with pytest.raises(StorageError, match=r"part-\w+\.parquet and .*part-\w+\.parquet hold different features"):
        read(store)


def test_images_that_trainings_read_must_agree_to_the_bit(tmp_path):
    store = FeatureStore(str(tmp_path), Storage())
    grey = np.arange(6 * WIDTH, dtype=np.uint8).reshape(6, WIDTH)
    store.commit(SIZES, KEYS, {"features": grey}, [])
    store.commit(SIZES, KEYS[:2], {"features": grey[:2]}, [])
    np.testing.assert_array_equal(read(store, SIZES), grey)
    store.commit(SIZES, KEYS[2:4], {"features": grey[2:4] ^ 1}, [])
    with pytest.raises(StorageError, match="hold different features of one image"):
        read(store, SIZES)


REJECT = {"stage": "decode", "code": "corrupt", "detail": "made so", "transient": False}


def test_rejects_belong_to_the_chunk_too(store: FeatureStore):
    key = "f" * 32
    store.commit(SPEC, [], {"features": np.empty((0, WIDTH), np.float32)}, [{"image_key": key, **REJECT}])
    assert key in store.done(SPEC).rejects
    uri = join(store.folder(SPEC), f"rejects-{chunk_name([key])}.parquet")
    table = pq.read_table(uri)
    for broken in (
        pa.table({**{name: table[name] for name in table.column_names}, "image_key": pa.array(["0" * 32])}),
        table.drop_columns(["detail"]),
        pa.table({**{name: table[name] for name in table.column_names}, "transient": pa.array([None], pa.bool_())}),
        pa.table({**{name: table[name] for name in table.column_names}, "code": pa.array([7])}),
    ):
        pq.write_table(broken, uri)
        with pytest.raises(StorageError, match="Delete"):
            store.done(SPEC)
    Path(uri).unlink()
    with pytest.raises(StorageError, match="its images do not match its name"):
        store.done(SPEC)


def test_an_interrupted_try_at_the_same_chunk_does_no_harm(tmp_path):
    """It may have rejected, for a passing reason, an image that is encoded now."""
    store = FeatureStore(str(tmp_path), Storage())
    one = np.ones((2, WIDTH), np.float32)
    store.commit(SPEC, KEYS[:1], {"features": one[:1]}, [{"image_key": KEYS[1], **REJECT, "transient": True}])
    store.commit(SPEC, KEYS[:2], {"features": one}, [])
    done = store.done(SPEC)
    assert set(done.rows) == set(KEYS[:2])
    assert not done.rejects


def test_a_part_that_would_run_code_is_refused_before_a_value_is_touched(store: FeatureStore, tmp_path, pickled_column):
    marker, field, column = pickled_column
    for name in ("image_key", "features", "anything"):
        columns = {"image_key": pa.array(KEYS[:3]), "features": lists(np.ones((3, WIDTH))), "anything": pa.nulls(3)}
        fields = [field(name) if name == each else pa.field(each, columns[each].type) for each in columns]
        columns[name] = column(3)
        sink = io.BytesIO()
        pq.write_table(pa.table(list(columns.values()), schema=pa.schema(fields)), sink)
        Path(part_of(store, KEYS[:3])).write_bytes(sink.getvalue())
        with pytest.raises(StorageError, match=r"extension type 'ray\.data\.arrow_pickled_object'"):
            read(store)
    assert not marker.exists()


def test_values_too_large_to_square_do_not_agree_with_everything(tmp_path):
    store = FeatureStore(str(tmp_path), Storage())
    ones = np.ones((len(KEYS), WIDTH), np.float32)
    store.commit(SPEC, KEYS, {"features": ones}, [])
    for key in KEYS:  # some of them sort before, some after
        store.commit(SPEC, [key], {"features": np.full((1, WIDTH), 1e20, np.float32)}, [])
        with pytest.raises(StorageError, match="hold different features of one image"):
            store.done(SPEC)
        Path(part_of(store, [key])).unlink()


def test_keys_that_are_no_text_are_refused(store: FeatureStore):
    keys = pa.Array.from_buffers(pa.string(), 3, pa.array([b"\xff"] * 3).buffers())
    put(part_of(store, KEYS[:3]), image_key=keys, features=lists(np.ones((3, WIDTH))))
    with pytest.raises(StorageError, match=r"part-\w+\.parquet .*Delete"):
        read(store)
