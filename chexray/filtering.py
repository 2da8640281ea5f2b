"""From the verdicts of a run to its synthetic sets without the images that were flagged, as sets that run again.

read config.yaml, run.json, verdicts, rejects    what was judged
read the sets again                              are they still what was judged?
write kept, dropped and why, and the set's config

The folder may be anybody's: its config chooses what is read again, not where is written or who is shown credentials.
What is kept had no copy found at the sensitivity of that run, and no more; `chexray privacy audit` measures it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from chexray.config import RunConfig, SetConfig, StorageConfig, parse_config
from chexray.config.reading import as_mapping
from chexray.config.secrets import refuse_in_location, refuse_on_command_line
from chexray.config.yaml_text import walk
from chexray.data.filtering import Filtered, dropped_table, write_filtered
from chexray.data.manifest import Manifest
from chexray.data.planting import file_name
from chexray.data.values import nearest
from chexray.errors import ConfigError, ManifestError, StorageError
from chexray.plan import inherit_labels, make_storage, read_manifests
from chexray.plan.plan import PRIVACY
from chexray.protocols import protocol
from chexray.results import untested
from chexray.results.judged import MAX_CONFIG_BYTES, REJECTS, VERDICTS, read_fingerprints, read_small, read_table
from chexray.results.rows import read_results
from chexray.storage import Storage, absolute, is_remote, join
from chexray.text import listed, quoted, shown

WAYS = (PRIVACY,)
"""Suites whose verdicts a set can be filtered by."""

NEEDED = ("run.json", "verdicts.parquet", "rejects.parquet", "results.parquet")


@dataclass(frozen=True)
class FilteredSet:
    """One synthetic set after the filter: n_kept + n_dropped + n_left_out = rows of its source.

    path, dropped_path, config_path: the set, what was dropped and why, and the set as a config names it. options: the
    same as a mapping. reasons: {kind: images it dropped}; an image may have several. n_left_out: rows that the run
    never judged, by its `limit` or as repeats. judged_by, untested: what the verdicts rest on, and what failed.
    """

    name: str
    path: str
    dropped_path: str
    config_path: str
    options: dict[str, str]
    n_kept: int
    n_dropped: int
    n_left_out: int
    reasons: dict[str, int] = field(default_factory=dict)
    judged_by: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()

    @property
    def flags(self) -> str:
        """The set as flags of `chexray run`."""
        words = ["--synthetic", self.options["path"]]
        for key, value in self.options.items():
            words += [] if key == "path" else ["--set", f"synthetic.0.{key}={value}"]
        return shlex.join(words)


@dataclass(frozen=True)
class _Run:
    """A finished run with verdicts, as it lies in its folder."""

    uri: str
    config: RunConfig
    fingerprints: dict[str, str]
    verdicts: pa.Table
    rejects: pa.Table
    results: Any


def filter_run(
    run: str, by: str = PRIVACY, *, sets: Sequence[str] = (), output: str = "", storage: Storage | None = None
) -> list[FilteredSet]:
    """Writes each synthetic set of a run without its flagged and its rejected images, and says what was done.

    run: its folder, local or s3://. sets: names of synthetic sets; by default all. output: a folder, by default
    `filtered` in the run's. storage: how to reach both; by default as the environment says.
    Raises ConfigError for a run without verdicts, an unknown set, and verdicts that nothing came to; ManifestError for
    a set that is no longer the one judged; StorageError where there is no run.
    """
    refuse_in_location(run, "filter")
    refuse_in_location(output, "--output")
    for name in sets:
        refuse_on_command_line(name)
    if by not in WAYS:
        raise ConfigError(f"--by {quoted(by)}: there is no such filter. {nearest(by, WAYS)}")
    own = storage or make_storage(StorageConfig())
    found = _read(absolute(run), own)
    sources = _read_only(storage or make_storage(_of_a_stranger(found)))
    manifests = _unchanged(found, _chosen(found, sets), sources)
    folder = absolute(output) if output else _folder_in(found.uri)
    stems = _stems(manifests)
    reasons = {manifest.name: _reasons(found, manifest) for manifest in manifests}
    for manifest in manifests:
        if not untested.parts(found.results, manifest.name)[0]:
            raise ConfigError(
                f"{shown(manifest.name)}: no part of {shown(found.uri)} came to a verdict on its images, so none can "
                "be said to have no copy found. Its results.csv says why; give --heldout, or more images."
            )
    return [_write(found, each, reasons[each.name], join(folder, stems[each.name]), own) for each in manifests]


def _of_a_stranger(run: _Run) -> StorageConfig:
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


def _sets(config: RunConfig) -> list[Any]:
    return [item.model_dump() for item in (config.real, config.training, config.heldout, *config.synthetic) if item]


@dataclass(frozen=True)
class _ReadOnly(Storage):
    """A storage for the sets that a run's config names: whoever wrote it chooses what is read, and nothing else."""

    def write(self, uri: str, data: bytes) -> None:
        raise self._refused(uri)

    def create(self, uri: str, data: bytes) -> bool:
        raise self._refused(uri)

    def delete(self, uri: str) -> None:
        raise self._refused(uri)

    def s3_filesystem(self, uri: str) -> Any:
        raise self._refused(uri)

    def _refused(self, uri: str) -> StorageError:
        return StorageError(
            f"{shown(uri)}: is not complete, and the filter writes no set that a run names. Run its config again first."
        )


