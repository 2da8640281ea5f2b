"""A config in, a checked plan out: sets are read, weights found, metrics built, and what cannot succeed is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chexray.config import RunConfig
from chexray.config.addresses import check_joinable, ray_address
from chexray.data import pairing
from chexray.data.manifest import Manifest
from chexray.data.pairs import Pairs
from chexray.data.prompts import deduplicate_prompts
from chexray.data.subsets import expand
from chexray.encoders.views import SmallImages
from chexray.errors import ChexrayError, ConfigError, ConfigProblems
from chexray.metrics.base import Metric
from chexray.plan.encoders import Encoders, decisions, make_encoders, make_metric, weights_remarks
from chexray.plan.overlaps import Listed, overlaps
from chexray.plan.plan import Plan
from chexray.plan.problems import Problems
from chexray.plan.prospects import check_prompts, foresee, privacy_remarks
from chexray.plan.roles import SMALL, PrivacyRoles, privacy_roles
from chexray.plan.sets import inherit_labels, is_named, learned_from, make_storage, read_by, read_manifests, read_sets
from chexray.plan.training import classifier_weights, plan_utility
from chexray.plan.utility import IMAGES
from chexray.plugins import code_of, unused
from chexray.protocols import Protocol, check_label_policy, protocol
from chexray.storage import Storage, absolute
from chexray.suite_names import FIDELITY, PRIVACY, UTILITY
from chexray.text import listed, quoted, shown
from chexray.utility.loop.images import ResizedImages


@dataclass(frozen=True)
class _Parts:
    """What a plan is made of. Each part is found without the others, so that one that is wrong hides none."""

    preset: Protocol
    storage: Storage
    metrics: dict[str, Metric]
    encoders: Encoders
    suites_of: dict[str, tuple[str, ...]]
    real: dict[str, Manifest]
    synthetic: list[Manifest]


def make_plan(config: RunConfig) -> Plan:
    """The plan of a config. Raises a ChexrayError that says what to change; ConfigProblems for several things."""
    found = Problems()
    for key, item in (("real", config.real), *((f"synthetic.{i}", each) for i, each in enumerate(read_sets(config)))):
        if item is not None and not is_named(item):
            found.errors.append(ConfigError(f"{key} names no images. Give it a path: a folder, a table or Parquet."))
    parts = _parts(config, found)
    found.raise_all()
    preset, storage, encoders, suites_of, real = (
        parts.preset, parts.storage, parts.encoders, parts.suites_of, parts.real,
    )  # fmt: skip
    copied: set[tuple[str, str]] = set()
    shared = overlaps(_listed(config, real, parts.synthetic), copied)
    synthetic = inherit_labels(parts.synthetic, real, preset)
    training, heldout = learned_from(real) if PRIVACY in config.suite else (None, None)
    # Without a real set the run is of privacy alone, and what it compares with is the training set.
    reference = real.get("real") or real["training"]
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
        encoders[SMALL], suites_of[SMALL] = (small, small.resolve()), (PRIVACY,)
    readers = {item.name: read_by(each, config) for item, each in zip(synthetic, read_sets(config), strict=True)}
    of = {suite: [item for item in synthetic if suite in readers[item.name]] for suite in config.suite}
    if unread := next((suite for suite, sets in of.items() if not sets), None):
        raise ConfigError(f"no synthetic set is for suite {unread}. Add {unread} to the `suites` of one, or drop both.")
    subsets = found.attempt(expand, config.subsets, reference, of[FIDELITY]) if FIDELITY in config.suite else []
    pairs = found.attempt(_pairs, config, training, of.get(PRIVACY, []), storage)
    utility = None
    if UTILITY in config.suite:
        utility = found.attempt(plan_utility, config, preset, real, of[UTILITY], storage)
    found.raise_all()
    if utility is not None:
        images = ResizedImages(utility.config.image_size, utility.config.resize)
        encoders[IMAGES], suites_of[IMAGES] = (images, images.resolve()), (UTILITY,)
    plan = Plan(
        config, preset, storage, reference, tuple(synthetic), encoders, suites_of, parts.metrics, tuple(subsets or ()),
        training, heldout, roles, pairs or {}, utility, readers, tuple(shared), _codes(config, bool(parts.metrics)),
        decisions(config, preset, encoders),
    )  # fmt: skip
    _check_metrics(plan)
    remarks = (
        *weights_remarks(config, encoders), *foresee(plan, copied), *shared, *privacy_remarks(plan),
        *unused(plan.plugins.values()),
    )  # fmt: skip
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


def _parts(config: RunConfig, found: Problems) -> _Parts:
    """The parts of a plan, each tried by itself: one that is wrong is missing, and `found` has the error."""
    preset = found.attempt(protocol, config.protocol) or protocol("standard")
    found.attempt(check_label_policy, preset, config.label_policy)
    found.attempt(_check_address, config)
    storage = make_storage(config.storage)
    metrics: dict[str, Metric] = {}
    for item in config.metrics if FIDELITY in config.suite else ():
        if metric := found.attempt(make_metric, item, preset):
            metrics[item.name if item.name not in metrics else f"{item.name}#{len(metrics)}"] = metric
    encoders, suites_of = make_encoders(config, preset, storage, found)
    for place in dict.fromkeys((config.output, config.feature_store or config.output)):
        found.attempt(storage.check_place, absolute(place))
    real, synthetic = read_manifests(config, storage, found)
    # Else they are found with what they start from. A network from scratch has none, and timm takes seconds to import.
    if found.errors and UTILITY in config.suite and config.utility.model.weights != "none":
        found.attempt(classifier_weights, config.utility, storage)
    return _Parts(preset, storage, metrics, encoders, suites_of, real, synthetic)


def _check_address(config: RunConfig) -> None:
    """Raises ResourceError for a `ray.address` that no run can join. RAY_ADDRESS is looked at when the run starts."""
    address, setting = ray_address(config.ray.address, {})
    if address:
        check_joinable(address, setting)


def _listed(config: RunConfig, real: dict[str, Manifest], synthetic: Sequence[Manifest]) -> list[Listed]:
    """Every set that the run reads with its role and its place, to be compared with the others."""
    given = {"real": config.real, "training": config.training, "heldout": config.heldout}
    items = [(role, manifest, given[role]) for role, manifest in real.items()]
    items += [("synthetic", manifest, item) for manifest, item in zip(synthetic, read_sets(config), strict=True)]
    return [Listed.of(manifest, role, str(item.options.get("path") or "")) for role, manifest, item in items if item]


def _pairs(
    config: RunConfig, training: Manifest | None, synthetic: Sequence[Manifest], storage: Storage
) -> dict[str, Pairs]:
    """{synthetic set: its pairs}; a table of pairs serves the set it names, so it goes with a single one."""
    if training is None:
        return {}
    how = config.privacy.pairs
    if how == "same_prompt":
        check_prompts([training, *synthetic])
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
    for label in labels:
        if not plan.subsets_of(label):
            asked = next(item.subsets for item in plan.config.encoders if item.label == label)
            names = listed([subset.name for subset in plan.subsets], 8)
            raise ConfigError(
                f"encoder {quoted(label)}: no subset of the run is {listed(asked or [])}. It has {names}."
            )
    used = {key for label in labels for key in plan.metrics_of(label)}
    for key, metric in plan.metrics.items():
        if key not in used:
            raise ConfigError(
                f"metric {quoted(key)} needs {quoted(metric.requires)}, which none of the encoders "
                f"({listed(labels)}) gives. Add inception_v3, or drop the metric."
            )
