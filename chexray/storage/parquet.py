"""The one door through which Parquet is opened and made: no value is touched before its types are known to be inert.

Extension types, which may run code, are refused by `extension_types`; what a file says about its size is looked at
before it is expanded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from chexray.errors import StorageError
from chexray.storage.extension_types import (
    as_storage,
    names_in_footer,
    names_in_schema,
    refuse_extensions,
    storage_type,
)
from chexray.storage.uris import Damaged, StorageFailure
from chexray.text import listed, quoted, shown

MAX_BYTES = 8 << 30
"""Expanded bytes that one row group may announce: 20,000 radiographs of 400 kB."""
MAX_TABLE_BYTES = 1 << 30
"""Expanded bytes of the columns of one table: dictionaries expand beyond what a footer announces."""
TABLE_SLICE_BYTES = 256 << 20
"""Expanded bytes of a table that are looked at before more are."""
SLICE_BYTES = 64 << 20
"""Expanded bytes of embedded images that are held at once beyond those asked for."""
MAX_COLUMNS, MAX_ROWS = 50_000, 200_000_000
_BATCH_ROWS = 4096
_METADATA_BYTES = 1 << 20


class ParquetFile:
    """An open Parquet file whose schema was checked. `schema` has storage types only; `described` is what the metadata
    of Hugging Face datasets say of each column, {} without them. handed: what chexray wrote into the metadata itself.

    checksums: verify each page; for files of our own, whose damage is `Damaged` until every try has met it.
    Raises StorageFailure, with code "corrupt" for damage and "refused" for extension types and sizes, never a text of
    Arrow's own: that may quote the values of a row.
    """

    def __init__(self, source: BinaryIO, where: str, *, checksums: bool = False):
        self.where, self.checksums = where, checksums
        with self._said():
            refuse_extensions(names_in_footer(source), where)
            source.seek(0)
            self._source = source
            self._file = pq.ParquetFile(source, page_checksum_verification=checksums)
            arrow = self._file.schema_arrow
            refuse_extensions(names_in_schema(arrow), where)
            self.schema = pa.schema([(field.name, storage_type(field.type)) for field in arrow])
            self.described = _description(arrow)
            self.handed: bytes = (arrow.metadata or {}).get(b"chexray", b"{}")
            metadata = self._file.metadata
            self.n_rows: int = metadata.num_rows
            self.group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._refuse_sizes()

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of some columns, or of all. Nested ones may be named by their path, "image.path"."""
        with self._said():
            table = as_storage(self._file.read(columns=None if columns is None else list(columns)))
            table.validate(full=True)  # text that is no UTF-8 would fail later, at the first value taken
            return table

    def read_bounded(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The same for a stranger's table, dictionaries decoded: refused once it has expanded to MAX_TABLE_BYTES."""
        names = None if columns is None else list(columns)
        parts, n_bytes = [], 0
        with self._said():
            rows = min((self._rows_at_once(i, TABLE_SLICE_BYTES) for i in range(len(self.group_rows))), default=1)
            for batch in self._file.iter_batches(batch_size=min(_BATCH_ROWS, rows), columns=names):
                parts.append(_decoded_dictionaries(as_storage(pa.Table.from_batches([batch]))))
                n_bytes += parts[-1].nbytes
                if n_bytes > MAX_TABLE_BYTES:
                    raise self._refused(f"expands to more than {MAX_TABLE_BYTES >> 30} GiB", "Split it")
            if not parts:
                return _decoded_dictionaries(as_storage(self._file.read(columns=names)))
            return pa.concat_tables(parts).combine_chunks()

    def batches(self, group: int, column: str) -> Iterator[pa.Array]:
        """One column of a row group in slices of at most 32 rows that expand to SLICE_BYTES or to one row."""
        with self._said():
            rows = min(32, self._rows_at_once(group, SLICE_BYTES))
            for batch in self._file.iter_batches(batch_size=rows, row_groups=[group], columns=[column]):
                yield as_storage(pa.Table.from_batches([batch])).column(column).combine_chunks()

    def mean_row(self, group: int, column: str) -> tuple[float, float]:
        """Values and bytes of a row of a group on average, with what stands inside it, as the footer says: some row
        holds so much."""
        metadata, n_rows = self._file.metadata.row_group(group), max(1, self.group_rows[group])
        parts = [metadata.column(place) for place in range(metadata.num_columns)]
        mine = [part for part in parts if part.path_in_schema == column or part.path_in_schema.startswith(f"{column}.")]
        n_values = max((part.num_values for part in mine), default=0)
        return n_values / n_rows, max((part.total_uncompressed_size for part in mine), default=0) / n_rows

    def _rows_at_once(self, group: int, n_bytes: int) -> int:
        """Rows of a group that expand to about `n_bytes` at most: those of a dictionary may each be all of it, and a
        list may repeat one value without end."""
        metadata, n_rows = self._file.metadata.row_group(group), max(1, self.group_rows[group])
        a_row = 1.0
        for place in range(metadata.num_columns):
            column = metadata.column(place)
            plain, values = column.total_uncompressed_size / n_rows, 8.0 * column.num_values / n_rows
            a_row += max(plain, values, self._dictionary_bytes(column))
        return max(1, min(n_rows, int(n_bytes / a_row)))

    def _dictionary_bytes(self, column: Any) -> int:
        """The expanded size of the dictionary of a column, as the header of its page says; 0 without one."""
        if not column.has_dictionary_page or column.dictionary_page_offset is None:
            return 0
        self._source.seek(column.dictionary_page_offset)
        header = self._source.read(16)
        # Thrift's compact protocol: field 1, the type of the page, and field 2, its size, are zigzag numbers.
        numbers, place = [], 0
        for _ in range(2):
            if header[place : place + 1] != b"\x15":
                return column.total_uncompressed_size
            number, shift, place = 0, 0, place + 1
            while place < len(header):
                number |= (header[place] & 0x7F) << shift
                shift, place = shift + 7, place + 1
                if header[place - 1] < 0x80:
                    break
            numbers.append(number >> 1)
        return numbers[1]

    def need(self, columns: Sequence[str]) -> None:
        """Raises StorageFailure when a column is missing: Arrow leaves unknown names out without a word."""
        missing = [name for name in columns if name not in self.schema.names]
        if missing:
            raise StorageFailure(
                f"{self.where} has no column {quoted(missing[0])}. Its columns: {listed(self.schema.names)}.",
                code="not_found",
            )

    def need_types(self, expected: Mapping[str, pa.DataType]) -> None:
        """Raises StorageFailure, code "refused", when a column is missing or of another type or width."""
        self.need(list(expected))
        for name, kind in expected.items():
            if self.schema.names.count(name) > 1:
                raise self._refused(f"has two columns called {quoted(name)}", "Delete it")
            found = self.schema.field(name).type
            if not _alike(found, kind):
                raise self._refused(
                    f"has {shown(found, 60)} in column {quoted(name)}, where {shown(kind, 60)} belongs", "Delete it"
                )

    def _refuse_sizes(self) -> None:
        metadata = self._file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        announced = sum(max(0, group.total_byte_size) for group in groups)
        if self.n_rows < 0 or self.n_rows != sum(self.group_rows) or min(self.group_rows, default=0) < 0:
            raise StorageFailure(
                f"{self.where} is damaged: its row groups contradict its number of rows.", code="corrupt"
            )
        if self.n_rows > MAX_ROWS or len(self.schema) > MAX_COLUMNS:
            raise self._refused(f"announces {self.n_rows:,} rows in {len(self.schema):,} columns", "Split it")
        if max((group.total_byte_size for group in groups), default=0) > MAX_BYTES:
            raise self._refused(f"announces {announced >> 30:,} GiB in one row group", "Write smaller row groups")

    def _refused(self, what: str, advice: str) -> StorageFailure:
        return StorageFailure(f"{self.where} is refused: it {what}. {advice}.", code="refused")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Whatever Arrow raises, in words of our own; failures of the storage below it pass through."""
        try:
            yield
        except (StorageError, Damaged, KeyboardInterrupt):
            raise
        except MemoryError:
            raise self._refused("expands to more than the memory here", "Split it") from None
        except OSError as error:
            if error.errno is not None:  # the disk's own; Arrow's have no number
                raise
            if "page integrity" in str(error):
                raise Damaged("a page does not match its checksum") from None
            raise self._unreadable() from None
        except Exception:  # Arrow raises a dozen kinds on hostile bytes, some with values of the file in them
            raise self._unreadable() from None

    def _unreadable(self) -> Exception:
        if self.checksums:  # ours, so spoiled since: on its way over a network, perhaps, and then the next try is whole
            return Damaged("it is not a readable Parquet file")
        text = f"{self.where} is not a readable Parquet file: damaged, or another kind of file."
        return StorageFailure(text, code="corrupt")


def to_bytes(table: pa.Table, *, plain: bool = False) -> bytes:
    """A table as one Parquet file (zstd) with a checksum in each page.

    plain: neither compressed nor encoded, for columns of floats that do not shrink and are read many times.
    """
    sink = pa.BufferOutputStream()
    options: dict[str, Any] = {"use_dictionary": False, "write_statistics": False} if plain else {}
    # Checksums cost 10 % of the CPU time of writing and reading, and 0.001 % of the size (100 MB of features).
    pq.write_table(table, sink, compression="none" if plain else "zstd", write_page_checksum=True, **options)
    return sink.getvalue().to_pybytes()


def _description(schema: pa.Schema) -> dict[str, Any]:
    """{column: its feature} of Hugging Face metadata that are what they should be."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")[:_METADATA_BYTES])["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _decoded_dictionaries(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _alike(found: pa.DataType, kind: pa.DataType) -> bool:
    """Equal but for the names and nullability of what a list holds, which a file need not keep."""
    if pa.types.is_fixed_size_list(kind):
        same_width = pa.types.is_fixed_size_list(found) and found.list_size == kind.list_size
        return same_width and _alike(found.value_type, kind.value_type)
    return found == kind
