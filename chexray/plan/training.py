"""Plans the utility suite: settings of config and protocol, twins by prompt or id, weights found, sets disjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chexray.config import RunConfig, UtilityConfig
from chexray.data import pairing
from chexray.data.labels import POLICIES
from chexray.data.manifest import Manifest
from chexray.data.subsets import Subset, expand
from chexray.encoders.weights import ResolvedWeights
from chexray.errors import ConfigError, WeightsError
from chexray.findings import FINDINGS
from chexray.plan.utility import Cohorts, UtilityPlan
from chexray.protocols import Protocol, merged
from chexray.spelling import fold
from chexray.storage import Storage
from chexray.text import shown
from chexray.utility.mixtures import needs_synthetic
from chexray.utility.splits import Named, check_disjoint, findings_without_both

GROUP_COLUMNS = ("sex", "gender", "patientsex", "view", "viewposition", "race", "ethnicity")
AGE_COLUMNS = ("age", "patientage", "ageatstudy")
AGE_EDGES = (40, 60, 80)
"""Columns, by their names without case and punctuation, whose groups are compared when the config names none."""


def plan_utility(
    config: RunConfig, preset: Protocol, real: dict[str, Manifest], synthetic: Sequence[Manifest], storage: Storage
) -> UtilityPlan:
    """The utility part of a plan. Raises ConfigError for what contradicts itself, WeightsError for a model's weights,
    and ManifestError when a training patient or image is also in the test set."""
    if "training" not in real:
        raise ConfigError(
            "the utility suite trains on real images of its own: give `training` (or --training), the real training "
            "set, beside `real`, the test set."
        )
    training, test = real["training"], real["real"]
    check_disjoint(_named(training), _named(test))
    for item in synthetic:
        check_disjoint(replace(_named(item), subjects=None), _named(test))
    settings = _settings(config, preset)
    plan = UtilityPlan(
        settings,
        config.seed,
        training,
        test,
        tuple(synthetic),
        {item.name: pairing.build("auto", training, item, storage) for item in synthetic},
        {item.name: pairing.build("auto", test, item, storage) for item in synthetic},
        tuple(_groups(config, test)),
        limited=config.limit is not None,
    )
    _check_classes(plan.planned)  # whose making raises what a setting lacks before anything starts
    return _with_weights(plan, storage)


def _check_classes(cohorts: Cohorts) -> None:
    """Raises ConfigError where no finding has images with and without it, to train on or to test on."""
    for cohort, what in ((cohorts.training, "to train on"), (cohorts.test, "to test on")):
        labels = cohort.sample.labels
        if len(findings_without_both(labels)) == len(FINDINGS):
            only = "positive" if (labels == 1).any() else "negative"
            raise ConfigError(
                f"{shown(cohort.name)}: its {len(cohort):,} labelled images {what} show no finding both present and "
                f"absent: all labels that count are {only}. Give images of both, or another label_policy where findings"
                " that a report does not mention count as absent."
            )


def _settings(config: RunConfig, preset: Protocol) -> UtilityConfig:
    """The utility settings with the protocol's in them, and what uncertain and unmentioned labels count as."""
    given = config.utility
    asked = {name: getattr(given, name) for name in given.model_fields_set}
    fixed = dict(preset.utility_options)
    chosen = merged(fixed, asked, what="utility", protocol_name=preset.name)
    uncertain, unmentioned = POLICIES[config.label_policy]
    policy = {
        "uncertain": chosen.get("uncertain") or uncertain,
        "unmentioned": chosen.get("unmentioned") or unmentioned,
    }
    return given.model_copy(update={**fixed, **policy})


def classifier_weights(config: UtilityConfig, storage: Storage) -> ResolvedWeights | None:
    """What the classifier starts from, None for nothing. Raises ConfigError for its name, WeightsError with the key."""
    from chexray.utility.classification.classifier import find_weights

    try:
        return find_weights(config.model.name, config.model.weights, storage)
    except WeightsError as error:
        move = "On the command line: --set utility.model.weights=/path/to/it, or none to train from scratch."
        raise WeightsError(f"classifier {shown(config.model.name)}: {error} {move}") from error


def _with_weights(plan: UtilityPlan, storage: Storage) -> UtilityPlan:
    """The plan once the model is known to exist and its weights are found."""
    from chexray.utility.classification.classifier import has_head

    model = plan.config.model
    weights = classifier_weights(plan.config, storage)
    ready = has_head(model.name, weights, image_size=plan.config.image_size)
    if "as_is" in plan.settings and not ready:
        raise ConfigError(
            f"setting as_is tests {model.name} with the given weights, and this checkpoint has no 14-finding "
            "classification head. Give utility.model.weights a checkpoint of a trained classifier, or drop the setting."
        )
    if not any(needs_synthetic(name) for name in plan.settings):
        return replace(plan, weights=weights, remarks=("no setting trains on synthetic images",))
    return replace(plan, weights=weights)


def _groups(config: RunConfig, test: Manifest) -> list[Subset]:
    """The subgroups of the test set: those asked for, or those of the columns that people compare."""
    asked = config.utility.subgroups
    if asked is None:  # [] asks for none, and gets none
        of_the_run = [item for item in config.subsets if item not in ("all", "findings") and not _is_finding(item)]
        asked = of_the_run or _usual_groups(test)
    return [subset for subset in expand(asked, test, []) if subset.column not in ("", "labels")]


def _usual_groups(test: Manifest) -> list[str | dict[str, Any]]:
    found: list[str | dict[str, Any]] = []
    for name in test.table.column_names:
        if test.table[name].null_count == len(test) or name in test.repeated:
            continue
        if fold(name) in GROUP_COLUMNS:
            found.append(name)
        elif fold(name) in AGE_COLUMNS:
            found.append({"column": name, "bins": list(AGE_EDGES)})
    return found


def _is_finding(item: object) -> bool:
    return isinstance(item, str) and item.startswith("finding:")


def _named(manifest: Manifest) -> Named:
    ids, keys = (np.array(manifest.table[name].to_pylist(), dtype=str) for name in ("sample_id", "image_key"))
    return Named(manifest.name, ids, keys, np.array(manifest.table["subject_id"].to_pylist(), dtype=object))
