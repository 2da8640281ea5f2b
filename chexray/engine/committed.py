"""Files whose presence is the commit: which are there, and what one holds."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from chexray.errors import StorageError
from chexray.storage import Storage, basename


def names_in(folder: str, storage: Storage) -> set[str]:
    """Names of the files of a folder."""
    return {basename(stat.uri) for stat in storage.list(folder)}


def read_committed(storage: Storage, uri: str, types: Mapping[str, pa.DataType], advice: str) -> pa.Table:
    """The columns `types` of a Parquet file. Raises StorageError, with the advice unless another try may succeed."""
    try:
        return storage.read_parquet(uri, list(types), types=dict(types))
    except StorageError as error:
        if error.transient:
            raise
        raise StorageError(f"{error} {advice}") from None
