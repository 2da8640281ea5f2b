"""What a run config may say: validated, immutable models, and back to YAML that runs again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from chexray.config.base import Strict, groups, once, words
from chexray.config.secrets import problem_of
from chexray.config.utility import UtilityConfig
from chexray.config.yaml_text import walk
from chexray.text import quoted, shown

Suite = Literal["fidelity", "privacy", "utility"]


class SetConfig(BaseModel):
    """One set of images. Keys other than these are the source's own (`chexray ls sources` names them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = ""
    """What the set is called in the results; by default the stem of its path."""
    source: str = ""
    """A registered source; inferred from the path when empty."""
    on_duplicate: Literal["error", "first"] = "error"
    """What to do with a second row of the same id: refuse the set, or keep the first row and count the others."""
    bits: int | None = None
    """What black and white are in its images of more than 8 bits: 12 for 0 to 4095, -12 for -2048 to 2047, 1 for floats
    from 0 to 1. By default what the files declare, else the smallest of 8, 10, 12, 14 and 16 that holds a sample."""
    suites: Annotated[list[Suite] | None, BeforeValidator(words)] = None
    """Synthetic sets: the suites that read it, by default all. Fidelity wants images of test prompts, privacy several
    seeds of training prompts, utility one image a training prompt."""

    @field_validator("bits")
    @classmethod
    def _is_a_depth(cls, value: int | None) -> int | None:
        if value is not None and value != 1 and not 8 <= abs(value) <= 32:
            raise ValueError(
                f"{value} is no depth: expected 8 to 32, -8 to -32 for signed values, or 1 for floats to 1"
            )
        return value

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncoderConfig(BaseModel):
    """One encoder. Keys other than these are the encoder's own options, such as `resize` or `side`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    id: str = ""
    """The name in the results; needed only to tell two uses of one encoder apart."""
    weights: str | None = None
    """A hub id, a local path, an fsspec URL, or `random:SEED` (then shouted in every summary)."""
    weights_are: Literal["released"] | None = None
    """Your word that local weights are the published ones, where neither a hash nor a hub revision says so: the paper's
    values are then shown beside yours."""
    precision: Literal["fp32", "bf16"] = "fp32"
    suites: Annotated[list[Suite] | None, BeforeValidator(words)] = None
    """The suites that read it; by default all that can. `suites: [privacy]` keeps fidelity numbers off its features."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        return self.id or self.name


class MetricConfig(BaseModel):
    """One metric. Keys other than `name` are its parameters, such as `k` of prdc."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def named(value: Any) -> Any:
    """`a,b` or `[a, {name: b, k: 3}]` to a list of mappings with a name."""
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, Sequence):
        return value
    return [{"name": item.strip()} if isinstance(item, str) else item for item in items]


def one_set(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def several_sets(value: Any) -> Any:
    """A path, a mapping, a list of either, or a mapping of name to set."""
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        is_options = bool(set(value) & {"path", "source", "columns"})
        if not is_options:
            return [{"name": name, **item} for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    return [one_set(item) for item in items]


class EncodeConfig(Strict):
    """How images become features. None of it changes a number beyond the last bits; `auto` suits the machine."""

    batch_size: int | Literal["auto"] = Field(default="auto", description="images an encoder sees at once")
    chunk_size: int | Literal["auto"] = Field(default="auto", description="images a commit; what a crash can cost")
    actors: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    layout: Literal["auto", "fused", "split"] = "auto"
    """`split` decodes in tasks of their own, so that a GPU does not wait for Pillow; `fused` saves the copy on CPUs."""
    io_threads: int = Field(default=16, ge=1, le=256)
    max_pixels: int = Field(default=64_000_000, ge=1)
    max_reject_fraction: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _positive(self) -> EncodeConfig:
        for key in ("batch_size", "chunk_size", "actors"):
            value = getattr(self, key)
            if value != "auto" and value < 1:
                raise ValueError(f"{key} is {value}: it must be at least 1, or 'auto'")
        return self


class StorageConfig(Strict):
    """S3 settings; what is empty comes from the environment, the profile, or the pod's web identity."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anon: bool = False
    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """Server-side encryption that every write asks for; None sends no header, and the bucket's own setting holds."""
    sse_kms_key_id: str | None = None
    """The KMS key of `aws:kms`: id, ARN or alias; by default the account's key for S3. No secret."""
    requester_pays: bool = False
    """Agree to pay for requests to a bucket that charges whoever asks."""
    retries: int = Field(default=4, ge=0, le=20)
    timeout_s: float = Field(default=30.0, gt=0)

    @model_validator(mode="after")
    def _key_fits_sse(self) -> StorageConfig:
        if self.sse_kms_key_id and not (self.sse or "").startswith("aws:kms"):
            raise ValueError("sse_kms_key_id needs sse: aws:kms (or aws:kms:dsse)")
        return self

    @field_validator("endpoint_url")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        try:
            fits = not value or (urlsplit(value).hostname and (urlsplit(value).port or 1))
        except ValueError:  # brackets or a port that are none
            fits = False
        if not fits:
            raise ValueError("expected https://host:port, or http:// for a server without TLS")
        return value


