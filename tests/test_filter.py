"""`chexray filter`: rows in are rows kept and dropped, what is kept runs again, what cannot be trusted is refused."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fixtures.patients import EXACT_COPY, NEAR_COPY, World, make_world, read_rows
from fixtures.patients import N_SYNTHETIC as N

from chexray import evaluate
from chexray.config import StorageConfig
from chexray.curation.filtering import filter_run
from chexray.errors import ConfigError, ManifestError
from chexray.plan import make_storage
from chexray.results import judged_by


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(ray_cluster, world) -> Path:
    """The folder of a finished run."""
    return Path(evaluate(world.config(world.folder / "out")).uri)


def ids(path: str, column: str = "sample_id") -> list[str]:
    return pq.read_table(path)[column].to_pylist()


def flagged(run: Path) -> set[str]:
    table = pq.read_table(run / "verdicts.parquet")
    return set(table.filter(table["flagged"])["sample_id"].to_pylist())


def test_what_is_flagged_is_dropped_with_its_reasons(run, tmp_path) -> None:
    (done,) = filter_run(str(run), output=str(tmp_path / "filtered"))
    assert {NEAR_COPY, EXACT_COPY} <= flagged(run)
    dropped = {row["sample_id"]: row for row in pq.read_table(done.dropped_path).to_pylist()}
    verdicts = {row["sample_id"]: row for row in pq.read_table(run / "verdicts.parquet").to_pylist()}
    assert set(dropped) == flagged(run)
    assert all(row["reasons"] == verdicts[name]["reasons"] for name, row in dropped.items())
    assert set(ids(done.path)) == set(verdicts) - flagged(run)
    assert done.n_kept + done.n_dropped == N
    assert done.n_left_out == 0
    assert done.reasons["duplicate"] == sum(
        any(reason.startswith("duplicate: ") for reason in row["reasons"]) for row in dropped.values()
    )
    assert done.judged_by == ("pixels (nearest training image)", "perceptual_hash (duplicates)")
    assert done.untested == ()
    assert {path.name for path in (tmp_path / "filtered").iterdir()} == {
        "synthetic.parquet", "synthetic-dropped.parquet", "synthetic.yaml",
    }  # fmt: skip


def test_the_filtered_set_runs_again_without_what_was_dropped(run, world, tmp_path) -> None:
    (done,) = filter_run(str(run))
    assert Path(done.path).parent == run / "filtered"
    written = yaml.safe_load(Path(done.config_path).read_text())
    again = evaluate(world.config(tmp_path / "out", synthetic=written["synthetic"]))
    judged = ids(f"{again.uri}/verdicts.parquet")
    assert sorted(judged) == sorted(set(ids(str(run / "verdicts.parquet"))) - flagged(run))
    (name,) = set(ids(f"{again.uri}/verdicts.parquet", "synthetic_set"))
    assert name.startswith("synthetic-filtered@")


def test_the_flags_are_those_of_a_run(run) -> None:
    (done,) = filter_run(str(run))
    assert done.flags.startswith(f"--synthetic {done.path} --set synthetic.0.name=synthetic-filtered")


def test_rejected_and_missing_images_are_dropped_with_what_was_wrong(ray_cluster, world, tmp_path) -> None:
    rows = read_rows(world.synthetic)
    broken = world.folder / "generated" / "broken.png"
    broken.write_text("hello")
    rows[3] = {**rows[3], "img_savename": "broken.png"}
    rows[4] = {**rows[4], "img_savename": "nowhere.png"}
    table = world.table("holes", rows)
    finished = evaluate(
        world.config(tmp_path / "out", synthetic=[world.generated(table)], encode={"max_reject_fraction": 0.2})
    )
    (done,) = filter_run(finished.uri)
    why = {row["sample_id"]: row["reasons"] for row in pq.read_table(done.dropped_path).to_pylist()}
    assert [reason.split(": ")[:3] for reason in why["broken.png"]] == [["rejected", "decode", "not_an_image"]]
    assert why["nowhere.png"] == ["rejected: manifest: not_found: there is no such file"]
    assert done.n_kept + done.n_dropped == N
    assert done.reasons["rejected"] == 2
    assert len(why) == done.n_dropped


def test_rows_that_the_run_left_out_are_in_neither_table(ray_cluster, world, tmp_path) -> None:
    finished = evaluate(world.config(tmp_path / "out", limit=20))
    (done,) = filter_run(finished.uri)
    assert done.n_kept + done.n_dropped == 20
    assert done.n_left_out == N - 20
    assert sorted([*ids(done.path), *ids(done.dropped_path)]) == sorted(ids(f"{finished.uri}/verdicts.parquet"))


def test_all_sets_or_the_one_that_is_named(ray_cluster, world, tmp_path) -> None:
    half = world.table("half", read_rows(world.synthetic)[: N // 2])
    both = [
        {**world.generated(world.synthetic), "name": "whole"},
        {**world.generated(half), "name": "half of it"},
    ]
    finished = evaluate(world.config(tmp_path / "out", synthetic=both))
    done = filter_run(finished.uri)
    assert [(each.name, each.n_kept + each.n_dropped) for each in done] == [("whole", N), ("half of it", N // 2)]
    assert len({each.path for each in done}) == 2
    (one,) = filter_run(finished.uri, sets=["half of it"], output=str(tmp_path / "one"))
    assert one.name == "half of it"
    assert {path.name for path in (tmp_path / "one").iterdir() if path.suffix == ".yaml"} == {
        Path(one.config_path).name
    }


def test_a_changed_set_is_refused(ray_cluster, tmp_path) -> None:
    world = make_world(tmp_path / "world")
    finished = evaluate(world.config(tmp_path / "out"))
    image = world.folder / "generated" / NEAR_COPY
    status = image.stat()
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(
        ManifestError, match=r"synthetic: its images or its table have changed since .*Evaluate it again"
    ):
        filter_run(finished.uri)
    assert not list(Path(finished.uri).glob("filtered/*"))


def test_a_run_that_judged_nothing_filters_nothing(ray_cluster, world, tmp_path) -> None:
    few = world.table("few", read_rows(world.training)[:3])
    privacy = {"peers": False, "duplicates": False, "pixel_distance": False}
    finished = evaluate(world.config(tmp_path / "out", real=str(few), heldout=None, privacy=privacy))
    with pytest.raises(ConfigError, match=r"no part of .* has a verdict"):
        filter_run(finished.uri)
    judged, failed = judged_by.parts(finished.results, "synthetic")
    assert judged == []
    assert len(failed) == 1
    assert failed[0].startswith("pixels (nearest training image): ")


def test_a_run_on_s3_filtered_to_s3(run, s3) -> None:
    for path in run.glob("*.*"):
        s3.storage.write(f"{s3.bucket}/run/{path.name}", path.read_bytes())
    (done,) = filter_run(f"{s3.bucket}/run", storage=s3.storage)
    assert done.path == f"{s3.bucket}/run/filtered/synthetic.parquet"
    here = pq.read_table(filter_run(str(run))[0].path)
    there = s3.storage.read_parquet(done.path)
    assert there["sample_id"].equals(here["sample_id"])


def test_paths_relative_to_where_the_run_was_started(run, world, tmp_path, monkeypatch) -> None:
    shutil.copytree(run, tmp_path / "moved", ignore=shutil.ignore_patterns("filtered"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["synthetic"] = [{"path": "synthetic.csv", "image_root": "generated"}]
    (tmp_path / "moved" / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="Relative paths start where the run was started"):
        filter_run(str(tmp_path / "moved"))
    monkeypatch.chdir(world.folder)
    assert filter_run(str(tmp_path / "moved"))[0].n_dropped == len(flagged(run))


def chexray(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    from chexray.cli import main

    monkeypatch.setattr(sys, "argv", ["chexray", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_the_command_says_what_it_did_and_promises_no_more(run, tmp_path, monkeypatch, capsys) -> None:
    code, out, _ = chexray(monkeypatch, capsys, "filter", run, "--by", "privacy", "--output", tmp_path)
    assert code == 0
    n = len(flagged(run))
    assert f"synthetic: {N - n} images kept, {n} dropped" in out
    assert "no copy found by pixels (nearest training image); perceptual_hash" in out
    assert "dropped: duplicate" in out
    assert "safe" not in out
    assert (tmp_path / "synthetic-dropped.parquet").exists()


def test_bad_input_is_one_line_and_exit_2(run, ray_cluster, world, tmp_path, monkeypatch, capsys) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "verdicts.parquet").unlink()
    fidelity = tmp_path / "fidelity"
    fidelity.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["suite"] = ["fidelity"]
    (fidelity / "config.yaml").write_text(yaml.safe_dump(config))
    cases = [
        ([tmp_path / "nowhere"], "no run there"),
        ([run.parent], "It holds runs: "),
        ([run, "--by", "fidelity"], "no such filter. Known: privacy"),
        ([run, "--set", "sinthetic"], "Did you mean 'synthetic'?"),
        ([unfinished], "verdicts.parquet is missing: the run is not finished"),
        ([fidelity], "a run of fidelity has no verdicts"),
    ]
    for arguments, words in cases:
        code, out, errors = chexray(monkeypatch, capsys, "filter", *arguments)
        assert (code, out) == (2, ""), words
        assert words in errors
        assert errors.startswith("chexray: ")
        assert len(errors.strip().splitlines()) == 1, errors


def test_an_image_without_any_verdict_is_not_kept(run, tmp_path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(run, torn, ignore=shutil.ignore_patterns("filtered"))
    verdicts = pq.read_table(run / "verdicts.parquet")
    lost = next(name for name in ids(str(run / "verdicts.parquet")) if name not in flagged(run))
    keep = pa.array([name != lost for name in verdicts["sample_id"].to_pylist()])
    make_storage(StorageConfig()).write_parquet(str(torn / "verdicts.parquet"), verdicts.filter(keep))
    (done,) = filter_run(str(torn))
    why = {row["sample_id"]: row["reasons"] for row in pq.read_table(done.dropped_path).to_pylist()}
    assert why[lost] == ["rejected: the run has no verdict on it"]
