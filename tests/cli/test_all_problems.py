"""`validate`, `run` and `doctor` say all that is wrong: keys, then sets, encoders and metrics, a line each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chexray.cli import app, main

CONFIG = """\
real: {real}
synthetics: gone.csv
suite: fidelty
encoders: [pixels, rad_dyno]
metrics: [kid, kdi]
limt: 3
output: {output}
"""


@pytest.fixture
def config(write_images, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(real=write_images("real", 4), output=tmp_path / "run.yaml"))
    return path


def said(capsys, monkeypatch, *arguments: str) -> tuple[int, list[str]]:
    monkeypatch.setattr(sys, "argv", ["chexray", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run"]])
def test_keys_sets_encoders_metrics_and_output_in_one_go(config, capsys, monkeypatch, command) -> None:
    code, lines = said(capsys, monkeypatch, command[0], "run.yaml", *command[1:])
    assert code == 2
    assert lines == [
        "chexray: 7 problems in run.yaml:",
        "  suite: expected 'fidelity', 'privacy' or 'utility', found 'fidelty'. Did you mean 'fidelity'?",
        "  unknown key 'synthetics'. Did you mean 'synthetic'?",
        "  unknown key 'limt'. Did you mean 'limit'?",
        "  unknown metric 'kdi'. Did you mean 'kid'?",
        "  unknown encoder 'rad_dyno'. Did you mean 'rad_dino'?",
        f"  cannot write below {config}: {config} is not a folder. Name another output.",
        "  gone.csv: there is no such file or folder. Correct the path, or create the file.",
    ]


def test_one_problem_is_one_line(config, capsys, monkeypatch) -> None:
    arguments = ("run", "--real", "real", "--synthetic", "gone", "--encoders", "pixels", "--output", "out")
    code, lines = said(capsys, monkeypatch, *arguments)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("chexray: ")


def test_doctor_looks_at_what_can_be_understood(config) -> None:
    done = CliRunner().invoke(app, ["doctor", "run.yaml"])
    failed = [line for line in done.output.splitlines() if line.startswith("FAIL")]
    assert done.exit_code == 1
    assert [line.split()[1] for line in failed] == ["config", "config", "config", "output", "set", "weights"]
    assert "unknown key 'limt'" in done.output


def test_doctor_without_a_config_tries_the_default_encoders(monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(app, ["doctor"])
    (line,) = [line for line in done.output.splitlines() if line.startswith("FAIL")]
    assert line.startswith("FAIL  encoder rad_dino     microsoft/rad-dino is not in the hub cache")
    assert "On the command line: --set encoders.0.weights=/path/to/it. Or choose --encoders pixels" in line
    assert "ok    encoder pixels       needs no weights" in done.output
    assert done.exit_code == 1


def test_an_address_that_no_run_can_join_is_found_before_the_run(write_images, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    real, made = write_images("real", 4), write_images("made", 4)
    text = f"real: {real}\nsynthetic: {made}\nencoders: [pixels]\nray: {{address: http://head:8265}}\n"
    (tmp_path / "run.yaml").write_text(text)
    code, lines = said(capsys, monkeypatch, "validate", "run.yaml")
    assert (code, len(lines)) == (2, 1)
    assert "http://head:8265 is a dashboard" in lines[0]
