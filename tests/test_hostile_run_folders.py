"""A run's folder that somebody else hands over: damaged or hostile, it ends in one line, and nothing is written outside
of it, drawn, fetched or signed because its config says so.

The folders are made by hand, without Ray, as a run writes them; the mutations are drawn with a seed.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fixtures.mutations import ESCAPE, one_line_of, refused
from fixtures.run_folders import STORAGE, copied, make_run, mutate, with_config
from PIL import Image
from rich.console import Console

from chexray.config import StorageConfig
from chexray.curation.filtering import filter_run
from chexray.jobs.status import read_statuses
from chexray.report.comparison import render_compare
from chexray.results.aligned import compare
from chexray.results.reading import read_results
from chexray.run.directory import RunDirectory

N_MUTATIONS = 100
NOW = datetime(2026, 1, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for kind in ("real", "made"):
        (folder / kind).mkdir()
        for i in range(6):
            Image.fromarray(np.full((8, 8), 9 * i, np.uint8)).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("out") / "study-0123456789", sets)


def test_the_folder_that_is_attacked_can_be_filtered_and_read(run: Path, tmp_path: Path) -> None:
    (done,) = filter_run(str(run), output=str(tmp_path / "filtered"))
    assert (done.n_kept, done.n_dropped) == (4, 2)
    assert read_statuses(str(run), STORAGE, lambda: NOW)[0].state == "done"
    shown(run, run)


def shown(*runs: Path) -> str:
    """What `compare` prints of several runs."""
    frames = {f"run {i}": read_results(str(each)) for i, each in enumerate(runs)}
    out = io.StringIO()
    Console(file=out, width=100).print(render_compare(compare(frames)))
    return out.getvalue()


BROKEN = {
    "config_yaml": ["", "- a", "a: [", "a: &a [*a]", "real: " + "[" * 600, b"\xff\xfe", "x: " + "9" * 5000,
                    "a" * 1_000_001, "\0"],
    "run_json": ["", "[]", "null", "{}", '{"sets": 3}', '{"sets": [3]}', '{"sets": [{"name": "made"}]}',
                 "[" * 100_000, b"\xff",
                 '{"sets": [{"name": 1, "fingerprint": 2, "origin": "synthetic"}]}', '{"sets": [' + "9" * 5000 + "]}",
                 '{"sets": [{"name": {}, "fingerprint": "", "origin": ""}]}'],
    "verdicts_parquet": [b"", b"PAR1", b"hello" * 100],
    "rejects_parquet": [b"", b"PAR1PAR1"],
    "results_parquet": [b"", b"PAR1"],
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(run: Path, tmp_path: Path, name: str) -> None:
    for i, content in enumerate(BROKEN[name]):
        broken = copied(run, tmp_path / str(i), **{name: content})
        assert name.replace("_", ".") in refused(partial(filter_run, str(broken)))
        assert not (broken / "filtered").exists()


COLUMNS = {
    "a column is missing": lambda t: t.drop_columns([t.column_names[0]]),
    "a column stands twice": lambda t: t.append_column(t.column_names[0], t.column(0)),
    "names are numbers": lambda t: t.set_column(0, t.column_names[0], pa.array(range(len(t)))),
    "names are null": lambda t: t.set_column(0, t.column_names[0], pa.nulls(len(t), pa.string())),
    "names are bytes": lambda t: t.set_column(0, t.column_names[0], t.column(0).cast(pa.binary())),
    "flags are text": lambda t: t.set_column(2, t.column_names[2], pa.array([["x"]] * len(t))),
    "reasons are a mapping": lambda t: t.set_column(3, t.column_names[3], pa.array([{"a": 1}] * len(t))),
}


@pytest.mark.parametrize("file", ["verdicts.parquet", "rejects.parquet"])
@pytest.mark.parametrize("change", COLUMNS)
def test_columns_that_are_not_what_they_should_be(run: Path, tmp_path: Path, file: str, change: str) -> None:
    torn = copied(run, tmp_path / "torn")
    table = pq.read_table(torn / file)
    if file == "rejects.parquet":
        table = table.select(["set", "sample_id", "stage", "code", "detail"])
    pq.write_table(COLUMNS[change](table), torn / file)
    assert file in refused(lambda: filter_run(str(torn)))


def test_text_that_is_not_utf_8_in_a_table(run: Path, tmp_path: Path) -> None:
    torn = copied(run, tmp_path / "torn")
    table = pq.read_table(torn / "verdicts.parquet")
    bad = pa.array([b"\xff\xfe"] * len(table), pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, "sample_id", bad), torn / "verdicts.parquet")
    refused(lambda: filter_run(str(torn)))


def test_a_flag_without_a_reason_still_drops_its_image(run: Path, tmp_path: Path) -> None:
    torn = copied(run, tmp_path / "torn")
    table = pq.read_table(torn / "verdicts.parquet")
    empty = pa.array([None, []] * 9, pa.list_(pa.string())).slice(0, len(table))
    pq.write_table(table.set_column(3, "reasons", empty), torn / "verdicts.parquet")
    (done,) = filter_run(str(torn))
    assert done.n_dropped == 2


def test_a_config_draws_no_phantoms_where_it_pleases(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    phantom = {
        "source": "phantom",
        "n": 3,
        "generator": "real",
        "seed": 1,
        "size": 32,
        "path": str(place),
        "name": "real",
    }
    hostile = with_config(run, tmp_path / "run", lambda data: data.update(real=phantom))
    assert "writes no set" in refused(lambda: filter_run(str(hostile)))
    assert not place.exists()


def test_a_config_deletes_nothing(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "phantoms.json").write_text("{}")
    before = sorted(path.name for path in place.iterdir())
    phantom = {
        "source": "phantom",
        "n": 3,
        "generator": "real",
        "seed": 1,
        "size": 32,
        "path": str(place),
        "name": "real",
    }
    refused(lambda: filter_run(str(with_config(run, tmp_path / "run", lambda data: data.update(real=phantom)))))
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize(
    ("key", "value", "move"),
    [
        ("endpoint_url", "http://127.0.0.1:9", "export AWS_"),
        ("profile", "work", "export AWS_"),
        ("requester_pays", True, "chexray filter ... --storage requester_pays=true"),
    ],
)
def test_a_config_does_not_say_whom_credentials_are_shown_to_or_who_pays(
    run: Path, tmp_path: Path, key: str, value: str | bool, move: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
    asked: list[str] = []
    monkeypatch.setattr(
        "chexray.storage.Storage._files", lambda self, uri: asked.append(uri) if "://" in uri else _local()
    )

    def change(data: dict[str, Any]) -> None:
        data["storage"] = {key: value}
        data["synthetic"][0]["path"] = "s3://bucket/made"

    hostile = with_config(run, tmp_path / "run", change)
    line = refused(lambda: filter_run(str(hostile)))
    assert f"storage.{key}" in line
    assert f"If you trust it: {move}" in line
    assert not asked
    local = with_config(run, tmp_path / "local", lambda data: data.update(storage={key: value}))
    assert filter_run(str(local))[0].n_kept == 4  # nothing of it lies on S3


def _local() -> Any:
    from chexray.storage.local import LocalFiles

    return LocalFiles()


def test_a_link_in_the_folder_leads_nowhere(run: Path, tmp_path: Path) -> None:
    hostile = copied(run, tmp_path / "run")
    (tmp_path / "home").mkdir()
    (hostile / "filtered").symlink_to(tmp_path / "home")
    assert "link out of the run's folder" in refused(lambda: filter_run(str(hostile)))
    assert not list((tmp_path / "home").iterdir())
    (hostile / "filtered").unlink()
    (hostile / "filtered").mkdir()
    (tmp_path / "precious.parquet").write_text("mine")
    (hostile / "filtered" / "made.parquet").symlink_to(tmp_path / "precious.parquet")
    filter_run(str(hostile))
    assert (tmp_path / "precious.parquet").read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "../../up",
        "/etc/passwd",
        "a\nreal: {path: /etc}\n#",
        ESCAPE,
        "..",
        ".",
        "CON",
        "a/b",
        "x" * 500,
        "s3://b/x",
        " ",
    ],
)
def test_names_of_sets_stay_inside_and_inert(sets: Path, tmp_path: Path, name: str, monkeypatch, capsys) -> None:
    run = make_run(tmp_path / "a" / "b" / "run", sets, synthetic=[{"name": name, "path": f"{sets}/made"}])
    before = set(tmp_path.rglob("*"))
    (done,) = filter_run(str(run))
    new = set(tmp_path.rglob("*")) - before
    assert {path.parent for path in new if path.is_file()} == {run / "filtered"}
    written = yaml.safe_load(Path(done.config_path).read_text())
    assert set(written) == {"synthetic"}
    from chexray.cli import main

    monkeypatch.setattr(sys, "argv", ["chexray", "filter", str(run)])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()


def test_sets_that_would_overwrite_each_other(sets: Path, tmp_path: Path) -> None:
    both = [{"name": name, "path": f"{sets}/made"} for name in ("a-dropped", "a")]
    run = make_run(tmp_path / "run", sets, synthetic=both)
    about = json.loads((run / "run.json").read_text())
    verdicts = pq.read_table(run / "verdicts.parquet").to_pylist()
    table = pa.Table.from_pylist([each | {"synthetic_set": name} for name in ("a", "a-dropped") for each in verdicts])
    pq.write_table(table, run / "verdicts.parquet")
    assert {each["name"] for each in about["sets"]} >= {"a", "a-dropped"}
    assert "same file" in refused(lambda: filter_run(str(run)))


ROWS = [
    {"value": 1e400}, {"value": "nan"}, {"n_real": 2**70}, {"n_real": float("inf")}, {"n_real": -1},
    {"n_real": "9" * 5000},
    {"params": "[" * 50_000}, {"params": "9" * 5000}, {"params": {"n_prompts": "many"}}, {"params": {"n_prompts": [1]}},
    {"params": {"n_seeds_max": None, "n_prompts": {}}}, {"params": {"bias_dominated": []}}, {"params": {"seeds": "x"}},
    {"metric": None}, {"metric": ESCAPE}, {"subset": "x" * 10_000}, {"created_at": "9" * 5000}, {"better": ESCAPE},
    {"status": "failed"}, {"seed": 1e300}, {"ci_low": 5.0, "ci_high": 1.0}, {"suite": "utility"}, {"suite": []},
    {"suite": "utility", "params": {"setting": {"a": 1}, "threshold": "x"}}, {"reason": ESCAPE},
    {"synthetic_set": ESCAPE},
    {"metric": "reid_count_0.5", "params": {"n_prompts": "x", "threshold": "y"}},
    {"params": {"floor": {"a": [1] * 99}}},
    {"method": "[" * 50_000}, {"about": "9" * 5000}, {"about": {"n_prompts": [1]}}, {"method": []}, {"declared": None},
    {"declared": "[" * 50_000}, {"declared": {"moves_with": "n_real"}}, {"declared": {"moves_with": [ESCAPE, "seed"]}},
    {"declared": {"upstream": {"x": 1}}}, {"declared": {"upstream": {"metric": ESCAPE, "method": {"k": ESCAPE}}}},
    {"declared": {"rank": "x"}}, {"declared": {"scale": 1e308}}, {"declared": {"scale": 0}},
    {"declared": {"low": True}},
    {"declared": {"label": ESCAPE, "says": ESCAPE, "family": ESCAPE, "role": ESCAPE, "never_compared": ESCAPE}},
    {"declared": {"nearest_to_floor": True, "moves_with": ["about", "value", "metric"]}},
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(ROWS)))
def test_results_that_say_what_is_not_so(run: Path, tmp_path: Path, place: int) -> None:
    content = json.loads((run / "results.json").read_text())
    for each in content["rows"]:
        each.update(ROWS[place])
    (tmp_path / "results.json").write_text(json.dumps(content))
    printed: list[str] = []
    one_line_of(lambda: printed.append(shown(run, tmp_path)))
    assert "".join(printed).replace("\n", "").isprintable()


def test_status_and_provenance_of_a_stranger(run: Path, tmp_path: Path) -> None:
    odd = [2**70, "9" * 99, None, [], {}, ESCAPE, float("inf"), True]
    for i, value in enumerate(odd):
        body = dict.fromkeys(("run_id", "updated_at", "started_at", "done", "total", "exit_code", "message"), value)
        copied(run, tmp_path / str(i), status_json=json.dumps({**body, "state": ESCAPE}))
    copied(run, tmp_path / "deep", status_json="[" * 100_000)
    copied(run, tmp_path / "large", status_json='{"state": "' + "x" * 2_000_000 + '"}')
    for each in read_statuses(str(tmp_path), STORAGE, lambda: NOW):
        assert all(str(text).isprintable() for text in each.record.values())
        assert len(each.message) <= 1500
    for name in ("[" * 100_000, "\udcff", "9" * 5000, "[]", "{"):
        (tmp_path / "run.json").write_bytes(name.encode(errors="surrogatepass"))
        assert RunDirectory(str(tmp_path), "x", STORAGE).read_json("run.json") == {}


def test_locations_with_credentials_are_not_repeated(run: Path) -> None:
    place = "s3://me:hunter2@bucket/run"
    actions: list[Callable[[], Any]] = [
        lambda: filter_run(place),
        lambda: filter_run(str(run), output=place),
        lambda: filter_run(str(run), sets=["storage.secret=hunter2"]),
        lambda: read_results(place),
        lambda: read_statuses(place, STORAGE, lambda: NOW),
    ]
    for action in actions:
        assert "hunter2" not in refused(action)


def test_mutated_folders_end_in_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of any file, values of YAML and JSON, columns of Parquet: filter, compare and status,
    each folder thrice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    before = snapshot(run.parent)
    rng = random.Random(12)
    lines: list[str] = []
    for n in range(N_MUTATIONS):
        torn = copied(run, tmp_path / "work" / f"run-{n}")
        file = mutate(torn, rng)
        for action in acts_on(file, torn, run):
            lines += [ended for ended in [one_line_of(action)] if ended]
        assert {path.name for path in tmp_path.iterdir()} == {"work"}
        shutil.rmtree(torn)
    assert snapshot(run.parent) == before
    assert len(lines) > 0.3 * N_MUTATIONS


def acts_on(file: str, torn: Path, run: Path) -> list[Callable[[], Any]]:
    """What reads a file of a run's folder."""
    if file == "status.json":
        return [lambda: read_statuses(str(torn), STORAGE, lambda: NOW)]
    actions: list[Callable[[], Any]] = [lambda: filter_run(str(torn))]
    return [*actions, lambda: shown(run, torn)] if file.startswith("results") else actions


def snapshot(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "filtered" not in str(path)
    }


def test_a_config_does_not_choose_the_key_that_a_set_is_encrypted_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sse": "aws:kms", "sse_kms_key_id": "arn:aws:kms:us-east-1:000000000000:key/of-a-stranger"}
    hostile = with_config(run, tmp_path / "run", lambda data: data.update(storage=settings))
    made: list[StorageConfig] = []
    monkeypatch.setattr("chexray.curation.filtering.make_storage", lambda config: made.append(config) or STORAGE)
    filter_run(str(hostile))
    assert len(made) == 2
    assert {(config.sse, config.sse_kms_key_id) for config in made} == {(None, None)}