def _read_only(storage: Storage) -> Storage:
    return _ReadOnly(**{item.name: getattr(storage, item.name) for item in fields(Storage)})


def _folder_in(run: str) -> str:
    """`filtered` in the run's folder. Raises ConfigError where that is a link to another place."""
    folder = join(run, "filtered")
    if not is_remote(run) and os.path.realpath(folder) != os.path.join(os.path.realpath(run), "filtered"):
        raise ConfigError(f"{shown(folder)}: is a link out of the run's folder. Remove it, or give --output.")
    return folder


def _read(uri: str, storage: Storage) -> _Run:
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
    return _Run(uri, config, read_fingerprints(uri, storage), verdicts, rejects, read_results(uri, storage))


def _chosen(run: _Run, sets: Sequence[str]) -> list[str]:
    for name in sets:
        if name not in run.fingerprints:
            raise ConfigError(
                f"{shown(run.uri)} has no synthetic set {quoted(name)}. {nearest(name, list(run.fingerprints))}"
            )
    return list(dict.fromkeys(sets or run.fingerprints))


def _unchanged(run: _Run, names: Sequence[str], storage: Storage) -> list[Manifest]:
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


def _reasons(run: _Run, manifest: Manifest) -> dict[str, list[str]]:
    """{sample_id: why it is dropped}: flagged, rejected, or, which should not be, without any verdict."""
    reasons: dict[str, list[str]] = {}
    judged = set()
    names = (
        f"{manifest.name}@{run.fingerprints.get(manifest.name)}",
        manifest.name,
    )  # version 0.1.0 wrote the name alone
    for row in run.verdicts.to_pylist():
        if row["synthetic_set"] in names:
            judged.add(row["sample_id"])
            if row["flagged"]:
                why = [text for text in row["reasons"] or [] if text and text.strip()]
                reasons.setdefault(row["sample_id"], []).extend(why or ["flagged: the run gives no reason"])
    ids = manifest.table["sample_id"].to_pylist()
    known = set(ids)
    for row in run.rejects.to_pylist():
        if row["set"] == manifest.name and row["sample_id"] in known:
            why = f"rejected: {row['stage']}: {row['code']}: {row['detail']}"
            reasons.setdefault(row["sample_id"], []).append(why)
    for sample_id in ids:
        if sample_id not in judged and sample_id not in reasons:
            reasons[sample_id] = ["rejected: the run has no verdict on it"]
    return reasons


def _stems(manifests: Sequence[Manifest]) -> dict[str, str]:
    """{set: the name of its files without their suffix}. Raises ConfigError where one would replace another's."""
    stems: dict[str, str] = {}
    taken: dict[str, str] = {}
    for manifest in manifests:
        name = manifest.name
        stem = name if re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII) else file_name(name)
        for file in (stem, f"{stem}-dropped"):
            other = taken.setdefault(file.lower(), name)
            if other != name:
                raise ConfigError(
                    f"{shown(name)} and {shown(other)} would be written to the same file. Filter them one by one, with "
                    "--set NAME and an --output of its own."
                )
        stems[name] = stem
    return stems


def _write(run: _Run, manifest: Manifest, drop: dict[str, list[str]], stem: str, storage: Storage) -> FilteredSet:
    """stem: the files' place without their suffix."""
    done = write_filtered(manifest, drop, f"{stem}.parquet", storage)
    n_dropped = done.n_dropped + _add_rejects(manifest, drop, done, storage)
    kinds = Counter(kind for why in drop.values() for kind in {shown(text.partition(": ")[0], 60) for text in why})
    kinds["rejected"] += len(manifest.rejects)
    options = {"name": f"{manifest.name}-filtered", **done.options}
    config_path = f"{stem}.yaml"
    # Shown, or a line break in a name would add settings to this config.
    text = f"# {shown(manifest.name)} without what {shown(run.uri)} flagged: no copy found in it at the sensitivity "
    text += "of that run.\n"
    text += "# A second search judges what the first one chose, so its numbers are no independent evidence.\n"
    text += yaml.safe_dump({"synthetic": [options]}, sort_keys=False, allow_unicode=True, width=110)
    storage.write(config_path, text.encode())
    judged, failed = untested.parts(run.results, manifest.name)
    return FilteredSet(
        manifest.name, done.path, done.dropped_path, config_path, options, done.n_kept, n_dropped,
        sum(manifest.excluded.values()), {kind: n for kind, n in kinds.most_common() if n},
        tuple(judged), tuple(failed),
    )  # fmt: skip


def _add_rejects(manifest: Manifest, drop: dict[str, list[str]], done: Filtered, storage: Storage) -> int:
    """Adds the rows whose image does not exist, which the manifest holds apart, to the table of what was dropped."""
    if not len(manifest.rejects):
        return 0
    why = [[f"rejected: {row['stage']}: {row['code']}: {row['detail']}"] for row in manifest.rejects.to_pylist()]
    rows = manifest.rejects.select(["sample_id", "uri"]).append_column("reasons", pa.array(why, pa.list_(pa.string())))
    storage.write_parquet(done.dropped_path, pa.concat_tables([dropped_table(manifest, drop), rows]))
    return len(rows)
