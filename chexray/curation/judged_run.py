"""A finished run with verdicts, as it lies in its folder, and its sets, proven to be those that it judged.

The folder may be anybody's: its config chooses what is read again, not where is written or who is shown credentials.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from chexray.config import RunConfig, SetConfig, StorageConfig, parse_config
from chexray.config.reading import as_mapping
from chexray.config.yaml_text import walk
from chexray.curation.judged import MAX_CONFIG_BYTES, REJECTS, VERDICTS, read_fingerprints, read_small, read_table
from chexray.data.manifest import Manifest
from chexray.errors import ConfigError, ManifestError, StorageError
from chexray.plan import inherit_labels, read_manifests
from chexray.protocols import protocol
from chexray.results.reading import read_results
from chexray.storage import Storage, is_remote, join
from chexray.storage.uris import is_web, named
from chexray.suite_names import PRIVACY
from chexray.text import listed, quoted, shown

NEEDED = ("run.json", "verdicts.parquet", "rejects.parquet", "results.parquet")


@dataclass(frozen=True)
class JudgedRun:
    """A finished run with verdicts, as it lies in its folder."""

    uri: str
    config: RunConfig
    fingerprints: dict[str, str]
    verdicts: pa.Table
    rejects: pa.Table
    results: pd.DataFrame


def read_run(uri: str, storage: Storage) -> JudgedRun:
    """The run in a folder. Raises StorageError where there is none, ConfigError for one without verdicts."""
    if not storage.exists(join(uri, "config.yaml")):
        runs = [] if is_remote(uri) else sorted(str(path.parent) for path in Path(uri).glob("*/config.yaml"))
        hint = f"It holds runs: {listed(runs, 3)}. Give one of them." if runs else "Give the folder of a run."
        raise StorageError(f"{shown(uri)}: no run there. {hint}")
    where = join(uri, "config.yaml")
    config = parse_config(as_mapping(read_small(where, storage, MAX_CONFIG_BYTES), where), origin=where)
    if PRIVACY not in config.suite:
        raise ConfigError(
            f"{shown(uri)}: a run of {', '.join(config.suite)} has no verdicts. Run it with --suite privacy first."
        )
    missing = [name for name in NEEDED if not storage.exists(join(uri, name))]
    if missing:
        raise ConfigError(
            f"{shown(uri)}: {missing[0]} is missing: the run is not finished. Run the same command again."
        )
    verdicts = read_table(join(uri, "verdicts.parquet"), VERDICTS, storage)
    rejects = read_table(join(uri, "rejects.parquet"), REJECTS, storage)
    return JudgedRun(uri, config, read_fingerprints(uri, storage), verdicts, rejects, read_results(uri, storage))


def settings_of(run: JudgedRun) -> StorageConfig:
    """Storage settings of a run's config that cannot harm whoever reads it: its region, and to ask without credentials.

    An endpoint would be sent requests signed with the reader's credentials, a profile chooses among these, and
    requester_pays spends the reader's money. All must come from the reader: a run whose sets need one is refused. Its
    encryption (sse) is not asked for: nothing is written where the config says, and its KMS key may be a stranger's.
    """
    given = run.config.storage
    same = {
        "endpoint_url": [os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")],
        "profile": [os.environ.get("AWS_PROFILE")],
    }
    remote = any(isinstance(value, str) and is_remote(value) for _, value in walk(_sets(run.config), "config"))
    for key, allowed in same.items():
        value = getattr(given, key)
        if remote and value and value.rstrip("/") not in [text.rstrip("/") for text in allowed if text]:
            variable = "AWS_ENDPOINT_URL" if key == "endpoint_url" else "AWS_PROFILE"
            raise ConfigError(
                f"{shown(run.uri)}: its config sets storage.{key} to {quoted(value)}, and your credentials are not "
                f"used there because a run's folder says so. If you trust it: export {variable}={shown(value)}"
            )
    if remote and given.requester_pays:
        raise ConfigError(
            f"{shown(run.uri)}: its config sets storage.requester_pays, and your account is not charged because a "
            "run's folder says so. If you trust it: chexray filter ... --storage requester_pays=true"
        )
    return StorageConfig(region=given.region, anon=given.anon)


def _sets(config: RunConfig) -> list[dict[str, object]]:
    return [item.model_dump() for item in (config.real, config.training, config.heldout, *config.synthetic) if item]


@dataclass(frozen=True)
class ReadOnlyStorage(Storage):
    """A storage for the sets that a run's config names: whoever wrote it chooses what is read, and nothing else."""

    def write(self, uri: str, data: bytes) -> None:
        raise self._refused(uri)

    def create(self, uri: str, data: bytes) -> bool:
        raise self._refused(uri)

    def delete(self, uri: str) -> None:
        raise self._refused(uri)

    def fsspec_filesystem(self, uri: str) -> Any:
        raise self._refused(uri)

    def _files(self, uri: str) -> Any:
        if is_web(uri):  # it may be one that only this machine reaches, such as a pod's metadata service
            raise StorageError(
                f"{named(uri)}: no server is asked because a run's folder names it. If you trust it, copy its files to "
                "a folder, and run the config with that."
            )
        return super()._files(uri)

    def _refused(self, uri: str) -> StorageError:
        return StorageError(
            f"{shown(uri)}: is not complete, and the filter writes no set that a run names. Run its config again first."
        )


def read_only(storage: Storage) -> Storage:
    return ReadOnlyStorage(**{item.name: getattr(storage, item.name) for item in fields(Storage)})


def unchanged_sets(run: JudgedRun, names: Sequence[str], storage: Storage) -> list[Manifest]:
    """The sets as their sources give them now, proven to be those that the run judged."""
    try:
        real, synthetic = read_manifests(run.config, storage)
    except (ManifestError, StorageError) as error:
        if all(_is_absolute(item) for item in run.config.synthetic):
            raise
        # config.yaml keeps paths as they were given.
        raise type(error)(f"{error} Relative paths start where the run was started: filter from there.") from None
    judged = inherit_labels(synthetic, real, protocol(run.config.protocol))
    for manifest in judged:
        if manifest.name in names and manifest.fingerprint != run.fingerprints.get(manifest.name):
            raise ManifestError(
                f"{shown(manifest.name)}: its images or its table have changed since {shown(run.uri)} judged "
                f"them ({shown(run.fingerprints.get(manifest.name), 40)} then, {manifest.fingerprint} now). Evaluate "
                "it again."
            )
    return [manifest for manifest in synthetic if manifest.name in names]


def _is_absolute(item: SetConfig) -> bool:
    path = str(item.options.get("path", "/"))
    return is_remote(path) or path.startswith("/")
