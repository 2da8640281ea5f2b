"""The phantom source: draws a set once, vouches for it only when it is whole, and hands it over as a table."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from chexray.data.sources import phantom as source_module
from chexray.data.sources.phantom import Phantom
from chexray.data.sources.table import Table
from chexray.errors import ConfigError, StorageError
from chexray.findings import FINDINGS
from chexray.phantom import draw
from chexray.registry import find
from chexray.storage import Storage


def small(path, **changes) -> Phantom:
    return Phantom(**{"n": 8, "generator": "real", "seed": 3, "size": 32, "path": str(path), **changes})


def refuse(*args, **kwargs):
    raise AssertionError("drawn again")


def test_it_is_registered():
    assert find("sources", "phantom") is Phantom


def test_the_table_says_what_was_drawn(tmp_path):
    table = small(tmp_path / "set").read("real", Storage())
    assert len(table) == 8
    for index, row in enumerate(table.to_pylist()):
        drawn = draw(index, seed=3, size=32)
        assert row["sample_id"] == f"phantom-real-s3-{index:05d}"
        assert row["labels"] == [drawn.labels[finding] for finding in FINDINGS]
        assert (row["subject_id"], row["prompt"]) == (drawn.subject_id, drawn.prompt)
        assert (row["sex"], row["age"], row["view"]) == (drawn.sex, drawn.age, drawn.view)
        pixels = np.asarray(Image.open(io.BytesIO(Storage().read(row["uri"]))))
        assert np.array_equal(pixels, drawn.image)


def test_a_generator_names_no_patient(tmp_path):
    table = small(tmp_path, generator="good").read("synthetic", Storage())
    assert table["subject_id"].null_count == len(table)
    assert all(name.startswith("phantom-good-") for name in table["sample_id"].to_pylist())


def test_its_manifest_is_a_table_by_itself(tmp_path):
    table = small(tmp_path).read("real", Storage())
    again = Table(str(tmp_path / "manifest.csv")).read("real", Storage())
    for name in ("sample_id", "uri", "subject_id", "prompt", "labels", "sex", "age", "view"):
        assert again[name].to_pylist() == table[name].to_pylist()


def test_a_complete_set_is_not_drawn_again(tmp_path, monkeypatch):
    table = small(tmp_path).read("real", Storage())
    monkeypatch.setattr(source_module, "draw", refuse)
    assert small(tmp_path).read("real", Storage()).equals(table)


COPIER = {"generator": "copier", "n": 40, "seed": 5, "training_seed": 3, "training_n": 16}


def test_a_copier_says_which_images_are_copies(tmp_path):
    training = small(tmp_path / "training", n=16).read("real", Storage())
    table = small(tmp_path / "copies", **COPIER).read("synthetic", Storage())
    ids = training["sample_id"].to_pylist()
    assert table["prompt"].to_pylist() == [training["prompt"][index % 16].as_py() for index in range(40)]
    assert table["labels"].to_pylist() == [training["labels"][index % 16].as_py() for index in range(40)]
    copies = {index: name for index, name in enumerate(table["copy_of"].to_pylist()) if name}
    assert len(copies) == 2
    for index, name in copies.items():
        assert name == ids[index % 16]


def test_only_a_copier_has_a_column_of_copies(tmp_path):
    small(tmp_path, generator="good").read("synthetic", Storage())
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0] == ",".join(source_module.COLUMNS)
    assert set(json.loads((tmp_path / "phantom.json").read_text())) == {
        "n", "generator", "seed", "size", "drawing_version",
    }  # fmt: skip


def test_another_training_set_is_another_set(tmp_path, monkeypatch):
    small(tmp_path, **COPIER).read("synthetic", Storage())
    monkeypatch.setattr(source_module, "draw", refuse)
    small(tmp_path, **COPIER).read("synthetic", Storage())
    with pytest.raises(AssertionError, match="drawn again"):
        small(tmp_path, **{**COPIER, "training_n": 17}).read("synthetic", Storage())


@pytest.mark.parametrize("change", [{"n": 9}, {"seed": 4}, {"size": 48}, {"generator": "poor"}])
def test_another_set_is_drawn_anew(tmp_path, monkeypatch, change):
    small(tmp_path).read("real", Storage())
    other = small(tmp_path, **change)
    table = other.read("real", Storage())
    assert len(table) == other.n
    monkeypatch.setattr(source_module, "draw", refuse)
    assert other.read("real", Storage()).equals(table)
    with pytest.raises(AssertionError, match="drawn again"):
        small(tmp_path).read("real", Storage())


@dataclass(frozen=True)
class Full(Storage):
    """A disk that is full after some writes."""

    room: list[int] = field(default_factory=lambda: [5])

    def write(self, uri: str, data: bytes) -> None:
        self._take_room(uri)
        super().write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        self._take_room(uri)
        return super().create(uri, data)

    def _take_room(self, uri: str) -> None:
        self.room[0] -= 1
        if self.room[0] < 0:
            raise StorageError(f"{uri}: disk full")


@pytest.mark.parametrize("room", [0, 5, 8, 9])
def test_an_interrupted_set_is_finished_by_the_next_run(tmp_path, room):
    """Room for 8 is all images without the manifest, for 9 all but the marker."""
    whole = small(tmp_path / "whole").read("real", Storage())
    with pytest.raises(StorageError, match="disk full"):
        small(tmp_path / "cut").read("real", Full(room=[room]))
    assert not (tmp_path / "cut" / "phantom.json").exists()
    table = small(tmp_path / "cut").read("real", Storage())
    assert table.drop_columns(["uri"]).equals(whole.drop_columns(["uri"]))
    assert [Storage().read(uri) for uri in table["uri"].to_pylist()] == [
        Storage().read(uri) for uri in whole["uri"].to_pylist()
    ]


def test_an_interrupted_change_leaves_no_marker_of_the_old_set(tmp_path):
    small(tmp_path).read("real", Storage())
    with pytest.raises(StorageError):
        small(tmp_path, size=48).read("real", Full())
    assert not (tmp_path / "phantom.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"n": 8})])
def test_a_damaged_marker_vouches_for_nothing(tmp_path, text):
    table = small(tmp_path).read("real", Storage())
    (tmp_path / "phantom.json").write_text(text)
    assert small(tmp_path).read("real", Storage()).equals(table)
    assert json.loads((tmp_path / "phantom.json").read_text())["n"] == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "great"}, "real, good, poor"),
        ({"n": 0}, "n is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 8}, "at least 32"),
        ({"n": "many"}, "whole number"),
        ({"generator": "copier"}, "both training_seed and training_n"),
        ({"generator": "copier", "training_seed": 1}, "both training_seed and training_n"),
        ({"generator": "copier", "training_seed": 1, "training_n": 0}, "training_n is 0"),
        ({"generator": "copier", "training_seed": "one", "training_n": 4}, "training_seed is 'one'"),
        ({"generator": "copier", "training_seed": 3, "training_n": 4}, "choose another seed"),
        (
            {"generator": "good", "training_seed": 1, "training_n": 4},
            "takes no training_seed or training_n; only copier",
        ),
    ],
)
def test_wrong_fields_are_config_errors(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        small(tmp_path, **change)


def test_a_set_that_two_runs_draw_keeps_the_files_of_the_first(tmp_path, monkeypatch):
    """In every order of the two drawings' steps: who reads the images knows them by their version."""
    from fixtures.turns import Memory, MemoryStorage, Turns, schedules

    monkeypatch.setattr(source_module, "ThreadPoolExecutor", OneByOne)
    drawn = {}
    real = source_module.draw
    monkeypatch.setattr(
        source_module,
        "draw",
        lambda index, **how: drawn.setdefault(index, None) or drawn.update({index: real(index, **how)}) or drawn[index],
    )
    source = Phantom(n=2, generator="good", seed=1, size=32, path="s3://bucket/set")
    for schedule in schedules(10, 10, stride=2):
        turns = Turns()
        memory = Memory(turns)
        storage = MemoryStorage(memory=memory)

        def read(storage=storage):
            table = source.read("real", storage)
            return table, storage.stat(table["uri"].to_pylist())

        found = turns.played({"a": read, "b": read}, schedule)
        for result in found.values():
            if isinstance(result, BaseException):
                raise AssertionError(f"{schedule}: {result!r}") from result
        (first, seen), (second, seen_too) = found.values()
        assert first.equals(second)
        assert seen == seen_too == storage.stat(first["uri"].to_pylist()), schedule


class OneByOne:
    """In place of a pool of threads, whose steps would not wait for their turn."""

    def __init__(self, *_) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None: ...

    def map(self, function, items):
        return map(function, items)

    def shutdown(self, **_) -> None: ...
