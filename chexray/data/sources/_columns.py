"""Which column of a table is what: named by the config, or recognised by the names that published tables use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from chexray.data import labels as label_reader
from chexray.data.keys import root_setting, setting
from chexray.data.labels import NoLabels
from chexray.data.schema import METADATA_KEY, RESERVED
from chexray.data.sources._names import NO_HEADER, is_row, no_such_column
from chexray.data.sources._peers import Peer, actual
from chexray.data.sources._types import holds_bytes, holds_pixels, is_nested, kind_of
from chexray.data.values import as_text, is_identifier, is_utf8
from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS
from chexray.spelling import fold, suggestion
from chexray.text import listed, quoted, shown

_FILES = ("image", "image_path", "uri", "filename", "file_name", "image_filename", "file", "image_index")

# Names agree whatever their case, spaces and underscores, so Path, patient_id and "Image Index" are covered too.
KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "real": {
        "sample_id": ("sample_id", "id", "image_id", "dicom_id"),
        "image": ("path", *_FILES),
        "subject_id": ("patientID", "subject_id"),
        "prompt": ("annotated_prompt", "prompt", "text", "caption"),
        "labels": ("chexpert_labels", "labels", "labels_dict", "finding_labels"),
    },
    "synthetic": {
        # Upstream's `id` names the prompt and repeats over seeds, so it identifies no synthetic image.
        "sample_id": ("sample_id", "image_id"),
        # Upstream's `path` names the real image; the synthetic one stands in these two.
        "image": ("img_savename", "synthetic_filename", "image", "image_path", "path", *_FILES[2:]),
        "subject_id": ("patientID", "subject_id"),
        "prompt": ("annotated_prompt", "prompt", "text", "caption"),
        "labels": ("chexpert_labels", "labels", "labels_dict", "finding_labels"),
    },
}

_TEXT_TYPE = pa.string()
_ANY_TYPE = ("image", "sample_id", "labels")
"""Roles whose first column is taken whatever its type: labels may be lists, others are refused where they are read."""

_TEXT = {fold(name) for kinds in KNOWN.values() for names in kinds.values() for name in names}


@dataclass(frozen=True)
class Roles:
    """The column of a table that plays each role, None where there is none.

    findings: finding -> column, when labels come as one column a finding. given: whether the config names `labels`.
    words: whether labels are words of which some are no finding. groups: {standard column: the one it was read from}.
    """

    sample_id: str | None = None
    image: str | None = None
    subject_id: str | None = None
    prompt: str | None = None
    labels: str | None = None
    findings: dict[str, str] = field(default_factory=dict)
    given: bool = False
    words: bool = False
    groups: dict[str, str] = field(default_factory=dict)


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


def names_an_image(name: str) -> bool:
    """Whether a column may be known as the one of image files."""
    return any(fold(name) == fold(known) for kinds in KNOWN.values() for known in kinds["image"])


def detect(
    names: Sequence[str],
    origin: str,
    columns: Mapping[str, str | None] | None,
    where: str,
    *,
    kinds: Mapping[str, pa.DataType] | None = None,
    peer: Peer | None = None,
) -> Roles:
    """The roles of a table's columns: from the config where it names them (null: none), else as the peer says whose
    table it is, else the first known name.

    kinds: {column: its type}; ids, patients and prompts are not looked for in columns of lists and structs.
    Raises ConfigError for an unknown role and ManifestError for a column that the table does not have.
    """
    known = KNOWN[origin]
    chosen: dict[str, str | None] = {}
    for role, name in (columns or {}).items():
        if role not in known:
            raise ConfigError(
                f"{setting(origin, 'columns')}: unknown role {quoted(role)}. {suggestion(str(role), list(known))}"
            )
        if name is not None and name not in names:
            raise ManifestError(
                f"{where}: has no column {quoted(name)}, named in {setting(origin, f'columns.{role}')}. "
                f"{no_such_column(name, names)}"
            )
        chosen[role] = name
    for role, name in (peer.roles if peer else {}).items():
        if role not in chosen and (found := actual(name, names)):
            chosen[role] = found
    words = peer is not None and peer.words and "labels" not in (columns or {})
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(fold(name), name)
    for role, candidates in known.items():
        if role not in chosen:
            exact = [name for name in candidates if name in names]
            loose = [folded[fold(name)] for name in candidates if fold(name) in folded]
            fits = [
                name
                for name in exact + loose
                if role in _ANY_TYPE or not is_nested((kinds or {}).get(name, _TEXT_TYPE))
            ]
            chosen[role] = next(iter(fits), None)
    given = "labels" in (columns or {})
    findings = {} if given else {name: folded[fold(name)] for name in FINDINGS if fold(name) in folded}
    return Roles(**chosen, findings=findings, given=given, words=words)  # pyright: ignore[reportArgumentType]


def kinds_of(table: pa.Table) -> dict[str, pa.DataType]:
    """{column: its type}"""
    return dict(zip(table.schema.names, table.schema.types, strict=True))


def refuse_images(column: str, kind: pa.DataType, where: str, origin: str) -> None:
    """Raises ManifestError for a column that holds the images themselves and would be taken for their paths."""
    if not (holds_bytes(kind) or pa.types.is_struct(kind) or holds_pixels(kind)):
        return
    what = "image bytes" if holds_bytes(kind) or pa.types.is_struct(kind) else f"pixels ({kind_of(kind)} of numbers)"
    raise ManifestError(
        f"{where}: column {quoted(column)} holds {what}, not paths. Set {setting(origin, 'source')}: parquet_images."
    )


def no_image_column(names: Iterable[str], origin: str, where: str, *, tried: str | None = None) -> ManifestError:
    """The error for a table in which no column names an image. tried: a column of ids that names none either."""
    names = list(names)
    also = f", and no file is called as {quoted(tried, 60)} says" if tried else ""
    more = f", or the folder in which files have these ids in {root_setting(origin)}" if tried else ""
    return ManifestError(
        f"{where}: no column names an image: looked for {', '.join(KNOWN[origin]['image'][:6])} and the like, found "
        f"{NO_HEADER if is_row(names) else listed(names)}{also}. Name it in {setting(origin, 'columns.image')}{more}."
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
            f"{setting(origin, f'columns.{role}')}."
        )
    return as_text(column)


def standardise(
    table: pa.Table,
    roles: Roles,
    *,
    sample_id: pa.Array | pa.ChunkedArray,
    uri: pa.Array | pa.ChunkedArray,
    where: str,
    origin: str,
    notes: Sequence[str] = (),
    reasons: Mapping[str, str] | None = None,
    images: str = "",
    title: str = "",
    further: Mapping[str, object] | None = None,
) -> pa.Table:
    """The table every source returns: reserved columns first, then all columns of `table` under their own names.

    A column that has a reserved name but plays another part becomes `<name>_original`. Roles and notes travel in the
    schema's metadata; so do `reasons`, {sample_id: why its uri is null}, and `images`: below which folder they are and
    how it was chosen. title: what published table it is. further: what else a source says of its set.
    """
    out: dict[str, pa.Array | pa.ChunkedArray] = {"sample_id": sample_id, "uri": uri}
    if roles.subject_id:
        out["subject_id"] = as_text(table[roles.subject_id])
    if roles.prompt:
        out["prompt"] = _same_blanks(as_text(table[roles.prompt]))
    notes = list(notes)
    labels, roles, unread, counted = _labels(table, roles, where, origin)
    notes += counted
    if labels is not None:
        out["labels"] = labels
    if unread:
        notes.append(unread)
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
    used = {role: name for role, name in played.items() if name} | roles.groups
    handed: dict[str, object] = {"path": where, "notes": notes, "roles": used}
    handed |= {"reasons": dict(reasons or {}), "images": images, "unread_labels": unread, "title": title}
    handed |= further or {}
    return pa.table(out).replace_schema_metadata({METADATA_KEY: json.dumps(handed).encode()})


def _labels(table: pa.Table, roles: Roles, where: str, origin: str) -> tuple[pa.Array | None, Roles, str, list[str]]:
    """The labels, None without any; the roles as they were played; why a column of that name was not read; notes."""
    key, unread = setting(origin, "columns.labels"), ""
    if roles.labels:
        try:
            if roles.words and not label_reader.are_mappings(table[roles.labels]):
                found, note = label_reader.from_words(table[roles.labels], roles.labels)
                return found, replace(roles, findings={}), "", [note] if note else []
            found = label_reader.from_column(table[roles.labels], where, key, lists=roles.given or not roles.findings)
            return found, replace(roles, findings={}), "", []
        except NoLabels:
            if roles.given:
                raise
        unread = (
            f"column {quoted(roles.labels, 60)} is kept as it is and not read as labels, since it maps no finding to "
            f"1, 0 or -1 and is no list of findings; if labels are elsewhere, name their column in {key}"
        )
    if roles.findings:
        found = label_reader.from_finding_columns(table, roles.findings, where, key)
        return found, replace(roles, labels=None), unread, []
    return None, replace(roles, labels=None), unread, []


def _same_blanks(prompts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Prompts with lines that end in one way and no blank too many: two spellings of a prompt are one prompt."""
    for pattern, kept in ((r"\r\n?", "\n"), (r"[ \t\x{00a0}]+", " "), (r" ?\n ?", "\n"), (r"^\s+|\s+$", "")):
        prompts = pc.call_function("replace_substring_regex", [prompts], pc.ReplaceSubstringOptions(pattern, kept))
    return prompts
