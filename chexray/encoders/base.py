"""What an encoder is: it owns its preprocessing, says exactly what it will compute, then computes it.

Life of an encoder: it is built from the run config on the driver (cheap, imports no torch at module level), `resolve()`
checks its weights there and returns the `EncoderSpec`; the object then travels to worker processes, where `load` is
called once and `prepare` / `encode` many times. Encoders never import ray.

What an encoder can be used for is said by the `roles` of its spec; each role but SPACE asks for one more method.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from chexray.text import shown

DECODER_VERSION = 2
"""Raised whenever `chexray.data.images.decode` returns other pixels for the same bytes: stored features then expire."""

SPACE = "space"
"""Distances between features mean something: fidelity reads them, and privacy searches among them."""
PAIR_SCORER = "pair_scorer"
"""Re-identification: `scorer()` returns a PairScorer of two stored vectors. It needs `resolve()` and no `load()`. A
network that has to see both images together cannot have this role."""
HASH = "hash"
"""Features are bits as +1 and -1, for near duplicates: see HashEncoder."""
MIRROR = "mirror"
"""`mirror_order()` gives the (width,) order of the features in which they are those of the mirror image."""
METHODS = {PAIR_SCORER: "scorer", HASH: "mirror_signs", MIRROR: "mirror_order"}
"""{role: the method that an encoder of this role has}"""
ROLES = frozenset({SPACE, *METHODS})


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that determines the features an encoder stores; two equal specs give the same features.

    `outputs` maps an output name to its width; "features" is always there, "logits" for classifiers. `output_dtype` is
    what they are stored as: "float32", or "uint8" for images that a training reads.
    `input_shape` and `input_dtype` describe what `prepare` returns for one image.
    `weights` is the reference as the user wrote it ("random:7", a hub id, a path); `weights_sha256` what it held.
    `code` says which code a plug-in is (`chexray.plugins`; the plan fills it in); "" for chexray's own encoders, whose
    `code_version` says it. `cannot_see` stands under tables of an encoder without weights: differences between images
    that its features do not show. `roles`: what the encoder can be used for, of ROLES; they change no feature.
    """

    name: str
    weights: str
    weights_sha256: str
    revision: str
    preprocessing: str
    precision: str
    outputs: dict[str, int]
    input_shape: tuple[int, ...]
    input_dtype: str
    code_version: int
    options: dict[str, Any]
    output_dtype: str = "float32"
    code: str = ""
    cannot_see: str = ""
    roles: frozenset[str] = frozenset({SPACE})

    def described(self) -> dict[str, Any]:
        """Every field, as plain values."""
        return {**asdict(self), "roles": sorted(self.roles)}

    @property
    def fingerprint(self) -> str:
        """16 hex digits over every field that changes a feature: the hash of the weights, not their wording.

        Versions of libraries are left out, but for the major release of Pillow in `preprocessing`, since they did not
        move a bit where that was measured (x86-64): Pillow 10.4 to 13.0 (resizes, JPEG, JPEG 2000, WebP), NumPy 1.26
        to 2.4, timm 1.0.12 to 1.0.31, torch 2.13 to 2.15 on a CPU (Inception v3, ResNet, ViT, ConvNeXt, DINOv2).
        Another CPU or number of threads moves fp32 features by up to 1e-6 of their length, which no number shows.
        tests/encoders/test_libraries.py fails when a release of Pillow moves pixels: raise DECODER_VERSION then.
        """
        fields = asdict(self)
        del fields["weights"], fields["cannot_see"], fields["roles"]
        if self.output_dtype == "float32":  # keeps the features valid that were stored before there was another
            del fields["output_dtype"]
        if not self.code:
            del fields["code"]
        if self.precision == "bf16":  # before version 0.1.0 was released it was autocast
            fields["bf16"] = "weights and activations"
        text = json.dumps({**fields, "decoder_version": DECODER_VERSION}, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def options_in_words(self) -> str:
        """`side=64`: what tells two uses of one encoder apart on the screen; empty without options."""
        given = {name: value for name, value in self.options.items() if value is not None}
        return " ".join(f"{name}={shown(value, 60)}" for name, value in given.items())

    @property
    def is_random(self) -> bool:
        """True when the network was filled at random on request: its numbers compare with nothing else."""
        return self.weights.startswith("random:")


@runtime_checkable
class PairScorer(Protocol):
    """How likely two images are to show the same patient, from their stored features. Picklable; needs no torch."""

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(n,) float64 in [0, 1], higher = more likely the same patient; row i compares left[i] with right[i].

        left, right: (n, width) float32 "features". Symmetric. Pair i does not depend on the other pairs of the call.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """A frozen map from one greyscale image to one or more feature vectors."""

    def resolve(self) -> EncoderSpec:
        """The spec, once the weights are found and hashed. Raises WeightsError with the next move."""
        ...

    def load(self, device: str) -> None:
        """Builds the network on `device` ("cpu", "cuda", "cuda:0") in eval mode. Called once in each worker process."""
        ...

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """One decoded image, (height, width) uint8, to the fixed-shape array of the spec. numpy and Pillow only."""
        ...

    def encode(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """A stack of prepared images, (n, *input_shape), to {output: (n, width) float32}, C-contiguous."""
        ...


class HashEncoder(Encoder, Protocol):
    """An encoder of the role HASH; beside "features" it has the output "digest", equal for equal pixels only."""

    near_bits: int
    """Differing bits up to which two images are near duplicates, where the config names no number."""

    def mirror_signs(self) -> np.ndarray:
        """(width,) of +1 and -1, which turn the features of an image into those of its mirror image."""
        ...


def pair_scorer(encoder: Encoder) -> PairScorer:
    """The pair score of an encoder of the role PAIR_SCORER."""
    return cast(Any, encoder).scorer()


def mirroring(encoder: Encoder, spec: EncoderSpec) -> dict[str, Any]:
    """{"signs" or "order": (width,)}: how features become those of the mirror image; {} where that is not known."""
    known: Any = encoder
    signs = {"signs": known.mirror_signs()} if HASH in spec.roles else {}
    return signs | ({"order": known.mirror_order()} if MIRROR in spec.roles else {})
