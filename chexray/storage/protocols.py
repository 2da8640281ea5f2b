"""The protocols of files: what each is called, what it needs, and whether chexray writes there.

A place is written to only where a file appears whole or not at all and one of two writers that create it is told so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One protocol. needs: the module that speaks it; extra: of chexray, which installs it, "" for the base install.

    credentials: where its libraries take them from. read_only: why nothing is written there, "" where files are.
    """

    place: str
    needs: str
    extra: str = ""
    credentials: str = ""
    read_only: str = ""


_S3 = Protocol("S3", "s3fs")
_GCS = Protocol(
    "Google Cloud Storage", "gcsfs", "gcs", "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`"
)
_AZURE = Protocol(
    "Azure storage", "adlfs", "azure", "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or an identity"
)
_HUB = Protocol(
    "Hugging Face", "huggingface_hub", "hf", "HF_TOKEN, `hf auth login`",
    read_only="each file written there is a commit, and of two writers of a file neither is refused",
)  # fmt: skip
_WEB = Protocol("a web server", "aiohttp", "", "~/.netrc", read_only="no web server promises to keep a file")
_MEMORY = Protocol("the memory of this process", "fsspec")

PROTOCOLS = {
    "s3": _S3, "s3a": _S3,
    "gs": _GCS, "gcs": _GCS,
    "az": _AZURE, "abfs": _AZURE, "abfss": _AZURE,
    "hf": _HUB,
    "http": _WEB, "https": _WEB,
    "memory": _MEMORY,
}  # fmt: skip
REMOTE = tuple(f"{scheme}://" for scheme in PROTOCOLS)
WRITTEN = "a folder, s3://, gs:// or az://"
"""Places for the files of a run, for messages."""


def scheme_of(uri: str) -> str:
    """`gs` of gs://bucket/x; "" for a path of this machine and for schemes that chexray does not speak."""
    scheme, found, _ = uri.partition("://")
    return scheme if found and scheme in PROTOCOLS else ""


def protocol_of(uri: str) -> Protocol | None:
    return PROTOCOLS.get(scheme_of(uri))
