"""timm networks: features and pixels as timm computes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from chexray.encoders.network import normalise
from chexray.encoders.timm_vision import TimmVision, from_timm
from chexray.errors import ConfigError, WeightsError


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", pretrained=False).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_features_are_those_before_the_classifier(resnet, tmp_path, greys, suffix):
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in resnet.state_dict().items()}}, path)
    else:
        save_file(resnet.state_dict(), path)
    encoder = TimmVision(model="resnet10t", weights=str(path))
    spec = encoder.resolve()
    encoder.load("cpu")
    batch = np.stack([encoder.prepare(image) for image in greys])
    how = encoder._preprocessing
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(batch), how.divisor, how.mean, how.std)
        expected = resnet.forward_head(resnet.forward_features(pixels), pre_logits=True).numpy()
    assert spec.outputs == {"features": 512}
    np.testing.assert_allclose(encoder.encode(batch)["features"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "densenet121"])
def test_pixels_are_those_of_timms_transform(name, greys):
    data = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform, ours = timm.data.create_transform(**data), from_timm(data, name)
    for image in greys:
        reference = transform(Image.fromarray(image).convert("RGB")).numpy()
        found = normalise(torch.tensor(ours.prepare(image))[None], ours.divisor, ours.mean, ours.std)[0].numpy()
        np.testing.assert_allclose(found, reference, atol=1e-6)


def test_a_config_beside_the_weights_goes_first(resnet, tmp_path):
    save_file(resnet.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "interpolation": "bilinear"}})
    )
    spec = TimmVision(model="resnet10t", weights=str(tmp_path)).resolve()
    assert "bilinear" in spec.preprocessing
    assert "mean-0.5,0.5,0.5" in spec.preprocessing


def test_weights_default_to_the_repository_timm_names(monkeypatch):
    asked = []

    def snapshot_download(repository, **_):
        asked.append(repository)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(WeightsError, match=r"timm/resnet10t.* cannot be used: OSError: offline"):
        TimmVision(model="resnet10t").resolve()
    assert asked[0].startswith("timm/resnet10t")


def test_wrong_names_and_files_are_refused(resnet, tmp_path):
    save_file(resnet.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"not those of timm's resnet18"):
        TimmVision(model="resnet18", weights=str(tmp_path)).resolve()
    with pytest.raises(ConfigError, match=r"no model 'resnet10'. Did you mean 'resnet10t'"):
        TimmVision(model="resnet10", weights="random:1").resolve()
    with pytest.raises(ConfigError, match="put the id in weights"):
        TimmVision(model="hf-hub:someone/net")
    with pytest.raises(ConfigError, match="timm_vision needs model"):
        TimmVision(weights="random:1")
