"""Sets given as a table that names image files, such as upstream CheXGenBench's CSVs as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._columns import Roles
from chexray.data.sources._lookup import filled, look_up
from chexray.data.sources._peer_rows import Rows, read_rows, said_of
from chexray.data.sources._peers import PEERS, Peer, actual
from chexray.data.sources._places import candidates, choose, nowhere, places_of
from chexray.data.values import blank_to_null
from chexray.errors import ManifestError
from chexray.spelling import fold
from chexray.storage import Storage, absolute, parent
from chexray.text import shown


@dataclass(frozen=True)
class Table:
    """CSV, TSV, Parquet or JSON lines (also .gz), one row for each image; published tables as they are.

    Those of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, PadChest, VinDr-CXR, RoentGen-v2 and ChexGen are recognised by
    their columns.
    """

    path: str
    """The table; of MIMIC-CXR-JPG one of its tables, or the folder that holds them."""
    image_root: str | None = None
    """Folder that relative image paths start from, and below which absolute paths and paths with `../` must lie.
    Default: the folder of the table, or a folder with the name of the table."""
    columns: dict[str, str | None] | None = None
    """Role to column, for the roles sample_id, image, subject_id, prompt and labels; null for a role without a column.
    Default: recognised by usual names."""
    image_template: str | None = None
    """Path of an image, built from columns, such as `files/p{subject_id}/{id}.jpg`."""
    image_lookup: bool | None = None
    """Find images by name alone, in any folder below the root. Default: where no path leads to an image and the root
    was given; folders that a cell names must then agree with those on the disk."""
    split: str | None = None
    """Split to read, by the column `split`, such as `test`; `all` reads every row. MIMIC-CXR-JPG needs it."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The rows as a source's table. Raises ManifestError, naming the row where there is one."""
        path = absolute(self.path)
        _columns.nameable(parent(path))
        rows = self._rows(path, origin, storage)
        table, path = rows.table, rows.path
        roles = _columns.detect(
            table.column_names, origin, self.columns, path, kinds=_columns.kinds_of(table), peer=rows.peer
        )
        roles = replace(roles, groups=rows.groups or {})
        ways, roles = self._images(rows, roles, origin)
        uri, where, elsewhere = self._places(path, ways, roles, rows, origin, storage)
        sample_id = _ids(ways[0], rows.peer)
        if roles.sample_id is not None:
            sample_id = _columns.role_as_text(table[roles.sample_id], roles.sample_id, "sample_id", path, origin)
        if roles.subject_id is None and rows.peer and rows.peer.subject and "subject_id" not in (self.columns or {}):
            table, roles = _with_patients(table, ways[0], rows.peer, roles)
        return _columns.standardise(
            table, roles, sample_id=sample_id, uri=pa.array(uri, pa.string()), where=path, origin=origin, images=where,
            notes=[*rows.notes, *filter(None, [elsewhere])], **said_of(rows.peer, table),
        )  # fmt: skip

    def _rows(self, path: str, origin: str, storage: Storage) -> Rows:
        in_template = {fold(name) for name in re.findall(r"\{([^{}:]+)", self.image_template or "")}

        def is_text(name: str) -> bool:
            return _columns.is_text(name, self.columns) or fold(name) in in_template or fold(name) in PATH_COLUMNS

        return read_rows(path, is_text, self.split, origin, storage, is_folder=storage.is_dir(path))

    def _images(self, rows: Rows, roles: Roles, origin: str) -> tuple[list[list[str | None]], Roles]:
        """What each row calls its image, in one way or several: the path by a template, a cell of the image column, or
        else its id."""
        table, path, peer = rows.table, rows.path, rows.peer
        players = {role: getattr(roles, role) for role in ("sample_id", "image", "subject_id")}
        if self.image_template:
            named = filled(self.image_template, table, players, origin, path)
            return [named], roles if roles.sample_id else replace(roles, sample_id=roles.image)
        has_own = "image" in (self.columns or {})
        if peer and peer.paths and not has_own and (roles.image is None or "image" in peer.roles):
            ways = [filled(template, table, players, origin, path) for template in peer.paths if _fits(template, table)]
            if ways:
                return [*ways, *_without_prefix(ways[0], peer)], roles
        column = roles.image
        if column is None and not has_own:
            column = roles.sample_id
        if column is None:
            raise _columns.no_image_column(table.column_names, origin, path)
        _columns.refuse_images(column, table[column].type, path, origin)
        texts = _columns.role_as_text(table[column], column, "image", path, origin)
        cells = blank_to_null(texts).to_pylist()
        return [cells, *(_without_prefix(cells, peer) if peer else [])], roles

    def _places(
        self, path: str, ways: list[list[str | None]], roles: Roles, rows: Rows, origin: str, storage: Storage
    ) -> tuple[list[str | None], str, str]:
        """The uri of each image, below which folder they are and why there, and a note on those found elsewhere."""
        table, images = rows.table, ways[0]
        if not any(images):
            raise ManifestError(
                f"{path}: no row names an image. Name the right column in {setting(origin, 'columns.image')}."
            )
        roots = candidates(path, self.image_root, origin, storage)
        root = index = None
        for each in ways if len(ways) > 1 and not self.image_lookup else ():
            root, index = choose(roots, each, False, storage)
            if root is not None:
                images = each
                break
        if root is None:
            images = ways[-1]  # without folders that a download may lack or call otherwise
            root, index = choose(roots, images, self.image_lookup, storage)
        if root is None:
            if roles.image is None and not self.image_template and not (rows.peer and rows.peer.paths):
                raise _columns.no_image_column(table.column_names, origin, path, tried=roles.sample_id)
            if self.image_root is None:
                raise nowhere(path, roots, images, origin)
            root = roots[0]  # the manifest counts what is missing
        if index is None:
            return places_of(path, root, images, origin), f"below {shown(root.uri)} ({root.why})", ""
        if self.image_lookup:
            direct = [None if image is None else root.place(image) for image in images]
        else:
            direct = places_of(path, root, images, origin)
        uris, note = look_up(
            path, index, images, direct, table, roles.image or roles.sample_id, origin,
            by_name=bool(self.image_lookup),
        )  # fmt: skip
        return uris, f"below {shown(root.uri)} ({root.why}), found by name", note


