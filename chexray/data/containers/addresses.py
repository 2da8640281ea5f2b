"""How an image inside another file is called: the file, then what a worker needs to read it with one range.

    file.parquet#column=image&row=17
    file.zip#member=<name>&at=<start>:<end>:<compressed>:<size>:<crc32, hex>:<method>
    file.tar#member=<name>&at=<start of the data>:<size>:<crc32 of the header before them, hex>

Names are percent-quoted bytes, so that they can be compared with those in the archive whatever their encoding.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, unquote_to_bytes

from chexray.data.containers.tar_member import BLOCK, TarMember
from chexray.data.containers.zip_member import ZipMember

_ROW = re.compile(r"(?P<file>.+)#column=(?P<column>[^&#]+)&row=(?P<row>\d{1,18})", re.DOTALL)
_NUMBER = r"(\d{1,18})"
_ZIP = rf":{_NUMBER}:{_NUMBER}:([0-9a-f]{{8}}):(\d{{1,5}})"
_TAR = r":([0-9a-f]{8})"
_MEMBER = re.compile(rf"(.+)#member=([^&#]*)&at={_NUMBER}:{_NUMBER}(?:{_ZIP}|{_TAR})", re.DOTALL)

Member = ZipMember | TarMember


def embedded_uri(file: str, column: str, row: int) -> str:
    """The URI of the image in `row` (from 0) of a Parquet file's `column`."""
    return f"{file}#column={quote(column, safe='')}&row={row}"


def split_embedded(uri: str) -> tuple[str, str, int] | None:
    """File, column and row of an image in a Parquet file; None when `uri` names something else."""
    found = _ROW.fullmatch(uri) if "#" in uri else None
    return (found["file"], unquote(found["column"]), int(found["row"])) if found else None


def split_member(uri: str) -> Member | None:
    """The member of an archive that `uri` names; None when it names something else."""
    found = _MEMBER.fullmatch(uri) if "#" in uri else None
    if found is None:
        return None
    file, name, first, second = found[1], unquote_to_bytes(found[2]), int(found[3]), int(found[4])
    if found[9] is not None:
        return TarMember(file, name, first, second, int(found[9], 16)) if first >= BLOCK else None
    return ZipMember(file, name, first, second, int(found[5]), int(found[6]), int(found[7], 16), int(found[8]))
