"""The encoder of FID and the Inception score: 2048 pooled features and 1008 logits from one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from chexray.encoders.base import EncoderSpec
from chexray.encoders.checkpoints import check_keys, safe_load
from chexray.encoders.network import NetworkEncoder, fill_network, normalise
from chexray.encoders.options import Option
from chexray.encoders.resize import PILLOW, RESIZES, resize
from chexray.encoders.weights import ResolvedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn

RELEASED_FILE = "pt_inception-2015-12-05-6726825d.pth"
RELEASED_AT = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{RELEASED_FILE}"
RELEASED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the file at RELEASED_AT (95,628,359 bytes), which torch-fidelity publishes too, under its own name."""
SIDE = 299

# Files written before PyTorch 0.4 lack the counters; eval mode never reads them.
_OPTIONAL = ("*.num_batches_tracked",)


class InceptionV3(NetworkEncoder):
    """FID's Inception network (2015 TensorFlow weights): pool features 2048 and logits 1008 in one pass.

    features: the spatial mean after Mixed_7c, what FID and KID read. logits: features @ fc.weight.T *without* the bias,
    "logits_unbiased" of torch-fidelity, what the Inception score of Salimans et al. (2016) is computed from.

    resize, to 299 x 299, aspect ratio not kept: `bicubic_antialias` (default; clean-fid, Parmar et al. 2022),
    `bilinear_antialias` (torchmetrics), `tf1_bilinear` (torch-fidelity, the original FID), `pil_bilinear`
    (CheXGenBench) or `pil_bicubic`. FIDs of different resizes do not compare.
    weights: the released file by its name (default, downloaded once), a copy of it, or random:SEED.
    """

    name: ClassVar[str] = "inception_v3"
    float32_parts: ClassVar[tuple[str, ...]] = ("fc",)
    allowed: ClassVar[dict[str, Option]] = {
        "resize": Option("bicubic_antialias", str, tuple(RESIZES), "how images are resized to 299 x 299 pixels")
    }

    def sources(self) -> dict[str, Any]:
        return {
            "reference": self.weights or RELEASED_FILE,
            "wanted": RELEASED_FILE,
            "where": RELEASED_AT,
            "released_at": RELEASED_AT,
            "released_sha256": RELEASED_SHA256,
            "architecture": "fid_inception_v3",
        }

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        if found.path is not None:
            from chexray.encoders.fid_network import expected_shapes

            check_keys(
                safe_load(found.path), expected_shapes(), _OPTIONAL, where=found.path, what="FID's Inception network"
            )
        method = RESIZES[self.options["resize"]]
        return self._spec_of(
            found,
            f"{method.name}-{SIDE}/(x-128)/128/{PILLOW}",
            {"features": 2048, "logits": 1008},
            (SIDE, SIDE),
            method.dtype,
        )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to (299, 299) greys in 0..255: uint8 for the byte resizes, float32 for the others."""
        return resize(image, SIDE, SIDE, self.options["resize"])

    def _network(self, found: ResolvedWeights) -> nn.Module:
        from chexray.encoders.fid_network import FidInception, folded

        network = FidInception()
        if found.path is None:
            fill_network(network, found.seed or 0)
        else:
            network.load_state_dict(safe_load(found.path), strict=False)  # keys were checked, but for the counters
        return folded(network)

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        import torch

        images = normalise(batch.float() - 128, 128, (0.0,) * 3, (1.0,) * 3)
        features, logits = module(images.contiguous(memory_format=torch.channels_last))
        return {"features": features, "logits": logits}
