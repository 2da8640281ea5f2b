"""Sets given from Python as a table in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import pyarrow as pa

from chexray.data.sources import _columns
from chexray.data.sources._frames import as_arrow
from chexray.data.sources._peer_rows import Rows, prepared
from chexray.data.sources._peers import recognise
from chexray.data.sources._types import checked
from chexray.data.sources.table import Table
from chexray.errors import ManifestError
from chexray.storage import Storage
from chexray.storage.parquet import to_bytes
from chexray.storage.uris import folder_of_cells
from chexray.text import shown

_KEPT: dict[str, pa.Table] = {}
"""{digest: table} of this process. Only the plan reads a set's table: workers are sent the images' uris."""

PREFIX = "DataFrame-"
"""What the path of such a set begins with; its digest follows."""


def keep(value: object, where: str) -> str:
    """The path under which a table can be read in this process: equal tables have the same one, so that the same call
    resumes the same run. Raises ManifestError that begins with `where`."""
    table = as_arrow(value, f"{where}: found").combine_chunks()
    if not len(table):
        raise ManifestError(f"{where}: the table has no rows. Expected one row an image.")
    digest = hashlib.blake2b(to_bytes(table), digest_size=8).hexdigest()
    _KEPT[digest] = table
    return PREFIX + digest


@dataclass(frozen=True)
class Frame(Table):
    """A pandas DataFrame (or another table in memory) given to `chexray.evaluate`; columns and options as of a table.

    image_root: where relative image paths start, by default the working folder. Absolute ones need none.
    """

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The rows as a source's table. Raises ManifestError in a process that was not given the table."""
        table = self._rows(self.path, origin, storage).table
        kinds = _columns.kinds_of(table)
        image = _columns.detect(table.column_names, origin, self.columns, self.path, kinds=kinds).image
        named = [cell for cell in table[image].to_pylist() if isinstance(cell, str) and cell] if image else []
        root = "" if self.image_root else folder_of_cells(named)
        return Table.read(replace(self, image_root=root) if root else self, origin, storage)

    def _rows(self, path: str, origin: str, storage: Storage) -> Rows:
        found = _KEPT.get(self.path.removeprefix(PREFIX))
        if found is None:
            raise ManifestError(
                f"{shown(self.path)}: this set was a table in memory, and this process was not given it. Call "
                "chexray.evaluate with it again, or write it to a file and name that."
            )
        table = checked(found, self.path)
        return prepared([table], [path], recognise(table.column_names, table), self.split, origin)
