"""Planted copies: written once, vouched for when whole, deterministic, and honest about what could not be read."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chexray.curation import planting
from chexray.curation.planting import COLUMNS, file_name, plant
from chexray.data import manifest
from chexray.data.images import load_images
from chexray.data.sources.infer import infer
from chexray.data.sources.table import Table
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, StorageFailure

STORAGE = Storage()
AUGMENTATIONS = {
    "flip": lambda image, rng: image[:, ::-1].copy(),
    "noise": lambda image, rng: np.clip(image + rng.integers(0, 9, image.shape), 0, 255).astype(np.uint8),
}


@pytest.fixture
def originals(tmp_path):
    images = []
    for index, name in enumerate(["a", "00012", "p10/s50.dcm", "NA", "../x y", "B", "b"]):
        path = tmp_path / "real" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(20, 200, (10, 12)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        images.append((name, str(path)))
    return images


def refuse(*args, **kwargs):
    raise AssertionError("written again")


def pixels(planted, sample_id):
    row = next(row for row in planted.rows if row["sample_id"] == sample_id)
    uri = planted.manifest.removesuffix("manifest.csv") + row["image"]
    return load_images([uri], STORAGE)[0]


def test_every_augmentation_of_every_original(tmp_path, originals):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    assert not planted.unreadable
    assert [(row["source_id"], row["augmentation"]) for row in planted.rows] == [
        (name, augmentation) for name, _ in originals for augmentation in AUGMENTATIONS
    ]
    assert all(row["copy_of"] == row["source_id"] for row in planted.rows)
    for name, uri in originals:
        original = np.asarray(Image.open(uri))
        assert np.array_equal(pixels(planted, f"flip/{name}"), original[:, ::-1])
        assert 0 < np.abs(pixels(planted, f"noise/{name}").astype(int) - original).max() <= 8
    files = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").rglob("*.png"))
    assert files == sorted(row["image"] for row in planted.rows)
    assert all(file.startswith(("planted/flip/", "planted/noise/")) for file in files)


def test_the_manifest_is_a_set(tmp_path, originals):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    assert infer(planted.manifest, STORAGE) == "table"
    for origin in ("real", "synthetic"):
        table = manifest.load("planted", origin, Table(planted.manifest), STORAGE).table
        found = {row["sample_id"]: row for row in table.to_pylist()}
        assert set(found) == {row["sample_id"] for row in planted.rows}
        assert found["flip/00012"]["source_id"] == "00012"
        assert found["flip/a"]["augmentation"] == "flip"
    with open(planted.manifest, newline="") as stream:
        assert next(csv.reader(stream)) == list(COLUMNS)


def test_twins_of_unseen_images_are_copies_of_nothing(tmp_path, originals):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE, in_training=False)
    assert {row["copy_of"] for row in planted.rows} == {""}
    assert {row["source_id"] for row in planted.rows} == {name for name, _ in originals}


def test_an_image_does_not_depend_on_what_else_is_planted(tmp_path, originals):
    whole = plant(originals, AUGMENTATIONS, str(tmp_path / "whole"), STORAGE)
    some = plant(originals[3:1:-1], {"noise": AUGMENTATIONS["noise"]}, str(tmp_path / "some"), STORAGE)
    other = plant(originals, AUGMENTATIONS, str(tmp_path / "other"), STORAGE, seed=1)
    for name in ("noise/NA", "noise/p10/s50.dcm"):
        assert np.array_equal(pixels(some, name), pixels(whole, name))
        assert not np.array_equal(pixels(other, name), pixels(whole, name))


def test_n_chooses_by_hash(tmp_path, originals):
    chosen = {}
    for n in (0, 2, 4, 99):
        planted = plant(originals, AUGMENTATIONS, str(tmp_path / str(n)), STORAGE, n=n)
        chosen[n] = [row["source_id"] for row in planted.rows[::2]]
    assert [len(names) for names in chosen.values()] == [0, 2, 4, 7]
    assert set(chosen[2]) < set(chosen[4])
    backwards = plant(originals[::-1], AUGMENTATIONS, str(tmp_path / "back"), STORAGE, n=2)
    assert {row["source_id"] for row in backwards.rows} == set(chosen[2])


def test_what_cannot_be_read_is_counted(tmp_path, originals):
    (tmp_path / "real" / "1.png").write_bytes(b"no image")
    missing = [*originals, ("gone", str(tmp_path / "gone.png"))]
    planted = plant(missing, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    assert set(planted.unreadable) == {"00012", "gone"}
    assert planted.unreadable["gone"].startswith("not_found: ")
    assert len(planted.rows) == 2 * 6
    again = plant(missing, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    assert again == planted


@dataclass(frozen=True)
class Busy(Storage):
    """A bucket that does not answer for one image."""

    def read(self, uri: str) -> bytes:
        if uri.endswith("1.png"):
            raise StorageFailure(f"{uri}: busy", code="unavailable", transient=True)
        return super().read(uri)


def test_what_a_busy_bucket_left_out_is_tried_again(tmp_path, originals):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), Busy())
    assert list(planted.unreadable) == ["00012"]
    assert not plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE).unreadable


def test_images_inside_parquet(tmp_path, originals):
    cells = [STORAGE.read(uri) for _, uri in originals]
    pq.write_table(pa.table({"image": cells}), tmp_path / "real.parquet")
    embedded = [(name, f"{tmp_path}/real.parquet#column=image&row={row}") for row, (name, _) in enumerate(originals)]
    planted = plant(embedded, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    assert np.array_equal(pixels(planted, "flip/b"), np.asarray(Image.open(originals[-1][1]))[:, ::-1])


def test_a_complete_set_is_not_written_again(tmp_path, originals, monkeypatch):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    monkeypatch.setattr(planting, "load_images", refuse)
    assert plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE) == planted
    for change in ({"seed": 1}, {"n": 3}, {"in_training": False}):
        with pytest.raises(AssertionError, match="written again"):
            plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE, **change)
        monkeypatch.undo()
        plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
        monkeypatch.setattr(planting, "load_images", refuse)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(originals[0][1])
    with pytest.raises(AssertionError, match="written again"):
        plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)


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


@pytest.mark.parametrize("room", [0, 5, 14, 15])
def test_an_interrupted_set_is_finished_by_the_next_run(tmp_path, originals, room):
    """Room for 14 is all images without the manifest, for 15 all but the marker."""
    whole = plant(originals, AUGMENTATIONS, str(tmp_path / "whole"), STORAGE)
    with pytest.raises(StorageError, match="disk full"):
        plant(originals, AUGMENTATIONS, str(tmp_path / "cut"), Full(room=[room]))
    assert not (tmp_path / "cut" / "planted.json").exists()
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "cut"), STORAGE)
    assert planted.rows == whole.rows
    for row in planted.rows:
        assert (tmp_path / "cut" / row["image"]).read_bytes() == (tmp_path / "whole" / row["image"]).read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"seed": 0}', '{"unreadable": {}}', "[" * 100_000])
def test_a_damaged_marker_vouches_for_nothing(tmp_path, originals, text):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    (tmp_path / "set" / "planted.json").write_text(text)
    assert plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE) == planted


@pytest.mark.parametrize("data", [b"", b"\xff\n", b"sample_id\n\x00", b'"' + b"x" * 200_000, b"../../x.png,flip"])
def test_a_table_that_was_changed_is_planted_anew(tmp_path, originals, data):
    planted = plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    path = tmp_path / "set" / "manifest.csv"
    whole = path.read_bytes()
    for changed in (data, whole + data, whole.replace(b"flip/", b"flop/")):
        if changed != whole:
            path.write_bytes(changed)
            assert plant(originals, AUGMENTATIONS, str(tmp_path / "set"), STORAGE) == planted
            assert path.read_bytes() == whole


def test_ids_of_any_characters_survive_the_table(tmp_path, originals):
    named = [(name, uri) for name, (_, uri) in zip(("a\rb", "\x1b[2J", 'q",\n'), originals, strict=False)]
    planted = plant(named, AUGMENTATIONS, str(tmp_path / "set"), STORAGE)
    table = Table(planted.manifest).read("synthetic", STORAGE)
    assert table["sample_id"].to_pylist() == [row["sample_id"] for row in planted.rows]
    assert plant(named, AUGMENTATIONS, str(tmp_path / "set"), STORAGE) == planted


def test_file_names_are_safe_and_distinct():
    ids = [
        "a",
        "a/b",
        "a_b",
        "../../etc/passwd",
        "..",
        ".",
        "",
        "x" * 300,
        "é",
        "%2e%2e",
        "a b",
        "C:\\x",
        "s3://b/k",
        "a\n",
    ]
    names = [file_name(name) for name in ids]
    assert len(set(names)) == len(ids)
    assert len({name.lower() for name in map(file_name, ("B", "b"))}) == 2
    assert file_name("phantom-real-s1-00003") == "phantom-real-s1-00003"
    for name in names:
        assert len(name) <= 100
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
        assert not name.startswith(".")


def test_repeated_ids_and_odd_names_are_refused(tmp_path, originals):
    with pytest.raises(ManifestError, match="'a' names two images"):
        plant([originals[0], originals[0]], AUGMENTATIONS, str(tmp_path), STORAGE)
    with pytest.raises(ManifestError, match=r"'\.\./flip'"):
        plant(originals, {"../flip": AUGMENTATIONS["flip"]}, str(tmp_path), STORAGE)
