"""Configs, overrides and runtime environments: hostile values in every setting, YAML's own traps, damaged text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from fuzz.attempt import Attempt, Seen
from fuzz.kinds import tables
from fuzz.mutation import mutated
from fuzz.values import altered, number, text, value

SHARE = 20


def prepare(folder: Path) -> Path:
    return tables.prepare(folder)


def attempt(seeds: Path, rng: random.Random, folder: Path) -> Attempt:
    path = folder / "run.yaml"
    draw = rng.random()
    if draw < 0.12:
        return _runtime_env(path, rng)
    config = _config(seeds, folder, rng)
    how, overrides = "settings", []
    if draw < 0.3:
        content = yaml.safe_dump(config, sort_keys=False).encode()
        overrides, how = [_override(rng) for _ in range(rng.choice([1, 1, 2, 3]))], "overrides"
    elif draw < 0.62:
        times = rng.choice([1, 1, 1, 2, 4])
        for _ in range(times):
            _set(config, rng)
        content = _dumped(config, rng)
    elif draw < 0.72:
        content, how = _dumped(altered(config, rng, rng.choice([1, 2])), rng), "altered"
    elif draw < 0.85:
        content, how = yaml_trap(config, rng), "yaml"
    else:
        content, how = mutated(yaml.safe_dump(config, sort_keys=False).encode(), rng), "damaged"
    path.write_bytes(content)
    usable = [each for each in overrides if "\x00" not in each and _is_unicode(each)]
    command = ["validate", str(path), *(word for each in usable for word in ("--set", each))]
    return Attempt(how, lambda: _planned(path, overrides), command if usable == overrides else None)


def _planned(path: Path, overrides: list[str]) -> Seen:
    from chexray.config import load_config, parse_config

    config = load_config(path, overrides)
    seen = tables.plan_of(config)
    again = parse_config(yaml.safe_load(config.to_yaml()))
    seen.lines += [config.fingerprint, again.fingerprint]
    return seen


def _config(seeds: Path, folder: Path, rng: random.Random) -> dict[str, Any]:
    """A config that is valid, with many of its settings spelled out."""
    real, fake, held, train = (tables.good_set(seeds, name) for name in tables.SETS)
    encoders = [
        {"name": "pixels", "side": 8},
        {"name": "patches"},
        {"name": "rad_dino", "weights": "random:1"},
        {"name": "perceptual_hash"},
    ]
    config: dict[str, Any] = {
        "name": "fuzz", "suite": rng.choice(["fidelity", ["fidelity"], "privacy", "fidelity,privacy", "utility"]),
        "protocol": "standard",
        "real": real, "synthetic": [fake | {"on_duplicate": "first"}], "heldout": held,
        "encoders": [encoders[0], *rng.sample(encoders[1:3], rng.choice([0, 0, 1]))],
        "metrics": [{"name": "kid"}, {"name": "prdc", "k": 3}], "subsets": ["all"],
        "output": str(folder / "out"), "feature_store": str(folder / "features"), "limit": 6, "seed": 1, "floor": True,
        "label_policy": "u_zeros",
        "encode": {"batch_size": 4, "chunk_size": 8, "device": "cpu", "io_threads": 2, "max_pixels": 10_000,
        "max_reject_fraction": 0.5},
        "storage": {"retries": 0, "timeout_s": 2.0, "region": "x"}, "ray": {"num_cpus": 1, "wait_s": 1},
        "privacy": {"pairs": "auto", "thresholds": [0.5], "alpha": 0.05, "search": ["pixels"], "near_bits": 3,
        "peers": False},
        "utility": {"seeds": 1, "image_size": 32},
    }  # fmt: skip
    if "privacy" not in config["suite"]:
        del config["privacy"]
    if "utility" in config["suite"] or rng.random() < 0.2:
        config["training"] = train
    for name in rng.sample(
        ["privacy", "utility", "ray", "heldout", "subsets", "limit", "encode", "seed"], rng.choice([0, 2, 5])
    ):
        config.pop(name, None)
    return config


def _set(config: dict[str, Any], rng: random.Random) -> None:
    """One hostile value somewhere, most often where a value is."""
    holders = [config, *(item for item in config.values() if isinstance(item, dict))]
    holders += [item for part in config.values() if isinstance(part, list) for item in part if isinstance(item, dict)]
    holder = rng.choice(holders)
    keys = [
        *holder,
        *(
            ["columns", "source", "weights", "suites", "id", "image_root", "address", "endpoint_url"]
            if holder is not config
            else []
        ),
    ]
    name = rng.choice(keys) if rng.random() < 0.9 else text(rng)
    if rng.random() < 0.08:
        holder.pop(name, None)
    else:
        holder[name] = value(rng)


def _override(rng: random.Random) -> str:
    keys = [
        "limit", "seed", "encode.batch_size", "encode", "real.path", "synthetic.0.name", "synthetic.9.name",
        "synthetic.x", "real", "encoders.0.side",
        "metrics.0.k", "ray.address", "storage.retries", "storage.secret", "privacy.thresholds", "subsets", "a.b.c.d",
        "..", "name", "=", "",
    ]  # fmt: skip
    shape = rng.random()
    given = rng.choice(
        [
            json.dumps(value(rng)), text(rng), str(number(rng)), "[1, 2", "{a: b", "*a", "&a [*a]",
            "!!python/name:os.system", "!!int abc", "- 1",
        ]
    )  # fmt: skip
    key = rng.choice(keys) if shape < 0.9 else text(rng)
    return f"{key}={given}" if rng.random() < 0.95 else f"{key}{given}"


def _dumped(data: Any, rng: random.Random) -> bytes:
    """As YAML or as JSON, which is YAML too."""
    errors = rng.choice(["surrogatepass", *["replace"] * 5])
    if rng.random() < 0.4:
        return json.dumps(data, ensure_ascii=rng.random() < 0.5).encode("utf-8", errors)
    try:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=rng.random() < 0.5).encode("utf-8", errors)
    except (yaml.YAMLError, RecursionError, ValueError):
        return json.dumps(data).encode()


def yaml_trap(config: dict[str, Any], rng: random.Random) -> bytes:
    """What only YAML can do."""
    try:
        base = yaml.safe_dump(config, sort_keys=False)
    except RecursionError:
        base = "{}\n"
    depth = rng.choice([8, 40, 400, 5_000])
    levels = rng.choice([3, 9, 30])
    traps = [
        "bomb: &a0 [x]\n" + "".join(f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1,
        levels)) + f"subsets: *a{levels - 1}\n",
        "subsets: &a [*a]\n", "encode: &a {batch_size: 1, x: *a}\n", "x: &x {limit: 3}\n<<: *x\n",
        "<<: [{limit: 3}, {seed: 2}]\n", "<<: 3\n",
        f"subsets: {'[' * depth}{']' * depth}\n", f"subsets: {'{a: ' * depth}{'}' * depth}\n",
        "subsets:\n" + "".join(" " * i + "- \n" for i in range(min(depth, 900))),
        f"limit: {'9' * rng.choice([400, 5_000, 100_000])}\n", "limit: 0x" + "f" * 5_000 + "\n", "limit: !!int abc\n",
        "floor: !!bool abc\n", "seed: !!float abc\n",
        "limit: 2024-99-99\n", "limit: 2024-01-01\n", "limit: 2024-01-01 25:61:61\n", "limit: 1:60:60:60\n",
        "limit: .inf\n", "limit: .nan\n", "limit: !!binary x\n",
        "limit: !!timestamp x\n", "limit: !!set {a, b}\n", "subsets: !!omap [a: 1]\n", "subsets: !!pairs [a: 1]\n",
        "limit: !!str 3\n", "limit: !!null 3\n",
        "limit: !!python/object/apply:os.system ['id']\n", "limit: !evil 3\n",
        "limit: !<tag:yaml.org,2002:python/name:os.system> 3\n", "? [a, b]\n: 3\n", "? {a: b}\n: 3\n",
        "1: 2\n", "null: 2\n", "true: 2\n", "2024-01-01: 2\n", ".nan: 2\n", "limit: 1\nlimit: 2\n", "--- 1\n--- 2\n",
        "...\nlimit: 3\n", "%YAML 9.9\n---\nlimit: 3\n", "%TAG ! x\n",
        "limit: [\n", "limit: 'x\n", 'limit: "\\x"\n', 'limit: "\\ud800"\n', "\tlimit: 3\n", "limit: @x\n",
        "limit: `x`\n", "limit: *nowhere\n", "limit: |\n", "- a\n", "x" * 70_000,
        "name: " + "a" * 500_000 + "\n", "real: {path: [1, 2]}\n", "image_root: 5\n",
        "bins: [0xffffffffffffffffffff, 50]\n", "subsets: [{column: age, bins: [0xffffffffffffffffffff, 50]}]\n",
        "\x00", "\x1b[2J: 1\n", "‮x: 1\n", "&a : 1\n", "a" * 2_000 + ": 1\n",
        "".join(f"k{i}: {i}\n" for i in range(20_000)),
    ]  # fmt: skip
    trap = rng.choice(traps)
    place = rng.random()
    content = trap + base if place < 0.35 else base + trap if place < 0.85 else trap
    coding = rng.choice(["utf-8"] * 8 + ["utf-16", "utf-8-sig", "latin-1", "utf-32", "cp037"])
    return content.encode(coding, "surrogatepass" if coding == "utf-8" else "replace")


def _runtime_env(path: Path, rng: random.Random) -> Attempt:
    """What `submit --runtime-env` reads."""
    env: Any = {"pip": ["x"], "env_vars": {"A": "b", "MY_TOKEN": "c"}, "working_dir": "."}
    del env[rng.choice(list(env))]
    env = altered(env, rng, rng.choice([0, 1, 1, 3]))
    content = _dumped(env, rng) if rng.random() < 0.6 else yaml_trap(env, rng) if isinstance(env, dict) else b"[]"
    path.write_bytes(mutated(content, rng) if rng.random() < 0.2 else content)

    def act() -> Seen:
        from chexray.jobs.bundle import open_secrets, read_runtime_env

        return Seen("ok", open_secrets(read_runtime_env(path)))

    return Attempt("runtime environment", act)


def _is_unicode(given: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in given)
