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

from chexray.encoders.resize import PILLOW, centre_crop, cover, grey, pil_resize
from chexray.errors import WeightsError

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbering, which preprocessor_config.json uses."""

_EDGE = {"Bit", "CLIP"}
_SQUARE = {"ViT", "DeiT", "Beit", "Siglip"}
_CROPS = {"Bit", "CLIP", "DeiT"}
_CONVNEXT_SQUASH = 384
"""From this size on ConvNeXT squashes the image instead of cropping it."""


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
    if family == "ConvNext":
        steps = _convnext(config, where)
    elif family in _EDGE | _SQUARE:
        steps = _resize_and_crop(config, family, where)
    else:
        known = ", ".join(f"{name}ImageProcessor" for name in sorted(_EDGE | _SQUARE | {"ConvNext"}))
        raise WeightsError(f"{where}: image processor {kind!r} is not one chexray reproduces. Supported: {known}.")
    if steps[-1][0] == "cover":
        raise WeightsError(
            f"{where}: no centre crop, so images would differ in shape. Set do_center_crop and crop_size."
        )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        mean, std = (_three(config, key, where) for key in ("image_mean", "image_std"))
    divisor = 1.0
    if config.get("do_rescale", True):
        exact = 1 / float(config.get("rescale_factor", 1 / 255))
        divisor = float(round(exact)) if abs(exact - round(exact)) < 1e-6 else exact
    return Preprocessing(steps, mean, std, divisor)


def _resize_and_crop(config: Mapping[str, Any], family: str, where: str) -> tuple[tuple[Any, ...], ...]:
    steps: list[tuple[Any, ...]] = []
    if config.get("do_resize", True):
        size = _need(config, "size", where)
        filter_name = _filter(config, where)
        if isinstance(size, int):  # before transformers 4.26: the shorter side for some processors, both for others
            size = {"shortest_edge": size} if family in _EDGE else {"height": size, "width": size}
        if "shortest_edge" in size and len(size) == 1:
            steps.append(("cover", int(size["shortest_edge"]), filter_name))
        elif {"height", "width"} == set(size):
            steps.append(("squash", int(size["height"]), int(size["width"]), filter_name))
        else:
            raise WeightsError(f"{where}: size {size} is not supported. Use shortest_edge, or height and width.")
    if config.get("do_center_crop", family in _CROPS):
        crop = _need(config, "crop_size", where)
        height, width = (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))
        smallest = steps[-1][1:-1] if steps else (0,)
        if min(smallest) < max(height, width):
            raise WeightsError(
                f"{where}: the crop {height}x{width} is larger than the resized image; nothing is padded."
            )
        steps.append(("crop", height, width))
    if not steps:
        raise WeightsError(f"{where}: neither resize nor crop, so images would differ in shape. Set do_resize.")
    return tuple(steps)


def _convnext(config: Mapping[str, Any], where: str) -> tuple[tuple[Any, ...], ...]:
    size, resample = _need(config, "size", where), _filter(config, where)
    side = size if isinstance(size, int) else int(_need(size, "shortest_edge", where))
    if side >= _CONVNEXT_SQUASH:
        return (("squash", side, side, resample),)
    return (("cover", int(side / config.get("crop_pct", 224 / 256)), resample), ("crop", side, side))


def _filter(config: Mapping[str, Any], where: str) -> str:
    index = _need(config, "resample", where)
    if not isinstance(index, int) or not 0 <= index < len(_RESAMPLE):
        raise WeightsError(f"{where}: resample {index!r} is none of Pillow's filters 0..{len(_RESAMPLE) - 1}.")
    return _RESAMPLE[index]


def _three(config: Mapping[str, Any], key: str, where: str) -> tuple[float, ...]:
    values = _need(config, key, where)
    values = tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values] * 3))
    if len(values) != 3:
        raise WeightsError(f"{where}: {key} has {len(values)} values; expected 3.")
    return values


def _need(config: Mapping[str, Any], key: str, where: str) -> Any:
    if config.get(key) is None:
        raise WeightsError(f"{where} does not say {key!r}, and defaults differ between versions. Add it to the file.")
    return config[key]
