"""Networks and images of the check: nothing is downloaded and no file is read."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpu.check import Check

SMALL_VIT = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 224, "patch_size": 14}
TINY_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
SEED = {"weights": "random:0"}


def networks(check: Check) -> dict[str, dict[str, Any]]:
    """{name: options of the encoder, its registry name under `name`}"""
    vit = check.choose(full={}, quick={"architecture": SMALL_VIT}, tiny={"architecture": TINY_VIT})
    found = {"rad_dino": {"name": "rad_dino", **SEED, **vit}}
    if check.size == "tiny":
        return found
    return found | {
        "inception_v3": {"name": "inception_v3", **SEED},
        "siamese_reid": {"name": "siamese_reid", **SEED},
        "efficientnet-lite0 (trained)": {"name": "timm_vision", "weights": "package:efficientnet-lite0"},
    }


def build(options: dict[str, Any], precision: str, device: str) -> Any:
    """An encoder that is ready to encode."""
    from chexray.registry import find

    given = {key: value for key, value in options.items() if key != "name"}
    encoder = find("encoders", options["name"])(precision=precision, **given)
    encoder.resolve()
    encoder.load(device)
    return encoder


@cache
def phantoms(generator: str, n: int, size: int) -> list[np.ndarray]:
    """n phantom radiographs, (size, size) uint8."""
    from chexray.phantom import draw

    return [draw(index, generator=generator, seed=1, size=size).image for index in range(n)]


@cache
def jpegs(n: int, side: int) -> list[bytes]:
    """n radiographs of `side` pixels as JPEG files, a few phantoms enlarged and repeated."""
    from PIL import Image

    found = []
    for image in phantoms("real", min(n, 4), min(side, 512)):
        out = io.BytesIO()
        Image.fromarray(image).resize((side, side)).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return [found[index % len(found)] for index in range(n)]
