"""One key written wrong, anywhere in any kind we ship, is found: a cluster would drop it without a word."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from fixtures.manifests import core_complaints, is_ray, kustomizations, loose_ends, ray_complaints, rendered

from chexray.config import parse_config
from chexray.errors import ConfigError

KINDS = (
    "ConfigMap",
    "CronJob",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "RayCluster",
    "RayJob",
    "ServiceAccount",
)
FREE = {"annotations", "clusterSelector", "data", "labels", "limits", "matchLabels", "rayStartParams", "requests"}
"""Maps whose keys are ours to choose, so that no schema knows a wrong one."""

Path = tuple[str | int, ...]


def examples() -> dict[str, dict[str, Any]]:
    """For each kind, the document with the most keys of all that we ship."""
    found: dict[str, dict[str, Any]] = {}
    for name in kustomizations():
        for doc in rendered(name):
            if len(str(doc)) > len(str(found.get(doc["kind"], ""))):
                found[doc["kind"]] = doc
    return found


def keys(node: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all keys but those of free maps."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, dict):
            yield (*path, key)
        if key not in FREE:
            yield from keys(value, (*path, key))


def renamed(doc: dict[str, Any], path: Path) -> dict[str, Any]:
    """The document with the last letter of one key gone."""
    changed = copy.deepcopy(doc)
    node: Any = changed
    for part in path[:-1]:
        node = node[part]
    node[str(path[-1])[:-1]] = node.pop(path[-1])
    return changed


def one_of_each(doc: dict[str, Any]) -> list[Path]:
    """Every key once in every surrounding: a second container or group has the same schema as the first."""
    return list({tuple(part for part in path if isinstance(part, str)): path for path in keys(doc)}.values())


def test_every_kind_we_ship_is_tried():
    assert sorted(examples()) == sorted(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_typo_in_any_key_is_found(kind, request):
    doc = examples()[kind]
    complaints = core_complaints
    if is_ray(doc):
        complaints = partial(ray_complaints, shared=request.getfixturevalue("shared"))
    assert complaints(doc) == []
    paths = [path for path in one_of_each(doc) if path != ("apiVersion",)]
    missed = [path for path in paths if not complaints(renamed(doc, path))]
    assert len(paths) >= 3
    assert missed == []


@pytest.mark.parametrize("kind", ["ConfigMap", "PersistentVolumeClaim", "ServiceAccount"])
def test_a_typo_in_a_name_is_found(kind):
    """Names of other objects are text to a schema."""
    docs = copy.deepcopy(rendered("overlays/nfs"))
    assert list(loose_ends(docs)) == []
    for doc in docs:
        if doc["kind"] == kind:
            doc["metadata"]["name"] = doc["metadata"]["name"][:-1]
    assert list(loose_ends(docs))


@pytest.mark.parametrize(("kind", "selector"), [("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")])
def test_a_typo_in_a_selector_is_found(kind, selector):
    docs = copy.deepcopy(rendered("base"))
    for doc in docs:
        if doc["kind"] == kind:
            doc["spec"][selector]["matchLabels"]["app.kubernetes.io/part-of"] = "chexra"
    assert all("selects no pod" in line for line in loose_ends(docs))
    assert list(loose_ends(docs))


def test_a_typo_in_a_config_is_found():
    with pytest.raises(ConfigError, match=r"Did you mean"):
        parse_config({"real": "a", "synthetic": "b", "encoders": "pixels", "ray": {"gpu": 2}})
