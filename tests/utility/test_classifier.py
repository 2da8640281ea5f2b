"""Classifiers by name: where their weights come from, which classifier layer comes with them, and what is refused."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

from chexray.errors import ConfigError, WeightsError
from chexray.utility.classification.classifier import (
    build,
    fetch_weights,
    find_weights,
    has_head,
)
from chexray.utility.loop.network import IMAGENET_MEAN, IMAGENET_STD, mean_std, normalise

SIZE = 64


class Upstream(nn.Module):
    """What CheXGenBench's training makes of a timm network: a new last layer under the first name that exists."""

    def __init__(self, name: str, **options):
        super().__init__()
        self.model = timm.create_model(name, pretrained=False, **options)
        attribute = next(a for a in ("fc", "classifier", "head") if hasattr(self.model, a))
        setattr(self.model, attribute, nn.Linear(getattr(self.model, attribute).in_features, 14))

    def forward(self, images):
        return self.model(images)


def save_upstream(network: nn.Module, path, *, parallel: bool = False, optimiser: bool = True):
    state = (nn.DataParallel(network) if parallel else network).state_dict()
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    checkpoint = {
        "epoch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": adam.state_dict() if optimiser else {},
        "val_loss": 0.31,
        "metrics": {"accuracy": 0.87, "auc_macro": np.float64(0.74), "f1_micro": np.float64(0.3)},
    }
    torch.save(checkpoint, path)
    return path


def images(n: int = 2, size: int = SIZE) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(batch)


def built(model: str, path, *, seed: int = 0, size: int = SIZE) -> nn.Module:
    return build(model, find_weights(model, str(path)), seed=seed, image_size=size)


# Names, seeds and sizes


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_a_network_has_14_logits_and_comes_from_its_seed_alone(model):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    once = build(model, None, seed=1, image_size=SIZE)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = (build(model, None, seed=seed, image_size=SIZE) for seed in (1, 2))
    assert logits(once, images()).shape == (2, 14)
    assert torch.equal(logits(once, images()), logits(again, images()))
    assert not torch.equal(logits(once, images()), logits(other, images()))
    assert {value.dtype for value in once.parameters()} == {torch.float32}


def test_an_unknown_model_or_tag_is_named():
    with pytest.raises(ConfigError, match=r"no model 'resnet5O'\. Did you mean 'resnet50'"):
        find_weights("resnet5O", "none")
    with pytest.raises(ConfigError, match=r"no 'resnet18\.mine'. Known: resnet18, resnet18\.a1_in1k"):
        build("resnet18.mine", None, seed=0, image_size=SIZE)


def test_a_size_the_model_refuses_is_named():
    with pytest.raises(ConfigError, match=r"image_size is 50, which timm's test_vit does not take .*divisible"):
        build("test_vit", None, seed=0, image_size=50)
    assert logits(build("test_vit", None, seed=0, image_size=96), images(size=96)).shape == (2, 14)


def test_a_seed_as_weights_is_refused_and_none_is_nothing():
    assert find_weights("test_resnet", "none") is None
    assert fetch_weights("test_resnet", None) is None
    assert not has_head("test_resnet", None, image_size=SIZE)
    with pytest.raises(ConfigError, match=r"a fit is initialised from its own seed\. Set weights: none"):
        find_weights("test_resnet", "random:3")


def test_pretrained_is_the_repository_timm_names(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(repository, **_):
        asked.append(repository)
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = find_weights("test_resnet", "pretrained")
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert found is not None
    assert pickle.loads(pickle.dumps(found)) == found
    assert fetch_weights("test_resnet", found) == found
    monkeypatch.undo()
    with pytest.raises(WeightsError, match=r"Wanted: model\.safetensors from the hub repository timm/test_resnet"):
        find_weights("test_resnet", str(tmp_path / "absent.pth"))


# Weights of timm


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_another_classifier_is_dropped_and_drawn_from_the_seed(tmp_path, model):
    source = timm.create_model(model, num_classes=1000)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    assert not has_head(model, find_weights(model, str(tmp_path / "w.safetensors")), image_size=160)
    network, fresh = built(model, tmp_path / "w.safetensors", size=160), build(model, None, seed=0, image_size=160)
    name = source.pretrained_cfg["classifier"]
    for key, value in network.state_dict().items():
        assert torch.equal(value, (fresh if key.startswith(f"{name}.") else source).state_dict()[key]), key


def test_a_network_saved_without_a_classifier_is_fine(tmp_path):
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    assert not has_head("test_resnet", find_weights("test_resnet", str(tmp_path / "w.safetensors")), image_size=SIZE)


def test_position_embeddings_of_another_size_are_resampled(tmp_path):
    source = timm.create_model("test_vit", num_classes=14)  # 160 pixels: 10 x 10 patches
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = built("test_vit", tmp_path / "w.safetensors", size=96)
    assert network.state_dict()["pos_embed"].shape[1] == 1 + 36
    assert torch.equal(network.state_dict()["head.weight"], source.state_dict()["head.weight"])
    expected = timm.create_model("test_vit", num_classes=14, img_size=96)
    expected.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(source.state_dict(), expected))
    assert torch.equal(logits(network, images(size=96)), logits(expected, images(size=96)))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    for call in (built, lambda model, path: has_head(model, find_weights(model, str(path)), image_size=SIZE)):
        with pytest.raises(
            WeightsError, match=r"w.safetensors: the weights are not those of timm's test_resnet"
        ) as caught:
            call("test_resnet", tmp_path / "w.safetensors")
        assert "\n" not in str(caught.value)


