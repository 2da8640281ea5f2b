"""What the utility suite may be told: what to train, on which mixture of images, and how to test it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from chexray.config.base import Strict, groups, once, words


def _model(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ModelConfig(Strict):
    """The classifier: any timm network."""

    name: str = "resnet50"
    weights: str = "pretrained"
    """What it starts from: pretrained (timm's own for the model), a hub id, a path, a URL, or none."""


class UtilityConfig(Strict):
    """Classifiers of the 14 findings, trained on mixtures of `training` and `synthetic`, tested on `real`.

    Every setting meets the same test set, the same validation patients (split off `training`) and the same budget.
    """

    settings: Annotated[list[str], BeforeValidator(words), AfterValidator(once)] = Field(
        default=["real", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real"], min_length=1
    )
    """real, synthetic, mixed (half replaced), mixed_10 (10 % replaced), augmented, pretrain_synthetic_finetune_real,
    as_is (the given weights are tested and nothing is trained)."""
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = []
    """Shares of the real training images replaced by synthetic ones: a setting `mixed_<percent>` each."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Trainings of each setting. Of one, no interval holds their spread, and no difference is claimed."""
    model: Annotated[ModelConfig, BeforeValidator(_model)] = ModelConfig()
    image_size: int = Field(default=224, ge=16, le=1024)
    resize: Literal["squash", "cover"] = "squash"
    epochs: int = Field(default=20, ge=1, le=10_000)
    budget: Literal["images", "epochs"] = "images"
    """`images`: an epoch shows as many images as the real training set has, in every setting, so that none is trained
    longer than another. `epochs`: one pass over the setting's own images."""
    batch_size: int = Field(default=64, ge=1)
    """Images a step, over all workers together."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    plateau_factor: float = Field(default=0.1, gt=0, lt=1)
    plateau_patience: int = Field(default=2, ge=0)
    patience: int = Field(default=0, ge=0)
    """Epochs without a better validation AUROC after which a training stops; 0 for never."""
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    pos_weight: Literal["none", "balanced"] = "none"
    grad_clip: float = Field(default=0.0, ge=0)
    select: Literal["auroc", "loss"] = "auroc"
    """Which epoch is kept: the one of the highest validation AUROC, macro, or of the lowest validation loss."""
    augment: Literal["none", "standard", "chexgenbench"] = "standard"
    """`standard` has no horizontal flip, which would move the heart to the other side; `chexgenbench` has."""
    uncertain: Literal["zeros", "ones", "ignore"] | None = None
    """What a label of -1 counts as; by default as `label_policy` says."""
    unmentioned: Literal["zeros", "ignore"] | None = None
    """What a finding counts as that the report does not mention; by default as `label_policy` says."""
    pretrain_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the budget that pretrain_synthetic_finetune_real spends on synthetic images."""
    validation_fraction: float = Field(default=0.1, gt=0, le=0.5)
    """Share of the training images, by whole patients, that choose the best epoch and the thresholds."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    workers: int | Literal["auto"] = "auto"
    """Training processes: one a GPU, or one a machine without GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the test patients behind every interval."""
    subgroups: Annotated[list[str | dict[str, Any]] | None, BeforeValidator(words), AfterValidator(groups)] = None
    """Columns of the test set whose groups are compared; by default the run's `subsets`, or sex, view and age."""
    faithfulness: bool = True
    """Whether synthetic images show what was asked for, as the classifier trained on real ones sees it."""
    figures: bool = True
    tensorboard: bool = False

    @property
    def how_fast(self) -> set[str]:
        """Fields that say where and how fast, not what."""
        return {"workers", "device"}
