"""Whether a network is the published one: a published number may stand beside its numbers then, and only then.

An encoder that has published numbers says by `unlike_released()` why it is another network whatever its weights: its
architecture, pooling, preprocessing or precision. Its weights are known by their sha256, by the commit of the hub
repository they were fetched from, or by the user's word.
"""

from __future__ import annotations

import re

from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.network import NetworkEncoder
from chexray.errors import ConfigError
from chexray.text import quoted

RELEASED = "released"
"""What `weights_are` of an encoder's config may say, and what the param of that name begins with."""

_COMMIT = re.compile("[0-9a-f]{40}")


def likeness(encoder: Encoder, spec: EncoderSpec, word: str | None = None) -> dict[str, str]:
    """{"weights_are": "released NAME, by ..."} for the published network of that name, {"network_differs": why} for
    another one. The name is the encoder's own: a config may call it by any other.

    Empty where nothing is known, and for encoders without published numbers. word: what the config says of the weights.
    Class attributes of the encoder: released_sha256 (of the file, a tuple) and released_repository, whose every commit
    holds the published weights.
    """
    if not isinstance(encoder, NetworkEncoder) or spec.is_random or (why := encoder.unlike_released()) is None:
        return {}
    if why:
        return {"network_differs": why}
    if spec.weights_sha256 in encoder.released_sha256:
        return {"weights_are": f"{RELEASED} {spec.name}, by sha256"}
    repository = encoder.released_repository
    if repository and spec.weights.partition("@")[0] == repository and _COMMIT.fullmatch(spec.revision):
        return {"weights_are": f"{RELEASED} {spec.name}, by hub revision {spec.revision[:12]}"}
    return {"weights_are": f"{RELEASED} {spec.name}, by the config's word"} if word == RELEASED else {}


def check_word(encoder: Encoder, spec: EncoderSpec, word: str | None, label: str) -> None:
    """Raises ConfigError where the config calls weights released that cannot be."""
    if word is None:
        return
    what = f"encoder {quoted(label)}: weights_are: {word}"
    why = encoder.unlike_released() if isinstance(encoder, NetworkEncoder) else None
    if why is None:
        raise ConfigError(f"{what}, and no published numbers are known for {spec.name}. Drop the key.")
    if spec.is_random:
        raise ConfigError(f"{what}, and its weights are {quoted(spec.weights)}. Drop the key, or give the weights.")
    if why:
        raise ConfigError(f"{what}, and the network is not the published one: {why}. Drop the key, or correct these.")
