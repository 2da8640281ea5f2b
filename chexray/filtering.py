"""From the verdicts of a run to its synthetic sets without the images that were flagged, as sets that run again.

read config.yaml, run.json, verdicts, rejects    what was judged
read the sets again                              are they still what was judged?
write kept, dropped and why, and the set's config

What is kept had no copy found at the sensitivity of that run, and no more; `chexray privacy audit` measures it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from chexray.config import RunConfig, SetConfig, StorageConfig, parse_config
from chexray.data.filtering import Filtered, dropped_table, write_filtered
from chexray.data.manifest import Manifest
from chexray.data.planting import file_name
from chexray.data.values import nearest
from chexray.errors import ConfigError, ManifestError, StorageError
from chexray.plan import inherit_labels, make_storage, read_manifests
from chexray.plan.plan import PRIVACY
from chexray.protocols import protocol
from chexray.results import untested
from chexray.results.rows import read_results
from chexray.storage import Storage, absolute, is_remote, join

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
    `filtered` in the run's. storage: how to reach both; by default as the environment and the run's config say.
    Raises ConfigError for a run without verdicts, an unknown set, and verdicts that nothing came to; ManifestError for
    a set that is no longer the one judged; StorageError where there is no run.
    """
    if by not in WAYS:
        raise ConfigError(f"--by {by}: there is no such filter. {nearest(by, WAYS)}")
    found = _read(absolute(run), storage or make_storage(StorageConfig()))
    storage = storage or make_storage(found.config.storage)
    manifests = _unchanged(found, _chosen(found, sets), storage)
    folder = absolute(output or join(found.uri, "filtered"))
    reasons = {manifest.name: _reasons(found, manifest) for manifest in manifests}
    for manifest in manifests:
        if not untested.parts(found.results, manifest.name)[0]:
            raise ConfigError(
                f"{manifest.name}: no part of {found.uri} came to a verdict on its images, so none can be said to have "
                "no copy found. Its results.csv says why; give --heldout, or more images."
            )
    return [_write(found, manifest, reasons[manifest.name], folder, storage) for manifest in manifests]


def _read(uri: str, storage: Storage) -> _Run:
    if not storage.exists(join(uri, "config.yaml")):
        runs = [] if is_remote(uri) else sorted(str(path.parent) for path in Path(uri).glob("*/config.yaml"))
        hint = f"It holds runs: {', '.join(runs[:3])}. Give one of them." if runs else "Give the folder of a run."
        raise StorageError(f"{uri}: no run there. {hint}")
    data = yaml.safe_load(storage.read(join(uri, "config.yaml")))
    config = parse_config(data, origin=join(uri, "config.yaml"))
    if PRIVACY not in config.suite:
        raise ConfigError(
            f"{uri}: a run of {', '.join(config.suite)} has no verdicts. Run it with --suite privacy first."
        )
    missing = [name for name in NEEDED if not storage.exists(join(uri, name))]
    if missing:
        raise ConfigError(f"{uri}: {missing[0]} is missing: the run is not finished. Run the same command again.")
    about = json.loads(storage.read(join(uri, "run.json")))
    fingerprints = {item["name"]: item["fingerprint"] for item in about["sets"] if item["origin"] == "synthetic"}
    verdicts, rejects = (storage.read_parquet(join(uri, f"{name}.parquet")) for name in ("verdicts", "rejects"))
    return _Run(uri, config, fingerprints, verdicts, rejects, read_results(uri, storage))


def _chosen(run: _Run, sets: Sequence[str]) -> list[str]:
    for name in sets:
        if name not in run.fingerprints:
            raise ConfigError(f"{run.uri} has no synthetic set {name!r}. {nearest(name, list(run.fingerprints))}")
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
                f"{manifest.name}: its images or its table have changed since {run.uri} judged "
                f"them ({run.fingerprints.get(manifest.name)} then, {manifest.fingerprint} now). Evaluate it again."
            )
    return [manifest for manifest in synthetic if manifest.name in names]


def _is_absolute(item: SetConfig) -> bool:
    path = str(item.options.get("path", "/"))
    return is_remote(path) or path.startswith("/")


def _reasons(run: _Run, manifest: Manifest) -> dict[str, list[str]]:
    """{sample_id: why it is dropped}: flagged, rejected, or, which should not be, without any verdict."""
    reasons: dict[str, list[str]] = {}
    judged = set()
    for row in run.verdicts.to_pylist():
        if row["synthetic_set"] == manifest.name:
            judged.add(row["sample_id"])
            if row["flagged"]:
                reasons.setdefault(row["sample_id"], []).extend(row["reasons"])
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


def _write(run: _Run, manifest: Manifest, drop: dict[str, list[str]], folder: str, storage: Storage) -> FilteredSet:
    plain = re.fullmatch(r"\w[\w.-]{0,99}", manifest.name, re.ASCII)
    stem = manifest.name if plain else file_name(manifest.name)
    done = write_filtered(manifest, drop, join(folder, f"{stem}.parquet"), storage)
    n_dropped = done.n_dropped + _add_rejects(manifest, drop, done, storage)
    kinds = Counter(kind for why in drop.values() for kind in {text.partition(": ")[0] for text in why})
    kinds["rejected"] += len(manifest.rejects)
    options = {"name": f"{manifest.name}-filtered", **done.options}
    config_path = join(folder, f"{stem}.yaml")
    text = f"# {manifest.name} without what {run.uri} flagged: no copy found in it at the sensitivity of that run.\n"
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
