"""Pixel distances on Ray: the float RMS of every pair, and a reject, not a hole, where an image cannot be read."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray import cloudpickle

from chexray.data.images import embedded_uri, load_and
from chexray.engine import pixel_pairs as stage
from chexray.engine.pixel_pairs import PixelDistances, pixel_distances
from chexray.engine.progress import Progress
from chexray.errors import StorageError
from chexray.storage import Storage, StorageFailure, basename, join

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIZES = [(512, 512), (300, 400), (700, 520)]


def draw(seed: int) -> np.ndarray:
    height, width = SIZES[seed % len(SIZES)]
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(smooth) + rng.normal(0, 4, (height, width)), 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def image(root: str, storage: Storage, seed: int) -> tuple[str, str]:
    uri = join(root, "images", f"{seed:04d}.png")
    storage.write(uri, png(draw(seed)))
    return f"key-{seed}", uri


def make(root: str, storage: Storage | None = None):
    """Five groups of a real image and g % 3 + 1 generations; the first generation of group 1 is its real image."""
    storage = storage or Storage()
    made = []
    for g in range(5):
        real = image(root, storage, 100 * g)
        made.append((real, [image(root, storage, 100 * g + 1 + i) for i in range(g % 3 + 1)]))
    storage.write(made[1][1][0][1], storage.read(made[1][0][1]))
    return made


def expected(groups, storage: Storage | None = None) -> list[float]:
    """With Pillow and numpy alone."""

    def pixels(uri: str) -> np.ndarray:
        picture = Image.open(io.BytesIO((storage or Storage()).read(uri)))
        return np.asarray(picture.resize((512, 512), Image.Resampling.BICUBIC), np.float64)

    return [
        float(np.sqrt(np.mean((pixels(real[1]) - pixels(uri)) ** 2)))
        for real, generated in groups
        for _, uri in generated
    ]


def run(root: str, groups, storage: Storage | None = None, *, wrapped: bool = False) -> tuple[PixelDistances, Progress]:
    progress = Progress("pixels", "images", 0, stream=io.StringIO())
    how = {"workers": 2, "max_pixels": 10**7, "io_threads": 2, "wrapped": wrapped, "progress": progress}
    return pixel_distances(groups, root=root, storage=storage or Storage(), **how), progress


def chunks(root: str) -> dict[str, str]:
    return {stat.uri: stat.version for stat in Storage().list(join(root, "pixel-distances"))}


@pytest.mark.parametrize("where", ["local", "s3"])
def test_every_pair_has_the_float_rms(ray_cluster, monkeypatch, tmp_path, request, where) -> None:
    s3 = request.getfixturevalue("s3") if where == "s3" else None
    root, storage = (s3.bucket, s3.storage) if s3 else (str(tmp_path), Storage())
    groups = make(root, storage)
    monkeypatch.setattr(stage, "SMALL_IMAGES", 0)
    monkeypatch.setattr(stage, "CHUNK_IMAGES", 6)
    found, progress = run(root, groups, storage, wrapped=True)
    np.testing.assert_allclose(found.distance, expected(groups, storage), atol=1e-6, rtol=0)
    assert found.distance[1] == 0
    assert found.wrapped is not None
    assert found.wrapped[1] == 0
    assert np.all((found.wrapped[2:] > 100) & (found.wrapped[2:] < 200))
    assert not found.rejects
    assert progress.done == progress.total == 5 + 9


def test_chunks_and_place_reach_no_bit_and_committed_ones_are_kept(ray_cluster, monkeypatch, tmp_path) -> None:
    root = str(tmp_path / "spread")
    groups = make(str(tmp_path))
    here, _ = run(str(tmp_path / "here"), groups)
    assert here.wrapped is None
    monkeypatch.setattr(stage, "SMALL_IMAGES", 0)
    monkeypatch.setattr(stage, "CHUNK_IMAGES", 5)
    monkeypatch.setattr(stage, "BATCH", 2)
    spread, _ = run(root, groups)
    assert spread.distance.tobytes() == here.distance.tobytes()
    before = chunks(root)
    assert len(before) == 3
    lost = sorted(before)[1]
    Path(lost).unlink()
    again, progress = run(root, groups)
    after = chunks(root)
    assert {uri for uri in before if before[uri] != after[uri]} == {lost}
    assert progress.done == 4
    assert again.distance.tobytes() == here.distance.tobytes()


def test_an_unreadable_image_is_a_reject_of_each_of_its_pairs(tmp_path) -> None:
    root = str(tmp_path)
    groups = make(root)
    Path(groups[2][0][1]).write_text("not a picture")  # the real image of pairs 3, 4 and 5
    Path(groups[0][1][0][1]).unlink()  # pair 0
    found, progress = run(root, groups, wrapped=True)
    codes = {pair: reject.code for pair, reject in found.rejects.items()}
    assert codes == {0: "not_found", 3: "not_an_image", 4: "not_an_image", 5: "not_an_image"}
    assert found.rejects[3].detail.startswith("the real image: ")
    assert np.flatnonzero(np.isnan(found.distance)).tolist() == [0, 3, 4, 5]
    assert progress.rejected == 4


class Busy(Storage):
    """Some images are unavailable for now."""

    names = ("0001.png",)

    def read(self, uri: str) -> bytes:
        if basename(uri) in self.names:
            raise StorageFailure(f"{uri}: 503", code="unavailable", transient=True)
        return super().read(uri)


class Down(Busy):
    names = tuple(f"{i:04d}.png" for i in range(1000))


def test_a_passing_failure_is_tried_again_and_an_outage_stops_the_run(tmp_path) -> None:
    root = str(tmp_path)
    groups = make(root)
    busy, _ = run(root, groups, Busy())
    assert busy.rejects[0].transient
    calm, progress = run(root, groups)
    assert progress.done == 14
    np.testing.assert_allclose(calm.distance, expected(groups), atol=1e-6, rtol=0)
    _, progress = run(root, groups)
    assert progress.done == 0
    with pytest.raises(StorageError, match="run the same command again"):
        run(str(tmp_path / "other"), groups, Down())


def test_no_pairs_are_no_distances_and_a_broken_chunk_says_what_to_do(tmp_path) -> None:
    root = str(tmp_path)
    groups = make(root)[:1]
    none, progress = run(root, [(groups[0][0], [])])
    assert (len(none.distance), progress.done) == (0, 0)
    run(root, groups)
    Path(next(iter(chunks(root)))).write_bytes(b"PAR1 but not really")
    with pytest.raises(StorageError, match=r"chunk-00000\.parquet.*Delete it"):
        run(root, groups)


class FullStorage(Storage):
    def write_parquet(self, uri: str, table: pa.Table, *, plain: bool = False) -> None:
        raise StorageError(f"{uri}: disk full.")


def test_errors_of_a_task_reach_the_user_as_themselves(ray_cluster, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(stage, "SMALL_IMAGES", 0)
    with pytest.raises(StorageError, match="disk full"):
        run(str(tmp_path), make(str(tmp_path)), FullStorage())


def test_generations_in_a_container_are_read_in_its_order(tmp_path, monkeypatch) -> None:
    groups = make(str(tmp_path))
    generated = [image for _, others in groups for image in others]
    lying = np.random.default_rng(0).permutation(len(generated))
    cells = [Path(generated[place][1]).read_bytes() for place in lying]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet", row_group_size=2)
    file = f"{tmp_path}/a.parquet"
    inside = {generated[place][0]: embedded_uri(file, "image", row) for row, place in enumerate(lying)}
    moved = [(real, [(key, inside[key]) for key, _ in others]) for real, others in groups]
    read = []
    monkeypatch.setattr(stage, "load_and", lambda use, uris, *a, **k: read.extend(uris) or load_and(use, uris, *a, **k))
    found = run(str(tmp_path / "o"), moved)[0].distance
    assert found.tolist() == run(str(tmp_path / "p"), groups)[0].distance.tolist()
    firsts = [uri for _, others in moved for _, uri in others[:1]]
    ordered = [uri for uri in read if uri in firsts]
    assert ordered == sorted(ordered, key=lambda uri: int(uri.rpartition("=")[2]))
