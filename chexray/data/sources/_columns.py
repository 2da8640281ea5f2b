"""Which column of a table is what: named by the config, or recognised by the names that published tables use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from chexray.data import labels as label_reader
from chexray.data.labels import fold
from chexray.data.manifest import METADATA_KEY, RESERVED
from chexray.data.sources._names import NO_HEADER, is_row, no_such_column
from chexray.data.sources._types import is_nested, kind_of
from chexray.data.values import as_text, is_identifier, is_utf8, nearest
from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS
from chexray.text import listed, quoted, shown

_FILES = ("image", "image_path", "uri", "filename", "file_name", "image_filename", "file", "image_index")

# Names agree whatever their case, spaces and underscores, so Path, patient_id and "Image Index" are covered too.
KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "real": {
        "sample_id": ("sample_id", "id", "image_id", "dicom_id"),
        "image": ("path", *_FILES),
        "subject_id": ("patientID", "subject_id"),
        "prompt": ("annotated_prompt", "prompt", "text", "caption"),
        "labels": ("chexpert_labels", "labels", "labels_dict"),
    },
    "synthetic": {
        # Upstream's `id` names the prompt and repeats over seeds, so it identifies no synthetic image.
        "sample_id": ("sample_id", "image_id"),
        # Upstream's `path` names the real image; the synthetic one stands in these two.
        "image": ("img_savename", "synthetic_filename", "image", "image_path", "path", *_FILES[2:]),
        "subject_id": ("patientID", "subject_id"),
        "prompt": ("annotated_prompt", "prompt", "text", "caption"),
        "labels": ("chexpert_labels", "labels", "labels_dict"),
    },
}

_TEXT = {fold(name) for kinds in KNOWN.values() for names in kinds.values() for name in names}


@dataclass(frozen=True)
class Roles:
    """The column of a table that plays each role, None where there is none.

    findings: finding -> column, when labels come as one column a finding.
    """

    sample_id: str | None = None
    image: str | None = None
    subject_id: str | None = None
    prompt: str | None = None
    labels: str | None = None
    findings: dict[str, str] = field(default_factory=dict)


def check_columns(columns: object) -> None:
    """Raises ConfigError unless `columns` is a mapping of role to column name or null."""
    fits = isinstance(columns, Mapping) and all(isinstance(name, str | None) for name in columns.values())
    if columns is not None and not fits:
        raise ConfigError(
            f"columns: expected a mapping of role to column, found {quoted(columns)}. "
            f"Roles: {', '.join(KNOWN['real'])}; null for a role that no column plays."
        )


def is_text(name: str, columns: Mapping[str, str | None] | None) -> bool:
    """Whether a column must be read as text: ids, paths, prompts, and whatever the config gives such a role."""
    return is_identifier(name) or fold(name) in _TEXT or name in (columns or {}).values()


def detect(names: Sequence[str], origin: str, columns: Mapping[str, str | None] | None, where: str) -> Roles:
    """The roles of a table's columns: from the config where it names them (null: none), else the first known name.

    Raises ConfigError for an unknown role and ManifestError for a column that the table does not have.
    """
    known = KNOWN[origin]
    chosen: dict[str, str | None] = {}
    for role, name in (columns or {}).items():
        if role not in known:
            raise ConfigError(f"{origin}.columns: unknown role {quoted(role)}. {nearest(str(role), list(known))}")
        if name is not None and name not in names:
            raise ManifestError(
                f"{where}: has no column {quoted(name)}, named in {origin}.columns.{role}. "
                f"{no_such_column(name, names)}"
            )
        chosen[role] = name
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(fold(name), name)
    for role, candidates in known.items():
        if role not in chosen:
            exact = [name for name in candidates if name in names]
            loose = [folded[fold(name)] for name in candidates if fold(name) in folded]
            chosen[role] = next(iter(exact + loose), None)
    findings = {}
    if chosen["labels"] is None and "labels" not in (columns or {}):
        findings = {name: folded[fold(name)] for name in FINDINGS if fold(name) in folded}
    return Roles(**chosen, findings=findings)  # pyright: ignore[reportArgumentType]


def no_image_column(names: Iterable[str], origin: str, where: str) -> ManifestError:
    """The error for a table in which no column names an image."""
    names = list(names)
    return ManifestError(
        f"{where}: no column names an image: looked for {', '.join(KNOWN[origin]['image'][:6])} and the like, found "
        f"{NO_HEADER if is_row(names) else listed(names)}. Name it in {origin}.columns.image."
    )


def nameable(folder: str) -> str:
    """The path, if uris of images in it can be kept. Raises ManifestError for one that is not UTF-8."""
    if not is_utf8(folder):
        raise ManifestError(f"{shown(folder)}: the name is not UTF-8, so no table can hold its images. Rename it.")
    return folder


def role_as_text(column: pa.ChunkedArray, name: str, role: str, where: str, origin: str) -> pa.ChunkedArray:
    """The column of ids or paths as text. Raises ManifestError for lists and structs, which may be whole images."""
    if is_nested(column.type):
        raise ManifestError(
            f"{where}: column {quoted(name)} is {kind_of(column.type)}, expected text. Name another in "
            f"{origin}.columns.{role}."
        )
    return as_text(column)


def standardise(
    table: pa.Table,
    roles: Roles,
    *,
    sample_id: pa.Array | pa.ChunkedArray,
    uri: pa.Array | pa.ChunkedArray,
    where: str,
    notes: Sequence[str] = (),
    reasons: Mapping[str, str] | None = None,
) -> pa.Table:
    """The table every source returns: reserved columns first, then all columns of `table` under their own names.

    A column that has a reserved name but plays another part becomes `<name>_original`. Roles and notes travel in the
    schema's metadata; so do `reasons`, {sample_id: why its uri is null}.
    """
    out: dict[str, pa.Array | pa.ChunkedArray] = {"sample_id": sample_id, "uri": uri}
    if roles.subject_id:
        out["subject_id"] = as_text(table[roles.subject_id])
    if roles.prompt:
        out["prompt"] = as_text(table[roles.prompt])
    notes = list(notes)
    if roles.labels:
        out["labels"] = label_reader.from_column(table[roles.labels], where)
    elif roles.findings:
        out["labels"] = label_reader.from_finding_columns(table, roles.findings, where)
    if "labels" in out and (n_without := out["labels"].null_count):
        notes.append(f"{n_without} of {len(table)} images have no labels")
    played = {
        "sample_id": roles.sample_id,
        "uri": roles.image,
        "subject_id": roles.subject_id,
        "prompt": roles.prompt,
        "labels": roles.labels,
        **{f"labels.{finding}": name for finding, name in roles.findings.items()},
    }
    names = set(table.column_names)
    for name in table.column_names:
        if name not in RESERVED:
            out[name] = table[name]
        elif played.get(name) != name or name == "uri":
            free = f"{name}_original"
            while free in out or free in names:
                free += "_"
            out[free] = table[name]
    used = {role: name for role, name in played.items() if name}
    handed: dict[str, object] = {"path": where, "notes": notes, "roles": used}
    if reasons:
        handed["reasons"] = dict(reasons)
    return pa.table(out).replace_schema_metadata({METADATA_KEY: json.dumps(handed).encode()})


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with empty and blank cells as null."""
    cells = column.to_pylist()
    return pa.chunked_array([pa.array([cell if cell and cell.strip() else None for cell in cells], pa.string())])
