"""A set without its flagged images, as a table that is a set again, and what was dropped and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from posixpath import commonpath

import numpy as np
import pyarrow as pa

from chexray.data import labels as label_reader
from chexray.data.manifest import Manifest
from chexray.data.schema import METADATA_KEY, RESERVED
from chexray.data.sources import _columns
from chexray.data.sources._peer_rows import KEPT
from chexray.data.sources._peers import recognise
from chexray.data.values import as_text, file_of, identified
from chexray.errors import ManifestError, StorageError
from chexray.findings import FINDINGS
from chexray.storage import Storage, absolute, basename, inside, join, parent
from chexray.storage.uris import split

ROLES = {"sample_id": "sample_id", "image": "uri", "subject_id": "subject_id", "prompt": "prompt", "labels": "labels"}
"""Role of a table's column -> the manifest's column that it fills."""

Columns = dict[str, pa.Array | pa.ChunkedArray]
Reasons = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Filtered:
    """What `write_filtered` wrote. n_kept + n_dropped = rows of the manifest.

    image_root: the folder that the paths of the table start from. options: the set as a config names it, {path} and,
    where the source could not tell, {image_root} and {source}: `--synthetic PATH --set synthetic.0.image_root=ROOT`.
    """

    path: str
    dropped_path: str
    n_kept: int
    n_dropped: int
    image_root: str
    options: dict[str, str]


def write_filtered(manifest: Manifest, drop: Reasons, path: str, storage: Storage) -> Filtered:
    """Writes the set without the images of `drop` to `path` (.parquet), and `<stem>-dropped.parquet` beside it.

    The first is `filtered_manifest`, the second one row an image left out: sample_id, uri, reasons (list of text). A
    table that lies in or above the folder of all its images is read back without any option. Rows the manifest itself
    had rejected are in neither. Raises ManifestError for another suffix, when no image would be left, and as
    `filtered_manifest` does; StorageError when the files cannot be written.
    """
    path = absolute(path)
    if not path.lower().endswith(".parquet"):
        raise ManifestError(f"{path}: a filtered set is written as Parquet. Give a name that ends in .parquet.")
    table = filtered_manifest(manifest, drop, beside=path)
    if not len(table):
        raise ManifestError(
            f"{manifest.name}: all {len(manifest)} images are flagged; a set of none cannot be written."
        )
    dropped = dropped_table(manifest, drop)
    dropped_path = join(parent(path), basename(path)[: -len(".parquet")] + "-dropped.parquet")
    storage.write_parquet(dropped_path, dropped)
    storage.write_parquet(path, table)
    root = json.loads((table.schema.metadata or {})[METADATA_KEY])["image_root"]
    options = {"path": path}
    if root != parent(path) or _any_embedded(manifest):
        options["image_root"] = root
    if any(pa.types.is_binary(kind) or pa.types.is_struct(kind) for kind in table.schema.types):
        options["source"] = "table"  # columns of bytes would be taken for the images
    return Filtered(path, dropped_path, len(table), len(dropped), root, options)


def filtered_manifest(manifest: Manifest, drop: Reasons, *, beside: str = "") -> pa.Table:
    """The manifest without the images of `drop`, {sample_id: reason or reasons}, as the source `table` reads it back.

    Rows in the order of the manifest's source. sample_id, prompt, patient, labels and image are found again under the
    names they had, or under the first name that is looked for; every further column is kept, as `<name>_original` where
    its name would be mistaken for one of these. Images are named relative to a root, recorded in the schema's metadata:
    the folder of `beside` where all images are below it, otherwise the deepest folder they share. Images inside Parquet
    files are named as `file.parquet#column=image&row=17`.
    Raises ManifestError for ids that the set does not have, an id without a reason, images in two buckets, and paths
    that a table cannot name.
    """
    _check(manifest, drop)
    rows = _in_source_order(manifest, drop, dropped=False)
    root = _image_root(manifest, absolute(beside) if beside else "")
    images = pa.array([_below(root, uri, manifest) for uri in rows["uri"].to_pylist()], pa.string())
    wanted: Columns = {
        "sample_id": rows["sample_id"],
        "image": images,
        "subject_id": rows["subject_id"],
        "prompt": rows["prompt"],
        "labels": rows["labels"],
    }
    columns: Columns = {name: rows[name] for name in rows.column_names if name not in RESERVED}
    for role, column in wanted.items():
        _place(columns, role, column, manifest)
    about = {"image_root": root, "filtered_from": f"{manifest.name}@{manifest.fingerprint}"}
    about |= {name: getattr(manifest, name) for name in KEPT}
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(about).encode()})


def dropped_table(manifest: Manifest, drop: Reasons) -> pa.Table:
    """sample_id, uri and reasons (list of text) of the images of `drop`, in the order of the manifest's source."""
    _check(manifest, drop)
    rows = _in_source_order(manifest, drop, dropped=True)
    reasons = [_reasons(drop[sample_id]) for sample_id in rows["sample_id"].to_pylist()]
    return rows.select(["sample_id", "uri"]).append_column("reasons", pa.array(reasons, pa.list_(pa.string())))


