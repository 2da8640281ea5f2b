"""What the utility suite may be told: what to train, on which mixture of images, and how to test it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from chexray.config.base import Strict, groups, split_list, unique


def _model(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class ModelConfig(Strict):
    """The classifier: any timm network."""

    name: str = "resnet50"
    """Name of a timm network."""
    weights: str = "pretrained"
    """Initial weights: `pretrained` (timm's own for the model), a hub id, a path, a URL, or `none`."""


class UtilityConfig(Strict):
    """Classifiers of the 14 findings, trained on mixtures of `training` and `synthetic`, tested on `real`.

    Every setting has the same test set, the same validation patients (split off `training`) and the same budget.
    """

    settings: Annotated[list[str], BeforeValidator(split_list), AfterValidator(unique)] = Field(
        default=["real", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real"], min_length=1
    )
    """Mixtures to train on: `real`, `synthetic`, `mixed` (half of the real images replaced), `mixed_10` (10 %
    replaced), `augmented`, `pretrain_synthetic_finetune_real`, or `as_is` (the given weights are tested, nothing is
    trained)."""
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = []
    """Shares of the real training images to replace by synthetic ones. Each adds a setting `mixed_<percent>`."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Trainings of each setting. With one, intervals do not include variation over seeds, and no difference is
    claimed."""
    model: Annotated[ModelConfig, BeforeValidator(_model)] = ModelConfig()
    """The network: a name, or `name` and `weights`."""
    image_size: int = Field(default=224, ge=16, le=1024)
    """Side of the images that the classifier reads, in pixels."""
    resize: Literal["squash", "cover"] = "squash"
    """`squash` resizes to a square and ignores the aspect ratio; `cover` keeps it and crops the centre."""
    epochs: int = Field(default=20, ge=1, le=10_000)
    """Epochs of each training."""
    budget: Literal["images", "epochs"] = "images"
    """`images`: an epoch shows as many images as the real training set has, in every setting, so that all settings are
    trained equally long. `epochs`: an epoch is one pass over the setting's own images."""
    batch_size: int = Field(default=64, ge=1)
    """Images in each step, over all workers together."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Optimiser."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Highest learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay."""
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """Learning rate over time. `plateau` multiplies it by `plateau_factor` after `plateau_patience` epochs without
    progress."""
    plateau_factor: float = Field(default=0.1, gt=0, lt=1)
    """Factor of the `plateau` schedule."""
    plateau_patience: int = Field(default=2, ge=0)
    """Epochs without progress after which the `plateau` schedule reduces the learning rate."""
    patience: int = Field(default=0, ge=0)
    """Epochs without a better validation score after which a training stops. 0: never."""
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    """Binary cross-entropy, focal loss (Lin et al. 2017) or asymmetric loss (Ridnik et al. 2021)."""
    pos_weight: Literal["none", "balanced"] = "none"
    """`balanced` weighs positive labels by the ratio of negative to positive ones, at most 20."""
    grad_clip: float = Field(default=0.0, ge=0)
    """Largest norm of the gradient. 0: no clipping."""
    select: Literal["auroc", "loss"] = "auroc"
    """Epoch that is kept: the one with the highest macro AUROC, or the lowest loss, on validation images."""
    augment: Literal["none", "standard", "chexgenbench"] = "standard"
    """Augmentation of training images. `standard` has no horizontal flip, which would move the heart to the other side;
    `chexgenbench` has."""
    uncertain: Literal["zeros", "ones", "ignore"] | None = None
    """How a label of -1 is read. Default: as `label_policy` says."""
    unmentioned: Literal["zeros", "ignore"] | None = None
    """How a finding is read that the report does not mention. Default: as `label_policy` says."""
    pretrain_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the budget that `pretrain_synthetic_finetune_real` spends on synthetic images."""
    validation_fraction: float = Field(default=0.1, gt=0, le=0.5)
    """Share of the training images, by whole patients, that is held back to choose the epoch and the thresholds."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the training. `auto` is bf16 on a GPU. On a CPU it is always fp32."""
    workers: int | Literal["auto"] = "auto"
    """Training processes: one for each GPU, or one for each machine without GPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training. `auto` uses GPUs if the cluster has them."""
    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of the test patients behind every interval."""
    subgroups: Annotated[list[str | dict[str, Any]] | None, BeforeValidator(split_list), AfterValidator(groups)] = None
    """Columns of the test set whose groups are compared. Default: the run's `subsets`, or sex, view and age."""
    faithfulness: bool = True
    """Measure whether synthetic images show the findings that were asked for, with the classifier trained on real
    images."""
    figures: bool = True
    """Write curves as pictures to `figures/`."""
    tensorboard: bool = False
    """Write event files for TensorBoard."""

    @property
    def how_fast(self) -> set[str]:
        """Fields that say where and how fast, not what."""
        return {"workers", "device"}
