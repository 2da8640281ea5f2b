"""What holds for every encoder: it travels, it repeats itself, and no image changes its neighbour's features."""

from __future__ import annotations

import dataclasses
import pickle
import warnings

import numpy as np
import pytest

from chexray.encoders.base import Encoder
from chexray.errors import ResourceError
from chexray.registry import find, names

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
CASES = {
    "pixels": {},
    "patches": {},
    "perceptual_hash": {},
    "inception_v3": {"weights": "random:3"},
    "rad_dino": {"weights": "random:3", "architecture": SMALL},
    "siamese_reid": {"weights": "random:3"},
    "timm_vision": {"weights": "random:3", "model": "resnet10t"},
    "wavelets": {"side": 64},
}
LARGE = ("inception_v3", "siamese_reid")
"""Networks of one size only: seconds for every pass."""


def each(*wanted: str) -> list:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in wanted]


ALL = each(*CASES)
RANDOM = each(*(name for name, options in CASES.items() if "weights" in options))


def build(name, **options):
    return find("encoders", name)(**CASES[name], **options)


class Loaded(dict):
    """Each encoder that a test asks for, after a journey to a worker: resolved, pickled, loaded."""

    def __missing__(self, name):
        encoder = build(name)
        encoder.resolve()
        self[name] = pickle.loads(pickle.dumps(encoder))
        self[name].load("cpu")
        return self[name]


@pytest.fixture(scope="module")
def loaded():
    return Loaded()


def batch_of(encoder, images):
    return np.stack([encoder.prepare(image) for image in images])


def test_the_registry_knows_them():
    known = {"hf_vision", "inception_v3", "patches", "perceptual_hash", "pixels", "rad_dino", "siamese_reid"}
    assert set(names("encoders")) >= known | {"timm_vision", "wavelets"}
    assert not {"base", "fid_network", "image_processor", "network", "resize", "weights"} & set(names("encoders"))


@pytest.mark.parametrize("name", ALL)
def test_the_spec_tells_the_truth(loaded, greys, name):
    encoder = loaded[name]
    assert isinstance(encoder, Encoder)
    spec = encoder.resolve()
    batch = batch_of(encoder, greys)
    assert batch.shape == (len(greys), *spec.input_shape)
    assert batch.dtype == spec.input_dtype
    outputs = encoder.encode(batch)
    assert {key: value.shape for key, value in outputs.items()} == {k: (len(greys), w) for k, w in spec.outputs.items()}
    for value in outputs.values():
        assert value.dtype == np.float32
        assert value.flags.c_contiguous
        assert np.isfinite(value).all()
        assert value[:3].std(0).mean() > 1e-3 * np.abs(value).mean()
    assert {k: v.shape for k, v in encoder.encode(batch[:0]).items()} == {k: (0, w) for k, w in spec.outputs.items()}


@pytest.mark.parametrize("name", ALL)
def test_neighbours_do_not_matter(loaded, greys, name):
    encoder = loaded[name]
    batch = batch_of(encoder, greys)
    together = encoder.encode(batch)
    for index in (0, 2):
        alone = encoder.encode(batch[index : index + 1])
        among_others = encoder.encode(batch[[4, index, 4]])
        for key in together:
            scale = np.abs(together[key]).max()
            np.testing.assert_allclose(alone[key][0], together[key][index], atol=2e-6 * scale)
            np.testing.assert_allclose(among_others[key][1], together[key][index], atol=2e-6 * scale)


@pytest.mark.parametrize("name", ALL)
def test_read_only_batches_are_fine_and_stay_as_they_are(loaded, greys, name):
    encoder = loaded[name]
    batch = batch_of(encoder, greys[:1])
    before = batch.copy()
    batch.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.parametrize("name", ["pixels", "patches", "wavelets"])
def test_encoders_without_weights_say_what_they_cannot_see(loaded, name):
    spec = loaded[name].resolve()
    assert spec.cannot_see
    assert not spec.cannot_see.endswith(".")
    assert dataclasses.replace(spec, cannot_see="other words").fingerprint == spec.fingerprint


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_is_a_network(loaded, greys, name):
    again, other = build(name), find("encoders", name)(**{**CASES[name], "weights": "random:4"})
    spec = loaded[name].resolve()
    assert again.resolve() == spec
    assert spec.is_random
    assert other.resolve().fingerprint != spec.fingerprint
    batch = batch_of(again, greys[:2])
    features = []
    for encoder in (loaded[name], again, other):
        encoder.load("cpu")
        features.append(encoder.encode(batch)["features"])
    np.testing.assert_array_equal(features[0], features[1])
    assert not np.allclose(features[0], features[2], rtol=1e-2)


@pytest.mark.parametrize("name", RANDOM)
def test_bf16_is_near_fp32_and_recorded(loaded, greys, name):
    encoder = build(name, precision="bf16")
    spec = encoder.resolve()
    assert spec.precision == "bf16"
    assert spec.fingerprint != loaded[name].resolve().fingerprint
    encoder.load("cpu")
    batch = batch_of(encoder, greys[:2])
    found, exact = encoder.encode(batch)["features"], loaded[name].encode(batch)["features"]
    assert found.dtype == np.float32
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.05


@pytest.mark.slow
def test_fp32_means_fp32_on_a_gpu(loaded):
    import torch

    assert all(loaded[name] for name in CASES)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_misuse_is_named(greys):
    import torch

    encoder = build("inception_v3")
    with pytest.raises(RuntimeError, match="call load"):
        encoder.encode(batch_of(encoder, greys[:1]))
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no GPU is visible"):
            encoder.load("cuda")


def test_a_batch_of_another_encoder_is_refused(loaded, greys):
    with pytest.raises(ValueError, match=r"encodes float32 images of shape \(299, 299\); found uint8 \(56, 56\)"):
        loaded["inception_v3"].encode(batch_of(loaded["rad_dino"], greys))
