"""Series of files whose names say how many there are: what is missing is said."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_containers_tar import write
from data.test_containers_zip import notes, picture

from chexray.data.sources._patterns import missing_shards
from chexray.data.sources.archive import Archive
from chexray.data.sources.parquet_images import ParquetImages
from chexray.storage import Storage

STORAGE = Storage()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a-00000-of-00003.tar", "a-00002-of-00003.tar"], ["1 of 3 shards are missing, first a-00001-of-00003.tar"]),
        (["a-1-of-3.tar", "a-3-of-3.tar"], ["1 of 3 shards are missing, first a-2-of-3.tar"]),
        (["a-00000-of-00001.tar", "b.tar"], []),
        (["a-00000-of-00002-0a1b.parquet", "a-00001-of-00002-77ff.parquet"], []),
        (["a-0-of-2.tar", "b-1-of-2.tar"], ["1 of 2 shards are missing, first a-1-of-2.tar",
                                            "1 of 2 shards are missing, first b-0-of-2.tar"]),
        (["a-0-of-0.tar", "1-of-2.tar"], []),
        (["a-0-of-999999999.tar", "x.tar"],
         ["999,999,998 of 999,999,999 shards are missing, first a-000000001-of-999999999.tar"]),
    ],
)  # fmt: skip
def test_missing_shards_are_counted(names, expected):
    files = [f"/data/{name}" for name in names]
    assert [note.removesuffix(": copy them") for note in missing_shards(files, "/data")] == expected


def test_sources_say_it(tmp_path):
    for n in (0, 2):
        write(tmp_path / f"s-{n:05d}-of-00003.tar", {f"{n}.png": picture(n)})
        pq.write_table(pa.table({"image": [picture(n)], "id": [str(n)]}), tmp_path / f"p-{n:05d}-of-00003.parquet")
    for path, end in ((tmp_path, "tar"), (tmp_path / "s-*.tar", "tar"), (tmp_path / "p-*", "parquet")):
        source = Archive(str(path)) if end == "tar" else ParquetImages(str(path))
        expected = f"1 of 3 shards are missing, first {end[0].replace('t', 's')}-00001-of-00003.{end}: copy them"
        assert expected in notes(source.read("synthetic", STORAGE))
    one = Archive(str(tmp_path / "s-00000-of-00003.tar")).read("synthetic", STORAGE)
    assert json.loads(one.schema.metadata[b"chexray"])["notes"] == []
