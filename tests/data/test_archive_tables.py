"""Tables and sidecars of archives: each image gets its own row or none, and what is not used is said."""

from __future__ import annotations

import json
import tracemalloc

import pyarrow as pa
import pytest
from data.test_containers_tar import write as write_tar
from data.test_containers_zip import notes, picture
from data.test_containers_zip import write as write_zip
from fixtures.synthchex import name_of, write_v1

from chexray.data.sources._naming import rows_of
from chexray.data.sources.archive import Archive
from chexray.data.sources.synthchex import SynthCheX
from chexray.errors import ManifestError
from chexray.storage import Storage

STORAGE = Storage()
FOUR = {f"{i}.png": picture(i) for i in range(4)}


def read(path, **options):
    return Archive(str(path), **options).read("synthetic", STORAGE)


def prompts(table):
    ids = table["sample_id"].to_pylist()
    return dict(
        zip(ids, table["prompt"].to_pylist() if "prompt" in table.column_names else [None] * len(ids), strict=True)
    )


def named(images, cells):
    found = rows_of(pa.array(images, pa.string()), pa.chunked_array([cells]))
    return found.index.tolist(), (found.absent, found.elsewhere, found.repeated, found.unclear)


@pytest.mark.parametrize(
    ("images", "cells", "index", "counts"),
    [
        (["test/x.png"], ["train/x.png", "test/x.png"], [1], (0, 1, 0, 0)),
        (["test/x.png"], ["train/x.png"], [-1], (0, 1, 0, 0)),
        (["x.png"], ["train/x.png", "test/x.png"], [-1], (0, 0, 0, 2)),
        (["x.png"], ["train/x.png", "x.png"], [1], (0, 0, 1, 0)),
        (["a/x.png", "b/x.png"], ["x.png"], [-1, -1], (0, 0, 0, 1)),
        (["a/x.png", "b/x.png"], ["out/b/x.png", "/out/a/x.png"], [1, 0], (0, 0, 0, 0)),
        (["x.png", "a/x.png"], ["out/x.png", "out/a/x.png"], [0, 1], (0, 0, 0, 0)),
        (["all/x.png", "all/y.png"], ["y.png", "x.png", None, "z.png"], [1, 0], (2, 0, 0, 0)),
        (["all\\x.png"], ["./all/x.png", "all//x.png"], [0], (0, 0, 1, 0)),
        (["ax.png"], ["x.png", "a/x.png"], [-1], (2, 0, 0, 0)),
        (["Gro\u0308\u00dfe.png"], ["Gr\u00f6\u00dfe.png"], [0], (0, 0, 0, 0)),
        (["a/\u00f6.png", "a/o\u0308.png"], ["a/\u00f6.png"], [-1, -1], (0, 0, 0, 0)),
        ([], ["x.png"], [], (1, 0, 0, 0)),
    ],
)
def test_a_folder_that_differs_is_another_image(images, cells, index, counts):
    assert named(images, cells) == (index, counts)


def test_rows_of_other_folders_are_counted_and_not_taken(tmp_path):
    table = b"path,prompt\ntrain/x.png,TRAIN\ntest/x.png,TEST\n"
    assert prompts(read(write_zip(tmp_path / "a.zip", {"test/x.png": picture(1), "m.csv": table}))) == {
        "test/x.png": "TEST"
    }
    found = read(
        write_zip(tmp_path / "b.zip", {"test/x.png": picture(1), "m.csv": b"path,prompt\ntrain/x.png,TRAIN\n"})
    )
    assert prompts(found) == {"test/x.png": None}
    assert any("m.csv is not used; 1 of its rows name images in other folders" in note for note in notes(found))


def test_a_split_takes_no_row_of_another_one(tmp_path):
    """The name alone would fit once the other split is left out."""
    members = {"train/x.png": picture(1), "test/x.png": picture(2), "m.csv": b"path,prompt\nx.png,WHOSE\n"}
    assert prompts(read(write_zip(tmp_path / "a.zip", members), split="test")) == {"test/x.png": None}
    members["m.csv"] = b"path,prompt\ntrain/x.png,TRAIN\ntest/x.png,TEST\n"
    found = read(write_zip(tmp_path / "b.zip", members), split="test")
    assert prompts(found) == {"test/x.png": "TEST"}
    assert "m.csv describes 1 of 1 images" in notes(found)


