"""Networks written out in plain torch: torchvision's keys and bits, without its import."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from chexray.encoders.fid_network import FidInception
from chexray.encoders.network import fill_network
from chexray.encoders.residual_network import ResNet50


def shapes(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in network.state_dict().items()]


def test_resnet50_has_the_keys_and_bits_of_torchvisions():
    from torchvision.models import resnet50

    ours, theirs = (fill_network(each.eval(), 3) for each in (ResNet50(128), resnet50(weights=None, num_classes=128)))
    assert shapes(ours) == shapes(theirs)
    for network in (ours, theirs):
        for name, parameter in network.named_parameters():
            if name.endswith("bn3.weight"):  # else each of 16 blocks doubles the variance
                parameter.data.mul_(0.1)
    with torch.inference_mode():
        x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        assert torch.equal(ours(x), theirs(x))


def test_inception_has_the_keys_of_torchvisions_and_its_bits_in_the_blocks_that_pool_alike():
    """The others pool otherwise, which the goldens of test_inception_v3 check."""
    from torchvision.models import Inception3

    theirs = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    with torch.inference_mode():
        ours = fill_network(FidInception().eval(), 3)
        assert shapes(ours) == shapes(theirs)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(1, 288, 17, 17, generator=torch.Generator().manual_seed(0))
        assert torch.equal(ours.Mixed_6a(x), theirs.Mixed_6a(x))
        x = torch.randn(1, 768, 17, 17, generator=torch.Generator().manual_seed(1))
        assert torch.equal(ours.Mixed_7a(x), theirs.Mixed_7a(x))


def test_they_bring_neither_torchvision_nor_torchs_compiler():
    code = """if True:
        import sys
        import chexray.encoders.fid_network, chexray.encoders.residual_network
        heavy = {"torchvision", "torch._dynamo", "torch._inductor", "transformers", "timm"} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
