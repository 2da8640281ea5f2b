"""`chexray init`: from what a user has to a config that runs, without a line written by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from chexray import drafting
from chexray.cli import app
from chexray.config import load_config, parse_config
from chexray.drafting import draft, template
from chexray.errors import ConfigError
from chexray.plan import make_plan

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def table(path: Path, images: list[Path], **columns: list[str]) -> Path:
    rows = [dict(zip(("path", *columns), cells, strict=True)) for cells in zip(images, *columns.values(), strict=True)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def sets(tmp_path: Path, write_images) -> tuple[Path, Path]:
    """A CSV with absolute paths that lie elsewhere, and a folder of as many images."""
    images = sorted(write_images("elsewhere/real", 48).glob("*.png"))
    groups = {
        "sex": ["F", "M"] * 24,
        "view": ["PA"] * 47 + ["AP"],
        "age": [str(30 + n) for n in range(48)],
        "Edema": [str(n % 2) for n in range(48)],
    }
    (tmp_path / "work").mkdir()
    return table(tmp_path / "work/real.csv", images, **groups), write_images("generated", 48, seed=1)


def test_a_csv_with_absolute_paths_and_a_folder(sets: tuple[Path, Path], tmp_path: Path) -> None:
    real, generated = sets
    done = draft(str(real), [str(generated)], output=str(tmp_path / "out"))
    config = parse_config(yaml.safe_load(done.text))
    assert config.real.options["image_root"] == str(tmp_path / "elsewhere/real")
    assert [encoder.name for encoder in config.encoders] == ["wavelets", "pixels"]
    assert config.subsets == ["all"]  # a folder has no labels and no groups
    assert "the usual encoder, cannot be loaded here:\n# microsoft/rad-dino is not in the hub cache" in done.text
    assert done.summary == "real 48 images, generated 48 images; encoders: wavelets, pixels; subsets: 1"


def test_labels_and_groups_that_both_sides_have_become_subsets(
    sets: tuple[Path, Path], tmp_path: Path, write_images
) -> None:
    real, _ = sets
    copy, heldout = tmp_path / "work/generated.csv", tmp_path / "work/heldout.csv"
    for seed, path in enumerate((copy, heldout), 2):
        write_images(f"elsewhere/{path.stem}", 48, seed=seed)
        path.write_text(real.read_text().replace("elsewhere/real", f"elsewhere/{path.stem}"))
    config = parse_config(yaml.safe_load(draft(str(real), [str(copy)], heldout=str(heldout)).text))
    # One AP image is too few to compare views by.
    assert config.subsets == ["all", "findings", "sex", {"column": "age", "bins": [40, 60, 80]}]
    assert config.suite == ["fidelity", "privacy"]
    assert [encoder.name for encoder in config.encoders] == ["wavelets", "pixels", "patches"]
    assert make_plan(config).subsets


def test_the_command_writes_what_run_reads(sets: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path / "work")
    arguments = ["init", "--real", "real.csv", "--synthetic", "../generated"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-1] == "next: chexray run chexray.yaml"
    assert make_plan(load_config("chexray.yaml")).config.real.options["path"] == "real.csv"
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ConfigError)
    assert "exists already" in str(again.exception)
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0


@pytest.mark.parametrize(
    "path", ["plain/x.csv", "s3://bucket/x", "a b'c\".csv", "-x", "1e3", "no", "null", "a: b", "#x", "~/x", "ü.csv"]
)
def test_paths_come_back_out_of_the_yaml_as_they_were(path: str) -> None:
    assert yaml.safe_load(f"path: {drafting._scalar(path)}") == {"path": path}


def test_what_cannot_be_read_is_said_as_a_run_would(tmp_path: Path, write_images) -> None:
    generated = write_images("generated", 4)
    with pytest.raises(Exception, match="no such file or folder"):
        draft(str(tmp_path / "missing.csv"), [str(generated)])
    assert isinstance(CliRunner().invoke(app, ["init"]).exception, ConfigError)


def test_templates_are_the_configs_of_the_repository() -> None:
    assert template("privacy") == (REPOSITORY / "configs/privacy.yaml").read_text()
    with pytest.raises(ConfigError, match=r"Known: .*fidelity.*privacy"):
        template("privcy")
