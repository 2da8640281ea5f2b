"""The whole run config: validated, immutable, and back to YAML that runs again."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from chexray.config.addresses import place_problem
from chexray.config.base import Strict, groups, split_list, unique
from chexray.config.machine import EncodeConfig, RayConfig, StorageConfig
from chexray.config.named import EncoderConfig, MetricConfig, SetConfig, named, one_set, several_sets
from chexray.config.privacy import PrivacyConfig
from chexray.config.secrets import STORAGE_SECRETS, problem_of
from chexray.config.utility import UtilityConfig
from chexray.config.yaml_text import walk
from chexray.suite_names import ENCODING, PRIVACY, UTILITY, Suite, default_suite
from chexray.text import quoted, shown


class RunConfig(Strict):
    """One evaluation: a real set, one or more synthetic sets, encoders, metrics and subsets.

    The privacy suite asks whether `synthetic` reveals images of `training`, with `heldout` as the baseline. Without
    `training`, the real set is taken to be the generator's training set; with it, the real set is the held-out set.
    With `training` and no real set, the run is of the privacy suite alone.
    The utility suite trains on `training` and `synthetic`, and tests on the real set.
    """

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run, the first part of its folder's name."""
    suite: Annotated[list[Suite], BeforeValidator(split_list), AfterValidator(unique)] = Field(
        default=["fidelity"], min_length=1
    )
    """What to compute: `fidelity`, `privacy`, `utility`, or several. Default: `fidelity`, or `privacy` where `training`
    is given and `real` is not."""
    protocol: str = "standard"
    """Named preset: `standard`, or `chexgenbench` for numbers that are comparable with the published tables."""
    real: Annotated[SetConfig | None, BeforeValidator(one_set)]
    """The real set: what synthetic images are compared with, and what the utility suite tests on. Not needed where
    `training` is given and only privacy is asked for."""
    synthetic: Annotated[list[SetConfig], BeforeValidator(several_sets)] = Field(min_length=1)
    """The synthetic sets: a path, a list of sets, or a mapping of name to set."""
    training: Annotated[SetConfig | None, BeforeValidator(one_set)] = None
    """Privacy: the images that the generator was trained on; default: the real set. Utility: the real images to train
    on."""
    heldout: Annotated[SetConfig | None, BeforeValidator(one_set)] = None
    """Privacy: real images of other patients, which the generator never saw. Default: the real set, if `training` is
    given."""
    encoders: Annotated[list[EncoderConfig], BeforeValidator(named)] = []
    """Encoders: names, or mappings with a name and options."""
    metrics: Annotated[list[MetricConfig], BeforeValidator(named)] = Field(
        default_factory=lambda: [MetricConfig(name=name) for name in ("fid", "fid_infinity", "kid", "prdc", "cmmd")],
        min_length=1,
    )
    """Fidelity metrics: names, or mappings with a name and parameters."""
    subsets: Annotated[list[str | dict[str, Any]], BeforeValidator(split_list), AfterValidator(groups)] = ["all"]
    """Subsets that get numbers of their own: `all`, `findings`, a column such as `sex`, or `{column: age, bins: [40,
    60]}`."""
    image_root: str | None = None
    """Folder below which tables name their images by absolute path, with `../` or by name. Used for each set that has
    no `image_root` of its own, before the table's own folder."""
    label_policy: Literal["u_zeros", "u_ones", "u_ignore"] = "u_zeros"
    """How uncertain labels (-1) are read: as negative, as positive, or not at all."""
    output: str = Field(default="out", min_length=1)
    """Folder, or s3://, gs:// or az:// URL, for run folders, features and trained classifiers."""
    feature_store: str | None = None
    """Folder for features, which runs share. Default: `features/` in `output`."""
    limit: int | None = Field(default=None, ge=1)
    """Largest number of images of each set."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    floor: bool = True
    """Compute the real floor of each number. About doubles the time of the reduce stage."""
    privacy: PrivacyConfig = PrivacyConfig()
    """Settings of the privacy suite."""
    utility: UtilityConfig = UtilityConfig()
    """Settings of the utility suite."""
    encode: EncodeConfig = EncodeConfig()
    """How images become features."""
    storage: StorageConfig = StorageConfig()
    """How S3 is reached."""
    ray: RayConfig = RayConfig()
    """Where the run computes."""

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: object) -> object:
        """config.yaml and the results repeat settings, so none may hold a password, a key or a signed location. And
        workers must reach the places that settings name."""
        for path, value in walk(data, "config"):
            if problem := problem_of(path, value) or place_problem(path, value):
                raise ValueError(problem)
        return data

    @model_validator(mode="before")
    @classmethod
    def _without_real(cls, data: object) -> object:
        """`real` is there, or it is null because privacy alone is asked of `training`, or it is missing."""
        if not isinstance(data, dict) or data.get("real") is not None:
            return data
        data = {key: value for key, value in data.items() if key != "real"}
        if data.get("training") is None:
            return data
        suite = split_list(data.get("suite", [default_suite(data)]))
        return {**data, "suite": suite, "real": None} if suite == [PRIVACY] else data

    @model_validator(mode="after")
    def _distinct(self) -> RunConfig:
        if not self.encoders and self.encoding_suites:
            raise ValueError("encoders: the list is empty, and fidelity and privacy compare what an encoder sees")
        for item in (self.real, self.training, self.heldout):
            if item is not None and item.suites is not None:
                raise ValueError(
                    f"suites of {shown(item.name) or 'a real set'}: only synthetic sets choose; drop the key"
                )
        labels = [encoder.label for encoder in self.encoders]
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"two encoders are called {quoted(max(labels, key=labels.count))}: give one of them an `id`"
            )
        return self

    @property
    def devices(self) -> set[str]:
        """What the suites of this run encode and train on: auto, cpu, cuda. Utility alone encodes nothing but sizes."""
        training = {self.utility.device} if UTILITY in self.suite else set()
        return training | ({self.encode.device} if self.encoding_suites else set())

    @property
    def encoding_suites(self) -> list[Suite]:
        """The suites of this run that compare what encoders see."""
        return [suite for suite in self.suite if suite in ENCODING]

    def to_yaml(self) -> str:
        """YAML that runs again. Secrets are left out: they come from the environment."""
        data = self.model_dump(mode="json", exclude={"storage": STORAGE_SECRETS}, exclude_defaults=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    @property
    def fingerprint(self) -> str:
        """10 hex digits over what determines the numbers; where and how fast they are computed is left out."""
        data = self.model_dump(
            mode="json", exclude={"output", "feature_store", "encode", "storage", "ray"}, exclude_defaults=True
        )
        data["max_pixels"] = self.encode.max_pixels
        for key in self.utility.how_fast & set(data.get("utility", {})):
            del data["utility"][key]
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=5).hexdigest()
