"""FID's Inception: parity with torch-fidelity, torchmetrics and CheXGenBench's route, and refusal of other files."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.encoders.inception_v3 import RELEASED_FILE, InceptionV3
from chexray.errors import ConfigError, WeightsError


@pytest.fixture(scope="module")
def released(tmp_path_factory, oracle_state):
    """A file of the released name and format, filled by the oracle's formula."""
    import torch

    path = tmp_path_factory.mktemp("inception") / RELEASED_FILE
    torch.save(oracle_state("inception", 2.6), path)
    return path


@pytest.fixture(scope="module")
def goldens(oracles):
    return np.load(oracles / "inception_golden.npz")


ROUTES = {
    "tf1_bilinear": {"features": "tf_2048", "logits": "tf_logits_unbiased"},
    "bilinear_antialias": {"features": "tm_antialias_2048"},
    "pil_bilinear": {"features": "cgb_2048"},
}


@pytest.mark.slow
@pytest.mark.parametrize("resize", ROUTES)
def test_official_features_are_reproduced(released, goldens, formula, resize):
    encoder = InceptionV3(weights=str(released.parent), resize=resize)
    spec = encoder.resolve()
    assert spec.outputs == {"features": 2048, "logits": 1008}
    encoder.load("cpu")
    found = encoder.encode(np.stack([encoder.prepare(image) for image in formula.images()]))
    for output, golden in ROUTES[resize].items():
        np.testing.assert_allclose(found[output], goldens[golden], atol=1e-4, rtol=1e-4)


def test_routes_are_told_apart(goldens):
    """The golden of one route would fail another: this is what the tolerance above rules out."""
    assert not np.allclose(goldens["tf_2048"], goldens["tm_antialias_2048"], atol=1e-4, rtol=1e-4)


def test_routes_have_their_own_fingerprints():
    specs = [InceptionV3(weights="random:1", resize=name).resolve() for name in ROUTES]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert {spec.input_dtype for spec in specs} == {"float32", "uint8"}


def test_counters_may_be_absent_and_nothing_else(released, tmp_path):
    import torch

    state = torch.load(released, weights_only=True)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    InceptionV3(weights=str(tmp_path / "old.pth")).resolve()
    del old["fc.bias"]
    torch.save(old, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"FID's Inception network.*1 missing, first fc.bias"):
        InceptionV3(weights=str(tmp_path / "cut.pth")).resolve()


def test_another_architecture_is_named(tmp_path):
    import torch
    from torchvision.models import resnet18

    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"not those of FID's Inception network.*first Conv2d_1a_3x3.conv.weight"):
        InceptionV3(weights=str(tmp_path / "resnet.pth")).resolve()


def test_the_missing_download_says_which_file_and_where(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match=rf"{RELEASED_FILE} from https://github.com/mseitzer/pytorch-fid/releases"):
        InceptionV3().resolve()


def test_unknown_settings_are_named():
    with pytest.raises(ConfigError, match=r"inception_v3 has no option 'resise'. Did you mean 'resize'"):
        InceptionV3(resise="tf1_bilinear")
    with pytest.raises(ConfigError, match=r"resize is 'tf_bilinear'.*Did you mean 'tf1_bilinear'"):
        InceptionV3(resize="tf_bilinear")
    with pytest.raises(ConfigError, match="precision is 'fp16'; expected one of auto, fp32, tf32, bf16"):
        InceptionV3(precision="fp16")
