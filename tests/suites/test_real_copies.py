"""Images of the real set among the synthetic ones are found by their pixels, whatever the file, and said aloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures.summary import summary_lines
from PIL import Image

from chexray import evaluate, parse_config
from chexray.engine.reduce import FeatureMatrix
from chexray.results.rows import params_of
from chexray.storage import Storage
from chexray.suites.real_copies import BLANK, confirmed, digests, same_digests, suspects


class Spec:
    def __init__(self, weights: str = "", precision: str = "fp32"):
        self.weights, self.precision = weights, precision


def matrix(prefix: str, features: np.ndarray) -> FeatureMatrix:
    ids = np.array([f"{prefix}{row}" for row in range(len(features))])
    return FeatureMatrix(ids, {"features": features.astype(np.float32)}, None)


def test_pairs_of_equal_features_are_suspects_and_noise_of_a_network_does_not_hide_one():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(50, 8)), rng.normal(size=(40, 8))
    synthetic[3] = real[7] * (1 + 1e-5)  # what another batch does to float32
    encoded = {"net": (matrix("r", real), matrix("s", synthetic))}
    assert suspects(encoded, {"net": Spec("hub/net")}) == {("r7", "s3"): False}
    assert suspects(encoded, {"net": Spec()}) == {}
    synthetic[3] = real[7]
    encoded["exact"] = (matrix("r", real), matrix("s", synthetic))
    assert suspects(encoded, {"net": Spec("hub/net"), "exact": Spec()}) == {("r7", "s3"): False}
    assert suspects({"exact": encoded["exact"]}, {"exact": Spec()}) == {("r7", "s3"): True}


def test_an_encoder_that_gives_all_images_the_same_features_is_passed_over():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1500, 8))
    flat = np.ones((1500, 4))
    encoded = {"flat": (matrix("r", flat), matrix("s", flat)), "good": (matrix("r", features), matrix("s", features))}
    found = suspects(encoded, {"flat": Spec(), "good": Spec()})
    assert len(found) == 1500
    assert not any(found.values())  # one encoder sees no image at all: equal features then prove nothing
    assert suspects({"flat": encoded["flat"]}, {"flat": Spec()}) is None


def test_where_no_encoder_tells_images_apart_all_pixels_are_compared():
    real, synthetic = {"r0": "aa", "r1": BLANK, "r2": "aa"}, {"s0": "aa", "s1": BLANK, "s2": "", "s3": "bb"}
    pairs = same_digests(real, synthetic)
    assert pairs == {("r0", "s0"): False, ("r2", "s0"): False}
    assert confirmed(pairs, real, synthetic).real_of == {"s0": ("r0", "r2")}


def test_pixels_decide_and_blank_frames_are_copies_of_nothing():
    pairs = {("r0", "s0"): False, ("r1", "s1"): False, ("r2", "s2"): True, ("r3", "s3"): True, ("r0", "s4"): True}
    real = {"r0": "aa", "r1": "bb", "r2": "cc", "r3": BLANK}
    found = confirmed(pairs, real, {"s0": "aa", "s1": "xx", "s2": "yy", "s3": BLANK, "s4": ""})
    assert found.real_of == {"s0": ("r0",), "s2": ("r2",)}
    assert found.by_features == {"s2"}
    assert found.params(["r0", "r2"], ["s2", "s1", "s0"]) == {
        "n_copies_of_real": 2, "copies_of_real_first": ["s2", "s0"], "n_copies_of_real_by_features": 1,
    }  # fmt: skip
    assert found.params(["r2"], ["s0", "s1"]) == {}
    assert found.table("set").to_pylist() == [
        {"synthetic_set": "set", "sample_id": "s0", "real_id": "r0", "by": "pixels"},
        {"synthetic_set": "set", "sample_id": "s2", "real_id": "r2", "by": "features"},
    ]


def test_the_digest_is_of_pixels_and_size_not_of_the_file(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name, image in {
        "a.png": pixels, "a.bmp": pixels, "turned.png": pixels.T, "long.png": pixels.reshape(4, 16),
        "blank.png": np.zeros((8, 8), np.uint8),
    }.items():  # fmt: skip
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ["a.png", "a.bmp", "turned.png", "long.png", "blank.png", "broken.png"]
    found = digests([(str(tmp_path / name), None) for name in names], Storage(), 10**6, 2)
    a, bmp, turned, long, blank, broken = found.values()
    assert a == bmp
    assert len({a, turned, long, blank, broken}) == 5
    assert (blank, broken) == (BLANK, "")


@pytest.fixture
def leak(write_images, tmp_path) -> dict[str, Path]:
    """A set of others, and one whose first 6 images are images of the real set: 4 in another format, 2 twice as big."""
    real = write_images("real", 40, seed=1)
    clean = write_images("clean", 36, seed=2)
    leak = write_images("leak", 36, seed=3)
    for row in range(6):
        image = Image.open(real / f"{row + 10:04d}.png")
        (leak / f"{row:04d}.png").unlink()
        bigger = image.resize((48, 48), Image.Resampling.NEAREST) if row > 3 else image
        bigger.save(leak / f"{row:04d}.{'bmp' if row < 4 else 'png'}")
    return {"real": real, "clean": clean, "leak": leak}


def test_copies_are_said_aloud_marked_and_listed(ray_cluster, leak, tmp_path):
    config = {
        "real": str(leak["real"]),
        "synthetic": [str(leak["clean"]), str(leak["leak"])],
        "encoders": [{"name": "pixels", "side": 4}, {"name": "patches", "side": 8, "patch": 4}],
        "metrics": ["kid", "prdc"],
        "output": str(tmp_path / "out"),
    }
    done = evaluate(parse_config(config))
    first = summary_lines(done.results)[0]
    assert first.startswith(
        "leak: COPIES OF REAL IMAGES: 6 of 36 images are images of real (4 equal pixel by pixel, 2 in all features), "
        "first 0000.bmp, 0001.bmp, 0002.bmp; "
    )
    said = {row.synthetic_set.split("@")[0]: params_of(row._asdict()) for row in done.results.itertuples()}
    assert said["leak"]["n_copies_of_real"] == 6
    assert "n_copies_of_real" not in said["clean"]
    listed = pq.read_table(Path(done.uri) / "copies_of_real.parquet").to_pandas()
    assert list(listed["sample_id"].str[:4]) == [f"{row:04d}" for row in range(6)]
    assert list(listed["real_id"]) == [f"{row + 10:04d}.png" for row in range(6)]
    assert list(listed["by"]) == ["pixels"] * 4 + ["features"] * 2


def test_a_set_against_itself_may_be_evaluated(ray_cluster, leak, tmp_path):
    config = {
        "real": str(leak["real"]),
        "synthetic": [{"name": "same", "path": str(leak["real"])}],
        "encoders": [{"name": "pixels", "side": 4}],
        "metrics": ["fid"],
        "output": str(tmp_path / "out"),
    }
    done = evaluate(parse_config(config))
    assert done.exit_code == 0
    assert summary_lines(done.results)[0].startswith("same: COPIES OF REAL IMAGES: 40 of 40 images are images of real")
