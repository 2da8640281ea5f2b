"""Patient re-identification: the Siamese ResNet-50 of Packhäuser et al. (2022), one vector an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from chexray.encoders.base import PAIR_SCORER, EncoderSpec
from chexray.encoders.checkpoints import check_keys, safe_load
from chexray.encoders.image_processor import Preprocessing
from chexray.encoders.network import NetworkEncoder, fill_network, normalise
from chexray.encoders.options import AUTO, Option
from chexray.encoders.random_fill import fill
from chexray.encoders.weights import ResolvedWeights

if TYPE_CHECKING:
    from torch import Tensor, nn


FILE = "ResNet-50_epoch11_data_handling_RPN.pth"
WHERE = (
    "the hub repository raman07/Patient_ReIdentification_MIMIC (CheXGenBench), or the authors' own "
    "verification_approach_final_model.pth; siamese_reid downloads nothing by itself"
)
WIDTH = 128
PAIRS_AT_ONCE = 8192
"""Bounds the memory of the scorer: 8 MB of float64 differences."""

# Files written before PyTorch 0.4 lack the counters; eval mode never reads them.
_OPTIONAL = ("*.num_batches_tracked",)
_RAW = ((0.0,) * 3, (1.0,) * 3)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_RESIDUAL_GAIN = 0.3

ROUTES: dict[str, Preprocessing] = {
    "cgb224": Preprocessing((("squash", 512, 512, "bicubic"), ("squash", 224, 224, "bilinear")), *_RAW),
    "cgb224_direct": Preprocessing((("squash", 224, 224, "bilinear"),), *_RAW),
    "official256": Preprocessing((("squash", 256, 256, "bilinear"),), *_IMAGENET),
}


class SiameseReid(NetworkEncoder):
    """Patient re-identification (Packhäuser et al. 2022), a Siamese ResNet-50: 128 features and a score for pairs.

    features: sigmoid(resnet(x)), so that the score of a pair is a function of two stored vectors: see `scorer`.
    route, aspect ratio never kept: `cgb224` (default), 512 x 512 bicubic, then 224 x 224 bilinear, greys / 255 and no
    normalisation: what CheXGenBench does to real images, and to generated ones that have 512 x 512 pixels;
    `cgb224_direct`, straight to 224 x 224: what it does to generated images of any size; `official256`, 256 x 256 and
    ImageNet normalisation: the authors'. Which of them the MIMIC checkpoint was trained with is not known; scores of
    different routes do not compare.
    weights: the checkpoint (file, folder or URL), or random:SEED. There is no default.
    """

    name: ClassVar[str] = "siamese_reid"
    float32_parts: ClassVar[tuple[str, ...]] = ("model.fc", "fc_end")
    roles: ClassVar[frozenset[str]] = frozenset({PAIR_SCORER})
    allowed: ClassVar[dict[str, Option]] = {
        "route": Option("cgb224", str, tuple(ROUTES), "resizing and normalisation; scores of two routes do not compare")
    }

    def __init__(self, **given: Any):
        super().__init__(**given)
        self._preprocessing = ROUTES[self.options["route"]]
        self._scorer: WeightedL1 | None = None

    def sources(self) -> dict[str, Any]:
        return {
            "reference": self.weights or FILE,
            "wanted": FILE,
            "where": WHERE,
            "architecture": f"siamese_resnet50_{WIDTH}",
        }

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        if found.path is None:
            last = fill({"fc_end.weight": (1, WIDTH), "fc_end.bias": (1,)}, found.seed or 0)
        else:
            state = safe_load(found.path)
            check_keys(
                state,
                expected_shapes(),
                _OPTIONAL,
                where=found.path,
                what="the Siamese ResNet-50 (SiameseNetwork, 128 features)",
            )
            last = {name: state[name].double().numpy() for name in ("fc_end.weight", "fc_end.bias")}
        self._scorer = WeightedL1(last["fc_end.weight"][0].astype(np.float64), float(last["fc_end.bias"][0]))
        return self._spec_of(
            found,
            f"{self.options['route']}/{self.preprocessing.describe()}",
            {"features": WIDTH},
            self.preprocessing.shape,
        )

    def unlike_released(self) -> str:
        """Why this is not the network that was published, whatever its weights; its shape is checked as it is found."""
        return "" if self.precision in ("fp32", AUTO) else f"precision {self.precision}, not fp32"

    def scorer(self) -> WeightedL1:
        """The score of pairs, from the last layer of the checkpoint; the network is neither built nor loaded."""
        self.resolve()
        assert self._scorer is not None
        return self._scorer

    def _network(self, found: ResolvedWeights) -> nn.Module:
        network = _empty()
        if found.path is None:
            return _damped(fill_network(network, found.seed or 0))
        network.load_state_dict(safe_load(found.path), strict=False)  # keys were checked, but for the counters
        return network

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        how = self.preprocessing
        branch = module.get_submodule("model")
        return {"features": branch(normalise(batch, how.divisor, how.mean, how.std)).float().sigmoid()}


@dataclass(frozen=True, eq=False)
class WeightedL1:
    """How likely two images show the same patient: sigmoid(sum_k weight_k |a_k - b_k| + bias), the last layer.

    weight: (128,) float64. Symmetric, in [0, 1]; an image against itself scores sigmoid(bias), not 1.
    """

    weight: np.ndarray
    bias: float

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(n,) float64 for n pairs of (n, 128) features, in float64; no pair depends on its neighbours."""
        if left.shape != right.shape or left.ndim != 2 or left.shape[1] != len(self.weight):
            raise ValueError(f"pairs need two (n, {len(self.weight)}) arrays; found {left.shape} and {right.shape}")
        scores = np.empty(len(left))
        for start in range(0, len(left), PAIRS_AT_ONCE):
            rows = slice(start, start + PAIRS_AT_ONCE)
            difference = np.abs(left[rows].astype(np.float64) - right[rows])
            # Not `@`: a BLAS sums in an order that depends on how many pairs there are.
            logits = (difference * self.weight).sum(1) + self.bias
            scores[rows] = np.exp(-np.logaddexp(0, -logits))
        return scores


def _empty() -> nn.Module:
    """The network under the key names of SiameseNetwork: `model.*` a ResNet-50 with 128 outputs, `fc_end` of 1."""
    from torch import nn

    from chexray.encoders.residual_network import ResNet50

    return nn.ModuleDict({"model": ResNet50(WIDTH), "fc_end": nn.Linear(WIDTH, 1)})


def _damped(network: nn.Module) -> nn.Module:
    """A randomly filled network with its residual branches turned down; changed in place.

    With gain 1 each of 16 branches doubles the variance and every sigmoid is 0 or 1 (logits of 216, measured; now 1.2).
    """
    for name, parameter in network.named_parameters():
        if name.endswith("bn3.weight"):
            parameter.data.mul_(_RESIDUAL_GAIN)
    return network


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of the released checkpoint; allocates nothing."""
    import torch

    with torch.device("meta"):
        network = _empty()
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
