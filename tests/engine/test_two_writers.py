"""Two runs that encode the same images into one store: in every order of their steps both read what they encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from fixtures.turns import Memory, MemoryStorage, Turns, schedules

from chexray.data.rejects import CLIPPED
from chexray.encoders.base import EncoderSpec
from chexray.engine import features
from chexray.engine.features import FeatureStore, chunk_name
from chexray.storage import Storage, join

SPEC = EncoderSpec("toy", "", "", "1", "none", "fp32", {"features": 2}, (8, 8), "uint8", 1, {})
VALUES = {"a": 1.0, "b": 2.0, "c": 3.0}
IMAGES = tuple(VALUES)

Outcome = tuple[tuple[str, ...], dict[str, str]]
"""What a run made of the chunk: the images it encoded, in its order, and the codes of its rejects."""
OUTCOMES: dict[str, Outcome] = {
    "all": (("a", "b", "c"), {}),
    "all, another order": (("c", "a", "b"), {}),
    "the first rejected": (("b", "c"), {"a": "unavailable"}),
    "another rejected": (("c", "a"), {"b": "corrupt"}),
    "the same, for another reason": (("a", "c"), {"b": "unavailable"}),
    "one clipped": (("a", "b", "c"), {"b": CLIPPED}),
    "none": ((), dict.fromkeys(IMAGES, "unavailable")),
    "none, for good": ((), dict.fromkeys(IMAGES, "corrupt")),
}


class OneByOne:
    """In place of a pool of threads, whose steps would not wait for their turn."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> OneByOne:
        return self

    def __exit__(self, *_: Any) -> None: ...

    def map(self, function: Callable, items: Iterable) -> Iterable:
        return map(function, items)


def commit(store: FeatureStore, outcome: Outcome) -> None:
    keys, codes = outcome
    rejects = [
        {"image_key": key, "stage": "decode", "code": code, "detail": code, "transient": code == "unavailable"}
        for key, code in codes.items()
    ]
    store.commit(SPEC, keys, {"features": vectors(keys)}, rejects)


def vectors(keys: Iterable[str]) -> np.ndarray:
    return np.array([[VALUES[key], -VALUES[key]] for key in keys], np.float32).reshape(-1, 2)


def a_run(store: FeatureStore, outcome: Outcome) -> Callable[[], Any]:
    """Commits, looks at what there is, and reads all of it."""

    def go() -> set[str]:
        commit(store, outcome)
        done = store.done(SPEC)
        found = sorted(done.rows)
        np.testing.assert_array_equal(store.read(SPEC, "features", found, done), vectors(found))
        assert set(outcome[0]) <= set(found)
        assert {*done.rows, *done.rejects} == set(IMAGES)
        return set(found)

    return go


def a_store() -> tuple[Turns, Memory, FeatureStore]:
    turns = Turns()
    memory = Memory(turns)
    return turns, memory, FeatureStore("s3://bucket/features", MemoryStorage(memory=memory))


PAIRS = [
    ("all", "all, another order"),
    ("all", "the first rejected"),
    ("all", "none"),
    ("all, another order", "one clipped"),
    ("the first rejected", "another rejected"),
    ("another rejected", "the same, for another reason"),
    ("another rejected", "one clipped"),
    ("the first rejected", "none"),
    ("none", "none, for good"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_both_read_what_they_encoded(pair, monkeypatch):
    monkeypatch.setattr(features, "ThreadPoolExecutor", OneByOne)
    for schedule in schedules(9, 9, stride=4):
        turns, memory, store = a_store()
        runs = {name: a_run(store, OUTCOMES[what]) for name, what in zip("ab", pair, strict=True)}
        found = turns.played(runs, schedule)
        for result in found.values():
            if isinstance(result, BaseException):
                raise AssertionError(f"{pair}, {schedule}: {result!r}") from result
        done = store.done(SPEC)
        encoded = {key for what in pair for key in OUTCOMES[what][0]}
        assert set(done.rows) == encoded
        assert done.clipped == {key for what in pair for key, code in OUTCOMES[what][1].items() if code == CLIPPED}
        for key in set(IMAGES) - encoded:  # a final reason is the last word
            final = any(OUTCOMES[what][1][key] == "corrupt" for what in pair)
            assert done.rejects[key]["transient"] is not final, schedule
        assert all(version == 1 for version in memory.versions.values()), "a file was replaced"


def test_rows_do_not_move_when_another_run_lists_the_same_images_in_another_order(tmp_path):
    store = FeatureStore(str(tmp_path), Storage())
    commit(store, OUTCOMES["all"])
    seen = store.done(SPEC)
    commit(store, OUTCOMES["all, another order"])
    commit(store, OUTCOMES["the first rejected"])
    np.testing.assert_array_equal(store.read(SPEC, "features", IMAGES, seen), vectors(IMAGES))


def test_a_chunk_that_was_rejected_for_a_passing_reason_is_encoded_later(tmp_path):
    store = FeatureStore(str(tmp_path), Storage())
    for what in ("none", "none", "the first rejected", "all"):
        commit(store, OUTCOMES[what])
    done = store.done(SPEC)
    assert set(done.rows) == set(IMAGES)
    assert not done.rejects


def test_rejects_that_a_listing_does_not_show_yet_are_read(tmp_path):
    """A listing of a local folder may show a part, and not the file that was written before it."""

    class Blind(Storage):
        def list(self, uri: str) -> list:
            return [found for found in super().list(uri) if "rejects-" not in found.uri]

    commit(FeatureStore(str(tmp_path), Storage()), OUTCOMES["the first rejected"])
    done = FeatureStore(str(tmp_path), Blind()).done(SPEC)
    assert (set(done.rows), set(done.rejects)) == ({"b", "c"}, {"a"})


def test_files_of_an_outcome_are_those_its_name_stands_for(tmp_path):
    store = FeatureStore(str(tmp_path), Storage())
    commit(store, OUTCOMES["the first rejected"])
    commit(store, OUTCOMES["another rejected"])
    folder = store.folder(SPEC)
    named = [found.uri for found in store.storage.list(folder) if f"part-{chunk_name(IMAGES)}_" in found.uri]
    assert len(named) == 1
    store.storage.write(join(folder, f"part-{chunk_name(IMAGES)}_{'0' * 16}.parquet"), store.storage.read(named[0]))
    with pytest.raises(Exception, match=r"_0+\.parquet .*Delete this part"):
        store.done(SPEC)
