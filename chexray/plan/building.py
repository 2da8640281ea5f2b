"""Reads manifests, finds weights and builds metrics: a config in, a checked plan out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from chexray.config import EncoderConfig, MetricConfig, RunConfig, SetConfig, StorageConfig, UtilityConfig
from chexray.data import manifest as manifests
from chexray.data import pairs as pairing
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
from chexray.errors import ConfigError
from chexray.metrics.base import Metric
from chexray.metrics.plugged import plugged_metric
from chexray.plan.options import accepts, checked
from chexray.plan.overlaps import Listed, overlaps
from chexray.plan.plan import FIDELITY, PRIVACY, UTILITY, Plan
from chexray.plan.roles import SMALL, PrivacyRoles, privacy_roles
from chexray.plan.training import plan_utility
from chexray.plan.utility import IMAGES
from chexray.plugins import code_of, unused
from chexray.protocols import Protocol, check_label_policy, merged, protocol
from chexray.registry import find, is_built_in
from chexray.storage import Storage, absolute, basename, join
from chexray.text import listed, quoted, shown
from chexray.utility.images import ResizedImages

HASH = "perceptual_hash"
"""The encoder that finds duplicates; the privacy suite brings it along when the config names none of its kind."""


def make_plan(config: RunConfig) -> Plan:
    """The plan of a config. Raises a ChexrayError that says what to change."""
    preset = protocol(config.protocol)
    check_label_policy(preset, config.label_policy)
    storage = make_storage(config.storage)
    metrics = _metrics(config.metrics, preset) if FIDELITY in config.suite else {}
    encoders, suites_of = _encoders(config, preset, storage)
    real, synthetic = read_manifests(config, storage)
    shared = overlaps(_listed(config, real, synthetic))
    synthetic = inherit_labels(synthetic, real, preset)
    training, heldout = _learned_from(real) if PRIVACY in config.suite else (None, None)
    reference = real["real"]
    if preset.deduplicate_real_prompts and FIDELITY in config.suite:
        reference = deduplicate_prompts(reference)
        # Privacy still searches every image: the two are then different sets.
        everything = replace(real["real"], name=f"{reference.name}-all") if reference is not real["real"] else reference
        training, heldout = (everything if each is real["real"] else each for each in (training, heldout))
        real = {**real, "real": everything}
    roles = privacy_roles(config.privacy, {k: v for k, v in encoders.items() if PRIVACY in suites_of[k]})
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
    subsets = expand(config.subsets, reference, of[FIDELITY]) if FIDELITY in config.suite else []
    utility = None
    if UTILITY in config.suite:
        utility = plan_utility(config, preset, real, of[UTILITY], storage)
        encoders[IMAGES] = _image_cache(utility.config)
        suites_of[IMAGES] = (UTILITY,)
    plan = Plan(
        config, preset, storage, reference, tuple(synthetic), encoders, suites_of, metrics, tuple(subsets),
        training, heldout, roles, _pairs(config, training, of.get(PRIVACY, []), storage), utility, read_by,
        (*shared, *_remarks(config, preset, roles, suites_of)), _codes(config, bool(metrics)),
    )  # fmt: skip
    plan = replace(plan, remarks=(*plan.remarks, *unused(plan.plugins.values())))
    _check_metrics(plan)
    return plan


def _codes(config: RunConfig, with_metrics: bool) -> dict[str, str]:
    """{plug-in: which code it is} of the metrics and sources that a config names."""
    named = [("metrics", item.name, item.name) for item in config.metrics if with_metrics]
    sets = (config.real, config.training, config.heldout, *config.synthetic)
    named += [("sources", item.source, f"source {item.source}") for item in sets if item and item.source]
    return {key: code for kind, name, key in named if (code := code_of(kind, name))}


def read_manifests(config: RunConfig, storage: Storage) -> tuple[dict[str, Manifest], list[Manifest]]:
    """({role: real set}, synthetic sets) of a config, as their sources give them. Needs no encoder and no weights."""
    heldout = config.heldout if PRIVACY in config.suite else None
    given = {"real": config.real, "training": config.training, "heldout": heldout}
    chosen = {role: item for role, item in given.items() if item is not None}
    read = _read_sets(config)
    names = _set_names([*chosen.items(), *(("synthetic", item) for item in read)])
    real = {
        role: _manifest(item, name, "real", config, storage)
        for (role, item), name in zip(chosen.items(), names, strict=False)
    }
    synthetic = [
        _manifest(item, name, "synthetic", config, storage)
        for item, name in zip(read, names[len(chosen) :], strict=True)
    ]
    _check_depths([*real.values(), *synthetic])
    return real, synthetic


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
    config: RunConfig, training: Manifest | None, synthetic: Sequence[Manifest], storage: Storage
) -> dict[str, Pairs]:
    """{synthetic set: its pairs}; a table of pairs serves the set it names, so it goes with a single one."""
    if training is None:
        return {}
    how = config.privacy.pairs
    # A word without a dot or a slash is a misspelt way to pair: no table is called so.
    path = how if "." in how or "/" in how else None
    if path is not None and len(synthetic) > 1:
        raise ConfigError(
            f"privacy.pairs names one table, {shown(path)}, for {len(synthetic)} synthetic sets. Evaluate them one "
            "by one."
        )
    return {item.name: pairing.build("given" if path else how, training, item, storage, path) for item in synthetic}


def _remarks(
    config: RunConfig, preset: Protocol, roles: PrivacyRoles, suites_of: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    if PRIVACY not in config.suite:
        return ()
    remarks = []
    if not roles.reid:
        remarks.append("no re-identification: give --reid-weights, or an encoder such as siamese_reid")
    if not roles.search:
        remarks.append("no search for copies: no encoder of the suite spans a space; add rad_dino, pixels or patches")
    elif config.training is None and config.heldout is None:
        remarks.append(
            "no held-out real images: the search for copies takes its null from the training patients themselves; "
            "give --heldout for the sharper one"
        )
    for item in config.encoders:
        shared = len(suites_of[item.label]) > 1
        if shared and preset.privacy_encoder_options.get(item.name) != preset.encoder_options.get(item.name):
            remarks.append(
                f"{item.label}: its privacy numbers use fidelity's preprocessing, and {preset.name} has another for "
                f"privacy. To have both, list {item.name} twice, with ids and suites: [fidelity] and suites: [privacy]"
            )
    if config.suite == [PRIVACY] and config.training is not None and config.heldout is not None:
        remarks.append("the real set is not used: privacy reads training and heldout")
    return tuple(remarks)


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


def _set_names(items: Sequence[tuple[str, SetConfig]]) -> list[str]:
    """A name for each (role, set), distinct."""
    names = [item.name or _stem(item.options.get("path")) or item.source or role for role, item in items]
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ConfigError(f"two sets are called {quoted(double)}: give each its own `name`.")
    return names


def _stem(path: Any) -> str:
    return basename(path.rstrip("/")).split(".")[0] if isinstance(path, str) and path.strip("/") else ""


def _manifest(item: SetConfig, name: str, origin: str, config: RunConfig, storage: Storage) -> Manifest:
    options = item.options
    kind = item.source or infer(str(options.get("path", "")), storage)
    if kind == "phantom" and "path" not in options:
        options["path"] = join(absolute(config.output), "phantoms", name)
    source = make_source(kind, options, name)
    found = manifests.load(name, origin, source, storage, on_duplicate=item.on_duplicate, limit=config.limit)
    return look_at(found, storage, bits=item.bits, max_pixels=config.encode.max_pixels)


def make_source(kind: str, options: dict[str, Any], name: str) -> Any:
    """What reads a set: the registered source of a kind with the set's options."""
    what = f"source {quoted(kind, 60)} of set {quoted(name)}"
    source = checked(find("sources", kind), options, what)
    return source if is_built_in("sources", kind) else PluggedSource(source, what)


