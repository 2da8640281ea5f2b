"""A config that anybody may have written: whatever is wrong with it is one line, soon, without a traceback or a secret.

The attacks were found by hand; the mutations after them are drawn with a seed.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixtures.mutations import mangled, mutated, one_line_of, put, refused
from PIL import Image

from chexray.config import load_config, parse_config, read_yaml, with_reid_weights
from chexray.config.yaml_text import MAX_DEPTH, parse_yaml
from chexray.plan import make_plan

BASE = {"real": "real.csv", "synthetic": "synthetic.csv", "encoders": "pixels"}
N_MUTATIONS = 500


def aliases(depth: int) -> str:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)]
    return "\n".join(["a0: &a0 [x, x]", *levels])


TEXTS = {
    "aliases": (aliases(30), "anchor or alias"),
    "an anchor that contains itself": ("real: &a {path: *a}", "anchor or alias"),
    "an anchor nobody uses": ("real: &a x", "anchor or alias"),
    "an alias of nothing": ("real: *hunter2", "alias"),
    "merge key": ("<<: {limit: 3}", "merge key"),
    "deep lists": ("a: " + "[" * 5000, "32 deep"),
    "deep mappings": ("a: " + "{a: " * 600 + "1" + "}" * 600, "32 deep"),
    "deep blocks": ("".join(f"{' ' * i}a:\n" for i in range(600)), "32 deep"),
    "deep dashes": ("a:\n  " + "- " * 3000, "32 deep"),
    "too large": ("a: " + "x" * 1_000_001, "larger than 1 MB"),
    "too many values": ("a: [" + "1," * 60_000 + "]", "50,000 values"),
    "a long integer": (f"limit: {'9' * 5000}", "number of 5,000"),
    "more than 64 bits": ("limit: 0xffffffffffffffffffff", "64 bits"),
    "infinite": ("limit: .inf", "finite"),
    "too large a float": ("limit: 1.0e+999", "finite"),
    "not a number": ("limit: .nan", "finite"),
    "a tagged integer": ("limit: !!int abc", "tag"),
    "a tagged boolean": ("floor: !!bool abc", "tag"),
    "bytes": ("name: !!binary aGVsbG8=", "tag"),
    "a set": ("real: !!set {a, b}", "tag"),
    "pairs": ("real: !!omap [a: 1]", "tag"),
    "a Python object": ("real: !!python/object/apply:os.system ['id']", "tag"),
    "a timestamp tag": ("limit: !!timestamp 2024-99-99", "tag"),
    "a key twice": ("limit: 1\nlimit: 2", "second time"),
    "a list as key": ("? [a, b]\n: c", "Keys are text"),
    "two documents": ("limit: 1\n---\nlimit: 2", "second document"),
    "a tab": ("real:\n\tpath: x", "not YAML"),
    "a NUL": ('name: "a\\0b"', "NUL"),
    "half a pair": ('name: "\\ud800"', "not YAML"),
    "a control character": ("name: a\x01b", "not YAML"),
    "a list": ("- a", "expected a mapping"),
    "nothing": ("", "found nothing"),
    "open quotes": ('name: "' + "x" * 10_000, "not YAML"),
}


@pytest.mark.parametrize("attack", TEXTS)
def test_yaml_that_is_refused(tmp_path: Path, attack: str) -> None:
    text, words = TEXTS[attack]
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    line = refused(lambda: load_config(file))
    assert line.startswith(str(file))
    assert words in line


@pytest.mark.parametrize(
    "data", [b"\xff\xfea\x00:\x00", "a: é".encode("latin-1"), b"\x1f\x8b\x08\x00", b"PK\x03\x04\x14"]
)
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(data)
    assert "UTF-8" in refused(lambda: read_yaml(tmp_path / "run.yaml")) or b"PK" in data


def test_files_that_are_none_are_not_waited_for(tmp_path: Path) -> None:
    assert "larger than 1 MB" in refused(lambda: read_yaml("/dev/zero"))
    assert "cannot be read as a config" in refused(lambda: read_yaml(tmp_path))
    assert "cannot be read as a config" in refused(lambda: read_yaml("a\0b"))
    assert "\x1b" not in refused(lambda: read_yaml("\x1b[2Jrun.yaml"))


def test_values_mean_what_yaml_says_but_dates_times_and_keys_are_text() -> None:
    text = "a: [010, +12, -0x1F, 1_000, 0b11, 089, 1.5, .5, 1:2:3, 2024-01-01, 2024-99-99, ~, Yes, off, '1', !!str 1]"
    values = [8, 12, -31, 1000, 3, "089", 1.5, 0.5, "1:2:3", "2024-01-01", "2024-99-99", None, True, False, "1", "1"]
    assert parse_yaml(text, "here") == {"a": values}
    assert parse_yaml("\ufeff2024: a\nyes: b\n~: c".encode(), "here") == {"2024": "a", "yes": "b", "~": "c"}
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(nested, "here") == yaml.safe_load(nested)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).resolve().parents[1].glob("configs/*.yaml")), ids=lambda p: p.stem
)
def test_our_own_configs_are_read_as_by_yaml(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text())


CIRCLE: dict[str, Any] = {"path": "x"}
CIRCLE["more"] = CIRCLE
DEEP: list[Any] = []
for _ in range(3000):
    DEEP = [DEEP]

DATA = [
    {"real": CIRCLE},
    {"subsets": DEEP},
    {"real": {"path": "a\udcff"}},
    {"real": {"path": "a\0b"}},
    {"real": {"path": float("nan")}},
    {"real": {1: 2}},
    {"real": {"path": "x", "columns": {None: "a"}}},
    {"seed": 2**70},
    {"seed": "9" * 30},
    {"seed": "9" * 5000},
    {"limit": "2024-99-99"},
    {"utility": {"weight_decay": float("inf")}},
    {"utility": {"learning_rate": "inf"}},
    {"utility": {"weight_decay": "1e999999"}},
    {"storage": {"timeout_s": "inf"}},
    {"storage": {"endpoint_url": "http://[bad"}},
    {"storage": {"endpoint_url": "http://h:99999999"}},
    {"encoders": 5},
    {"metrics": [None]},
    {"synthetic": []},
    {"subsets": [{"column": "age", "bins": [10**24, 50]}]},
    {"name": "x" * 1_000_000},
    {"x" * 100_000: 1},
    {"\x1b[2J\u202e": 1},
]


@pytest.mark.parametrize("place", range(len(DATA)))
def test_data_that_is_refused(place: int) -> None:
    refused(lambda: parse_config({**BASE, **DATA[place]}))


def test_reid_weights_for_a_config_without_a_list_of_encoders() -> None:
    assert "expected a list" in refused(lambda: with_reid_weights({"encoders": 5}, {}, "w.pth"))


@pytest.mark.parametrize("value", ["*.dcm", "{IM*,x}", "&a", "%d", "@x", "!x", "[a", "{a", "'a", "a: b: c", "- -: ["])
def test_an_override_that_is_no_yaml_is_plain_text(value: str) -> None:
    config = parse_config({**BASE, "real": {"path": "x"}}, [f"real.pattern={value}"])
    assert config.real.options["pattern"] == value


@pytest.mark.parametrize(
    "override",
    ["real.x=" + "[" * 100, f"seed={'9' * 5000}", "limit=.inf", "real." + "a." * 40 + "b=1", "a=\udcff", "é\x1b"],
)
def test_an_override_that_is_refused(override: str) -> None:
    refused(lambda: parse_config({**BASE, "real": {"path": "x"}}, [override]))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and a folder of 4 images each, and a table of those in the folder, which has groups."""
    folder = tmp_path_factory.mktemp("sets")
    for place, kind in enumerate(("real", "made")):
        (folder / kind).mkdir()
        for i in range(4):
            Image.fromarray(np.full((8, 8), 9 * i + place, np.uint8)).save(folder / kind / f"{i}.png")
    rows = [f"{i},real/{i}.png,p{i // 2},prompt {i},{'FM'[i % 2]},{30 + 20 * i}" for i in range(4)]
    made = [f"made/{i}.png,{'FM'[i % 2]},{30 + 20 * i}" for i in range(4)]
    (folder / "more.csv").write_text("\n".join(["path,sex,age", *made]) + "\n")
    (folder / "real.csv").write_text("\n".join(["id,path,patientID,prompt,sex,age", *rows]) + "\n")
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    """A config that uses most of what there is, and needs no weights."""
    return {
        "name": "study",
        "suite": ["fidelity", "privacy"],
        "real": {"path": f"{folder}/real.csv", "image_root": str(folder), "columns": {"prompt": "prompt"}},
        "synthetic": [
            {"name": "made", "path": f"{folder}/made", "pattern": "*.png", "recursive": True},
            {"path": f"{folder}/more.csv", "image_root": str(folder)},
        ],
        "heldout": {"path": f"{folder}/made", "name": "others"},
        "encoders": [{"name": "pixels", "side": 4}, {"name": "patches", "id": "p", "side": 8, "patch": 4}],
        "metrics": [{"name": "kid", "subsets": 10, "subset_size": "min"}, {"name": "prdc", "k": 3}, {"name": "fid"}],
        "subsets": ["all", "sex", {"column": "age", "bins": [40, 60]}, "sex:F"],
        "output": f"{folder}/out",
        "limit": 4,
        "privacy": {"alpha": 0.01, "thresholds": [0.5], "search": ["pixels"], "pairs": "none"},
        "encode": {"batch_size": 4, "io_threads": 2},
        "utility": {"settings": ["real"], "learning_rate": 0.001},
        "storage": {"retries": 1, "timeout_s": 3.0},
        "ray": {"num_cpus": 1},
    }


