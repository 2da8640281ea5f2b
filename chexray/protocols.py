"""Named presets: what a number must share with others to stand beside them. Every quirk lives here, with its reason.

`standard` is right. `chexgenbench` repeats the published benchmark's preprocessing and parameters
(Dutta et al., arXiv 2505.10496; its code at commit 9a201c1) so that a number may stand beside its tables.
Neither touches the maths. What upstream does by accident (averaged shards, black images for unreadable files, rounded
values, statistics of the wrong image) is not reproduced by either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from chexray.errors import ConfigError
from chexray.spelling import suggestion
from chexray.text import quoted


@dataclass(frozen=True)
class Protocol:
    """encoder_options, metric_options: settings this protocol fixes, by registry name. A config that contradicts one is
    refused, since the protocol's name would no longer be true. privacy_encoder_options: the same for encoders that only
    the privacy suite reads. utility_options: the same for the settings of the utility suite.

    deduplicate_real_prompts: keep the first real image of each distinct prompt.
    wrapped_pixel_distance: also report upstream's pixel distance, which is wrong, under a name of its own.
    absent_count_as_zero: also report macro F1, precision and recall at 0.5 over all 14 findings, where one without a
    positive test image counts as 0.
    subsets_by_prompt: a synthetic image is in a finding's subset when the first real image of its prompt is, whatever
    labels it has itself. label_policy: the only one that is allowed, None for any.
    precision: what `precision: auto` means, None where the machine decides.
    inherit: how a synthetic image without labels gets them from real images of its prompt: only what they all share
    ("agree"), or the first one's ("first").
    """

    name: str
    summary: str
    inherit: Literal["agree", "first"] = "agree"
    deduplicate_real_prompts: bool = False
    encoder_options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    privacy_encoder_options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    utility_options: Mapping[str, Any] = field(default_factory=dict)
    metric_options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    wrapped_pixel_distance: bool = False
    absent_count_as_zero: bool = False
    subsets_by_prompt: bool = False
    label_policy: str | None = None
    precision: str | None = None
    notes: tuple[str, ...] = field(default=())


PROTOCOLS = {
    "standard": Protocol(
        name="standard", summary="native-resolution preprocessing, every image counts, exact KID with its error"
    ),
    "chexgenbench": Protocol(
        name="chexgenbench",
        summary="upstream's preprocessing, prompt de-duplication and KID subset size (arXiv 2505.10496)",
        # fid.py:170 reduces the real set, but not the synthetic one, to distinct prompts.
        deduplicate_real_prompts=True,
        # fid.py:214 picks synthetic images by prompt text; labels come from the first row of that prompt.
        inherit="first",
        subsets_by_prompt=True,
        # fid.py (finding == 1) and downstream_classification.py:65 take uncertain findings for absent ones.
        label_policy="u_zeros",
        # fid.py and privacy_metrics.py run every network in float32.
        precision="fp32",
        encoder_options=MappingProxyType(
            {
                # fid.py:235: Pillow squashes every image to 299 x 299, whatever its aspect.
                "inception_v3": {"resize": "pil_bilinear"},
                # fid.py:285: the 299 px image then goes through RadDINO's processor, which enlarges it to 518.
                "rad_dino": {"route": "cgb299"},
            }
        ),
        privacy_encoder_options=MappingProxyType(
            {
                # privacy_metrics.py:521: real images are squashed to 512 x 512 first; another space than fid.py's.
                "rad_dino": {"route": "cgb512"},
                # privacy_metrics.py:526: 224 x 224 without the normalisation the network was trained with.
                "siamese_reid": {"route": "cgb224"},
            }
        ),
        # Downstream: 224 px, 20 epochs of 768 images a step, Adam, plateau, BCE, threshold 0.5 (arXiv 2505.10496).
        # Its split by image is not repeated: validation patients are ours. Its accuracy over flattened labels stands
        # beside that of a predictor that always says no.
        utility_options=MappingProxyType(
            {
                "image_size": 224,
                "resize": "squash",
                "epochs": 20,
                "budget": "epochs",
                "batch_size": 768,
                "optimizer": "adam",
                "learning_rate": 1e-4,
                "weight_decay": 1e-5,
                "schedule": "plateau",
                "plateau_factor": 0.1,
                "plateau_patience": 2,
                "patience": 0,
                # downstream_classification.py keeps the epoch of the lowest loss on 5 % of the images.
                "select": "loss",
                "validation_fraction": 0.05,
                "loss": "bce",
                "pos_weight": "none",
                # downstream_classification.py mirrors half of the images, so the heart stands on either side.
                "augment": "chexgenbench",
                # downstream_classification.py:65 takes uncertain and unmentioned findings for absent ones.
                "uncertain": "zeros",
                "unmentioned": "zeros",
            }
        ),
        # downstream_inference.py (calculate_metrics) averages over all 14 columns with zero_division=0.
        absent_count_as_zero=True,
        # privacy_metrics.py:429 subtracts bytes, so differences wrap modulo 256: reported beside the true distance.
        wrapped_pixel_distance=True,
        metric_options=MappingProxyType(
            {
                # fid.py:269 sets subset_size to the smaller set, so each "subset" is all of it.
                "kid": {"subsets": 100, "subset_size": "min"},
                # fid.py:276 feeds 2048 pooled features, not logits, to the Inception score.
                "inception_score": {"source": "features"},
            }
        ),
        notes=(
            "chexgenbench repeats upstream's preprocessing and sampling so that numbers may stand beside the paper's; "
            "its Inception score is computed on pooled features and is not comparable elsewhere",
        ),
    ),
}


def protocol(name: str) -> Protocol:
    """The preset called `name`. Raises ConfigError with the nearest name."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise ConfigError(f"unknown protocol {quoted(name)}. {suggestion(name, PROTOCOLS)}")


def check_label_policy(preset: Protocol, asked: str) -> None:
    """Raises ConfigError when a config reads uncertain labels as the protocol does not."""
    if preset.label_policy not in (None, asked):
        raise ConfigError(
            f"protocol {preset.name} fixes label_policy to {preset.label_policy!r}, the config asks for "
            f"{quoted(asked)}. Drop the setting, or use protocol: standard."
        )


def merged(
    fixed: Mapping[str, object], asked: Mapping[str, object], *, what: str, protocol_name: str
) -> dict[str, object]:
    """The protocol's settings with the config's; a contradiction is a ConfigError."""
    for key, value in fixed.items():
        if key in asked and asked[key] != value:
            raise ConfigError(
                f"protocol {protocol_name} fixes {what}.{key} to {value!r}, the config asks for {quoted(asked[key])}. "
                "Drop the setting, or use protocol: standard."
            )
    return {**asked, **fixed}
