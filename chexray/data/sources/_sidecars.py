"""Small members beside the images of an archive that describe them: NAME.txt, NAME.cls and NAME.json of NAME.png.

A sidecar belongs to the images whose name, without what stands behind the last point, is its own. Else NAME.txt belongs
to the only image that has NAME as its WebDataset key, the name up to the first point. So the DICOM id 1.2.840.113 stays
one id, and 1.license.txt is not the prompt of 1.png.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pyarrow as pa

from chexray.data.containers.addresses import Member, split_member
from chexray.data.containers.members import fetch
from chexray.data.rejects import Reject
from chexray.data.sources._archives import stem, webdataset_key
from chexray.data.sources._json_lines import read_json_lines
from chexray.data.sources._types import checked
from chexray.errors import ManifestError
from chexray.spelling import plural
from chexray.storage import Storage
from chexray.text import shown

SIDECARS = (".txt", ".cls", ".json")
MAX_BYTES = 1 << 20
"""Bytes of one sidecar."""
MAX_ALL_BYTES = 1_000_000_000

Columns = dict[str, pa.Array | pa.ChunkedArray]


def read_sidecars(members: pa.Table, images: pa.Table, at: str, storage: Storage) -> tuple[Columns, int, list[str]]:
    """The columns that sidecars add, one row an image; how many sidecars there are; lines on what could not be used.

    members, images: tables with name, uri, size and shard. at: the set, for messages. Raises ManifestError for JSON
    that is no object.
    """
    owner = _Owners(images)
    claims = _claims(members, owner, at)
    notes = [*owner.notes(), *claims.notes]
    wanted: list[tuple[str, list[int], str]] = []
    fit: list[Member] = []
    for (kind, name, uri), rows in claims.rows.items():
        member = split_member(uri)
        if member is None or member.largest > MAX_BYTES:
            continue
        fit.append(member)
        wanted.append((kind, rows, name))
    if (n_bytes := sum(member.largest for member in fit)) > MAX_ALL_BYTES:
        raise ManifestError(
            f"{at}: its {len(fit):,} sidecar members (.txt, .cls, .json) hold {n_bytes:,} bytes, at most "
            f"{MAX_ALL_BYTES:,} are read. Write them as one table."
        )
    n_broken = len(claims.rows) - len(fit)
    cells: dict[str, list[bytes | None]] = {}
    for (kind, rows, name), data in zip(wanted, fetch(fit, storage), strict=True):
        if isinstance(data, Reject):
            if data.transient:
                raise ManifestError(f"{at}: {shown(name)} cannot be read ({data.detail}). Try again.")
            n_broken += 1
            continue
        column = cells.setdefault(kind, [None] * len(images))
        for row in rows:
            column[row] = data
    if n_broken:
        notes.append(f"not used: {plural(n_broken, 'sidecar member')}, damaged or larger than {MAX_BYTES:,} bytes")
    columns, more = _columns(cells, images["name"].to_pylist(), at)
    return columns, len(claims.rows) + claims.n_unused, [*notes, *more]


_COLUMNS = ("name", "uri", "shard")


@dataclass
class _Claims:
    """rows: {(kind, name, uri) of a sidecar: the images that it describes}. n_unused: sidecars that describe none."""

    rows: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    n_unused: int = 0
    notes: list[str] = field(default_factory=list)


def _claims(members: pa.Table, owner: _Owners, at: str) -> _Claims:
    """Which sidecar describes which images. Raises ManifestError for two of one kind that fit an image equally well."""
    claims = _Claims()
    taken: dict[tuple[str, int], str] = {}
    by_key: list[tuple[str, str, str, int]] = []
    unclear: list[str] = []
    for name, uri, shard in zip(*(members[each].to_pylist() for each in _COLUMNS), strict=True):
        kind = next((end for end in SIDECARS if name.lower().endswith(end)), "")
        if not kind:
            continue
        rows = owner.of_stem(shard, name)
        if rows:
            _take(taken, kind, rows, name, at)
            claims.rows[kind, name, uri] = rows
        elif (row := owner.of_key(shard, name)) is not None:
            if row >= 0 and stem(name) == webdataset_key(name):
                by_key.append((kind, name, uri, row))
            else:  # 1.license.txt beside 1.png, or 1.txt beside 1.a.png and 1.b.png
                unclear.append(name)
    exact = set(taken)
    for kind, name, uri, row in by_key:
        if (kind, row) in exact:
            unclear.append(name)
            continue
        _take(taken, kind, [row], name, at)
        claims.rows[kind, name, uri] = [row]
    if unclear:
        claims.n_unused = len(unclear)
        claims.notes.append(
            f"not used: {plural(len(unclear), 'sidecar member')} whose name is not that of one image with another "
            f"suffix, such as {shown(unclear[0], 60)}"
        )
    return claims


def _take(taken: dict[tuple[str, int], str], kind: str, rows: list[int], name: str, at: str) -> None:
    for row in rows:
        if (other := taken.setdefault((kind, row), name)) != name:
            raise ManifestError(
                f"{at}: {shown(other)} and {shown(name)} both describe one image. Leave one of them in the archive, or "
                "name a table in `table_path`."
            )


class _Owners:
    """Which images a sidecar describes."""

    def __init__(self, images: pa.Table):
        self.by_stem: dict[tuple[str, str], list[int]] = {}
        self.by_key: dict[tuple[str, str], int] = {}
        self.stems: list[tuple[str, str]] = []
        for row, (name, shard) in enumerate(zip(images["name"].to_pylist(), images["shard"].to_pylist(), strict=True)):
            self.stems.append((shard, stem(name)))
            self.by_stem.setdefault(self.stems[-1], []).append(row)
            key = (shard, webdataset_key(name))
            self.by_key[key] = -1 if key in self.by_key else row

    def of_stem(self, shard: str, name: str) -> list[int]:
        """The images called so but for the suffix: one picture may be there in two formats."""
        return self.by_stem.get((shard, stem(name)), [])

    def of_key(self, shard: str, name: str) -> int | None:
        """The image of the same WebDataset key; -1 for several."""
        return self.by_key.get((shard, webdataset_key(name)))

    def notes(self) -> list[str]:
        """A line where a second picture of a sample, such as 0001.seg.png beside 0001.png, is taken for an image."""
        second = [one for shard, one in self.stems if stem(one) != one and (shard, stem(one)) in self.by_stem]
        if not second:
            return []
        return [
            f"{plural(len(second), 'image')} called as another with one part more, such as {shown(second[0], 60)}: if "
            "these are masks, leave them out by `pattern`"
        ]


def _columns(cells: dict[str, list[bytes | None]], names: list[str], at: str) -> tuple[Columns, list[str]]:
    """The columns of sidecars, and a line where prompts stand in two of them."""
    columns: Columns = {}
    notes: list[str] = []
    if ".json" in cells:
        lines = [_object(cell, name, at) for cell, name in zip(cells[".json"], names, strict=True)]
        table = read_json_lines(f"{at} (its .json members)", b"\n".join(lines))
        columns |= dict(zip(table.column_names, table.columns, strict=True))
    if ".txt" in cells:
        texts = [None if cell is None else cell.decode("utf-8", "replace").strip() for cell in cells[".txt"]]
        apart = "prompt" in columns and not any(
            a and b for a, b in zip(columns["prompt"].to_pylist(), texts, strict=True)
        )
        if apart:
            texts = [a or b for a, b in zip(columns.pop("prompt").to_pylist(), texts, strict=True)]
        if "prompt" in columns:
            notes.append("prompts are those of the .json members; the texts of .txt members are in the column txt")
        columns["txt" if "prompt" in columns else "prompt"] = pa.array(texts, pa.string())
    if ".cls" in cells:
        texts = [None if cell is None else cell.decode("utf-8", "replace").strip() for cell in cells[".cls"]]
        whole = all(text is None or (text.isascii() and text.isdigit() and len(text) < 10) for text in texts)
        numbers = [None if text is None else int(text) for text in texts] if whole else texts
        columns["cls_" if "cls" in columns else "cls"] = pa.array(numbers, pa.int64() if whole else pa.string())
    if not columns:
        return {}, notes
    table = checked(pa.table(columns), f"{at} (its sidecar members)")
    return dict(zip(table.column_names, table.columns, strict=True)), notes


def _object(cell: bytes | None, name: str, at: str) -> bytes:
    """The JSON of one image on one line."""
    if cell is None:
        return b"{}"
    try:
        parsed = json.loads(cell)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise ManifestError(
            f"{at}: the .json member of {shown(name)} is not a JSON object. Correct it, or leave it out."
        )
    return cell.removeprefix(b"\xef\xbb\xbf").replace(b"\n", b" ").replace(b"\r", b" ")
