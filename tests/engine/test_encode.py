"""The encode stage on Ray: the same bits as a plain loop, in any layout, through crashes; nothing lost or twice."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fixtures.deep_files import png, ramp
from fixtures.toys import DEADLY, FULL, GREEDY, UNDEFINED, Toy
from PIL import Image

from chexray.data.depth import Depth
from chexray.data.image_list import ImageList
from chexray.data.images import decode
from chexray.engine.encode import Encoded, encode, plan_chunks
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import Pool, Resources
from chexray.engine.progress import Progress
from chexray.engine.telemetry import metered
from chexray.engine.worker import Job
from chexray.errors import ResourceError, StorageError
from chexray.storage import Storage


def run(
    folder: Path, root: Path, encoder: Toy, *, layout: str = "fused", chunk: int = 8, depth: Depth | None = None
) -> tuple[Encoded, Progress]:
    images = {f"key-{path.stem}": str(path) for path in sorted(folder.glob("*.png"))}
    pool = Pool("cpu", layout, 2, 0.5, 0.25, 0.0, 1, 4, chunk, 4, 10**6)
    job = Job({"toy": (encoder, encoder.resolve())}, FeatureStore(str(root), Storage()), pool)
    progress = Progress("encode", "images", len(images), stream=io.StringIO())
    depths = None if depth is None else dict.fromkeys(images, depth)
    return encode(ImageList.of(images, depths=depths), job, progress), progress


def stored(root: Path, encoded: Encoded, encoder: Toy) -> tuple[list[str], np.ndarray]:
    keys = sorted(encoded.done["toy"].rows)
    return keys, FeatureStore(str(root), Storage()).read(encoder.resolve(), "features", keys, encoded.done["toy"])


@pytest.mark.parametrize("layout", ["fused", "split"])
def test_any_layout_gives_the_bits_of_a_plain_loop(ray_cluster, write_images, tmp_path, layout) -> None:
    folder = write_images("real", 30)
    (folder / "0007.png").write_text("not a picture")
    (folder / "0012.png").write_bytes(b"")
    with metered("run-1", Resources(cpus=2, gpus=0, memory=4e9, nodes=1)) as meter:
        encoded, progress = run(folder, tmp_path / "store", Toy(), layout=layout)
    assert meter.spent["encode"] == {"bytes_read": sum(path.stat().st_size for path in folder.iterdir()), "reads": 30}
    keys, features = stored(tmp_path / "store", encoded, Toy())
    assert len(keys) == 28
    assert {key: row["code"] for key, row in encoded.done["toy"].rejects.items()} == {
        "key-0007": "not_an_image",
        "key-0012": "empty",
    }
    assert (progress.done, progress.rejected) == (30, 2)
    toy = Toy()
    plain = [decode((folder / f"{key[4:]}.png").read_bytes()) for key in keys]
    expected = np.concatenate([toy.encode(toy.prepare(image)[None])["features"] for image in plain])
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("layout", ["fused", "split"])
def test_workers_decode_by_the_depth_of_the_set_and_count_what_is_beyond(ray_cluster, tmp_path, layout) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    tops = {f"{i:04d}": top for i, top in enumerate([4095, 1000, 5000, 200, 4095, 65535, 4000, 4095, 4095, 4095])}
    for name, top in tops.items():
        (folder / f"{name}.png").write_bytes(png(ramp(top)))
    encoded, progress = run(folder, tmp_path / "store", Toy(), layout=layout, depth=Depth(12))
    keys, features = stored(tmp_path / "store", encoded, Toy())
    done = encoded.done["toy"]
    assert (len(keys), done.rejects, done.clipped) == (10, {}, {"key-0002", "key-0005"})
    assert (progress.done, progress.rejected) == (10, 0)
    corner = [np.rint(np.clip(ramp(top)[:8, :8] / 4095, 0, 1) * 255) for top in tops.values()]
    np.testing.assert_allclose(features[:, 0], [each.mean() for each in corner], rtol=1e-6)
    again, _ = run(folder, tmp_path / "store", Toy(), layout=layout, depth=Depth(12))
    assert (again.n_encoded, again.done["toy"].clipped) == (0, done.clipped)
    none, _ = run(folder, tmp_path / "none", Toy(), layout=layout, depth=Depth(0))
    assert {reject["code"] for reject in none.done["toy"].rejects.values()} == {"unsupported"}
    assert not none.done["toy"].rows


def test_a_second_run_does_nothing_and_new_images_are_all_it_does(ray_cluster, write_images, tmp_path) -> None:
    folder = write_images("real", 20)
    first, _ = run(folder, tmp_path / "store", Toy())
    assert first.n_encoded == 20
    again, _ = run(folder, tmp_path / "store", Toy())
    assert again.n_encoded == 0
    write_images("real", 23)
    more, _ = run(folder, tmp_path / "store", Toy())
    assert more.n_encoded == 3
    other, _ = run(folder, tmp_path / "store", Toy(revision="2"))
    assert other.n_encoded == 23


def test_a_worker_killed_once_costs_nothing(ray_cluster, write_images, tmp_path) -> None:
    folder = write_images("real", 60)
    calm, _ = run(folder, tmp_path / "calm", Toy())
    killed, _ = run(folder, tmp_path / "killed", Toy(kill_once=str(tmp_path / "killed-once")))
    assert (tmp_path / "killed-once").exists()
    for a, b in zip(stored(tmp_path / "calm", calm, Toy()), stored(tmp_path / "killed", killed, Toy()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_image_that_kills_every_worker_stands_alone_among_the_rejects(ray_cluster, write_images, tmp_path) -> None:
    folder = write_images("real", 20)
    Image.new("L", (24, 24), DEADLY).save(folder / "0011.png")
    encoded, progress = run(folder, tmp_path / "store", Toy())
    assert len(encoded.done["toy"].rows) == 19
    assert encoded.done["toy"].rejects["key-0011"]["code"] == "crash"
    assert progress.done == 20
    # Memory or a neighbour may have been the cause: once more, alone, and then never again.
    assert encoded.done["toy"].rejects["key-0011"]["transient"]
    again, progress = run(folder, tmp_path / "store", Toy())
    reject = again.done["toy"].rejects["key-0011"]
    assert (reject["code"], reject["transient"], progress.done) == ("crash", False, 1)
    assert "nothing ran beside it" in reject["detail"]
    assert run(folder, tmp_path / "store", Toy())[1].done == 0


def test_an_image_that_was_only_unlucky_is_encoded_by_the_next_run(ray_cluster, write_images, tmp_path) -> None:
    folder = write_images("real", 12)
    spec, store = Toy().resolve(), FeatureStore(str(tmp_path / "store"), Storage())
    unlucky = {"image_key": "key-0005", "stage": "decode", "code": "crash", "detail": "died", "transient": True}
    store.commit(spec, [], {"features": np.empty((0, 4), np.float32)}, [unlucky])
    encoded, progress = run(folder, tmp_path / "store", Toy())
    assert len(encoded.done["toy"].rows) == progress.done == 12
    assert not encoded.done["toy"].rejects


def test_suspects_of_an_earlier_run_are_alone() -> None:
    encoder = Toy()
    images = {f"{i:03d}": f"/{i}" for i in range(10)}
    crashed = {key: {"code": "crash", "transient": True} for key in ("002", "007")}
    final = {"004": {"code": "crash", "transient": False}}
    done = {"toy": StoreIndex(rejects=crashed | final)}
    chunks, alone = plan_chunks(ImageList.of(images), {"toy": (encoder, encoder.resolve())}, done, 4)
    assert [c["image_key"].to_pylist() for c in chunks] == [["000", "001", "003", "005"], ["006", "008", "009"]]
    assert [c["image_key"].to_pylist() for c in alone] == [["002"], ["007"]]


def test_an_encoder_that_returns_nan_makes_a_reject(ray_cluster, write_images, tmp_path) -> None:
    folder = write_images("real", 10)
    Image.new("L", (24, 24), UNDEFINED).save(folder / "0003.png")
    encoded, _ = run(folder, tmp_path / "store", Toy())
    assert encoded.done["toy"].rejects["key-0003"]["code"] == "not_finite"
    assert len(encoded.done["toy"].rows) == 9


@pytest.mark.parametrize(
    ("grey", "error", "words"),
    [(FULL, StorageError, "disk is full"), (GREEDY, ResourceError, "Lower encode.batch_size")],
)
def test_what_stops_a_worker_reaches_the_user_in_one_line(
    ray_cluster, write_images, tmp_path, grey, error, words
) -> None:
    folder = write_images("real", 6)
    Image.new("L", (24, 24), grey).save(folder / "0002.png")
    with pytest.raises(error, match=words) as raised:
        run(folder, tmp_path / "store", Toy())
    assert len(str(raised.value).splitlines()) == 1


def test_chunks_left_by_a_crash_are_the_chunks_it_did_not_finish() -> None:
    encoder = Toy()
    images = {f"{i:03d}": f"/{i}" for i in range(50)}
    encoders = {"toy": (encoder, encoder.resolve())}
    whole = [
        c["image_key"].to_pylist() for c in plan_chunks(ImageList.of(images), encoders, {"toy": StoreIndex()}, 8)[0]
    ]
    committed = whole[0] + whole[3]
    done = {"toy": StoreIndex(rows=dict.fromkeys(committed, ("part", 0)))}
    left = [c["image_key"].to_pylist() for c in plan_chunks(ImageList.of(images), encoders, done, 8)[0]]
    assert left == [chunk for i, chunk in enumerate(whole) if i not in (0, 3)]
