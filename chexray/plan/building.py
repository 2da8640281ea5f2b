"""Reads manifests, finds weights and builds metrics: a config in, a checked plan out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chexray.config import EncoderConfig, MetricConfig, RunConfig, SetConfig, StorageConfig, UtilityConfig
from chexray.data import manifest as manifests
from chexray.data import pairs as pairing
from chexray.data.keys import Origin
from chexray.data.looks import look_at
from chexray.data.manifest import Manifest
from chexray.data.pairs import Pairs
from chexray.data.sources import infer
from chexray.data.sources._plugged import PluggedSource
from chexray.data.subsets import deduplicate_prompts, expand, inherit_by_prompt
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.plugged import plugged_encoder
from chexray.encoders.released import check_word
from chexray.encoders.views import SmallImages
from chexray.errors import ChexrayError, ConfigError, ConfigProblems, WeightsError
from chexray.metrics.base import Metric
from chexray.metrics.plugged import plugged_metric
from chexray.plan.names import distinct_names, key_of
from chexray.plan.options import accepts, checked
from chexray.plan.overlaps import Listed, overlaps
from chexray.plan.plan import FIDELITY, PRIVACY, UTILITY, Plan
from chexray.plan.problems import Problems
from chexray.plan.prospects import check_prompts, foresee, privacy_remarks
from chexray.plan.roles import SMALL, PrivacyRoles, privacy_roles
from chexray.plan.training import classifier_weights, plan_utility
from chexray.plan.utility import IMAGES
from chexray.plugins import code_of, unused
from chexray.protocols import Protocol, check_label_policy, merged, protocol
from chexray.registry import find, is_built_in
from chexray.storage import Storage, absolute, join
from chexray.text import listed, quoted, shown
from chexray.utility.images import ResizedImages

HASH = "perceptual_hash"
"""The encoder that finds duplicates; the privacy suite brings it along when the config names none of its kind."""


def make_plan(config: RunConfig) -> Plan:
    """The plan of a config. Raises a ChexrayError that says what to change; ConfigProblems for several things."""
    found = Problems()
    for key, item in (("real", config.real), *((f"synthetic.{i}", each) for i, each in enumerate(_read_sets(config)))):
        if not _is_named(item):
            found.errors.append(ConfigError(f"{key} names no images. Give it a path: a folder, a table or Parquet."))
    preset, storage, metrics, encoders, suites_of, real, synthetic = _parts(config, found)
    found.raise_all()
    copied: set[tuple[str, str]] = set()
    shared = overlaps(_listed(config, real, synthetic), copied)
    synthetic = inherit_labels(synthetic, real, preset)
    training, heldout = _learned_from(real) if PRIVACY in config.suite else (None, None)
    reference = real["real"]
    keys = {item.name: role for role, item in real.items()} | {
        item.name: f"synthetic.{place}"
        for item, place in zip(synthetic, [config.synthetic.index(each) for each in _read_sets(config)], strict=True)
    }
    if preset.deduplicate_real_prompts and FIDELITY in config.suite:
        reference = deduplicate_prompts(reference)
        # Privacy still searches every image: the two are then different sets.
        everything = replace(real["real"], name=f"{reference.name}-all") if reference is not real["real"] else reference
        training, heldout = (everything if each is real["real"] else each for each in (training, heldout))
        real = {**real, "real": everything}
    chosen = {k: v for k, v in encoders.items() if PRIVACY in suites_of[k]}
    roles = found.attempt(privacy_roles, config.privacy, chosen) or PrivacyRoles()
    if roles.views:
        small = SmallImages()
        encoders[SMALL] = (small, small.resolve())
        suites_of[SMALL] = (PRIVACY,)
    read_by = {item.name: _read_by(each, config) for item, each in zip(synthetic, _read_sets(config), strict=True)}
    of = {suite: [item for item in synthetic if suite in read_by[item.name]] for suite in config.suite}
    for suite, sets in of.items():
        if not sets:
            raise ConfigError(
                f"no synthetic set is for suite {suite}. Add {suite} to the `suites` of one, or drop both."
            )
    subsets = found.attempt(expand, config.subsets, reference, of[FIDELITY]) if FIDELITY in config.suite else []
    pairs = found.attempt(_pairs, config, training, of.get(PRIVACY, []), storage, keys)
    utility = None
    if UTILITY in config.suite:
        utility = found.attempt(plan_utility, config, preset, real, of[UTILITY], storage)
    found.raise_all()
    if utility is not None:
        encoders[IMAGES] = _image_cache(utility.config)
        suites_of[IMAGES] = (UTILITY,)
    plan = Plan(
        config, preset, storage, reference, tuple(synthetic), encoders, suites_of, metrics, tuple(subsets or ()),
        training, heldout, roles, pairs or {}, utility, read_by,
        tuple(shared), _codes(config, bool(metrics)),
    )  # fmt: skip
    _check_metrics(plan)
    remarks = (*foresee(plan, keys, copied), *shared, *privacy_remarks(plan), *unused(plan.plugins.values()))
    return replace(plan, remarks=remarks)


def _codes(config: RunConfig, with_metrics: bool) -> dict[str, str]:
    """{plug-in: which code it is} of the metrics and sources that a config names."""
    named = [("metrics", item.name, item.name) for item in config.metrics if with_metrics]
    sets = (config.real, config.training, config.heldout, *config.synthetic)
    named += [("sources", item.source, f"source {item.source}") for item in sets if item and item.source]
    return {key: code for kind, name, key in named if (code := code_of(kind, name))}


def other_problems(config: RunConfig) -> list[str]:
    """What is wrong with the parts of a config that need each other for nothing: sets, encoders, metrics, the output.

    For a config of which something else is wrong already (`ConfigProblems.rest`). A set that is not named is left out.
    """
    found = Problems()
    try:
        _parts(config, found)
    except ConfigProblems as error:
        return list(error.problems)
    except ChexrayError as error:
        return [str(error)]
    return [str(error) for error in found.errors]


def _parts(config: RunConfig, found: Problems) -> tuple[Any, ...]:
    """What a plan is made of, each part tried by itself: one that is wrong is missing, and `found` has the error."""
    preset = found.attempt(protocol, config.protocol) or protocol("standard")
    found.attempt(check_label_policy, preset, config.label_policy)
    storage = make_storage(config.storage)
    metrics: dict[str, Metric] = {}
    for item in config.metrics if FIDELITY in config.suite else ():
        found.attempt(_metrics, [item], preset, metrics)
    encoders, suites_of = _encoders(config, preset, storage, found)
    for place in dict.fromkeys((config.output, config.feature_store or config.output)):
        found.attempt(storage.check_place, absolute(place))
    real, synthetic = read_manifests(config, storage, found)
    # Else they are found with what they start from. A network from scratch has none, and timm takes seconds to import.
    if found.errors and UTILITY in config.suite and config.utility.model.weights != "none":
        found.attempt(classifier_weights, config.utility, storage)
    return preset, storage, metrics, encoders, suites_of, real, synthetic


def read_manifests(
    config: RunConfig, storage: Storage, problems: Problems | None = None
) -> tuple[dict[str, Manifest], list[Manifest]]:
    """({role: real set}, synthetic sets) of a config, as their sources give them. Needs no encoder and no weights.

    problems: takes up what is wrong with each set; by default that is raised, for all sets at once.
    """
    found = problems or Problems()
    heldout = config.heldout if PRIVACY in config.suite else None
    given = {"real": config.real, "training": config.training, "heldout": heldout}
    chosen = {role: item for role, item in given.items() if item is not None and _is_named(item)}
    read = [item for item in _read_sets(config) if _is_named(item)]
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


def _listed(config: RunConfig, real: dict[str, Manifest], synthetic: Sequence[Manifest]) -> list[Listed]:
    """Every set that the run reads with its role and its place, to be compared with the others."""
    given = {"real": config.real, "training": config.training, "heldout": config.heldout}
    items = [(role, manifest, given[role]) for role, manifest in real.items()]
    items += [("synthetic", manifest, item) for manifest, item in zip(synthetic, _read_sets(config), strict=True)]
    return [Listed.of(manifest, role, str(item.options.get("path") or "")) for role, manifest, item in items if item]


def _read_sets(config: RunConfig) -> list[SetConfig]:
    """The synthetic sets that a suite of this run reads."""
    return [item for item in config.synthetic if _read_by(item, config)]


def _is_named(item: SetConfig) -> bool:
    """Whether a set says at all where its images are."""
    return bool(item.options or item.source)


def _read_by(item: SetConfig, config: RunConfig) -> tuple[str, ...]:
    return tuple(suite for suite in config.suite if item.suites is None or suite in item.suites)


def inherit_labels(synthetic: Sequence[Manifest], real: dict[str, Manifest], preset: Protocol) -> list[Manifest]:
    """The synthetic sets as a run reads them: with the labels and columns that their prompts have in the real sets."""
    # Labels come from all real rows of a prompt, so inherit before any row is left out.
    sources = [real[role] for role in ("real", "training") if role in real]
    return [_inherited(item, sources, preset) for item in synthetic]


def _inherited(item: Manifest, sources: Sequence[Manifest], preset: Protocol) -> Manifest:
    """From the set that knows most of its prompts first: that is the one it was made for."""
    prompts = set(item.table["prompt"].to_pylist()) - {None}
    known = {id(source): len(prompts & set(source.table["prompt"].to_pylist())) for source in sources}
    for source in sorted(sources, key=lambda source: -known[id(source)]):
        item = inherit_by_prompt(item, source, mode=preset.inherit)
    return item


def _learned_from(real: dict[str, Manifest]) -> tuple[Manifest, Manifest | None]:
    """(training, held-out): the real set is the one when no training set is given, else it may be the other."""
    if "training" in real:
        return real["training"], real.get("heldout", real["real"])
    return real["real"], real.get("heldout")


def _pairs(
    config: RunConfig,
    training: Manifest | None,
    synthetic: Sequence[Manifest],
    storage: Storage,
    keys: Mapping[str, str],
) -> dict[str, Pairs]:
    """{synthetic set: its pairs}; a table of pairs serves the set it names, so it goes with a single one."""
    if training is None:
        return {}
    how = config.privacy.pairs
    if how == "same_prompt":
        check_prompts([training, *synthetic], keys)
    # A word without a dot or a slash is a misspelt way to pair: no table is called so.
    path = how if "." in how or "/" in how else None
    if path is not None and len(synthetic) > 1:
        raise ConfigError(
            f"privacy.pairs names one table, {shown(path)}, for {len(synthetic)} synthetic sets. Evaluate them one "
            "by one."
        )
    return {item.name: pairing.build("given" if path else how, training, item, storage, path) for item in synthetic}


def _check_metrics(plan: Plan) -> None:
    if not plan.has(FIDELITY):
        return
    labels = list(plan.encoders_of(FIDELITY))
    if not labels:
        raise ConfigError("the fidelity suite has no encoder: all of them are for privacy. Add rad_dino or pixels.")
    used = {key for label in labels for key in plan.metrics_of(label)}
    for key, metric in plan.metrics.items():
        if key not in used:
            raise ConfigError(
                f"metric {quoted(key)} needs {quoted(metric.requires)}, which none of the encoders "
                f"({listed(labels)}) gives. Add inception_v3, or drop the metric."
            )


def make_storage(config: StorageConfig) -> Storage:
    settings: dict[str, Any] = config.model_dump(exclude={"key", "secret", "token"})
    for name, value in (("key", config.key), ("secret", config.secret), ("token", config.token)):
        settings[name] = value.get_secret_value() if value else None
    return Storage(**settings)


def _manifest(item: SetConfig, name: str, origin: str, config: RunConfig, storage: Storage) -> Manifest:
    options = item.options
    key = key_of(config, item)
    kind = item.source or infer(str(options.get("path", "")), storage, key)
    if kind == "phantom" and "path" not in options:
        options["path"] = join(absolute(config.output), "phantoms", name)
    origin = Origin(origin, key, config.image_root or "")
    source = make_source(kind, options, name)
    found = manifests.load(name, origin, source, storage, on_duplicate=item.on_duplicate, limit=config.limit)
    if kind != "table":  # whose place is its path
        found = replace(found, images="")
    return look_at(found, storage, bits=item.bits, max_pixels=config.encode.max_pixels)


def make_source(kind: str, options: dict[str, Any], name: str) -> Any:
    """What reads a set: the registered source of a kind with the set's options."""
    what = f"source {quoted(kind, 60)} of set {quoted(name)}"
    source = checked(find("sources", kind), options, what)
    return source if is_built_in("sources", kind) else PluggedSource(source, what)


