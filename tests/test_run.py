"""The whole run by its real command: every file, resume after a kill, changed and added images, and each exit code."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from fixtures.deep_files import png, ramp
from fixtures.toys import Broken

from chexray import evaluate, parse_config, read_results
from chexray.data.looks import SAMPLE
from chexray.data.manifest import lowest_hashes
from chexray.errors import ChexrayError, ConfigError, RunFailed
from chexray.results.rows import params_of


def config(real: Path, generated: Path, output: Path, **more):
    data = {
        "real": {"path": str(real)},
        "synthetic": [{"path": str(generated)}],
        "encoders": [{"name": "pixels", "side": 4}],
        "metrics": ["fid", "kid", "prdc"],
        "output": str(output),
        "floor": False,
        "encode": {"chunk_size": 8, "batch_size": 4},
    }
    return parse_config({**data, **more})


def values(frame) -> dict:
    return {(row.metric, row.subset): (row.value, row.std_error) for row in frame.itertuples()}


@pytest.fixture
def sets(write_images) -> tuple[Path, Path]:
    return write_images("real", 40, seed=1), write_images("synthetic", 36, seed=2, offset=4)


def test_a_run_writes_everything_it_promises(ray_cluster, sets, tmp_path) -> None:
    done = evaluate(config(*sets, tmp_path / "out"))
    folder = Path(done.uri)
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "config.yaml", "status.json", "log.txt", "rejects.parquet", "per_image.parquet",
        "results.parquet", "results.csv", "results.json",
    }  # fmt: skip
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert set(done.results["metric"]) == {"fid", "kid", "precision", "recall", "density", "coverage"}
    assert (done.results["n_real"] == 40).all()
    assert (done.results["n_synthetic"] == 36).all()
    images = pq.read_table(folder / "per_image.parquet").to_pandas()
    assert len(images) == 36
    assert {"sample_id", "nearest_real_id", "nearest_real_distance", "realism", "rarity"} <= set(images.columns)
    for name in ("results.parquet", "results.csv", "results.json"):
        assert values(read_results(str(folder / name))) == values(done.results)
    provenance = json.loads((folder / "run.json").read_text())
    assert provenance["encoders"]["pixels"]["fingerprint"]
    assert [item["n_evaluated"] for item in provenance["sets"]] == [40, 36]


def test_the_written_config_runs_again_to_the_same_run(ray_cluster, sets, tmp_path) -> None:
    from chexray import load_config

    first = evaluate(config(*sets, tmp_path / "out"))
    again = evaluate(load_config(Path(first.uri) / "config.yaml"))
    assert again.uri == first.uri
    assert values(again.results) == values(first.results)
    assert json.loads((Path(first.uri) / "run.json").read_text())["n_encoded_now"] == 0


def test_a_changed_image_is_another_image(ray_cluster, sets, write_images, tmp_path) -> None:
    real, synthetic = sets
    first = evaluate(config(real, synthetic, tmp_path / "out"))
    changed = write_images("other", 1, seed=99, offset=60)
    shutil.copy(changed / "0000.png", real / "0005.png")
    second = evaluate(config(real, synthetic, tmp_path / "out"))
    assert second.uri != first.uri
    assert json.loads((Path(second.uri) / "run.json").read_text())["n_encoded_now"] == 1
    assert values(second.results) != values(first.results)


def test_two_generators_share_one_encoding_of_the_real_images(ray_cluster, sets, write_images, tmp_path) -> None:
    real, good = sets
    poor = write_images("poor", 30, seed=3, offset=50)
    both = evaluate(config(real, good, tmp_path / "out", synthetic=[{"path": str(good)}, {"path": str(poor)}]))
    assert json.loads((Path(both.uri) / "run.json").read_text())["n_encoded_now"] == 40 + 36 + 30
    fid = both.results[both.results.metric == "fid"].set_index("synthetic_set")["value"]
    names = sorted(fid.index, key=lambda name: fid[name])
    assert names[0].startswith("synthetic@")
    alone = evaluate(config(real, good, tmp_path / "alone"))
    assert fid[names[0]] == alone.results[alone.results.metric == "fid"]["value"].item()


def test_unreadable_images_are_rejects_and_too_many_fail_the_run(ray_cluster, sets, tmp_path) -> None:
    real, synthetic = sets
    (real / "0003.png").write_text("hello")
    with pytest.raises(RunFailed, match=r"1 of 40 images were rejected.*max_reject_fraction.*not_an_image"):
        evaluate(config(real, synthetic, tmp_path / "out"))
    relaxed = {"chunk_size": 8, "batch_size": 4, "max_reject_fraction": 0.05}
    done = evaluate(config(real, synthetic, tmp_path / "out", encode=relaxed))
    assert (done.results["n_real"] == 39).all()
    assert (done.results["n_rejected"] == 1).all()
    assert done.rejects[["set", "sample_id", "code"]].values.tolist() == [["real", "0003.png", "not_an_image"]]


def test_images_beyond_the_depth_of_their_set_are_counted_and_too_many_fail_the_run(ray_cluster, tmp_path) -> None:
    for name in ("real", "synthetic"):
        (tmp_path / name).mkdir()
        for i in range(40):
            (tmp_path / name / f"{i:04d}.png").write_bytes(png(ramp(4095 - i)))
    # Not in the sample: ids that hash high.
    real, synthetic = tmp_path / "real", tmp_path / "synthetic"
    hidden = sorted(set(range(40)) - set(lowest_hashes([f"{i:04d}.png" for i in range(40)], SAMPLE).tolist()))
    assert hidden
    (synthetic / f"{hidden[0]:04d}.png").write_bytes(png(ramp(5000)))
    with pytest.raises(RunFailed, match=r"1 of 40 images hold values beyond the 12 bits of its set.*`bits`"):
        evaluate(config(real, synthetic, tmp_path / "out"))
    relaxed = {"chunk_size": 8, "batch_size": 4, "max_reject_fraction": 0.05}
    done = evaluate(config(real, synthetic, tmp_path / "out", encode=relaxed))
    assert any("synthetic: 1 of 40 images hold values beyond" in note for note in done.notes)
    assert (done.results["n_rejected"] == 0).all()
    params = params_of(done.results.iloc[0])
    assert params["note_depth"] == {"real": "found 12", "synthetic": "found 12"}
    story = json.loads((Path(done.uri) / "run.json").read_text())
    assert [each["depth"] for each in story["sets"]] == [{"bits": 12, "given": False}] * 2
    given = evaluate(config(real, synthetic, tmp_path / "out", synthetic=[{"path": str(synthetic), "bits": 14}]))
    assert not any("beyond" in note for note in given.notes)
    assert given.run_id != done.run_id


def test_one_image_gives_nulls_with_reasons_beside_a_set_that_has_more(ray_cluster, write_images, tmp_path) -> None:
    real, one, more = write_images("real", 8), write_images("one", 1), write_images("more", 8, seed=1)
    done = evaluate(config(real, one, tmp_path / "out", synthetic=[str(one), str(more)]))
    of_one = done.results[done.results["synthetic_set"].str.startswith("one@")]
    assert of_one["value"].isna().all()
    assert (of_one["status"] == "too_few").all()
    assert of_one["reason"].str.contains("1 synthetic image").all()
    assert done.results["value"].notna().any()
    assert done.exit_code == 0
    with pytest.raises(ConfigError, match=r"would compute no number: .* 8 real and 1 synthetic images"):
        evaluate(config(real, one, tmp_path / "out"))


def test_identical_sets_have_no_distance(ray_cluster, write_images, tmp_path) -> None:
    done = evaluate(config(write_images("a", 30), write_images("b", 30), tmp_path / "out"))
    got = values(done.results)
    assert abs(got["fid", "all"][0]) < 1e-6
    assert got["coverage", "all"][0] == 1.0


def test_subsets_by_column_and_finding(ray_cluster, sets, tmp_path) -> None:
    real, synthetic = sets
    with (real.parent / "real.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "path", "annotated_prompt", "chexpert_labels", "patientID", "sex"])
        for i, path in enumerate(sorted(real.glob("*.png"))):
            labels = {"Edema": 1.0 if i % 2 else None, "Fracture": -1.0}
            rows.writerow([f"r{i}", f"real/{path.name}", f"prompt {i}", str(labels), i // 2, "MF"[i % 2]])
    with (real.parent / "synthetic.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "img_savename"])
        for i, path in enumerate(sorted(synthetic.glob("*.png"))):
            rows.writerow([f"prompt {i}", path.name])
    done = evaluate(
        config(real.parent / "real.csv", real.parent / "synthetic.csv", tmp_path / "out", subsets="all,findings,sex")
    )
    frame = done.results[done.results.metric == "fid"].set_index("subset")
    assert len(frame) == 1 + 14 + 2
    assert frame.loc["finding:Edema", ["n_real", "n_synthetic"]].tolist() == [20, 18]
    assert frame.loc["sex:F", "n_synthetic"] == 18
    assert np.isnan(frame.loc["finding:Fracture", "value"])
    assert "label_policy" in frame.loc["finding:Edema", "method"]


def test_the_driver_is_killed_and_the_same_command_finishes_the_work(
    ray_cluster, sets, write_images, tmp_path, command
) -> None:
    """What is killed is a process with a Ray of its own; the command that goes on runs here, and joins ours."""
    real, synthetic = write_images("many", 244, seed=5), sets[1]
    arguments = [
        "run", "--real", real, "--synthetic", synthetic, "--encoders", "pixels", "--metrics", "fid,kid,prdc",
        "--set", "encode.chunk_size=4", "--set", "encode.actors=1", "--set", "ray.num_cpus=2",
        "--set", "ray.object_store_gb=0.2", "--set", "floor=false",
    ]  # fmt: skip
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "chexray.cli", *map(str, arguments), "--output", str(killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200  # a busy machine takes minutes to start Ray
    while len(list(killed.glob("features/*/part-*"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    committed = len(list(killed.glob("features/*/part-*")))
    assert 3 <= committed < 70

    for output in (killed, tmp_path / "calm"):
        code, _, errors = command(*arguments, "--output", output, at=tmp_path)
        assert code == 0, errors
    run_of = {place: next(place.glob("run-*/results.parquet")).parent for place in (killed, tmp_path / "calm")}
    frames = [read_results(str(folder)).drop(columns=["created_at"]) for folder in run_of.values()]
    assert frames[0].equals(frames[1])
    encoded = [json.loads((folder / "run.json").read_text())["n_encoded_now"] for folder in run_of.values()]
    assert encoded == [280 - 4 * committed, 280]
    keys = [
        key
        for part in killed.glob("features/*/part-*.parquet")
        for key in pq.read_table(part, columns=["image_key"])["image_key"].to_pylist()
    ]
    assert len(keys) == len(set(keys)) == 280


@pytest.mark.ray
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stop_on_request_is_clean_and_says_so(write_images, tmp_path, stop) -> None:
    real = write_images("many", 600, seed=5)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "chexray.cli", "run", "--real", str(real), "--synthetic", str(real), "--name", "stop",
            "--encoders", "pixels", "--set", "synthetic.0.name=copy", "--set", "encode.chunk_size=2",
            "--set", "encode.actors=1", "--set", "ray.num_cpus=2", "--output", str(tmp_path / "out"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background (nohup, some CI) ignores SIGINT, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not list(tmp_path.glob("out/features/*/part-*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=20)  # what a preempted pod is given, and less than it needs
    assert process.returncode == 130
    assert "resume" in errors
    assert "Traceback" not in errors
    status = json.loads(next(tmp_path.glob("out/stop-*/status.json")).read_text())
    assert status["state"] == "interrupted"


@pytest.mark.ray
@pytest.mark.parametrize("place", ["ray.init", "chexray.engine.cluster.quiet_ray", "ray.shutdown"])
def test_sigterm_while_ray_starts_or_ends_is_a_clean_stop_too(write_images, tmp_path, place) -> None:
    settings = config(write_images("real", 6), write_images("generated", 6, seed=1), tmp_path / "out").model_dump(
        mode="json", exclude_defaults=True
    )
    (tmp_path / "run.yaml").write_text(json.dumps(settings))  # JSON is YAML
    script = str(Path(__file__).parent / "fixtures" / "terminated.py")
    command = [sys.executable, script, str(tmp_path / "run.yaml"), place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr
    assert "resume" in done.stderr
    assert "Traceback" not in done.stderr
    status = json.loads(next(tmp_path.glob("out/*/status.json")).read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)


def test_a_run_that_is_done_is_shown_and_not_computed_again(ray_cluster, sets, tmp_path, capsys) -> None:
    first = evaluate(config(*sets, tmp_path), once=True)
    before = {path: path.stat().st_mtime_ns for path in Path(first.uri).iterdir()}
    again = evaluate(config(*sets, tmp_path), once=True)
    assert "nothing is computed again" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in Path(first.uri).iterdir()} == before
    pd.testing.assert_frame_equal(again.results, read_results(first.uri))
    assert (again.run_id, again.notes, again.exit_code) == (first.run_id, first.notes, 0)
    Path(first.uri, "rejects.parquet").unlink()
    assert evaluate(config(*sets, tmp_path), once=True).exit_code == 0
    assert Path(first.uri, "rejects.parquet").exists()
    status = Path(first.uri, "status.json")
    status.write_text(status.read_text().replace('"done"', '"failed"'))
    evaluate(config(*sets, tmp_path), once=True)
    assert json.loads(status.read_text())["state"] == "done"


def test_the_log_of_a_run_lies_beside_its_results(ray_cluster, sets, tmp_path, monkeypatch) -> None:
    uri = Path(evaluate(config(*sets, tmp_path)).uri)
    log = (uri / "log.txt").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT[\d:]+Z cluster: 1 node", log, re.MULTILINE)
    assert "encode: " in log
    assert "reduce: " in log

    def broken(*_, **__):
        raise OSError("defect")

    monkeypatch.setattr("chexray.run.rejecting.check_rejects", broken)
    with pytest.raises(OSError):
        evaluate(config(*sets, tmp_path))
    assert "failed: OSError (a defect of chexray)" in (uri / "log.txt").read_text()
    assert "in broken" in (uri / "errors.log").read_text()
    monkeypatch.undo()
    evaluate(config(*sets, tmp_path))
    assert not (uri / "errors.log").exists()
    attempts = (uri / "log.txt").read_text().split("--- again")
    assert ["failed: OSError (a defect of chexray)" in attempt for attempt in attempts] == [False, True, False]


BAD = [
    (["run"], "--synthetic with --real"),
    (["run", "nowhere.yaml"], "no such config file"),
    (["run", "--real", "nowhere.csv", "--synthetic", "x.csv", "--encoders", "pixels"], "nowhere.csv"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixel"], "Did you mean 'pixels'"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--metrics", "fdi"], "'fid'"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--set", "encode.batchsize=3"],
     "Did you mean 'batch_size'"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--metrics", "inception_score"],
     "logits"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "rad_dino"], "rad-dino"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--protocol", "chexgen"],
     "Did you mean 'chexgenbench'"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--subsets", "sexx"], "sexx"),
    (["run", "--real", "{real}", "--synthetic", "{synthetic}", "--encoders", "pixels", "--output", "/proc/nowhere"],
     "/proc/nowhere"),
    (["ls", "metric"], "metrics"),
    (["compare", "only-one"], "at least two"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_is_one_line_and_exit_2(sets, tmp_path, monkeypatch, capsys, arguments, words) -> None:
    from chexray.cli import main

    real, synthetic = sets
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["chexray", *(a.format(real=real, synthetic=synthetic) for a in arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err.strip()
    assert end.value.code == 2
    assert words in errors
    assert errors.startswith("chexray: ")
    # A line a set that is not there.
    assert len(errors.splitlines()) == (3 if "x.csv" in arguments else 1), errors
    assert not list(tmp_path.glob("out/features"))


def test_dry_run_prints_the_plan_and_starts_nothing(sets, tmp_path, monkeypatch, capsys) -> None:
    from chexray.cli import main

    real, synthetic = sets
    arguments = ["run", "--real", real, "--synthetic", synthetic, "--encoders", "pixels", "--limit", 10, "--dry-run"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["chexray", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "10 images" in shown
    assert "20 of 20 images to encode" in shown
    assert not list(tmp_path.glob("out*"))


def test_a_metric_that_breaks_costs_its_own_rows_and_exit_code_1(ray_cluster, sets, tmp_path, monkeypatch) -> None:
    from chexray.plan import encoders as building

    find = building.find
    monkeypatch.setattr(building, "find", lambda kind, name: Broken if name == "broken" else find(kind, name))
    done = evaluate(config(*sets, tmp_path / "out", metrics=["fid", "broken"]))
    frame = done.results.set_index("metric")
    assert frame.loc["fid", "status"] == "ok"
    assert frame.loc["broken", ["status", "reason"]].tolist() == ["failed", "ZeroDivisionError: made to break"]
    assert done.exit_code == 1
    assert "made to break" in (Path(done.uri) / "errors.log").read_text()


def test_errors_of_the_library_are_all_one_class(sets, tmp_path) -> None:
    with pytest.raises(ChexrayError):
        evaluate(config(tmp_path / "missing", sets[1], tmp_path / "out"))