PATH_COLUMNS = {fold(name) for peer in PEERS for each in peer.paths for name in re.findall(r"\{([^{}:]+)", each)}
"""Columns that paths of published tables are built from: 007 is not 7 in them."""


def _fits(template: str, table: pa.Table) -> bool:
    return all(actual(name, table.column_names) for name in re.findall(r"\{([^{}:]+)", template))


def _without_prefix(images: list[str | None], peer: Peer) -> list[list[str | None]]:
    """The same paths without the first folders that a download may lack, [] where no path begins with them."""
    if not peer.prefix:
        return []
    short = [image if image is None else re.sub(peer.prefix, "", image) for image in images]
    return [short] if short != images else []


def _ids(images: list[str | None], peer: Peer | None) -> pa.Array:
    """The names of images as ids; of a peer whose names hold ids, such as MIMIC's DICOM ids, these."""
    found = [re.fullmatch(peer.ids, image) if peer and peer.ids and image else None for image in images]
    return pa.array([match[1] if match else image for match, image in zip(found, images, strict=True)], pa.string())


def _with_patients(table: pa.Table, images: list[str | None], peer: Peer, roles: Roles) -> tuple[pa.Table, Roles]:
    """The table with the patients that the paths of its images name."""
    found = [None if image is None else re.search(peer.subject, image) for image in images]
    name = "patient"
    while name in table.column_names:
        name += "_"
    column = pa.array([match[1] if match else None for match in found], pa.string())
    return table.append_column(name, column), replace(roles, subject_id=name)
