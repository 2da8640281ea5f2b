"""What the privacy suite may be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from chexray.config.base import Strict, split_list


class PrivacyConfig(Strict):
    """Settings of the privacy suite. What an encoder can do decides its use: an encoder that scores pairs gives
    re-identification, a perceptual hash gives duplicates, any other gives a space to search for copies in."""

    pairs: str = "auto"
    """Real image that each synthetic image is paired with: `same_prompt`, `same_id`, `none`, or the path of a table
    with `real_id` and `synthetic_id`. `auto` takes the first that the sets allow."""
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.85, 0.95]
    """Re-identification scores above which prompts are counted, in addition to a calibrated one."""
    alpha: float = Field(default=0.01, gt=0, le=0.2)
    """Share of images without a copy that the search for copies may flag, for each encoder."""
    search: Annotated[list[str] | None, BeforeValidator(split_list)] = None
    """Encoders to search for copies with. Default: all of the suite except re-identification and hashes."""
    latent: Annotated[list[str] | None, BeforeValidator(split_list)] = None
    """Encoders for the latent distance of pairs. Default: those of `search` that have weights, or all if none has."""
    duplicates: bool = True
    """Search for exact and near duplicates."""
    near_bits: int | None = Field(default=None, ge=0, le=64)
    """Largest Hamming distance of two perceptual hashes that are near duplicates. Default: the encoder's own."""
    views: bool = True
    """Also search among rotated and cropped versions of the real images, with encoders that need no weights. Takes
    about 15 times the work of the plain search with these encoders, at the same rate of false flags."""
    planted: int = Field(default=40, ge=0, le=400)
    """Training images that the run alters and searches for, to report which altered copies it would find. 0 for
    none."""
    pixel_distance: bool = True
    """Compute the pixel distance of pairs."""
    peers: bool = True
    """Compute AuthPct, C_T and NNAA too, for comparison with other tools."""
