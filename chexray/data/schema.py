"""What passes between sources and manifests: the columns of a set, those of its rejects, and what a source is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pyarrow as pa

from chexray.data.labels import LABELS_TYPE
from chexray.storage import Storage

COLUMNS = {
    "sample_id": pa.string(), "image_key": pa.string(), "uri": pa.string(), "subject_id": pa.string(),
    "prompt": pa.string(), "labels": LABELS_TYPE, "row": pa.int64(),
}  # fmt: skip
"""Columns every manifest has, and their types; `row` is the position in the source, counted from 0."""

RESERVED = frozenset(COLUMNS)

METADATA_KEY = b"chexray"
"""Key of the schema metadata in which a source hands over {"path", "roles", "notes", "reasons", ...} as JSON."""

REJECT_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("set", "sample_id", "uri", "image_key", "stage", "code", "detail")]
    + [("transient", pa.bool_())]
)
"""One row an image that could not be used. stage: "manifest", "fetch", "decode" or "encode"."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".bmp", ".tif", ".tiff", ".webp")


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass whose fields are the keys a set may have in the config."""

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """One row an image: sample_id and uri (absolute or s3://, or `file.parquet#column=image&row=17`), strings.

        Optional: subject_id and prompt (strings), labels (fixed-size list of 14 int8: 1, 0, -1, null). Then every
        further column of the input, unchanged. origin: "real" or "synthetic"; it decides which columns are looked for.
        Raises ManifestError: what, where, found against expected, what to do.
        """
        ...