class RayConfig(Strict):
    """Where to run: RAY_ADDRESS (or `address`) joins a cluster, otherwise a local one is started and ended."""

    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of a local Ray, by default those that this process may use: its affinity, or its CPU quota if less."""
    temp_dir: str | None = Field(default=None, min_length=1)
    """Folder for a local Ray's files, with a path of at most 27 characters; by default RAY_TMPDIR, TMPDIR or /tmp."""
    object_store_gb: float | None = Field(default=None, gt=0)
    cpus: int | None = Field(default=None, ge=1)
    """How far a joined cluster may grow. The run asks its autoscaler for so much, starts once one CPU (and one GPU,
    where `gpus` is set) is there, and gives the request back when it needs no more."""
    gpus: int | None = Field(default=None, ge=1)
    wait_s: float = Field(default=900, ge=0)
    """Seconds to wait for them."""


class PrivacyConfig(Strict):
    """What the privacy suite asks. Which encoder does what follows from what it can do: one with a pair score gives
    re-identification, one with a mirrored hash gives duplicates, the others a space to search for copies in."""

    pairs: str = "auto"
    """Which real image each synthetic one is held against: same_prompt, same_id, none, or a table's path."""
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.85, 0.95]
    """Re-identification scores above which prompts are counted, beside a calibrated one."""
    alpha: float = Field(default=0.01, gt=0, le=0.2)
    """Share of images without a copy that the memorisation search may flag, in each encoder's space."""
    search: Annotated[list[str] | None, BeforeValidator(words)] = None
    """Encoders to search for copies in; by default all of the suite but re-identification and hashes."""
    latent: Annotated[list[str] | None, BeforeValidator(words)] = None
    """Encoders of the latent distance of pairs; by default those of `search` that have weights, or else all of them."""
    duplicates: bool = True
    near_bits: int | None = Field(default=None, ge=0, le=64)
    """Hamming distance up to which two perceptual hashes are near duplicates; by default the encoder's own."""
    views: bool = True
    """Also search among turned and cropped versions of the real images, in spaces that need no weights: about 15 times
    the work of the plain search there, and the same rate of false flags."""
    planted: int = Field(default=40, ge=0, le=400)
    """Training images that the run alters and searches for, to say which altered copies it would find; 0 for none."""
    pixel_distance: bool = True
    peers: bool = True
    """Also AuthPct, C_T and NNAA, for comparison with other tools."""


class RunConfig(Strict):
    """One evaluation: a real set, one or more synthetic sets, encoders, metrics and subsets.

    The privacy suite asks whether `synthetic` gives `training` away, with `heldout` as the null. Without `training` the
    real set is taken to be what the generator learned from; with it, the real set is what it never saw.
    The utility suite trains on `training` and `synthetic`, and tests on the real set.
    """

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    suite: Annotated[list[Suite], BeforeValidator(words), AfterValidator(once)] = Field(
        default=["fidelity"], min_length=1
    )
    protocol: str = "standard"
    real: Annotated[SetConfig, BeforeValidator(one_set)]
    synthetic: Annotated[list[SetConfig], BeforeValidator(several_sets)] = Field(min_length=1)
    training: Annotated[SetConfig | None, BeforeValidator(one_set)] = None
    """Privacy: the images the generator learned from, by default the real set. Utility: the real images to train on."""
    heldout: Annotated[SetConfig | None, BeforeValidator(one_set)] = None
    """Privacy: real images of other patients that it never saw; by default the real set when `training` is given."""
    encoders: Annotated[list[EncoderConfig], BeforeValidator(named)] = []
    metrics: Annotated[list[MetricConfig], BeforeValidator(named)] = Field(
        default_factory=lambda: [MetricConfig(name=name) for name in ("fid", "fid_infinity", "kid", "prdc", "cmmd")],
        min_length=1,
    )
    subsets: Annotated[list[str | dict[str, Any]], BeforeValidator(words), AfterValidator(groups)] = ["all"]
    image_root: str | None = None
    """A folder below which tables may name images by absolute paths, with `../` or by name: looked at before a table's
    own folder, for each set without an `image_root` of its own."""
    label_policy: Literal["u_zeros", "u_ones", "u_ignore"] = "u_zeros"
    output: str = Field(default="out", min_length=1)
    feature_store: str | None = None
    """Where features are kept and shared between runs; by default `features/` in `output`."""
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    floor: bool = True
    """Compute the real-against-real floor beside each number (about doubles the cost of the reduce stage)."""
    privacy: PrivacyConfig = PrivacyConfig()
    utility: UtilityConfig = UtilityConfig()
    encode: EncodeConfig = EncodeConfig()
    storage: StorageConfig = StorageConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, data: Any) -> Any:
        """config.yaml and the results repeat settings, so none may hold a password, a key or a signed location."""
        for path, value in walk(data, "config"):
            if problem := problem_of(path, value):
                raise ValueError(problem)
        return data

    @model_validator(mode="after")
    def _distinct(self) -> RunConfig:
        if not self.encoders and self.suite != ["utility"]:
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
        training = {self.utility.device} if "utility" in self.suite else set()
        return training | ({self.encode.device} if self.suite != ["utility"] else set())

    def to_yaml(self) -> str:
        """YAML that runs again. Secrets are left out: they come from the environment."""
        data = self.model_dump(mode="json", exclude={"storage": {"key", "secret", "token"}}, exclude_defaults=True)
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
