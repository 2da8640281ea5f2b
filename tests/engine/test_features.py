"""The store: parts are the commit, nothing is served to another spec, transient faults are tried again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chexray.encoders.base import EncoderSpec
from chexray.engine.features import FeatureStore, chunk_name, pending
from chexray.errors import StorageError
from chexray.storage import Storage, join

SPEC = EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": 3, "logits": 2}, (8, 8), "uint8", 1, {})


def reject(key: str, transient: bool = False) -> dict:
    return {"image_key": key, "stage": "decode", "code": "corrupt", "detail": "made so", "transient": transient}


def blocks(n: int, start: float = 0.0) -> dict[str, np.ndarray]:
    return {
        "features": np.arange(start, start + 3 * n, dtype=np.float32).reshape(n, 3),
        "logits": np.arange(2 * n, dtype=np.float32).reshape(n, 2),
    }


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(str(tmp_path / "features"), Storage())


def test_features_come_back_in_the_order_asked_for(store: FeatureStore) -> None:
    store.commit(SPEC, ["a", "b"], blocks(2), [])
    store.commit(SPEC, ["c"], blocks(1, start=100), [reject("d")])
    done = store.done(SPEC)
    np.testing.assert_array_equal(
        store.read(SPEC, "features", ["c", "a", "b"], done), [[100, 101, 102], [0, 1, 2], [3, 4, 5]]
    )
    assert store.read(SPEC, "logits", ["b"], done).dtype == np.float32
    assert pending(["a", "d", "e", "e"], done) == ["e"]


def test_rejects_without_their_part_were_never_committed(store: FeatureStore) -> None:
    store.commit(SPEC, ["a"], blocks(1), [reject("b")])
    store.storage.delete(join(store.folder(SPEC), f"part-{chunk_name(['a', 'b'])}.parquet"))
    done = store.done(SPEC)
    assert not done.rows
    assert not done.rejects


def test_a_transient_reject_is_pending_again_and_a_later_success_replaces_it(store: FeatureStore) -> None:
    store.commit(SPEC, [], {name: block[:0] for name, block in blocks(1).items()}, [reject("a", True)])
    assert pending(["a"], store.done(SPEC)) == ["a"]
    store.commit(SPEC, ["a"], blocks(1), [])
    done = store.done(SPEC)
    assert pending(["a"], done) == []
    assert not done.rejects


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "f00"},
        {"preprocessing": "other"},
        {"code_version": 2},
        {"precision": "bf16"},
        {"options": {"side": 3}},
    ],
)
def test_another_spec_never_sees_these_features(store: FeatureStore, change: dict) -> None:
    store.commit(SPEC, ["a"], blocks(1), [])
    assert pending(["a"], store.done(dataclasses.replace(SPEC, **change))) == ["a"]


def test_the_wording_of_weights_does_not_matter_their_hash_does() -> None:
    assert dataclasses.replace(SPEC, weights="/elsewhere").fingerprint == SPEC.fingerprint


def test_a_chunk_is_named_after_its_images_not_their_order() -> None:
    assert chunk_name(["a", "b"]) == chunk_name(["b", "a"]) != chunk_name(["a"])


def test_a_broken_part_says_what_to_do(store: FeatureStore) -> None:
    store.storage.write(join(store.folder(SPEC), f"part-{chunk_name(['a'])}.parquet"), b"PAR1 but not really")
    with pytest.raises(StorageError, match=r"part-[0-9a-f]{16}\.parquet.*Delete this part"):
        store.done(SPEC)


def test_a_clipped_image_is_encoded_and_counted(store: FeatureStore) -> None:
    cut = {"image_key": "b", "stage": "decode", "code": "clipped", "detail": "beyond 12 bits", "transient": False}
    store.commit(SPEC, ["a", "b"], blocks(2), [reject("c"), cut])
    done = store.done(SPEC)
    assert (set(done.rows), set(done.rejects), done.clipped) == ({"a", "b"}, {"c"}, {"b"})
    assert pending(["a", "b", "c"], done) == []
    np.testing.assert_array_equal(store.read(SPEC, "features", ["b"], done), [[3, 4, 5]])
