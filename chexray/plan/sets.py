"""The sets of a run: read by their sources, checked, and with the labels that their prompts have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from chexray.config import RunConfig, SetConfig, StorageConfig
from chexray.config.secrets import STORAGE_SECRETS
from chexray.data import manifest as manifests
from chexray.data.keys import Origin
from chexray.data.looks import look_at
from chexray.data.manifest import Manifest
from chexray.data.prompts import inherit_by_id, inherit_by_prompt
from chexray.data.schema import Source
from chexray.data.sources._plugged import PluggedSource
from chexray.data.sources.infer import infer
from chexray.errors import ConfigError
from chexray.plan.names import distinct_names, key_of
from chexray.plan.options import checked
from chexray.plan.problems import Problems
from chexray.protocols import Protocol
from chexray.registry import find, is_built_in
from chexray.storage import Storage, absolute, join
from chexray.suite_names import PRIVACY
from chexray.text import quoted, shown


def read_manifests(
    config: RunConfig, storage: Storage, problems: Problems | None = None
) -> tuple[dict[str, Manifest], list[Manifest]]:
    """({role: real set}, synthetic sets) of a config, as their sources give them. Needs no encoder and no weights.

    problems: takes up what is wrong with each set; by default that is raised, for all sets at once.
    """
    found = problems or Problems()
    heldout = config.heldout if PRIVACY in config.suite else None
    given = {"real": config.real, "training": config.training, "heldout": heldout}
    chosen = {role: item for role, item in given.items() if item is not None and is_named(item)}
    read = [item for item in read_sets(config) if is_named(item)]
    names = found.attempt(distinct_names, [*chosen.items(), *(("synthetic", item) for item in read)])
    if names is None:
        return {}, []
    real = {
        role: found.attempt(_manifest, item, name, "real", config, storage)
        for (role, item), name in zip(chosen.items(), names, strict=False)
    }
    synthetic = [
        found.attempt(_manifest, item, name, "synthetic", config, storage)
        for item, name in zip(read, names[len(chosen) :], strict=True)
    ]
    sets = [each for each in (*real.values(), *synthetic) if each is not None]
    found.attempt(_check_depths, sets)
    if problems is None:
        found.raise_all()
    return {role: each for role, each in real.items() if each}, [each for each in synthetic if each]


def _check_depths(sets: Sequence[Manifest]) -> None:
    """Raises ConfigError where sets of one container that declare no depth seem to have different ones: the same value
    would be light in one and dark in the other. DICOM of 12 bits beside PNG of 16 is usual, and only noted."""
    found = [
        (shown(item.name), item.depth.bits, item.looks.containers)
        for item in sets
        if item.looks and item.depth and item.depth.bits and not item.depth.given
    ]
    for (one, bits, kinds), (two, others, of_two) in itertools.combinations(found, 2):
        shared = [kind for kind in kinds if kind in of_two]
        if bits != others and shared:
            raise ConfigError(
                f"{one} and {two} hold {shared[0]} files that do not say how many bits they use, and samples of them "
                f"need {bits} and {others} bits. Give both sets `bits`, such as {max(bits, others, key=abs)}, the "
                "same if their values have one scale."
            )


def read_sets(config: RunConfig) -> list[SetConfig]:
    """The synthetic sets that a suite of this run reads."""
    return [item for item in config.synthetic if read_by(item, config)]


def is_named(item: SetConfig) -> bool:
    """Whether a set says at all where its images are."""
    return bool(item.options or item.source)


def read_by(item: SetConfig, config: RunConfig) -> tuple[str, ...]:
    return tuple(suite for suite in config.suite if item.suites is None or suite in item.suites)


def inherit_labels(synthetic: Sequence[Manifest], real: dict[str, Manifest], preset: Protocol) -> list[Manifest]:
    """The synthetic sets as a run reads them: with the labels and columns that their prompts have in the real sets."""
    # Labels come from all real rows of a prompt, so inherit before any row is left out.
    sources = [real[role] for role in ("real", "training") if role in real]
    return [_inherited(item, sources, preset) for item in synthetic]


def _inherited(item: Manifest, sources: Sequence[Manifest], preset: Protocol) -> Manifest:
    """From the set that knows most of its prompts first: that is the one it was made for. A set whose ids name real
    images has first what these have, whose prompts others may share."""
    for source in reversed(sources) if item.pairs == "same_id" else ():
        item = inherit_by_id(item, source)
    prompts = set(item.table["prompt"].to_pylist()) - {None}
    for source in sorted(sources, key=lambda source: -len(prompts & set(source.table["prompt"].to_pylist()))):
        item = inherit_by_prompt(item, source, mode=preset.inherit)
    return item


def learned_from(real: dict[str, Manifest]) -> tuple[Manifest, Manifest | None]:
    """(training, held-out): the real set is the one when no training set is given, else it may be the other."""
    if "training" in real:
        return real["training"], real.get("heldout") or real.get("real")
    return real["real"], real.get("heldout")


def make_storage(config: StorageConfig) -> Storage:
    secrets = {name: value.get_secret_value() for name in STORAGE_SECRETS if (value := getattr(config, name))}
    return Storage(**config.model_dump(exclude=STORAGE_SECRETS), **secrets)


def _manifest(item: SetConfig, name: str, origin: str, config: RunConfig, storage: Storage) -> Manifest:
    source, kind = source_of(item, name, config, storage)
    origin = Origin(origin, key_of(config, item), config.image_root or "")
    found = manifests.load(name, origin, source, storage, on_duplicate=item.on_duplicate, limit=config.limit)
    if kind != "table":  # whose place is its path
        found = replace(found, images="")
    return look_at(found, storage, bits=item.bits, max_pixels=config.encode.max_pixels)


def source_of(item: SetConfig, name: str, config: RunConfig, storage: Storage) -> tuple[Source, str]:
    """What reads a set, and which kind of source that is: the one named, else the one that its path shows."""
    options = item.options
    kind = item.source or infer(str(options.get("path", "")), storage, key_of(config, item))
    if kind == "phantom":
        options.setdefault("path", join(absolute(config.output), "phantoms", name))
    what = f"source {quoted(kind, 60)} of set {quoted(name)}"
    source = checked(find("sources", kind), options, what)
    return source if is_built_in("sources", kind) else PluggedSource(source, what), kind
