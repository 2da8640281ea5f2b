"""What encoders without weights share: numpy alone, nothing to find, nothing to load."""

from __future__ import annotations

from typing import Any, ClassVar

from chexray.encoders.base import SPACE, EncoderSpec
from chexray.encoders.options import Option, read_options, read_precision
from chexray.errors import ConfigError


class WeightFreeEncoder:
    """Base of encoders that compute what they say and nothing learned; a subclass prepares, encodes and describes.

    `precision` is accepted, so that one config serves all encoders, and has no meaning: the arithmetic is float64.
    `cannot_see` says which differences between images its features do not show; it stands under its tables.
    Raises ConfigError for weights, unknown options, or a precision that does not exist.
    """

    name: ClassVar[str]
    code_version: ClassVar[int] = 1
    allowed: ClassVar[dict[str, Option]] = {}
    cannot_see: ClassVar[str] = ""
    roles: ClassVar[frozenset[str]] = frozenset({SPACE})

    def __init__(self, *, weights: str | None = None, precision: str = "fp32", storage: object = None, **options: Any):
        if weights is not None:
            raise ConfigError(f"{self.name} has no weights; found weights: {weights!r}. Remove the line.")
        read_precision(self.name, precision)
        self.options = read_options(self.name, self.allowed, options)

    def load(self, device: str) -> None:
        """Nothing to load, on any device."""

    def _describe(self, preprocessing: str, outputs: dict[str, int], input_shape: tuple[int, ...]) -> EncoderSpec:
        """The spec of float32 inputs; there is nothing to find."""
        return EncoderSpec(
            name=self.name, weights="none", weights_sha256="", revision="", preprocessing=preprocessing,
            precision="fp32", outputs=outputs, input_shape=input_shape, input_dtype="float32",
            code_version=self.code_version, options=dict(self.options), cannot_see=self.cannot_see, roles=self.roles,
        )  # fmt: skip

    def describe(self, preprocessing: str, outputs: dict[str, int], input_shape: tuple[int, ...]) -> EncoderSpec:
        """The same, for plug-ins. preprocessing: a word for what `prepare` does; another one, other stored features."""
        return self._describe(preprocessing, outputs, input_shape)