def _encoders(
    config: RunConfig, preset: Protocol, storage: Storage
) -> tuple[dict[str, tuple[Encoder, EncoderSpec]], dict[str, tuple[str, ...]]]:
    """{label: (encoder, spec)} and {label: the suites of this run that read it}."""
    encoders: dict[str, tuple[Encoder, EncoderSpec]] = {}
    suites_of: dict[str, tuple[str, ...]] = {}
    if config.suite == [UTILITY]:  # which reads images, not features
        return encoders, suites_of
    for item in config.encoders:
        encoder = make_encoder(item, preset, storage, suites_asked(item, config))
        only_privacy = hasattr(encoder, "scorer") or hasattr(encoder, "mirror_signs")
        suites = [suite for suite in suites_asked(item, config) if suite == PRIVACY or not only_privacy]
        if not suites:
            why = f"its `suites` are {listed(item.suites or ['none'])}"
            raise ConfigError(
                f"encoder {quoted(item.label)} has no use in suite {', '.join(config.suite)}: "
                f"{'it is for privacy alone' if only_privacy else why}. Drop it, or change one of the two."
            )
        encoders[item.label] = (encoder, encoder.resolve())
        check_word(*encoders[item.label], item.weights_are, item.label)
        suites_of[item.label] = tuple(suites)
    has_hash = any(hasattr(encoder, "mirror_signs") for encoder, _ in encoders.values())
    if PRIVACY in config.suite and config.privacy.duplicates and not has_hash:
        encoder = find("encoders", HASH)()
        encoders[HASH] = (encoder, encoder.resolve())
        suites_of[HASH] = (PRIVACY,)
    return encoders, suites_of


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


def _metrics(items: Sequence[MetricConfig], preset: Protocol) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for item in items:
        fixed = preset.metric_options.get(item.name, {})
        options = merged(fixed, item.options, what=item.name, protocol_name=preset.name)
        key = item.name if item.name not in metrics else f"{item.name}#{len(metrics)}"
        what, code = f"metric {quoted(item.name)}", code_of("metrics", item.name)
        metric = checked(find("metrics", item.name), options, what)
        metrics[key] = plugged_metric(metric, what, code) if code else metric
    return metrics
