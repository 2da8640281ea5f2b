"""Where a run computes and what it reads from: encoding, storage and Ray. None of it changes a number."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from chexray.config.base import Strict


class EncodeConfig(Strict):
    """How images become features. `auto` fits the machine. No key but `precision` changes a number beyond its last
    bits."""

    batch_size: int | Literal["auto"] = "auto"
    """Images that an encoder processes at once: 64 on a GPU and 16 on a CPU by default."""
    chunk_size: int | Literal["auto"] = "auto"
    """Images that are committed together, the most that a crash of a worker can cost: 256 on a GPU and 64 on a CPU by
    default."""
    actors: int | Literal["auto"] = "auto"
    """Encoder processes: one for each GPU, or one for each CPU core where there is no GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the encoders. `auto` uses GPUs if there are any."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of networks. `bf16`: weights and activations in bfloat16, normalisations and pooled output in float32;
    3 to 10 times faster on GPUs and on CPUs with AMX or AVX512-BF16. `auto`: `bf16` on such machines, once a check of
    64 images in both precisions passes (feature error at most 2 %, shift of FID and KID below a tenth of their
    standard error), else `fp32`. `tf32`: TensorFloat-32 on GPUs. Features of different precisions are stored apart."""
    layout: Literal["auto", "fused", "split"] = "auto"
    """`split` decodes images in separate tasks, so that a GPU does not wait for decoding. `fused` decodes in the
    encoder process, which saves a copy. `auto` is `split` on GPUs and `fused` on CPUs."""
    io_threads: int = Field(default=16, ge=1, le=256)
    """Threads that read images in each worker."""
    max_pixels: int = Field(default=64_000_000, ge=1)
    """Largest image that is decoded, in pixels. A larger one is a reject."""
    max_reject_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of rejected images above which the run fails (exit code 1)."""

    @model_validator(mode="after")
    def _positive(self) -> EncodeConfig:
        for key in ("batch_size", "chunk_size", "actors"):
            value = getattr(self, key)
            if value != "auto" and value < 1:
                raise ValueError(f"{key} is {value}: it must be at least 1, or 'auto'")
        return self


class StorageConfig(Strict):
    """S3 settings. What is empty comes from the environment, the profile, or the pod's web identity."""

    endpoint_url: str | None = None
    """URL of a server other than AWS, such as MinIO or Ceph. Default: `AWS_ENDPOINT_URL`."""
    region: str | None = None
    """Region of the bucket. Default: `AWS_REGION`."""
    profile: str | None = None
    """Profile of the AWS configuration files to take credentials from."""
    anon: bool = False
    """Send requests without credentials, for public buckets."""
    key: SecretStr | None = None
    """Access key id. Allowed in a config file that only you can read; refused on the command line. Prefer the
    environment."""
    secret: SecretStr | None = None
    """Secret access key, under the same rule."""
    token: SecretStr | None = None
    """Session token, under the same rule."""
    sse: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    """Server-side encryption requested with every write. Default: no header, so that the setting of the bucket
    applies."""
    sse_kms_key_id: str | None = None
    """KMS key for `aws:kms`: id, ARN or alias. Default: the account's key for S3."""
    requester_pays: bool = False
    """Agree to pay for requests to a requester-pays bucket."""
    retries: int = Field(default=4, ge=0, le=20)
    """Retries after a failed request, with growing waits."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for an answer."""

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
    """Where to run. `RAY_ADDRESS` or `address` joins a cluster; otherwise a local Ray is started and ended."""

    address: str | None = None
    """Cluster to join: `host:6379`, `auto` on a machine of the cluster, or `local`. Default: `RAY_ADDRESS`."""
    num_cpus: int | None = Field(default=None, ge=1)
    """CPUs of a local Ray. Default: those that this process may use, by its affinity and its CPU quota."""
    temp_dir: str | None = Field(default=None, min_length=1)
    """Folder for the files of a local Ray, with a path of at most 27 characters. Default: `RAY_TMPDIR`, `TMPDIR` or
    `/tmp`."""
    object_store_gb: float | None = Field(default=None, gt=0)
    """Size of the object store of a local Ray, in GB. Default: chosen by Ray."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs to which a joined cluster may grow. The run requests them from the autoscaler, starts when one CPU (and one
    GPU, if `gpus` is set) is available, and withdraws the request when it no longer needs them."""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs to which a joined cluster may grow."""
    wait_s: float = Field(default=900, ge=0)
    """Seconds to wait for the first of them."""