def _encoders(
    config: RunConfig, preset: Protocol, storage: Storage, found: Problems
) -> tuple[dict[str, tuple[Encoder, EncoderSpec]], dict[str, tuple[str, ...]]]:
    """{label: (encoder, spec)} and {label: the suites of this run that read it}."""
    encoders: dict[str, tuple[Encoder, EncoderSpec]] = {}
    suites_of: dict[str, tuple[str, ...]] = {}
    if config.suite == [UTILITY]:  # which reads images, not features
        return encoders, suites_of
    for place in range(len(config.encoders)):
        found.attempt(_add_encoder, config, place, preset, storage, encoders, suites_of)
    has_hash = any(hasattr(encoder, "mirror_signs") for encoder, _ in encoders.values())
    if PRIVACY in config.suite and config.privacy.duplicates and not has_hash:
        encoder = find("encoders", HASH)()
        encoders[HASH] = (encoder, encoder.resolve())
        suites_of[HASH] = (PRIVACY,)
    return encoders, suites_of


def _add_encoder(
    config: RunConfig,
    place: int,
    preset: Protocol,
    storage: Storage,
    encoders: dict[str, tuple[Encoder, EncoderSpec]],
    suites_of: dict[str, tuple[str, ...]],
) -> None:
    item = config.encoders[place]
    encoder = make_encoder(item, preset, storage, suites_asked(item, config))
    only_privacy = hasattr(encoder, "scorer") or hasattr(encoder, "mirror_signs")
    suites = [suite for suite in suites_asked(item, config) if suite == PRIVACY or not only_privacy]
    if not suites:
        why = f"its `suites` are {listed(item.suites or ['none'])}"
        raise ConfigError(
            f"encoder {quoted(item.label)} has no use in suite {', '.join(config.suite)}: "
            f"{'it is for privacy alone' if only_privacy else why}. Drop it, or change one of the two."
        )
    try:
        spec = encoder.resolve()
    except WeightsError as error:
        move = f"On the command line: --set encoders.{place}.weights=/path/to/it."
        raise WeightsError(f"encoder {shown(item.label)}: {error} {move}") from error
    check_word(encoder, spec, item.weights_are, item.label)
    encoders[item.label] = (encoder, spec)
    suites_of[item.label] = tuple(suites)