# Weights of an earlier fit


def test_an_earlier_fit_is_loaded_whole_and_normalises_as_it_did(tmp_path):
    fit = build("test_resnet", None, seed=4, image_size=SIZE)
    said = {"title": "real", "mean": "[0.4, 0.4, 0.4]", "std": "[0.3, 0.3, 0.3]"}
    save_file(fit.state_dict(), tmp_path / "model.safetensors", metadata=said)
    assert has_head("test_resnet", find_weights("test_resnet", str(tmp_path)), image_size=SIZE)
    network = built("test_resnet", tmp_path)
    assert torch.equal(logits(network, images()), logits(fit, images()))
    assert mean_std(network) == ((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))


def test_a_config_beside_the_weights_says_how_to_normalise(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}))
    assert mean_std(built("test_resnet", tmp_path)) == ((0.1,) * 3, (0.2,) * 3)


# Checkpoints of CheXGenBench


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("model", ["resnet18", "test_vit", "test_efficientnet"])
def test_a_checkpoint_of_upstream_predicts_as_upstream_did(tmp_path, model, parallel):
    size = 160 if model == "test_vit" else SIZE
    upstream = Upstream(model)
    path = save_upstream(upstream, tmp_path / "best.pth", parallel=parallel)
    assert has_head(model, find_weights(model, str(path)), image_size=size)
    network = built(model, path, size=size)
    assert torch.equal(logits(network, images(size=size)), logits(upstream, images(size=size)))
    assert mean_std(network) == (IMAGENET_MEAN, IMAGENET_STD)  # also where timm's own config says 0.5


@pytest.mark.parametrize("model", ["resnet50", "densenet121"])
def test_upstreams_usual_networks_load(tmp_path, model):
    upstream = Upstream(model)
    path = save_upstream(upstream, tmp_path / "best.pth", optimiser=False)
    assert torch.equal(logits(built(model, path), images(1)), logits(upstream, images(1)))


def test_a_bare_linear_goes_where_timm_keeps_it(tmp_path):
    path = save_upstream(upstream := Upstream("test_nfnet"), tmp_path / "best.pth")
    network = built("test_nfnet", path)
    assert torch.equal(network.state_dict()["head.fc.weight"], upstream.state_dict()["model.head.weight"])


def test_a_vit_with_only_a_classifier_is_loaded_and_an_unused_one_is_not(tmp_path):
    """Upstream's inference gives a ViT a `classifier` that its forward pass never reaches (defect 41)."""
    upstream = Upstream("test_vit")
    upstream.model.classifier = nn.Linear(upstream.model.head.in_features, 14)
    trained = upstream.model.head.weight.detach().clone()
    network = built("test_vit", save_upstream(upstream, tmp_path / "both.pth"), size=160)
    assert torch.equal(network.state_dict()["head.weight"], trained)

    upstream.model.head = nn.Linear(upstream.model.head.in_features, 1000)
    path = save_upstream(upstream, tmp_path / "unused.pth")
    assert not has_head("test_vit", find_weights("test_vit", str(path)), image_size=160)

    upstream.model.head = nn.Identity()
    network = built("test_vit", save_upstream(upstream, tmp_path / "only.pth"), size=160)
    assert torch.equal(network.state_dict()["head.weight"], upstream.model.classifier.weight)


def test_a_checkpoint_that_lost_a_layer_or_has_another_shape_is_refused(tmp_path):
    path = save_upstream(Upstream("test_convnext"), tmp_path / "convnext.pth")  # the norm went with the old head
    with pytest.raises(WeightsError, match=r"timm's test_convnext: .* 2 missing, first head\.norm\.weight"):
        built("test_convnext", path)
    wider = Upstream("resnet18")
    wider.model.layer4[1].conv2 = nn.Conv2d(512, 256, 3, bias=False)
    with pytest.raises(WeightsError, match=r"of another shape .* layer4\.1\.conv2\.weight \(256, 512, 3, 3\)"):
        built("resnet18", save_upstream(wider, tmp_path / "wider.pth"))
    ten = Upstream("resnet18")
    ten.model.fc = nn.Linear(512, 10)
    path = save_upstream(ten, tmp_path / "ten.pth")
    assert not has_head("resnet18", find_weights("resnet18", str(path)), image_size=SIZE)


# Input


@pytest.mark.parametrize("shape", [(3, 40, 40), (3, 1, 40, 40)])
def test_normalising_is_that_of_torchvision(shape):
    grey = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    coloured = grey.reshape(3, 1, 40, 40).expand(-1, 3, -1, -1).float() / 255
    expected = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(coloured)
    for given in (grey, grey.float()):
        found = normalise(given, IMAGENET_MEAN, IMAGENET_STD)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_without_a_known_mean_it_is_that_of_imagenet():
    assert mean_std(nn.Linear(1, 1)) == (IMAGENET_MEAN, IMAGENET_STD)
    assert mean_std(timm.create_model("test_vit")) == ((0.5,) * 3, (0.5,) * 3)
