"""A run's folder that somebody else hands over: damaged or hostile, it ends in one line, and nothing is written outside
of it, drawn, fetched or signed because its config says so.

The folders are made by hand, without Ray, as a run writes them; the mutations are drawn with a seed.
"""

from __future__ import annotations

import copy
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
from PIL import Image
from results import privacy_rows, utility_rows
from rich.console import Console
from test_hostile_configs import ODD, at, mangled, places, put, refused

from chexray.config import StorageConfig, parse_config
from chexray.errors import ChexrayError
from chexray.filtering import filter_run
from chexray.jobs.status import read_statuses
from chexray.plan import inherit_labels, make_storage, read_manifests
from chexray.protocols import protocol
from chexray.results import rows
from chexray.results.compare import compare, render_compare
from chexray.results.rows import read_results
from chexray.rundir import RunDirectory

N_MUTATIONS = 100
FILES = [
    "config.yaml", "config.yaml", "run.json", "status.json", "results.parquet", "results.json", "verdicts.parquet",
    "rejects.parquet",
]  # fmt: skip
STORAGE = make_storage(StorageConfig())
NOW = datetime(2026, 1, 3, tzinfo=UTC)
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"


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


def make_run(folder: Path, sets: Path, **changes: Any) -> Path:
    """The folder of a finished run whose filter flagged one image and lost another."""
    folder.mkdir(parents=True)
    data = {
        "name": "study", "suite": ["privacy"], "encoders": [{"name": "pixels"}], "output": str(folder.parent),
        "real": {"path": f"{sets}/real"}, "synthetic": [{"name": "made", "path": f"{sets}/made"}], **changes,
    }  # fmt: skip
    config = parse_config(data)
    (folder / "config.yaml").write_text(config.to_yaml())
    real, synthetic = read_manifests(config, STORAGE)
    found = [*real.values(), *inherit_labels(synthetic, real, protocol("standard"))]
    about = [{"name": each.name, "origin": each.origin, "fingerprint": each.fingerprint} for each in found]
    (folder / "run.json").write_text(json.dumps({"sets": about, "notes": [], "chexray_version": "0.1.0"}))
    status = {"run_id": folder.name, "state": "done", "exit_code": 0, "updated_at": "2026-01-02T03:04:05Z", "done": 12}
    (folder / "status.json").write_text(json.dumps(status))
    made = found[-1]
    ids = made.table["sample_id"].to_pylist()
    verdicts = [
        {"synthetic_set": made.name, "sample_id": each, "flagged": i == 1, "reasons": ["pixels: near"] * (i == 1)}
        for i, each in enumerate(ids[:-1])
    ]
    schema = pa.schema(
        [
            ("synthetic_set", pa.string()),
            ("sample_id", pa.string()),
            ("flagged", pa.bool_()),
            ("reasons", pa.list_(pa.string())),
        ]
    )
    pq.write_table(pa.Table.from_pylist(verdicts, schema), folder / "verdicts.parquet")
    lost = {"set": made.name, "sample_id": ids[-1], "uri": "x", "image_key": "k", "stage": "decode", "code": "corrupt"}
    pq.write_table(
        pa.table({k: [v] for k, v in {**lost, "detail": "cut", "transient": False}.items()}), folder / "rejects.parquet"
    )
    shared = {"real_set": "real@0123456789abcdef", "synthetic_set": f"{made.name}@{made.fingerprint}"}
    others = [each | shared for each in (*privacy_rows.everything(), *utility_rows.everything())]
    deciding = privacy_rows.row("memorised_share", 0.1, 0.0, 0.2) | shared
    kid = deciding | {"suite": "fidelity", "metric": "kid", "params": {"k": 5, "bias_dominated": True, "n_prompts": 4}}
    counted = deciding | {"metric": "reid_max", "params": {"n_seeds_max": 3, "n_prompts": 4, "threshold": 0.5}}
    rows.write(str(folder), [*others[::9], deciding, kid, counted], STORAGE)
    return folder


def copied(run: Path, to: Path, **files: str | bytes) -> Path:
    shutil.copytree(run, to)
    for name, content in files.items():
        path = to / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return to


def with_config(run: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    data = yaml.safe_load((run / "config.yaml").read_text())
    change(data)
    return copied(run, to, config_yaml=yaml.safe_dump(data))


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


@pytest.mark.parametrize(("key", "value"), [("endpoint_url", "http://127.0.0.1:9"), ("profile", "work")])
def test_a_config_does_not_say_whom_credentials_are_shown_to(
    run: Path, tmp_path: Path, key: str, value: str, monkeypatch: pytest.MonkeyPatch
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
    assert "If you trust it: export AWS_" in line
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


def one_line_of(action: Callable[[], Any]) -> str:
    """The line an action ended in, "" where it did not fail; a defect passes through."""
    try:
        action()
    except ChexrayError as error:
        line = str(error)
    else:
        return ""
    assert line.isprintable()
    assert len(line) <= 1500
    return line


def snapshot(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "filtered" not in str(path)
    }


def mutate(folder: Path, rng: random.Random) -> str:
    """Changes one file of the folder and returns its name."""
    path = folder / rng.choice(FILES)
    if path.name == "results.json":
        (folder / "results.parquet").unlink()
    if rng.random() < 0.4:
        path.write_bytes(mangled(path.read_bytes(), rng))
    elif path.suffix == ".parquet":
        pq.write_table(torn_table(pq.read_table(path), rng), path)
    else:
        data = yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_text())
        where = rng.choice(places(data))
        odd = copy.deepcopy(rng.choice([each for each in ODD if type(each) is type(at(data, where))] or ODD))
        put(data, where, odd if rng.random() < 0.7 else copy.deepcopy(rng.choice(ODD)))
        path.write_text(yaml.safe_dump(data) if path.suffix == ".yaml" else json.dumps(data))
    return path.name


def torn_table(table: pa.Table, rng: random.Random) -> pa.Table:
    place = rng.randrange(table.num_columns)
    name, n = table.column_names[place], len(table)
    columns: list[Any] = [
        pa.nulls(n, table.column(place).type),
        pa.nulls(n),
        pa.array([2**62] * n),
        pa.array([float("nan")] * n),
        pa.array([ESCAPE * 200] * n),
        pa.array([b"\xff\xfe"] * n, pa.binary()).view(pa.string()),
        pa.array([[None]] * n, pa.list_(pa.string())),
        pa.array([{"a": [1]}] * n),
        pa.array([datetime(2026, 1, 1)] * n),
    ]
    kind = rng.randrange(len(columns) + 3)
    if kind < len(columns):
        return table.set_column(place, name, columns[kind])
    if kind == len(columns):
        return table.drop_columns([name])
    if kind == len(columns) + 1:
        return table.append_column(name, table.column(place))
    return pa.concat_tables([table] * rng.choice((2, 50))) if rng.random() < 0.5 else table.slice(0, rng.randrange(n))
