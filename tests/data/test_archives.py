"""The source `archive`: several archives as one set, sidecars as columns, splits, and which source a path gets."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from data.test_containers_tar import write as write_tar
from data.test_containers_zip import notes, picture
from data.test_containers_zip import write as write_zip
from fixtures.web import Web

from chexray.data import manifest
from chexray.data.containers.order import container_order
from chexray.data.images import load_images
from chexray.data.sources.archive import Archive
from chexray.data.sources.infer import infer
from chexray.errors import ManifestError
from chexray.storage import Storage

STORAGE = Storage()


def read(path, origin="synthetic", **options):
    return Archive(str(path), **options).read(origin, STORAGE)


def shard(first, n=2, **more):
    members = {}
    for i in range(first, first + n):
        members[f"{i:06d}.png"] = picture(i)
        members[f"{i:06d}.txt"] = f"prompt {i}\n".encode()
        members[f"{i:06d}.json"] = json.dumps({"sex": "F" if i % 2 else "M", "age": 40 + i, **more}).encode()
        members[f"{i:06d}.cls"] = str(i % 3).encode()
    return members


def test_shards_of_webdataset(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"train-{number:03d}.tar", shard(2 * number))
    for path in (tmp_path, tmp_path / "*.tar", tmp_path / "train-{000..002}.tar"):
        assert infer(str(path), STORAGE) == "archive"
        table = read(path)
        assert table["sample_id"].to_pylist() == [f"{i:06d}.png" for i in range(6)]
        assert table["prompt"].to_pylist() == [f"prompt {i}" for i in range(6)]
        assert table["sex"].to_pylist() == ["M", "F"] * 3
        assert table["age"].to_pylist() == [40, 41, 42, 43, 44, 45]
        assert table["cls"].to_pylist() == [0, 1, 2, 0, 1, 2]
        assert notes(table) == []
    with pytest.raises(ManifestError, match=r"1 of 4 files are missing, first .*train-003\.tar"):
        read(tmp_path / "train-{000..003}.tar")


def test_one_path_in_two_archives_is_two_ids(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, {"0.png": picture(0), "0.txt": name.encode()})
    table = read(tmp_path)
    assert table["sample_id"].to_pylist() == ["a.tar/0.png", "b.tar/0.png"]
    assert table["prompt"].to_pylist() == ["a.tar", "b.tar"]


def test_points_in_ids_do_not_join_images(tmp_path):
    members = {}
    for uid in ("1.2.840.113", "1.2.840.114"):
        members |= {f"{uid}.png": picture(1), f"{uid}.txt": uid.encode()}
    members |= {"7.image.png": picture(2), "7.txt": b"seven"}
    table = read(write_tar(tmp_path / "a.tar", members))
    assert table["sample_id"].to_pylist() == ["1.2.840.113.png", "1.2.840.114.png", "7.image.png"]
    assert table["prompt"].to_pylist() == ["1.2.840.113", "1.2.840.114", "seven"]
    assert notes(table) == []


def test_masks_beside_images_are_said_and_can_be_left_out(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": picture(1), "1.seg.png": picture(2), "1.txt": b"x"})
    assert "1 image called as another with one part more, such as 1.seg" in notes(read(path))[0]
    assert read(path, pattern="[0-9].png")["sample_id"].to_pylist() == ["1.png"]


def test_sidecars_of_a_zip_and_bad_ones(tmp_path):
    members = {"a/1.png": picture(1), "a/1.txt": "Herz groß".encode(), "a/2.png": picture(2), "a/2.txt": b"\xff",
               "README.txt": b"x", "a/1.json": b'{"view":\n"AP"}'}  # fmt: skip
    table = read(write_zip(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED))
    assert table["prompt"].to_pylist() == ["Herz groß", "\ufffd"]
    assert table["view"].to_pylist() == ["AP", None]
    with pytest.raises(ManifestError, match=r"\.json member of 1.png is not a JSON object"):
        read(write_zip(tmp_path / "b.zip", {"1.png": picture(1), "1.json": b"[1"}))
    broken = write_tar(tmp_path / "c.tar", {"1.png": picture(1), "1.txt": bytes(2 << 20)})
    assert "not used: 1 sidecar member, damaged or larger" in notes(read(broken))[0]


def test_splits_of_archives_and_of_folders_in_them(tmp_path):
    write_zip(tmp_path / "all.zip", {"train/1.png": picture(1), "test/2.png": picture(2), "test/3.png": picture(3)})
    with pytest.raises(ManifestError, match=r"holds 2 splits, test, train. Name one in synthetic\.split"):
        read(tmp_path / "all.zip")
    table = read(tmp_path / "all.zip", split="test")
    assert table["sample_id"].to_pylist() == ["test/2.png", "test/3.png"]
    assert notes(table) == ["1 files of other splits are left out (split test)"]
    assert len(read(tmp_path / "all.zip", split="all")) == 3


def test_which_source_a_path_gets(tmp_path):
    write_zip(tmp_path / "ALL_FILES.ZIP", {"1.png": picture(1)})
    assert infer(str(tmp_path / "ALL_FILES.ZIP"), STORAGE) == "archive"
    assert infer(str(tmp_path), STORAGE) == "archive"
    (tmp_path / "x.png").write_bytes(picture(1))
    assert infer(str(tmp_path), STORAGE) == "folder"
    for name in ("a.tar.gz", "a.tgz", "a.7z", "a.tar.zst"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ManifestError, match=r"no part can be read by itself\. Unpack it and name the folder"):
            infer(str(tmp_path / name), STORAGE)


def test_a_manifest_of_an_archive(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(3)})
    found = manifest.load("a", "synthetic", Archive(str(path)), STORAGE)
    assert len(found) == 3
    keys = found.table["image_key"].to_pylist()
    assert len(set(keys)) == 3
    write_zip(path, {f"{i}.png": picture(i + 1) for i in range(3)})
    again = manifest.load("a", "synthetic", Archive(str(path)), STORAGE)
    assert not set(keys) & set(again.table["image_key"].to_pylist())


def test_containers_are_read_in_their_own_order():
    members = [
        f"a.zip#member={name}.png&at={at}:{at + 9}:1:1:00000000:0" for name, at in (("b", 50), ("a", 70), ("c", 0))
    ]
    uris = ["/x.png", members[0], "p.parquet#column=image&row=9", members[1], "/a.png", members[2],
            "p.parquet#column=image&row=3"]  # fmt: skip
    assert container_order(uris).tolist() == [0, 5, 1, 3, 6, 2, 4]
    assert container_order([]).tolist() == []


def test_a_table_in_the_archive_describes_its_images(tmp_path):
    table = b"file_name,prompt,sex\nimages/1.png,no edema,F\nimages/2.png,edema,M\nimages/9.png,x,M\n"
    members = {"images/1.png": picture(1), "images/2.png": picture(2), "images/3.png": picture(3), "LICENSE": b"x"}
    found = read(write_zip(tmp_path / "a.zip", {**members, "metadata.csv": table}))
    assert found["sample_id"].to_pylist() == ["images/1.png", "images/2.png", "images/3.png"]
    assert found["prompt"].to_pylist() == ["no edema", "edema", None]
    assert found["sex"].to_pylist() == ["F", "M", None]
    assert notes(found) == [
        "not in the set: 1 other member",
        "metadata.csv describes 2 of 3 images; 1 of its rows name images that are not in the archive",
    ]
    again = read(write_tar(tmp_path / "a.tar", {**members, "metadata.csv": table, "other/1.png": picture(4)}))
    assert again["prompt"].to_pylist() == ["no edema", "edema", None, None]


def test_an_archive_on_the_web(tmp_path):
    with Web() as server:
        server.files["/a.zip"] = write_zip(tmp_path / "a.zip", {"1.png": picture(1)}).read_bytes()
        address = f"{server.url}/a.zip"
        assert infer(address, STORAGE) == "archive"
        table = read(address)
        assert table["sample_id"].to_pylist() == ["1.png"]
        assert isinstance(load_images(table["uri"].to_pylist(), STORAGE)[0], np.ndarray)
        with pytest.raises(ManifestError, match="no such file"):
            infer(f"{address}?token=1", STORAGE)


def test_numbers_in_braces_are_bounded():
    with pytest.raises(ManifestError, match="stands for 10,000,000,000 files, at most 100,000 are read"):
        read("/x/{00000..99999}-{00000..99999}.tar")
    with pytest.raises(ManifestError, match=r"no \.zip or \.tar is there"):
        read("/x/{9..1}.tar")