def suites_asked(item: EncoderConfig, config: RunConfig) -> list[str]:
    readers = [suite for suite in config.suite if suite != UTILITY]
    return [suite for suite in readers if item.suites is None or suite in item.suites]


def _image_cache(config: UtilityConfig) -> tuple[Encoder, EncoderSpec]:
    images = ResizedImages(config.image_size, config.resize)
    return images, images.resolve()


def make_encoder(item: EncoderConfig, preset: Protocol, storage: Storage, suites: list[str]) -> Any:
    cls = find("encoders", item.name)
    for_privacy = suites == [PRIVACY] or hasattr(cls, "scorer")
    options = (preset.privacy_encoder_options if for_privacy else preset.encoder_options).get(item.name, {})
    options = merged(dict(options), item.options, what=item.name, protocol_name=preset.name)
    given: dict[str, Any] = {"weights": item.weights} if item.weights else {}
    # A plug-in need not know of either, unless the config asks for it.
    given |= {"storage": storage} if accepts(cls, "storage") else {}
    if accepts(cls, "precision") or item.precision != EncoderConfig(name=item.name).precision:
        given["precision"] = item.precision
    code = code_of("encoders", item.name)
    encoder = checked(cls, {**options, **given}, item.name)
    return plugged_encoder(encoder, f"encoder {quoted(item.name)}", code) if code else encoder


def _metrics(items: Sequence[MetricConfig], preset: Protocol, metrics: dict[str, Metric]) -> None:
    """Adds the metrics of these items to `metrics`, the second of a name under a key of its own."""
    for item in items:
        fixed = preset.metric_options.get(item.name, {})
        options = merged(fixed, item.options, what=item.name, protocol_name=preset.name)
        key = item.name if item.name not in metrics else f"{item.name}#{len(metrics)}"
        what, code = f"metric {quoted(item.name)}", code_of("metrics", item.name)
        metric = checked(find("metrics", item.name), options, what)
        metrics[key] = plugged_metric(metric, what, code) if code else metric
