"""The rows of a published table, one an image: tables joined, a split chosen, several readings of an image united."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.labels import INDEX
from chexray.data.schema import METADATA_KEY
from chexray.data.sources._peers import PEERS, Peer, actual, of_file, recognise
from chexray.data.sources._splits import rows_of
from chexray.data.sources._tables import read_table
from chexray.data.values import as_text, codes
from chexray.errors import ManifestError
from chexray.spelling import fold
from chexray.storage import Storage, basename, join, parent
from chexray.text import listed, shown

SUFFIXES = (".csv", ".csv.gz")
_SEX = {"male": "M", "female": "F"}


@dataclass(frozen=True)
class Rows:
    """A table of one row an image. path: of the table, or of the first of several; peer: whose it is, None for others.

    groups: {standard name: column} that were added. notes: lines to show the user.
    """

    table: pa.Table
    path: str
    peer: Peer | None = None
    groups: dict[str, str] | None = None
    notes: tuple[str, ...] = ()


def tables_in(folder: str, storage: Storage) -> list[str]:
    """The files in a folder that make one published table, in their order; [] where there are none."""
    return _siblings(folder, (peer for peer in PEERS if peer.files), storage)


def read_rows(
    path: str, is_text: Callable[[str], bool], split: str | None, origin: str, storage: Storage, *, is_folder: bool
) -> Rows:
    """The rows of a table file, joined with those that belong to it; `path` may also be the folder that holds them.

    Raises ManifestError for a folder without such tables, for a table that cannot be read, and for several splits of
    which the config names none.
    """
    peer = None if is_folder else of_file(basename(path))
    paths = tables_in(path, storage) if is_folder else [path]
    if peer is not None:
        paths = _siblings(parent(path), [peer], storage)
    if not paths:
        raise ManifestError(f"{shown(path)}: is a folder without a known set of tables. Name a table in it.")
    tables = [read_table(each, storage, is_text) for each in paths]
    peer = of_file(basename(paths[0])) or recognise(tables[0].column_names, tables[0])
    return prepared(tables, paths, peer, split, origin)


def prepared(
    tables: Sequence[pa.Table], paths: Sequence[str], peer: Peer | None, split: str | None, origin: str
) -> Rows:
    """The same of tables that are read already."""
    table, notes, where = tables[0], [], paths[0]
    if peer is not None and len(tables) > 1:
        table, notes = _joined(tables, paths, peer)
    column = actual("split" if peer is None else peer.split or "split", table.column_names)
    # A table of one's own may hold several on purpose; a published set is never read as one by mistake.
    is_published = peer is not None and of_file(basename(where)) is not None
    if split is not None or (is_published and column is not None):
        kept = rows_of(None if column is None else as_text(table[column]), split, where, origin)
        if not kept.all():
            notes.append(f"{int((~kept).sum()):,} rows of other splits are left out (split {shown(split, 60)})")
        table = table.filter(pa.array(kept))
    if peer is None:
        return Rows(table, where, notes=tuple(notes))
    if peer.one_row_of:
        table, told = _one_row_each(table, actual(peer.one_row_of, table.column_names) or "", peer, where)
        notes += told
    table, groups = with_groups(table, peer)
    return Rows(table, where, peer, groups, tuple(notes))


def said_of(peer: Peer | None, table: pa.Table) -> dict[str, Any]:
    """What goes with a set wherever it goes: the title, card and pairing of its peer, or of the set it was filtered
    from."""
    if peer is not None and peer.card:
        return {"title": peer.title, "further": {"card": peer.card, "pairs": peer.pairs}}
    try:
        handed = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        kept = {name: shown(handed[name], 400) for name in KEPT if isinstance(handed.get(name), str)}
    except (ValueError, RecursionError, TypeError):  # anybody may have written it
        kept = {}
    return {"title": peer.title if peer else kept.pop("title", ""), "further": kept}


KEPT = ("title", "card", "pairs")
"""What a filtered table hands over of the set that it was filtered from."""


def _siblings(folder: str, peers: Iterable[Peer], storage: Storage) -> list[str]:
    for peer in peers:
        names = [join(folder, f"{stem}{suffix}") for stem in peer.files for suffix in SUFFIXES]
        there = {name for name, found in zip(names, storage.stat(names), strict=True) if found is not None}
        firsts = [[name for name in names if basename(name).startswith(f"{stem}.")] for stem in peer.files]
        found = [next(name for name in each if name in there) for each in firsts if there & set(each)]
        if found:
            return found
    return []


def _joined(tables: Sequence[pa.Table], paths: Sequence[str], peer: Peer) -> tuple[pa.Table, list[str]]:
    """All columns beside each row of the first table that has a row an image."""
    names = [basename(path) for path in paths]
    has_images = [peer.on[0] in table.column_names for table in tables]
    if not any(has_images):
        raise ManifestError(
            f"{paths[0]}: {listed(names)} have no {peer.on[0]}, so no row names an image. Put the other tables of "
            f"{peer.title} beside it: {listed(peer.files)}."
        )
    first = has_images.index(True)
    out, notes = tables[first], []
    for place, table in enumerate(tables):
        if place == first:
            continue
        keys = [name for name in peer.on if name in table.column_names and name in out.column_names]
        if peer.on[0] in keys:
            keys = [peer.on[0]]
        index = _match(out, table, keys, paths[place])
        lost = int((index < 0).sum())
        if lost:
            notes.append(f"{lost:,} of {len(out):,} images have no row in {shown(names[place])}")
        taken = table.take(pa.array(np.maximum(index, 0), mask=index < 0))
        for name in table.column_names:
            if name not in out.column_names:
                out = out.append_column(name, taken[name])
    return out, [f"joined by {listed(peer.on)}: {listed(names)}", *notes]


def _match(left: pa.Table, right: pa.Table, keys: Sequence[str], where: str) -> np.ndarray:
    """(n,) int64: the row of `right` with the same keys, -1 for none. Raises ManifestError where two have."""
    if not keys:
        raise ManifestError(f"{where}: has no column that joins it to the other tables. Copy the table again.")
    texts = [_key(table, keys) for table in (left, right)]
    if len(texts[1].unique()) < len(texts[1]):
        raise ManifestError(f"{where}: two rows have one {listed(keys)}. Remove one, or copy the table again.")
    found = pc.call_function("index_in", [texts[0]], pc.SetLookupOptions(texts[1], skip_nulls=True))
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _key(table: pa.Table, keys: Sequence[str]) -> pa.ChunkedArray:
    """The keys of each row as one text: 50.0 is 50, and an id is the same in capitals."""
    columns = [_plain(as_text(table[name])) for name in keys]
    return columns[0] if len(columns) == 1 else pc.call_function("binary_join_element_wise", [*columns, "/"])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    whole = pc.ReplaceSubstringOptions(r"^\s*(\d+)\.0+\s*$", r"\1")
    return pc.call_function("utf8_lower", [pc.call_function("replace_substring_regex", [column], whole)])


def _one_row_each(table: pa.Table, column: str, peer: Peer, where: str) -> tuple[pa.Table, list[str]]:
    """The table with one row for each value of the column: words are united, columns that differ are left out."""
    group = codes(table[column])
    n = int(group.max()) + 1 if len(group) else 0
    if n == len(table):
        return table, []
    first = np.full(n, len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    label = actual(peer.roles.get("labels", ""), table.column_names)
    out: dict[str, pa.ChunkedArray | pa.Array] = {}
    dropped, differ = [], 0
    for name in table.column_names:
        values = codes(table[name])
        same = np.ones(n, bool)
        np.logical_and.at(same, group, values == values[first][group])
        if name == label:
            out[name] = _united(as_text(table[name]), group, n)
            differ = int((~same).sum())
        elif fold(name) in INDEX:
            out[name] = _largest(table[name], group, n, where)
        elif same.all():
            out[name] = table[name].take(pa.array(first))
        else:
            dropped.append(name)
    note = (
        f"{len(table):,} rows are about {n:,} images: each image has the findings of all its rows, which differ in "
        f"{differ:,} images"
    )
    return pa.table(out), [f"{note}; {listed(dropped)} differ by row and are left out" if dropped else note]


def _united(texts: pa.ChunkedArray, group: np.ndarray, n: int) -> pa.Array:
    """Each distinct word of a group, joined by `|`. "No Finding" of one reader gives way to what another found."""
    words: list[dict[str, None]] = [{} for _ in range(n)]
    for place, text in zip(group.tolist(), texts.to_pylist(), strict=True):
        if text:
            words[place][text] = None
    found = [[word for word in each if len(each) == 1 or fold(word) != "nofinding"] for each in words]
    return pa.array(["|".join(each) or None for each in found], pa.string())


def _largest(column: pa.ChunkedArray, group: np.ndarray, n: int, where: str) -> pa.Array:
    """The largest number of each group, null where all are."""
    try:
        numbers = column.cast(pa.float64()).to_numpy()
    except pa.ArrowException:
        raise ManifestError(f"{where}: a column of findings holds text. Expected 1, 0, -1 or empty.") from None
    out = np.full(n, -np.inf)
    np.maximum.at(out, group, np.where(np.isnan(numbers), -np.inf, numbers))
    return pa.array(out, mask=np.isinf(out))


def with_groups(table: pa.Table, peer: Peer) -> tuple[pa.Table, dict[str, str]]:
    """The table with the standard columns `sex`, `age`, `view` of a peer's own, and {standard name: its column}."""
    groups: dict[str, str] = {}
    for name, wanted in peer.groups.items():
        column = actual(wanted, table.column_names)
        if column is None or column == name or name in table.column_names:
            continue
        groups[name] = column
        table = table.append_column(name, _READ.get(name, lambda values: values)(table[column]))
    return table, groups


def _sexes(column: pa.ChunkedArray) -> pa.Array:
    """M and F also of Male and Female; other values as they are."""
    return pa.array([_SEX.get(str(value).lower(), value) for value in as_text(column).to_pylist()], pa.string())


_A_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}


def _years(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """Whole years also of DICOM's 058Y, 018M, 006W and 010D; other columns as they are."""
    if not pa.types.is_string(column.type):
        return column
    found = [re.fullmatch(r"\s*(\d{1,3})([YMWD]?)\s*", value or "") for value in column.to_pylist()]
    if any(match is None and value for match, value in zip(found, column.to_pylist(), strict=True)):
        return column
    return pa.array([int(int(match[1]) / _A_YEAR[match[2]]) if match else None for match in found], pa.int64())


_READ: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray | pa.Array]] = {"sex": _sexes, "age": _years}
