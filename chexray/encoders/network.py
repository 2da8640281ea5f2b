"""What all encoders with a torch network share: finding weights once, loading once, encoding batches.

Numbers: `fp32` turns TF32 off, so that a GPU computes what the parity tests compute on a CPU; `tf32` lets a GPU use it;
`bf16` is the whole network in bfloat16 (`whole_bf16`). Features are stored as float32 in any case. cuDNN is held to
deterministic algorithms, so a rerun gives the same bits on the same machine. No layer mixes the images of a batch: all
networks are in eval mode.
"""

from __future__ import annotations

import hashlib
import json
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from chexray.encoders.base import SPACE, EncoderSpec
from chexray.encoders.image_processor import Preprocessing
from chexray.encoders.options import AUTO, Option, read_options, read_precision
from chexray.encoders.weights import ResolvedWeights, on_this_machine, resolve
from chexray.encoders.whole_bf16 import whole_bf16
from chexray.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from chexray.storage import Storage


class NetworkEncoder:
    """Base of encoders with a torch network; a subclass says which weights, which network and which outputs."""

    name: ClassVar[str]
    code_version: ClassVar[int] = 1
    allowed: ClassVar[dict[str, Option]] = {}
    roles: ClassVar[frozenset[str]] = frozenset({SPACE})
    released_sha256: ClassVar[tuple[str, ...]] = ()
    released_repository: ClassVar[str] = ""
    """See chexray.encoders.released, as for `unlike_released`."""
    float32_parts: ClassVar[tuple[str, ...]] = ()
    """Submodules that stay float32 in a bf16 network: those behind the pooling."""

    def __init__(
        self, *, weights: str | None = None, precision: str = "fp32", storage: Storage | None = None, **options: Any
    ):
        self.weights = weights
        self.precision = read_precision(self.name, precision)
        self.storage = storage
        self.options = read_options(self.name, self.allowed, options)
        self._spec: EncoderSpec | None = None
        self.found: ResolvedWeights | None = None
        self._preprocessing: Preprocessing | None = None
        self._module: nn.Module | None = None
        self._device: torch.device | None = None

    def at(self, precision: str) -> Self:
        """The same encoder in another precision, not loaded: of `auto`, what was decided."""
        other = copy(self)
        other.precision, other._module, other._device = precision, None, None
        other._spec = None if self._spec is None else replace(self._spec, precision=precision)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """The encoder without its network: workers load their own."""
        return {**self.__dict__, "_module": None, "_device": None}

    def _spec_of(
        self,
        found: ResolvedWeights,
        preprocessing: str,
        outputs: dict[str, int],
        input_shape: tuple[int, ...],
        input_dtype: str = "uint8",
        more: dict[str, Any] | None = None,
    ) -> EncoderSpec:
        """The spec of a network with these weights. more: options that follow from the weights."""
        return EncoderSpec(
            name=self.name, weights=found.reference, weights_sha256=found.sha256, revision=found.revision,
            preprocessing=preprocessing, precision=self.precision, outputs=outputs, input_shape=input_shape,
            input_dtype=input_dtype, code_version=self.code_version, options={**self.options, **(more or {})},
            roles=self.roles,
        )  # fmt: skip

    # What a subclass provides.

    def sources(self) -> dict[str, Any]:
        """The keyword arguments of `resolve`, `reference` among them."""
        raise NotImplementedError

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        """The spec, after checking on the driver that the weights fit; keeps what `prepare` needs."""
        raise NotImplementedError

    def unlike_released(self) -> str | None:
        """Why this is not the published network, whatever its weights; "" where it is, None where none is published."""
        return None

    def _network(self, found: ResolvedWeights) -> nn.Module:
        """The network with its weights, on the CPU in float32."""
        raise NotImplementedError

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        """{output: (n, width)} for a stack of prepared images on the device."""
        raise NotImplementedError

    # What the engine calls.

    def resolve(self) -> EncoderSpec:
        """The spec, once the weights are found, hashed and checked against the architecture."""
        if self._spec is None:
            self.found = resolve(storage=self.storage, **self.sources())
            self._spec = self._describe(self.found)
        return self._spec

    @property
    def preprocessing(self) -> Preprocessing:
        """What `prepare` does, which may follow from the weights."""
        if self._preprocessing is None:
            self.resolve()
        assert self._preprocessing is not None
        return self._preprocessing

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """(height, width) uint8 to the input size of the spec, uint8, by Pillow's resampling."""
        return self.preprocessing.prepare(image)

    def load(self, device: str) -> None:
        """Builds the network on `device` and sets the arithmetic of this process."""
        import torch

        self.resolve()
        assert self.found is not None
        if self.precision == AUTO:
            raise RuntimeError(f"{self.name}: decide on a precision before load; fp32, tf32 or bf16, by at(precision)")
        target = torch.device(device)
        if target.type == "cuda" and not torch.cuda.is_available():
            raise ResourceError(
                f"{self.name}: asked to run on {device!r}, but no GPU is visible here. Use device: cpu."
            )
        self._set_tf32()
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        how = self.sources()
        self.found = on_this_machine(self.found, storage=self.storage, **{k: how[k] for k in how if k != "reference"})
        module = self._network(self.found).float().eval().requires_grad_(False)
        if self.precision == "bf16":
            module = whole_bf16(module, self.float32_parts)
        self._module, self._device = module.to(target), target

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """{output: (n, width) float32} for n prepared images; an empty batch gives empty arrays."""
        import torch

        if self._module is None or self._device is None:
            raise RuntimeError(f"{self.name}: call load(device) before encode")
        spec = self.resolve()
        if batch.shape[1:] != spec.input_shape or batch.dtype != np.dtype(spec.input_dtype):
            raise ValueError(
                f"{self.name} encodes {spec.input_dtype} images of shape {spec.input_shape}; "
                f"found {batch.dtype} {batch.shape[1:]}"
            )
        if len(batch) == 0:
            return {name: np.empty((0, width), np.float32) for name, width in spec.outputs.items()}
        # A copy, because batches from an object store are read-only views of shared memory.
        images = torch.from_numpy(np.array(batch, order="C", copy=True)).to(self._device)
        self._set_tf32()
        with torch.inference_mode():
            outputs = self._outputs(self._module, images)
        return {name: np.ascontiguousarray(value.float().cpu().numpy()) for name, value in outputs.items()}

    def _set_tf32(self) -> None:
        """Of the process, so it is set at each batch: the encoders of a worker may differ."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"

    def _refuse_architecture(self) -> None:
        """`architecture` only means something when a seed, and no file, decides what the network is."""
        if self.options.get("architecture") and not str(self.weights).startswith("random:"):
            raise ConfigError(f"{self.name}: architecture goes with weights: random:SEED; a file says what it is.")


def normalise(grey: Tensor, divisor: float, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(n, height, width) greys to (n, 3, height, width) float32: (grey / divisor - mean) / std for each channel."""
    import torch

    shift = torch.tensor(mean, device=grey.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, device=grey.device).view(1, -1, 1, 1)
    return ((grey.float() / divisor)[:, None] - shift) / scale


def fill_network(module: nn.Module, seed: int) -> nn.Module:
    """The network with every parameter drawn by `random_fill`; buffers such as batch statistics stay as built."""
    import torch

    from chexray.encoders.random_fill import fill

    values = fill({name: tuple(value.shape) for name, value in module.named_parameters()}, seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(values[name]))
    return module


def short_hash(value: object) -> str:
    """16 hex digits of a JSON value: puts a network's config into the fingerprint of its features."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
