"""A pretrained network's own preprocessing, done by hand with Pillow so that no library upgrade can change it.

transformers 5 resizes with torchvision by default, which moves RAD-DINO features by 1.7e-4 of their norm; done here,
pixels equal those of the Pillow image processors bit by bit. Everything up to uint8 happens in `prepare`; scaling and
normalisation happen on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexray.encoders.fields import Check, checked, flag, means, number, side, spreads, taken, whole
from chexray.encoders.resize import PILLOW, centre_crop, cover, grey, pil_resize
from chexray.errors import WeightsError
from chexray.text import quoted, shown

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbering, which preprocessor_config.json uses."""

_EDGE = {"Bit", "CLIP"}
_SQUARE = {"ViT", "DeiT", "Beit", "Siglip"}
_CROPS = {"Bit", "CLIP", "DeiT"}
_CONVNEXT_SQUASH = 384
"""From this size on ConvNeXT squashes the image instead of cropping it."""
_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), flag),
    "resample": whole(0, len(_RESAMPLE) - 1),
    "rescale_factor": number(1e-6, 1e3),
    "crop_pct": number(0.1, 1),
}


@dataclass(frozen=True)
class Preprocessing:
    """Steps on uint8 greys, then (x / divisor - mean) / std on the device.

    steps: ("squash", height, width, filter) | ("cover", shorter_side, filter) | ("crop" or "crop_even", height, width).
    """

    steps: tuple[tuple[Any, ...], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float = 255.0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a prepared image."""
        _, height, width, *_ = self.steps[-1]
        return height, width

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """One (height, width) uint8 image to `shape`, uint8."""
        image = grey(image)
        for step in self.steps:
            match step:
                case ("squash", height, width, resample):
                    image = pil_resize(image, height, width, resample)
                case ("cover", shorter, resample):
                    image = cover(image, shorter, resample)
                case (crop, height, width):
                    image = centre_crop(image, height, width, half_to_even=crop == "crop_even")
        return image

    def describe(self) -> str:
        """The preprocessing id of the spec, such as "cover-518-bicubic/crop-518-518/255/mean-.../std-.../pillow-12"."""
        steps = "/".join("-".join(map(str, step)) for step in self.steps)
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"{steps}/{self.divisor:.6g}/mean-{mean}/std-{std}/{PILLOW}"


def from_transformers(config: Mapping[str, Any], where: str) -> Preprocessing:
    """What a preprocessor_config.json asks for. Raises WeightsError for a processor or setting not reproduced here."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    family = (
        kind.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    )
    said = taken(config, _CHECKS, where)
    if family == "ConvNext":
        steps = _convnext(config, said, where)
    elif family in _EDGE | _SQUARE:
        steps = _resize_and_crop(config, said, family, where)
    else:
        known = ", ".join(f"{name}ImageProcessor" for name in sorted(_EDGE | _SQUARE | {"ConvNext"}))
        raise WeightsError(
            f"{shown(where)}: image processor {quoted(kind, 80)} is not one chexray reproduces. Supported: {known}."
        )
    if steps[-1][0] == "cover":
        raise WeightsError(
            f"{shown(where)}: no centre crop, so images would differ in shape. Set do_center_crop and crop_size."
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if said.get("do_normalize", True):
        mean = _three(config, "image_mean", means, where)
        std = _three(config, "image_std", spreads, where)
    divisor = 1.0
    if said.get("do_rescale", True):
        exact = 1 / float(said.get("rescale_factor", 1 / 255))
        divisor = float(round(exact)) if abs(exact - round(exact)) < 1e-6 and round(exact) else exact
    return Preprocessing(steps, mean, std, divisor)


def _resize_and_crop(
    config: Mapping[str, Any], said: Mapping[str, Any], family: str, where: str
) -> tuple[tuple[Any, ...], ...]:
    steps: list[tuple[Any, ...]] = []
    if said.get("do_resize", True):
        size = _need(config, "size", where)
        filter_name = _filter(said, where)
        if not isinstance(
            size, dict
        ):  # before transformers 4.26: the shorter side for some processors, both for others
            length = checked(size, side, "size", where)
            size = {"shortest_edge": length} if family in _EDGE else {"height": length, "width": length}
        if set(size) == {"shortest_edge"}:
            steps.append(("cover", checked(size["shortest_edge"], side, "size.shortest_edge", where), filter_name))
        elif set(size) == {"height", "width"}:
            steps.append(("squash", *_height_width(size, "size", where), filter_name))
        else:
            raise WeightsError(
                f"{shown(where)}: size {quoted(size, 80)} is not supported. Use shortest_edge, or height and width."
            )
    if said.get("do_center_crop", family in _CROPS):
        crop: Any = _need(config, "crop_size", where)
        if not isinstance(crop, dict):
            crop = dict.fromkeys(("height", "width"), checked(crop, side, "crop_size", where))
        height, width = _height_width(crop, "crop_size", where)
        smallest = steps[-1][1:-1] if steps else (0,)
        if min(smallest) < max(height, width):
            raise WeightsError(
                f"{shown(where)}: the crop {height}x{width} is larger than the resized image; nothing is padded."
            )
        steps.append(("crop", height, width))
    if not steps:
        raise WeightsError(f"{shown(where)}: neither resize nor crop, so images would differ in shape. Set do_resize.")
    return tuple(steps)


def _convnext(config: Mapping[str, Any], said: Mapping[str, Any], where: str) -> tuple[tuple[Any, ...], ...]:
    size, resample = _need(config, "size", where), _filter(said, where)
    if isinstance(size, dict):
        size = _need(size, "shortest_edge", where)
    length = checked(size, side, "size", where)
    if length >= _CONVNEXT_SQUASH:
        return (("squash", length, length, resample),)
    shorter = int(length / said.get("crop_pct", 224 / 256))
    return (("cover", shorter, resample), ("crop", length, length))


def _height_width(size: Mapping[str, Any], key: str, where: str) -> tuple[int, int]:
    height, width = (checked(size.get(part), side, f"{key}.{part}", where) for part in ("height", "width"))
    return height, width


def _filter(said: Mapping[str, Any], where: str) -> str:
    return _RESAMPLE[_need(said, "resample", where)]


def _three(config: Mapping[str, Any], key: str, check: Check, where: str) -> tuple[float, ...]:
    values = _need(config, key, where)
    if isinstance(values, int | float):
        values = [values] * 3
    return tuple(float(value) for value in checked(values, check, key, where))


def _need(config: Mapping[str, Any], key: str, where: str) -> Any:
    if config.get(key) is None:
        raise WeightsError(
            f"{shown(where)} does not say {key!r}, and defaults differ between versions. Add it to the file."
        )
    return config[key]
