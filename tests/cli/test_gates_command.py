"""`--fail-on` on the commands: exit codes, what is said last, and that a refused gate starts nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from results.privacy_rows import row
from typer.testing import CliRunner

from chexray.cli import app
from chexray.errors import ChexrayError
from chexray.results.rows import write
from chexray.storage import Storage


def invoke(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_ends_with_3_and_is_done(ray_cluster, write_images, tmp_path) -> None:
    """One run computes; the others, with --once, judge it again."""
    real, made = write_images("real", 30, seed=1), write_images("made", 20, seed=2)
    shutil.copy(real / "0003.png", made / "0003.png")
    (made / "0007.png").write_text("hello")

    def run(*more: str | Path):
        return invoke(
            "run", "--real", real, "--synthetic", made, "--suite", "privacy", "--encoders", "pixels", "--output",
            tmp_path / "out", "--set", "encode.max_reject_fraction=0.2", "--set", "privacy.planted=0", "--set",
            "privacy.views=false", "--set", "privacy.peers=false", "--once", *more,
        )  # fmt: skip

    done = run("--fail-on", "copies,rejects", "--fail-on", "rejects:50%")
    assert done.exit_code == 3, done.output
    *_, holds, _copies, rejects = done.output.splitlines()
    assert holds == "gate rejects:50% holds: 1 of 50 images rejected, 50 % are allowed"
    assert "\nFAILED GATE copies: made: 1 of 19 images is the same as a training image, none is allowed" in done.output
    assert rejects == "FAILED GATE rejects: made: 1 image of 20 was rejected, none is allowed"
    (folder,) = [path.parent for path in (tmp_path / "out").glob("*/status.json")]
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["failed_gates"]) == ("done", 0, ["copies", "rejects"])
    assert f"results: {folder}" in done.output

    assert run("--fail-on", "rejects:50%").exit_code == 0
    assert json.loads((folder / "status.json").read_text())["failed_gates"] == []
    assert run("--fail-on", f"worse-than:{folder}").exit_code == 0  # itself
    assert run().exit_code == 0
    assert invoke("compare", folder, folder / "results.csv", "--fail-on", "copies,worse-than").exit_code == 3


def number(value: float, synthetic_set: str) -> dict:
    return row("kid", value, value - 0.004, value + 0.004, suite="fidelity", synthetic_set=synthetic_set)


def test_compare_has_its_first_run_as_the_baseline(tmp_path) -> None:
    for name, value in (("before", 0.02), ("now", 0.05)):
        (tmp_path / name).mkdir()
        write(str(tmp_path / name), [number(value, f"{name}@0123456789abcdef")], Storage())
    before, now = tmp_path / "before", tmp_path / "now"
    for gate in ("worse-than", "worse-than:kid", "worse-than:before:kid", f"worse-than:{before}"):
        done = invoke("compare", before, now, "--fail-on", gate)
        assert done.exit_code == 3, done.output
        last = done.output.splitlines()[-1]
        assert last.startswith("FAILED GATE worse-than:before")
        assert "now: now: kid 0.0500 [0.0460, 0.0540] (lower is better, pixels), 0.0200 [0.0160, 0.0240] in" in last
    assert invoke("compare", now, before, "--fail-on", "worse-than").exit_code == 0
    assert invoke("compare", before, now).exit_code == 0
    for gate, words in (("worse-than:now", "baseline of compare is its first run"), ("copies", "suite fidelity only")):
        done = invoke("compare", before, now, "--fail-on", gate)
        assert isinstance(done.exception, ChexrayError)
        assert words in str(done.exception)


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("copies", "--suite fidelity,privacy"),
        ("copeis", "Did you mean copies"),
        ("worse-than:gone", "no results there"),
        ("worse-than:s3://key:hush@bucket/run", "holds a user or password"),
    ],
)
def test_a_gate_that_cannot_be_answered_starts_nothing(write_images, tmp_path, gate, words) -> None:
    real, made = write_images("real", 4), write_images("made", 4, seed=1)
    done = invoke("run", "--real", real, "--synthetic", made, "--encoders", "pixels", "--output", tmp_path / "out",
                  "--fail-on", gate)  # fmt: skip
    assert isinstance(done.exception, ChexrayError)
    assert words in str(done.exception)
    assert "hush" not in str(done.exception)
    assert not (tmp_path / "out").exists()
