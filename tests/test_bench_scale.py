"""The inputs of the bench at full size: distinct pictures that decode, and estimates that are judged rightly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

if not Path("/proc/self/stat").exists():
    pytest.skip("the bench accounts for CPU time through /proc", allow_module_level=True)

from bench import scale_inputs
from bench.scale import worst_estimate


def test_pictures_put_together_of_bands_are_valid_and_unlike(monkeypatch):
    monkeypatch.setattr(scale_inputs, "BASES", 3)
    pictures = scale_inputs.Pictures()
    files = [pictures.png(index) for index in range(20)]
    assert files[4] == pictures.png(4)
    greys = [np.asarray(Image.open(io.BytesIO(each))) for each in files]
    assert {each.shape for each in greys} == {(512, 512, 3)}
    assert all((each[:, :, 0] == each[:, :, 2]).all() for each in greys)
    assert len({each.tobytes() for each in greys}) == len(set(files)) == 20


def test_the_archive_opens_as_the_published_set_and_pairs_with_the_training_table(tmp_path, monkeypatch):
    from chexray.config import parse_config
    from chexray.plan import make_plan

    monkeypatch.setattr(scale_inputs, "BASES", 3)
    monkeypatch.setattr(scale_inputs, "N_TEST", 30)
    scale_inputs.make(tmp_path, [12], n_training=60, n_test=30)
    plan = make_plan(parse_config(scale_inputs.config_of(tmp_path, 12, tmp_path / "out", tmp_path / "features")))
    assert (len(plan.synthetic[0]), len(plan.training), len(plan.real)) == (12, 60, 30)
    assert len(plan.pairs["synthchex"]) == 12
    from chexray.engine.features import FeatureStore

    store, images = FeatureStore(plan.store_uri, plan.storage), plan.images
    for label, (_, spec) in plan.encoders.items():
        left = ~store.done(spec).covered(images.keys)
        assert (left & images.mask(label)).sum() == 12


def test_estimates_are_held_against_what_came():
    lines = [(10.0, "encode: 0/100 images"), (20.0, "encode: 10/100 images, 1 images/s, 1 min 30 s left")]
    lines += [
        (60.0, "encode: 50/100 images, 1 images/s, 1 min 00 s left, 2 rejected"),
        (110.0, "encode: 100/100 images"),
    ]
    assert worst_estimate(lines) == {"encode": pytest.approx(0.2)}
