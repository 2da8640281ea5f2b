"""Images that two sets of a run share are named, however they are shared; sets that share none are left in peace."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from chexray.config import parse_config
from chexray.data.manifest import build
from chexray.plan import make_plan, overlaps
from chexray.plan.overlaps import Listed


def plan(tmp_path: Path, first: Path, *synthetic: Path, **more):
    config = {
        "real": str(first),
        "synthetic": [{"name": f"s{place}", "path": str(path)} for place, path in enumerate(synthetic)],
        "encoders": [{"name": "pixels"}],
        "metrics": ["kid"],
        "output": str(tmp_path / "out"),
    }
    return make_plan(parse_config({**config, **more}))


def said(*arguments, **more) -> list[str]:
    return [note for note in plan(*arguments, **more).notes if "SHARED" in note or "the folder of " in note]


def test_sets_that_share_nothing_are_left_in_peace(write_images, tmp_path):
    assert said(tmp_path, write_images("real", 20, seed=1), write_images("other", 20, seed=2)) == []


@pytest.mark.parametrize("how", ["copy", "link", "hard"])
def test_copies_and_links_of_files_are_found(write_images, tmp_path, how):
    real, synthetic = write_images("real", 20, seed=1), write_images("other", 17, seed=2)
    for row in range(3):
        source, target = real / f"{row:04d}.png", synthetic / f"new{row}.png"
        {"copy": shutil.copyfile, "link": os.symlink, "hard": os.link}[how](source, target)
    (note,) = said(tmp_path, real, synthetic)
    assert note == (
        "SHARED IMAGES: 3 of 20 images of real set 'real' and 3 of 20 images of synthetic set 's0' are the same files, "
        "first new0.png: scores then measure these copies. Remove them from one, unless this is intended."
    )


def test_a_synthetic_folder_inside_the_real_one_is_said_with_what_it_shares(write_images, tmp_path):
    real = write_images("real", 20, seed=1)
    inner = write_images("real/generated", 6, seed=2)
    (note,) = said(tmp_path, real, inner)
    assert note.startswith("SHARED IMAGES: 6 of 26 images of real set 'real' and 6 of 6 images of synthetic set 's0'")
    assert "(one folder lies in the other)" in note
    (note,) = said(tmp_path, inner, real)
    assert "6 of 6 images of real set 'generated'" in note
    alone = {"path": str(real), "recursive": False}
    (note,) = said(tmp_path, real, inner, real=alone)
    assert note == "the folder of 's0' lies in that of 'real'; they share no image"


def test_a_set_against_itself_is_said_and_not_refused(write_images, tmp_path):
    real = write_images("real", 20, seed=1)
    (note,) = said(tmp_path, real, real)
    assert note.startswith(
        "SHARED IMAGES: 20 of 20 images of real set 'real' and 20 of 20 images of synthetic set 's0'"
    )
    assert "(one folder)" in note
    os.symlink(real, tmp_path / "again")
    (note,) = said(tmp_path, real, tmp_path / "again")
    assert "(one folder)" in note


def test_training_and_held_out_sets_are_compared_too_and_two_synthetic_ones(write_images, tmp_path):
    real, training, synthetic = (write_images(name, 12, seed=seed) for seed, name in enumerate(["r", "t", "s"]))
    heldout = write_images("h", 12, seed=9)
    shutil.copyfile(training / "0004.png", heldout / "x.png")
    shutil.copyfile(synthetic / "0005.png", training / "y.png")
    more = {"training": str(training), "heldout": str(heldout), "suite": ["privacy"]}
    found = said(tmp_path, real, synthetic, **more)
    assert len(found) == 2
    assert any("1 of 13 images of training set 't' and 1 of 13 images of held-out set 'h'" in note for note in found)
    assert any("first 0005.png: privacy then finds copies" in note for note in found)
    notes = plan(tmp_path, real, synthetic, synthetic).notes
    twice = "12 of 12 images of synthetic set 's0' and 12 of 12 images of synthetic set 's1' are the same files"
    assert any(note.startswith(twice) for note in notes)


def test_files_that_only_begin_and_weigh_alike_are_not_the_same(tmp_path):
    """Uncompressed files of one scanner: equal size, equal borders."""
    for name, rows in [("real", (10, 20)), ("other", (500, 510))]:
        (tmp_path / name).mkdir()
        for file, row in zip(("a.bmp", "z.bmp"), rows, strict=True):
            image = Image.new("L", (600, 600))
            image.putpixel((3, row), 200)
            image.save(tmp_path / name / file)
    assert said(tmp_path, tmp_path / "real", tmp_path / "other") == []
    shutil.copyfile(tmp_path / "real" / "a.bmp", tmp_path / "other" / "b.bmp")
    (note,) = said(tmp_path, tmp_path / "real", tmp_path / "other")
    assert "1 of 2 images of real set 'real' and 1 of 3 images of synthetic set 's0'" in note


def test_files_beyond_the_budget_are_not_read(write_images, tmp_path, monkeypatch):
    monkeypatch.setattr(overlaps, "READ_BYTES", 10)
    real = write_images("real", 4, seed=1)
    shutil.copytree(real, tmp_path / "copy")
    assert said(tmp_path, real, tmp_path / "copy") == []


class Bucket:
    """A storage that lists objects; nothing is read from it."""

    def stat(self, uris):
        from chexray.storage import FileStat

        return [FileStat(uri, 100, f"etag of {uri[-5]}") for uri in uris]


def test_objects_of_one_size_and_etag_are_one_image():
    import pyarrow as pa

    def listed(name, *keys):
        table = pa.table({"sample_id": list(keys), "uri": [f"s3://bucket/{name}/{key}.png" for key in keys]})
        return Listed.of(build(name, name, table, Bucket()), name)  # type: ignore[arg-type]

    (line,) = overlaps.overlaps([listed("real", "a", "b", "c"), listed("synthetic", "xc", "d")])
    assert "1 of 3 images of real set 'real' and 1 of 2 images of synthetic set 'synthetic'" in line
    assert overlaps.overlaps([listed("real", "a", "b"), listed("synthetic", "c")]) == []
