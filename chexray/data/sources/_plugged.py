"""A source of somebody else's, watched: what it returns is checked, and what it raises becomes one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from chexray.data.labels import LABELS_TYPE
from chexray.data.sources._frames import as_arrow
from chexray.errors import ChexrayError, PluginError
from chexray.plugin_files import told
from chexray.storage import Storage, is_remote
from chexray.text import listed, shown

NEEDED = ("sample_id", "uri")


@dataclass(frozen=True)
class PluggedSource:
    """A plug-in's source. inner: what the plug-in made. what: its title in an error."""

    inner: Any
    what: str

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """Its table, a pandas DataFrame too, with text in the columns of ids and paths. Raises PluginError."""
        try:
            found = self.inner.read(origin, storage)
        except (ChexrayError, MemoryError):
            raise
        except Exception as error:
            raise PluginError(f"{self.what}: read failed ({told(error)}).") from error
        table = as_arrow(found, f"{self.what}: read returned")
        missing = [name for name in NEEDED if name not in table.column_names]
        if missing:
            raise PluginError(
                f"{self.what}: read returned a table without {listed(missing)} (it has {listed(table.column_names)}). "
                "Expected one row an image, sample_id and uri."
            )
        for name in (*NEEDED, *(each for each in ("subject_id", "prompt") if each in table.column_names)):
            try:
                table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
            except pa.ArrowException:
                kind = shown(str(table[name].type).partition("<")[0], 60)
                raise PluginError(f"{self.what}: read returned {name} as {kind}, expected text.") from None
        if "labels" in table.column_names:
            table = table.set_column(table.column_names.index("labels"), "labels", self._labels(table["labels"]))
        loose = sum(uri is not None and not _is_whole(uri) for uri in table["uri"].to_pylist())
        if loose:
            raise PluginError(
                f"{self.what}: {loose} of {len(table)} uris are neither absolute paths nor URIs such as s3://. "
                "Make them so."
            )
        return table

    def _labels(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        try:
            return column.cast(LABELS_TYPE)
        except pa.ArrowException:
            raise PluginError(
                f"{self.what}: read returned labels as {shown(str(column.type), 60)}, expected a list of "
                f"{LABELS_TYPE.list_size} whole numbers an image (1, 0, -1 or null, in the order of chexray.findings)."
            ) from None


def _is_whole(uri: str) -> bool:
    return is_remote(uri) or uri.startswith("/")
