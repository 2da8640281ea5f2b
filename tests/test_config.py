"""The run config: short forms, precedence, typos, secrets, and every worked example."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chexray.config import RunConfig, load_config, parse_config, with_reid_weights
from chexray.errors import ConfigError, ConfigProblems
from chexray.protocols import PROTOCOLS, merged, protocol
from chexray.registry import find, names
from chexray.utility.mixtures import parse_setting

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASE = {"real": "real.csv", "synthetic": "synthetic.csv", "encoders": "pixels"}


def test_short_forms_mean_what_they_say() -> None:
    config = parse_config({**BASE, "encoders": "pixels, rad_dino", "metrics": "fid,kid", "subsets": "all,sex"})
    assert [item.name for item in config.encoders] == ["pixels", "rad_dino"]
    assert config.synthetic[0].options == {"path": "synthetic.csv"}
    assert config.subsets == ["all", "sex"]
    named = parse_config({**BASE, "synthetic": {"good": {"path": "a"}, "poor": {"source": "phantom", "n": 3}}})
    assert [(item.name, item.options) for item in named.synthetic] == [("good", {"path": "a"}), ("poor", {"n": 3})]


def test_suites_are_one_word_several_or_a_list() -> None:
    assert parse_config(BASE).suite == ["fidelity"]
    for given in ("privacy", ["privacy"], "privacy,privacy"):
        assert parse_config({**BASE, "suite": given}).suite == ["privacy"]
    assert parse_config({**BASE, "suite": "fidelity, privacy"}).suite == ["fidelity", "privacy"]
    encoder = parse_config({**BASE, "encoders": [{"name": "pixels", "suites": "privacy"}]}).encoders[0]
    assert (encoder.suites, encoder.options) == (["privacy"], {})
    one, both = (parse_config({**BASE, "suite": suite}) for suite in ("privacy", "fidelity,privacy"))
    assert one.fingerprint != both.fingerprint
    again = parse_config(yaml.safe_load(both.to_yaml()))
    assert (again.suite, again.fingerprint) == (both.suite, both.fingerprint)


@pytest.mark.parametrize("role", ["training", "heldout"])
def test_the_other_real_sets_are_plain_paths_or_mappings(role: str) -> None:
    plain = parse_config({**BASE, role: "other.csv"}, [f"{role}.name=other"])
    given = getattr(plain, role)
    assert (given.name, given.options) == ("other", {"path": "other.csv"})
    whole = parse_config({**BASE, role: {"name": "other", "path": "other.csv"}})
    assert plain.fingerprint == whole.fingerprint != parse_config(BASE).fingerprint
    assert getattr(parse_config(BASE), role) is None


def test_reid_weights_reach_the_encoder_wherever_it_is_named() -> None:
    siamese = {"name": "siamese_reid", "route": "official256"}

    def encoders(data: dict, flags: dict | None = None) -> list[dict]:
        data, flags = with_reid_weights({**BASE, **data}, flags or {}, "re.pth")
        return [item.model_dump(exclude_defaults=True) for item in parse_config(data, flags=flags).encoders]

    added = {"name": "siamese_reid", "weights": "re.pth"}
    assert encoders({}) == [{"name": "pixels"}, added]
    assert encoders({"encoders": "pixels,siamese_reid"}) == [{"name": "pixels"}, added]
    assert encoders({"encoders": [{**siamese, "weights": "old.pth"}]}) == [{**siamese, "weights": "re.pth"}]
    assert encoders({"encoders": [siamese]}, {"encoders": "patches"}) == [{"name": "patches"}, added]
    two = [{"name": "siamese_reid", "id": "a"}, {"name": "siamese_reid", "id": "b", "route": "official256"}]
    assert encoders({"encoders": two}) == [{**item, "weights": "re.pth"} for item in two]


def test_reid_weights_change_nothing_given() -> None:
    data, flags = {**BASE, "encoders": [{"name": "siamese_reid"}]}, {"encoders": [{"name": "siamese_reid"}]}
    with_reid_weights(data, flags, "re.pth")
    assert data["encoders"] == flags["encoders"] == [{"name": "siamese_reid"}]


def test_overrides_win_over_flags_and_flags_over_the_file() -> None:
    config = parse_config(
        {**BASE, "limit": 1, "seed": 1}, ["limit=3", "synthetic.0.name=mine"], flags={"limit": 2, "seed": 2}
    )
    assert (config.limit, config.seed, config.synthetic[0].name) == (3, 2, "mine")


def test_yaml_round_trip_without_secrets() -> None:
    config = parse_config({**BASE, "storage": {"key": "AKIA", "secret": "hush", "endpoint_url": "http://minio:9000"}})
    text = config.to_yaml()
    assert "hush" not in text
    assert "hush" not in repr(config)
    again = parse_config(yaml.safe_load(text))
    assert again.fingerprint == config.fingerprint
    assert again.storage.endpoint_url == "http://minio:9000"


def test_where_and_how_fast_is_not_what() -> None:
    here = parse_config(BASE)
    there = parse_config({**BASE, "output": "s3://b/out", "encode": {"batch_size": 3}, "ray": {"num_cpus": 7}})
    other = parse_config({**BASE, "seed": 5})
    assert here.fingerprint == there.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encode": {"batchsize": 3}}, r"'encode\.batchsize'\. Did you mean 'batch_size'"),
        ({"protocl": "standard"}, "Did you mean 'protocol'"),
        ({"encode": {"batch_size": 0}}, "at least 1"),
        ({"encode": {"batch_size": "many"}}, r"encode\.batch_size: .*valid integer.*found 'many'"),
        ({"encoders": "pixels,pixels"}, "give one of them an `id`"),
        ({"label_policy": "zeros"}, "u_zeros"),
        ({"limit": -1}, "greater than or equal to 1"),
        ({"name": "../up"}, "name"),
        ({"output": "s3://key:hush@bucket/x"}, "holds a user or password"),
        (
            {"encoders": [{"name": "rad_dino", "weights": "https://x/m?X-Amz-Signature=hush"}]},
            "signed or holds a token",
        ),
        ({"real": None}, "real"),
        ({"suite": "privcy"}, r"suite.*'fidelity', 'privacy' or 'utility'.*found 'privcy'"),
        ({"suite": []}, "suite"),
        ({"privacy": {"alpha": 0.5}}, r"privacy\.alpha.*less than or equal to 0\.2"),
        ({"privacy": {"thresholds": [0.5, 1.0]}}, r"privacy\.thresholds.*less than 1"),
        ({"privacy": {"serch": ["pixels"]}}, r"'privacy\.serch'\. Did you mean 'search'"),
    ],
)
def test_a_wrong_config_is_one_helpful_line(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        parse_config({**BASE, **change})
    assert len(str(error.value).splitlines()) == 1
    assert "hush" not in str(error.value)


def problems(data: dict, *overrides: str) -> tuple[list[str], RunConfig | None]:
    with pytest.raises(ConfigProblems) as error:
        parse_config(data, overrides, origin="run.yaml")
    assert len(str(error.value).splitlines()) == 1
    return error.value.lines, error.value.rest


def test_everything_that_is_wrong_is_said_at_once_in_plain_words() -> None:
    lines, rest = problems(
        {
            "real": "real.csv",
            "synthetics": "made.csv",
            "encoders": [{"name": "pixels", "precision": "fp61"}, {"name": "patches"}],
            "suite": ["privcy", "fidelity"],
            "encode": {"batchsize": 3, "io_threads": 0, "batch_size": "many"},
            "epochs": 3,
        },
        "limit=none",
        "real.path.deep=1",
    )
    assert set(lines) == {
        "9 problems in run.yaml:",
        "  --set 'real.path.deep=1': 'real.path.deep' does not lead to a setting of this config.",
        "  suite: expected 'fidelity', 'privacy' or 'utility', found 'privcy'. Did you mean 'privacy'?",
        "  encoders, entry 1 (pixels), precision: expected 'auto', 'fp32', 'tf32' or 'bf16', found 'fp61'.",
        "  limit: expected a valid integer, found 'none'.",
        "  encode.batch_size: expected a valid integer or 'auto', found 'many'.",
        "  encode.io_threads: expected a number greater than or equal to 1, found 0.",
        "  unknown key 'encode.batchsize'. Did you mean 'batch_size'?",
        "  unknown key 'synthetics'. Did you mean 'synthetic'?",
        "  unknown key 'epochs'. Did you mean 'utility.epochs'?",
    }
    assert not any("is required" in line for line in lines)
    assert rest is not None
    assert (rest.suite, rest.synthetic[0].options["path"]) == (["privacy", "fidelity"], "made.csv")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, ["'real' is required: ", "'synthetic' is required.", "encoders: the list is empty"]),
        ({**BASE, "Suite": "privacy"}, ["unknown key 'Suite'. Did you mean 'suite'?"]),
        ({**BASE, "held-out": "x"}, ["unknown key 'held-out'. Did you mean 'heldout'?"]),
        ({**BASE, "foo": 3}, ["unknown key 'foo'. Did you mean 'floor'?"]),
        ({**BASE, "batch_size": 3}, ["unknown key 'batch_size'. Did you mean 'utility.batch_size'?"]),
        ({**BASE, "encoders": 5, "floor": "maybe"}, ["expected a list, found 5.", "expected true or false"]),
        ({**BASE, "subsets": [3]}, ["subsets: expected text or a mapping, found 3."]),
        ({**BASE, "encoders": "a,a", "limit": 0}, ["greater than or equal to 1", "two encoders are called 'a'"]),
        ({**BASE, "storage": {"key": "hush", "retries": -1}}, ["storage.retries: expected a number"]),
    ],
)
def test_no_problem_merely_follows_from_another(data: dict, expected: list[str]) -> None:
    lines, _ = problems(data)
    lines = lines[1:] or lines
    assert len(lines) == len(expected)
    assert all(any(words in line for line in lines) for words in expected), lines
    assert not any("hush" in line or ".0" in line for line in lines)


def test_a_file_that_is_no_config_ends_in_few_lines() -> None:
    lines, _ = problems({**BASE, **{f"key{i}": i for i in range(500)}})
    assert len(lines) == 32
    assert lines[-1] == "  ... and 470 more"


@pytest.mark.parametrize("override", ["encode", "=3", "real.path.deep=1"])
def test_a_wrong_override_is_named(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_config(BASE, [override])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n", "\x00"])
def test_a_file_that_is_no_config_is_one_line(tmp_path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads_and_names_only_what_exists(path: Path) -> None:
    config = load_config(path)
    protocol(config.protocol)
    for item in config.encoders:
        assert item.name in names("encoders")
    for item in config.metrics:
        find("metrics", item.name)(**item.options)
    for name in config.utility.settings:
        parse_setting(name)


def test_the_quickstart_plans_without_a_cluster(tmp_path, monkeypatch) -> None:
    from chexray.plan import make_plan

    monkeypatch.setenv("CHEXRAY_CACHE", str(tmp_path / "cache"))
    overrides = [f"output={tmp_path}", "real.n=6", "training.n=6", "subsets=[all]", "synthetic.2.training_n=6"]
    overrides += [f"synthetic.{i}.n=6" for i in range(4)]
    plan = make_plan(load_config(CONFIGS / "quickstart.yaml", overrides))
    assert len(plan.images) == 6 * 6
    assert any("phantom-poor: 6 images" in line for line in plan.describe())
    assert [each.name for each in plan.sets_of("fidelity")][:1] == ["phantom-test"]
    assert [each.name for each in plan.sets_of("privacy")][:2] == ["phantom-training", "phantom-test"]
    trained = {"efficientnet": ("fidelity",)} if plan.encoders.keys() & {"efficientnet"} else {}
    assert bool(trained) != any("efficientnet is left out" in line for line in plan.notes)
    assert plan.suites_of == trained | {
        "pixels": ("fidelity",), "pixels-32": ("privacy",), "patches": ("privacy",), "perceptual_hash": ("privacy",),
        "small_images": ("privacy",), "utility_images": ("utility",), "wavelets": ("fidelity",),
    }  # fmt: skip
    assert [each.name for each in plan.synthetic_of("privacy")] == ["phantom-good", "phantom-poor", "phantom-copier"]
    assert [each.name for each in plan.sets_of("utility")][:2] == ["phantom-training", "phantom-test"]
    assert plan.utility is not None
    assert [each.title for each in plan.utility.planned.trainings][:2] == ["real", "synthetic (phantom-good)"]
    assert len(plan.pairs["phantom-copier"]) == 6


def test_a_protocol_keeps_its_word() -> None:
    fixed = PROTOCOLS["chexgenbench"].encoder_options["rad_dino"]
    both = merged(fixed, {"pooling": "cls"}, what="rad_dino", protocol_name="x")
    assert both == {"route": "cgb299", "pooling": "cls"}
    with pytest.raises(ConfigError, match=r"fixes rad_dino\.route"):
        merged(fixed, {"route": "native"}, what="rad_dino", protocol_name="chexgenbench")


def test_registry_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'prdc'"):
        find("metrics", "prcd")


NO_SETTINGS = (
    "ray.init",
    "ray.put",
    "ray.data",
    "ray.train",
    "ray.nodes",
    "ray._private",
    "ray.dashboard",
    "ray.autoscaler",
)


def test_messages_name_settings_that_exist() -> None:
    """`utility.x`, `encode.y` ... in what the package says are keys of the config."""
    said = [text for path in (CONFIGS.parent / "chexray").rglob("*.py") for text in _said(path)]
    pattern = r"(?<![\w./])((?:utility|encode|privacy|ray|storage)(?:\.[a-z_]+)+)\b(?!\()"
    named = {name for text in said for name in re.findall(pattern, text) if not name.endswith(".yaml")}
    wrong = {name for name in named if not name.startswith(NO_SETTINGS) and not _is_setting(name)}
    assert "encode.max_reject_fraction" in named
    assert not wrong, wrong


def _said(path: Path) -> list[str]:
    """The texts in a file, apart from docstrings, which name modules too."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in docstrings]
    return [node.value for node in texts if isinstance(node.value, str)]


def _is_setting(name: str) -> bool:
    model: Any = RunConfig
    for part in name.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return False
        model = field.annotation
    return True


@pytest.mark.parametrize("line", ["pattern: *.dcm", "pattern: *", "image_template: {dir}/{id}.png", "a: @b"])
def test_yaml_that_lacks_quotes_is_told_so(tmp_path, line):
    path = tmp_path / "c.yaml"
    path.write_text(f"real:\n  path: a\n  {line}\nsynthetic: b\n")
    with pytest.raises(ConfigError, match=r"line 3 is not YAML: .*needs quotes: \"\*\.dcm\""):
        load_config(path)