def test_synthchex_takes_whole_paths_first(tmp_path):
    path = write_v1(tmp_path / "ALL_FILES.zip", [0], table="", folder="B/")
    rows = "filename,prompt,labels_dict\n" + "".join(
        f"{folder}/{name_of(0)},{folder},\"{{'Edema': {value}}}\"\n" for folder, value in (("A", 0), ("B", 1))
    )
    (tmp_path / "m.csv").write_text(rows)
    found = SynthCheX(str(path)).read("synthetic", STORAGE)
    assert found["prompt"].to_pylist() == ["B"]
    assert json.loads(json.dumps(found["filename"].to_pylist())) == [f"B/{name_of(0)}"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_sidecar_of_the_very_name_counts(tmp_path, order):
    members = [("1.png", picture(1)), ("1.txt", b"good prompt"), ("1.license.txt", b"CC-BY"),
               ("1.json", b'{"sex": "F"}'), ("1.meta.json", b'{"camera": 1}')]  # fmt: skip
    found = read(write_tar(tmp_path / "a.tar", members[::order]))
    assert prompts(found) == {"1.png": "good prompt"}
    assert found["sex"].to_pylist() == ["F"]
    assert "camera" not in found.column_names
    assert any("not used: 2 sidecar members whose name is not that of one image" in note for note in notes(found))


def test_a_license_alone_is_no_prompt(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.license.txt": b"CC-BY"}))
    assert prompts(found) == {"1.png": None}
    assert any("such as 1.license.txt" in note for note in notes(found))


def test_one_picture_in_two_formats_has_one_prompt(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", {"a.png": picture(1), "a.jpg": picture(1), "a.txt": b"p"}))
    assert prompts(found) == {"a.png": "p", "a.jpg": "p"}


def test_two_sidecars_of_one_kind_are_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"a\.txt and a\.TXT both describe one image"):
        read(write_tar(tmp_path / "a.tar", {"a.png": picture(1), "a.txt": b"p", "a.TXT": b"q"}))


def test_prompts_of_json_and_text_are_one_column_where_they_do_not_meet(tmp_path):
    members = {"1.png": picture(1), "1.txt": b"one", "2.png": picture(2), "2.json": b'{"prompt": "two"}'}
    found = read(write_tar(tmp_path / "a.tar", members))
    assert prompts(found) == {"1.png": "one", "2.png": "two"}
    found = read(write_tar(tmp_path / "b.tar", {**members, "2.txt": b"other"}))
    assert found["txt"].to_pylist() == ["one", "other"]
    assert any("are in the column txt" in note for note in notes(found))


def rows(first, last, prompt="p", head="path,prompt"):
    return "\n".join([head, *(f"{i}.png,{prompt}{i}" for i in range(first, last))]).encode()


def test_tables_of_different_images_are_joined(tmp_path):
    members = {**FOUR, "train.csv": rows(0, 2), "test.csv": rows(2, 4, head="file_name,Caption")}
    found = read(write_zip(tmp_path / "a.zip", members))
    assert list(prompts(found).values()) == ["p0", "p1", "p2", "p3"]
    assert {note for note in notes(found) if "describes" in note} == {
        "train.csv describes 2 of 4 images", "test.csv describes 2 of 4 images"
    }  # fmt: skip


def test_tables_that_contradict_each_other_are_refused(tmp_path):
    members = {**FOUR, "a.csv": rows(0, 4, "OLD"), "b.csv": rows(0, 4, "NEW")}
    path = write_zip(tmp_path / "a.zip", members)
    with pytest.raises(ManifestError, match=r"a\.csv and b\.csv .* differ in column 'prompt' of 4 images.*table_path"):
        read(path)
    (tmp_path / "mine.csv").write_bytes(rows(0, 4, "MINE"))
    assert prompts(read(path, table_path=str(tmp_path / "mine.csv")))["3.png"] == "MINE3"
    smaller = read(write_zip(tmp_path / "b.zip", {**members, "b.csv": rows(1, 3, "NEW")}))
    assert list(prompts(smaller).values()) == ["OLD0", "OLD1", "OLD2", "OLD3"]
    assert any("b.csv is not used: it contradicts a.csv" in note for note in notes(smaller))
    other = {**members, "b.csv": b"path,Edema\n0.png,1\n1.png,0\n2.png,1\n3.png,0\n"}
    agree = read(write_zip(tmp_path / "c.zip", other))
    assert list(prompts(agree).values()) == ["OLD0", "OLD1", "OLD2", "OLD3"]
    assert agree["Edema"].to_pylist() == [1, 0, 1, 0]


def test_two_tables_beside_synthchex_are_refused(tmp_path):
    path = write_v1(tmp_path / "ALL_FILES.zip", [0, 1], table="")
    for name in ("old", "new"):
        (tmp_path / f"a_{name}.csv").write_text(f"filename,prompt\n{name_of(0)},{name}\n{name_of(1)},{name}\n")
    with pytest.raises(ManifestError, match=r"a_new\.csv and a_old\.csv .*table_path"):
        SynthCheX(str(path)).read("synthetic", STORAGE)
    found = SynthCheX(str(path), table_path=str(tmp_path / "a_new.csv")).read("synthetic", STORAGE)
    assert found["prompt"].to_pylist() == ["new", "new"]


def test_a_sidecar_does_not_hide_the_table(tmp_path):
    members = {**FOUR, "0.txt": b"from the sidecar", "m.csv": rows(1, 4, head="path,caption")}
    found = read(write_zip(tmp_path / "a.zip", members))
    assert list(prompts(found).values()) == ["from the sidecar", "p1", "p2", "p3"]
    with pytest.raises(ManifestError, match=r"1 image with another .* in sidecar members than in m\.csv"):
        read(write_zip(tmp_path / "b.zip", {**members, "m.csv": rows(0, 4)}))


def test_each_archive_has_its_table(tmp_path):
    for name, first in (("a.zip", 0), ("b.zip", 2)):
        images = {f"{i}.png": picture(i) for i in range(first, first + 2)}
        write_zip(tmp_path / name, {**images, "m.csv": rows(first, first + 2)})
    assert prompts(read(tmp_path)) == {f"{i}.png": f"p{i}" for i in range(4)}
    write_zip(tmp_path / "a.zip", {"0.png": picture(0), "1.png": picture(1), "m.csv": rows(0, 4, "a")})
    write_zip(tmp_path / "b.zip", {"2.png": picture(2), "3.png": picture(3), "m.csv": rows(2, 3, "b")})
    assert list(prompts(read(tmp_path)).values()) == ["a0", "a1", "b2", "a3"]  # each archive's own table first
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name, {"0.png": picture(0), "m.csv": rows(0, 1, name)})
    assert prompts(read(tmp_path)) == {"a.zip/0.png": "a.zip0", "b.zip/0.png": "b.zip0"}


def test_a_table_of_many_archives_may_lie_in_one(tmp_path):
    for i in range(8):
        write_tar(tmp_path / f"{i}.tar", {f"{i}.png": picture(i), **({"m.csv": rows(0, 8)} if i == 5 else {})})
    assert list(prompts(read(tmp_path)).values()) == [f"p{i}" for i in range(8)]


def test_many_tables_are_one_line(tmp_path):
    for i in range(8):
        write_tar(tmp_path / f"{i}.tar", {f"{i}.png": picture(i), "m.csv": rows(i, i + 2)})
    found = read(tmp_path)
    assert list(prompts(found).values()) == [f"p{i}" for i in range(8)]
    assert [note for note in notes(found) if "describe" in note] == [
        "8 tables describe 8 of 8 images; 1 of its rows name images that are not in the archive"
    ]


def test_a_broken_table_is_a_note_where_another_one_describes(tmp_path):
    members = {**FOUR, "m.csv": rows(0, 4), "other.csv": b"a,b\n1,\xff\n"}
    found = read(write_zip(tmp_path / "a.zip", members))
    assert list(prompts(found).values()) == ["p0", "p1", "p2", "p3"]
    assert any(note.startswith("other.csv is not used: other.csv: the table is not UTF-8") for note in notes(found))
    with pytest.raises(ManifestError, match="not UTF-8"):
        read(write_zip(tmp_path / "b.zip", {**FOUR, "other.csv": b"a,b\n1,\xff\n"}))


def test_columns_may_have_any_name(tmp_path):
    cells = json.dumps({"file_name": "q", "member": "m", "file_name_in_archive": "z"}).encode()
    found = read(write_zip(tmp_path / "a.zip", {"1.png": picture(1), "1.json": cells}))
    assert found["file_name"].to_pylist() == ["q"]
    assert found["file_name_in_archive_2"].to_pylist() == ["1.png"]


@pytest.mark.parametrize("name", ["1.txt", "m.csv"])
def test_a_member_that_lies_of_its_size_is_not_read(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {"1.png": picture(1), name: b"path\n1.png\n"})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    n_more = 50_000_000
    data[at + 20 : at + 24] = (n_more).to_bytes(4, "little")
    end = data.rindex(b"PK\5\6")
    data[end + 16 : end + 20] = (int.from_bytes(data[end + 16 : end + 20], "little") + n_more).to_bytes(4, "little")
    directory = data.index(b"PK\1\2")
    with path.open("wb") as out:  # zeros that take no place on the disk
        out.write(data[:directory])
        out.seek(directory + n_more)
        out.write(data[directory:])
    tracemalloc.start()
    if name == "1.txt":
        assert "damaged or larger than" in notes(read(path))[0]
    else:
        with pytest.raises(ManifestError, match=r"takes 50,.* bytes in the archive for 11 of its own"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
