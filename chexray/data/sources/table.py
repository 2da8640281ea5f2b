"""Sets given as a table that names image files, such as upstream CheXGenBench's CSVs as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._columns import Roles
from chexray.data.sources._lookup import filled, look_up
from chexray.data.sources._places import candidates, choose, nowhere, places_of
from chexray.data.sources._tables import read_table
from chexray.data.sources._types import holds_bytes
from chexray.data.values import blank_to_null
from chexray.errors import ManifestError
from chexray.spelling import fold
from chexray.storage import Storage, absolute, parent
from chexray.text import quoted, shown


@dataclass(frozen=True)
class Table:
    """CSV, TSV, Parquet or JSON lines (also .gz), one row for each image."""

    path: str
    """The table."""
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
    was given."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The rows as a source's table. Raises ManifestError, naming the row where there is one."""
        path = absolute(self.path)
        _columns.nameable(parent(path))
        table = self._rows(path, storage)
        roles = _columns.detect(table.column_names, origin, self.columns, path)
        images, roles = self._images(table, roles, origin, path)
        uri, where = self._places(path, images, roles, table, origin, storage)
        sample_id = pa.array(images, pa.string())
        if roles.sample_id is not None:
            sample_id = _columns.role_as_text(table[roles.sample_id], roles.sample_id, "sample_id", path, origin)
        return _columns.standardise(
            table, roles, sample_id=sample_id, uri=pa.array(uri, pa.string()), where=path, origin=origin, images=where
        )

    def _rows(self, path: str, storage: Storage) -> pa.Table:
        in_template = {fold(name) for name in re.findall(r"\{([^{}:]+)", self.image_template or "")}
        return read_table(path, storage, lambda name: _columns.is_text(name, self.columns) or fold(name) in in_template)

    def _images(self, table: pa.Table, roles: Roles, origin: str, path: str) -> tuple[list[str | None], Roles]:
        """What each row calls its image: the path by the template, a cell of the image column, or else its id."""
        if self.image_template:
            players = {role: getattr(roles, role) for role in ("sample_id", "image", "subject_id")}
            named = filled(self.image_template, table, players, origin, path)
            return named, roles if roles.sample_id else replace(roles, sample_id=roles.image)
        column = roles.image
        if column is None and "image" not in (self.columns or {}):
            column = roles.sample_id
        if column is None:
            raise _columns.no_image_column(table.column_names, origin, path)
        if holds_bytes(table[column].type) or pa.types.is_struct(table[column].type):
            raise ManifestError(
                f"{path}: column {quoted(column)} holds image bytes, not paths. Set {setting(origin, 'source')}: "
                "parquet_images."
            )
        texts = _columns.role_as_text(table[column], column, "image", path, origin)
        return blank_to_null(texts).to_pylist(), roles

    def _places(
        self, path: str, images: list[str | None], roles: Roles, table: pa.Table, origin: str, storage: Storage
    ) -> tuple[list[str | None], str]:
        """The uri of each image, and below which folder they are and why there."""
        if not any(images):
            raise ManifestError(
                f"{path}: no row names an image. Name the right column in {setting(origin, 'columns.image')}."
            )
        roots = candidates(path, self.image_root, origin, storage)
        root, index = choose(roots, images, self.image_lookup, storage)
        if root is None:
            if roles.image is None and not self.image_template:
                raise _columns.no_image_column(table.column_names, origin, path, tried=roles.sample_id)
            if self.image_root is None:
                raise nowhere(path, roots, images, origin)
            root = roots[0]  # the manifest counts what is missing
        if index is None:
            return places_of(path, root, images, origin), f"below {shown(root.uri)} ({root.why})"
        if self.image_lookup:
            direct = [None if image is None else root.place(image) for image in images]
        else:
            direct = places_of(path, root, images, origin)
        found = look_up(path, index, images, direct, table, roles.image or roles.sample_id, origin)
        return found, f"below {shown(root.uri)} ({root.why}), found by name"
