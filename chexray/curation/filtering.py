"""From the verdicts of a run to its synthetic sets without the images that were flagged, as sets that run again.

read config.yaml, run.json, verdicts, rejects    what was judged
read the sets again                              are they still what was judged?
write kept, dropped and why, and the set's config

What is kept had no copy found at the sensitivity of that run, and no more; `chexray privacy audit` measures it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import yaml

from chexray.config import StorageConfig
from chexray.config.secrets import refuse_in_location, refuse_on_command_line
from chexray.curation.judged_run import JudgedRun, read_only, read_run, settings_of, unchanged_sets
from chexray.curation.planting import file_name
from chexray.curation.writing import Filtered, dropped_table, write_filtered
from chexray.data.manifest import Manifest
from chexray.errors import ConfigError
from chexray.plan import make_storage
from chexray.results import judged_by
from chexray.spelling import suggestion
from chexray.storage import Storage, absolute, is_remote, join
from chexray.suite_names import PRIVACY
from chexray.text import quoted, shown

WAYS = (PRIVACY,)
"""Suites whose verdicts a set can be filtered by."""


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
        raise ConfigError(f"--by {quoted(by)}: there is no such filter. {suggestion(by, WAYS)}")
    own = storage or make_storage(StorageConfig())
    found = read_run(absolute(run), own)
    sources = read_only(storage or make_storage(settings_of(found)))
    manifests = unchanged_sets(found, _chosen(found, sets), sources)
    folder = absolute(output) if output else _folder_in(found.uri)
    stems = _stems(manifests)
    reasons = {manifest.name: _reasons(found, manifest) for manifest in manifests}
    for manifest in manifests:
        if not judged_by.parts(found.results, manifest.name)[0]:
            raise ConfigError(
                f"{shown(manifest.name)}: no part of {shown(found.uri)} has a verdict on its images. Its results.csv "
                "says why. Give --heldout, or more images."
            )
    return [_write(found, each, reasons[each.name], join(folder, stems[each.name]), own) for each in manifests]


def _folder_in(run: str) -> str:
    """`filtered` in the run's folder. Raises ConfigError where that is a link to another place."""
    folder = join(run, "filtered")
    if not is_remote(run) and os.path.realpath(folder) != os.path.join(os.path.realpath(run), "filtered"):
        raise ConfigError(f"{shown(folder)}: is a link out of the run's folder. Remove it, or give --output.")
    return folder


def _chosen(run: JudgedRun, sets: Sequence[str]) -> list[str]:
    for name in sets:
        if name not in run.fingerprints:
            raise ConfigError(
                f"{shown(run.uri)} has no synthetic set {quoted(name)}. {suggestion(name, list(run.fingerprints))}"
            )
    return list(dict.fromkeys(sets or run.fingerprints))


def _reasons(run: JudgedRun, manifest: Manifest) -> dict[str, list[str]]:
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


def _write(run: JudgedRun, manifest: Manifest, drop: dict[str, list[str]], stem: str, storage: Storage) -> FilteredSet:
    """stem: the files' place without their suffix."""
    done = write_filtered(manifest, drop, f"{stem}.parquet", storage)
    n_dropped = done.n_dropped + _add_rejects(manifest, drop, done, storage)
    kinds = Counter(kind for why in drop.values() for kind in {shown(text.partition(": ")[0], 60) for text in why})
    kinds["rejected"] += len(manifest.rejects)
    options = {"name": f"{manifest.name}-filtered", **done.options}
    config_path = f"{stem}.yaml"
    # Shown, or a line break in a name would add settings to this config.
    text = f"# {shown(manifest.name)} without the images that {shown(run.uri)} flagged.\n"
    text += "# No copy was found in the others at the sensitivity of that run. A second privacy run on this set is no\n"
    text += "# independent evidence, because the first one selected its images.\n"
    text += yaml.safe_dump({"synthetic": [options]}, sort_keys=False, allow_unicode=True, width=110)
    storage.write(config_path, text.encode())
    judged, failed = judged_by.parts(run.results, manifest.name)
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
