"""`--image-root` and `--synthetic-image-root`, and the line of the plan that says where a table's images are."""

from __future__ import annotations

import pytest
from PIL import Image
from typer.testing import CliRunner

from chexray.cli import app
from chexray.config import parse_config
from chexray.plan import make_plan


@pytest.fixture
def world(tmp_path):
    """Three folders of images and, elsewhere, a table of absolute paths for each."""
    for name in ("nih", "sana", "roentgen"):
        folder = tmp_path / "far" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("L", (16, 16), 10 * i + len(name)).save(folder / f"{name}{i}.png")
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / f"{name}.csv").write_text(
            "path\n" + "".join(f"{folder}/{name}{i}.png\n" for i in range(4))
        )
    return tmp_path


def dry_run(*arguments):
    done = CliRunner().invoke(
        app, ["run", "--encoders", "pixels", "--metrics", "kid", "--dry-run", *map(str, arguments)]
    )
    if done.exception and not isinstance(done.exception, SystemExit):
        return str(done.exception)
    return done.output


def test_flags_name_the_folder_of_each_set_in_order(world):
    sets = [
        "--real",
        world / "tables" / "nih.csv",
        "--synthetic",
        world / "tables" / "sana.csv",
        "--synthetic",
        world / "tables" / "roentgen.csv",
    ]
    sets += ["--output", world / "out"]
    assert "real.image_root (or --image-root)" in dry_run(*sets)
    flags = ["--image-root", world / "far" / "nih", "--synthetic-image-root", world / "far" / "sana"]
    flags += ["--synthetic-image-root", world / "far" / "roentgen"]
    text = dry_run(*sets, *flags)
    assert f"images below {world}/far/nih (as image_root of the run says)" in text
    assert f"images below {world}/far/sana (as synthetic.0.image_root says)" in text
    assert f"images below {world}/far/roentgen (as synthetic.1.image_root says)" in text
    text = dry_run(*sets, "--image-root", world / "far")
    assert text.count(f"images below {world}/far (as image_root of the run says)") == 3
    over = dry_run(*sets, *flags, "--set", f"synthetic.1.image_root={world}/far")
    assert f"images below {world}/far (as synthetic.1.image_root says)" in over


def test_a_copied_table_takes_no_neighbours_images(world):
    """Its name says nothing of the folder, and the files there are called alike."""
    (world / "tables" / "sana").mkdir()
    for i in range(4):
        Image.new("L", (16, 16), i).save(world / "tables" / "sana" / f"{i}.png")
    (world / "tables" / "sana.csv").write_text("img_savename\n0.png\n1.png\n2.png\n3.png\n")
    (world / "tables" / "moved.csv").write_text((world / "tables" / "sana.csv").read_text())
    sets = ["--real", world / "tables" / "nih.csv", "--image-root", world / "far" / "nih", "--output", world / "out"]
    text = dry_run(*sets, "--synthetic", world / "tables" / "sana.csv")
    assert f"images below {world}/tables/sana (the folder of the table's name)" in text
    text = dry_run(*sets, "--synthetic", world / "tables" / "moved.csv")
    assert f"Files of these names are below {world}/tables/sana: if they are meant, set synthetic.0.image_root" in text


def test_the_folder_is_part_of_the_config(world):
    data = {
        "real": str(world / "tables" / "nih.csv"),
        "synthetic": str(world / "tables" / "sana.csv"),
        "encoders": "pixels",
        "metrics": "kid",
    }
    plan = make_plan(parse_config({**data, "image_root": str(world / "far"), "output": str(world / "out")}))
    assert [each.key for each in plan.sets] == ["real", "synthetic.0"]
    assert f"image_root: {world}/far" in plan.config.to_yaml()
    assert any("images below" in line for line in plan.describe())