def test_the_config_that_is_mutated_has_a_plan(sets: Path) -> None:
    assert len(make_plan(parse_config(config_of(sets))).images) == 8


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("real.image_root", 5, "image_root is 5, expected text or null"),
        ("synthetic.0.pattern", {}, "pattern is {}, expected text"),
        ("synthetic.0.recursive", "maybe", "expected true or false"),
        ("real.columns", 5, "columns is 5, expected a mapping"),
        ("real.columns", {"prompt": ["a"]}, "expected a mapping of text"),
        ("metrics.0.subsets", "many", "expected a whole number"),
        ("metrics.1.k", True, "expected a whole number"),
        ("subsets", [{"column": "age", "bins": ["a", 50]}], "bins"),
        ("subsets", [{"column": 3}], ""),
        ("real.source", "../../etc", "unknown source"),
        ("protocol", "\x1b[2J", "unknown protocol"),
        ("privacy.search", ["\x1b[2J"], "privacy.search names"),
    ],
)
def test_options_of_another_type_are_refused(sets: Path, key: str, value: Any, words: str) -> None:
    data = config_of(sets)
    put(data, key.split("."), value)
    assert words in refused(lambda: make_plan(parse_config(data)))


def planned(config: dict[str, Any] | Path) -> None:
    parsed = load_config(config) if isinstance(config, Path) else parse_config(config)
    make_plan(parsed).describe()


@pytest.mark.slow
def test_mutated_configs_end_in_a_plan_or_in_one_line(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them as data, half as text. Nothing is written but below the output and the phantoms' folder."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(11)
    base = config_of(sets)
    text = yaml.safe_dump(base, sort_keys=False).encode()
    n_plans = 0
    for n in range(N_MUTATIONS):
        if n % 2:
            data = mutated(base, rng)
            action = partial(planned, data)
        else:
            (tmp_path / "run.yaml").write_bytes(mangled(text, rng))
            action = partial(planned, tmp_path / "run.yaml")
        line = one_line_of(action)
        assert line.isprintable()
        assert len(line) <= 1500
        n_plans += not line
    assert 0.02 * N_MUTATIONS < n_plans < 0.8 * N_MUTATIONS