def _check(manifest: Manifest, drop: Reasons) -> None:
    known = set(manifest.table["sample_id"].to_pylist())
    unknown = [sample_id for sample_id in drop if sample_id not in known]
    if unknown:
        raise ManifestError(
            f"{manifest.name}: {len(unknown)} of {len(drop)} flagged ids are not in the set, first "
            f"{identified(unknown[0])}. Filter the set that the verdicts were made for."
        )
    for sample_id, reasons in drop.items():
        if not _reasons(reasons):
            raise ManifestError(f"{manifest.name}: {identified(sample_id)} is to be dropped without a reason.")


def _reasons(reasons: str | Sequence[str]) -> list[str]:
    return [reason for reason in ([reasons] if isinstance(reasons, str) else reasons) if reason]


def _in_source_order(manifest: Manifest, drop: Reasons, *, dropped: bool) -> pa.Table:
    flagged = np.array([sample_id in drop for sample_id in manifest.table["sample_id"].to_pylist()], dtype=bool)
    return manifest.table.filter(pa.array(flagged == dropped)).sort_by([("row", "ascending")])


def _place(columns: Columns, role: str, column: pa.Array | pa.ChunkedArray, manifest: Manifest) -> None:
    """Puts what plays a role among the columns so that it, and no other column, is taken for it when read back."""
    own = manifest.roles.get(ROLES[role])
    if role == "image" and own == manifest.roles.get("sample_id"):
        own = None  # PadChest's ImageID is both, and stays the id
    if column.null_count == len(column):
        while others := [name for name in _players(columns, role, manifest.origin) if name != own]:
            _rename(columns, others[0])
        return
    name = own if own is not None else _columns.KNOWN[manifest.origin][role][0]
    if _players({**columns, name: column}, role, manifest.origin) != [name]:
        name = _columns.KNOWN[manifest.origin][role][0]
    if name in columns and name != own:
        _rename(columns, name)
    if name not in columns or not _reads_as(columns[name], role, column):
        columns[name] = _label_text(column) if role == "labels" else column


def _players(columns: Columns, role: str, origin: str) -> list[str]:
    """The columns that are taken for a role when the table is read: none, one, or one a finding."""
    roles = _columns.detect(list(columns), origin, None, "", peer=recognise(list(columns)))
    found = getattr(roles, role)
    if role == "labels" and found is None:
        return list(roles.findings.values())
    return [] if found is None else [found]


def _reads_as(column: pa.Array | pa.ChunkedArray, role: str, wanted: pa.Array | pa.ChunkedArray) -> bool:
    """Whether a column that is there already says the same, so that its text and type can stay."""
    chunked = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    if role == "labels":
        try:
            return label_reader.from_column(chunked, "").to_pylist() == wanted.to_pylist()
        except ManifestError:
            return False
    return as_text(chunked).to_pylist() == wanted.to_pylist()


def _label_text(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Labels as upstream writes them, a Python dict of finding to 1.0, 0.0, -1.0 or None; null where there are none."""
    cells = [
        None
        if values is None
        else str({f: None if v is None else float(v) for f, v in zip(FINDINGS, values, strict=True)})
        for values in column.to_pylist()
    ]
    return pa.array(cells, pa.string())


def _rename(columns: Columns, name: str) -> None:
    """The column under `<name>_original`, at the same place."""
    free = f"{name}_original"
    while free in columns:
        free += "_"
    renamed = {free if each == name else each: column for each, column in columns.items()}
    columns.clear()
    columns.update(renamed)


def _any_embedded(manifest: Manifest) -> bool:
    return any(file_of(uri) != uri for uri in manifest.table["uri"].to_pylist())


def _image_root(manifest: Manifest, beside: str) -> str:
    """The folder of `beside` if it holds all images, otherwise the deepest that does."""
    files = [file_of(uri) for uri in manifest.table["uri"].to_pylist()]
    places = [split(parent(file)) for file in dict.fromkeys(files)]
    fronts = sorted({front for front, _ in places})
    if len(fronts) > 1:
        raise ManifestError(
            f"{manifest.name}: its images lie in both {fronts[0]} and {fronts[1]}, and a table has one image root. "
            "Filter the two parts one by one, or copy them to one place."
        )
    folder = parent(beside) if beside else ""
    if not places:
        return folder
    root = join(fronts[0], commonpath([path for _, path in places]))
    return folder if folder and (root == folder or root.startswith(folder.rstrip("/") + "/")) else root


def _below(root: str, uri: str, manifest: Manifest) -> str:
    """The name of an image below the root, proven to lead back to it."""
    name = uri[len(root) :].lstrip("/")
    try:
        if name.strip() and inside(root, name) == uri:
            return name
    except StorageError:
        pass
    raise ManifestError(
        f"{manifest.name}: a table cannot name the image {identified(uri)} below {root}. Rename the file."
    )
