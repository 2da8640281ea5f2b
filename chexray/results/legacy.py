"""Rows of version 0.1: their `params` are split into `method` and `about`, and what their numbers are is looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

ABSENT: dict[str, Any] = {"suite": "fidelity", "real_floor_std_error": None, "beyond_floor": ""}
"""What a row says in fields that the first results files did not have."""


def upgraded(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the fields of today. `params` that are no JSON object are passed on for the schema to refuse."""
    found = {**ABSENT, **row}
    suite, metric = str(found["suite"]), str(found.get("metric", ""))
    found.setdefault("declared", declared(suite, metric))
    if "params" in found:
        params = found.pop("params")
        try:
            read = json.loads(params) if isinstance(params, str) else params
        except (ValueError, RecursionError):
            read = None
        halves = split(read, suite, metric) if isinstance(read, Mapping) else ({}, params)
        found["method"], found["about"] = halves
    return found


def split(params: Mapping[str, Any], suite: str, metric: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(method, about) of params: for utility what is listed is method, for others what is not listed as a remark."""
    document = _document()
    listed = document["method"].get(suite)
    if listed is not None:
        method = {**document["default"].get(suite, {}), **{name: params[name] for name in listed if name in params}}
    else:
        told = document["about"].get(suite, document["about"]["fidelity"])
        given = next((names for like, names in document["given"].items() if fnmatchcase(metric, like)), ())
        method = {
            name: value
            for name, value in params.items()
            if name in given or not (name in told["names"] or name.startswith(tuple(told["prefixes"])))
        }
    return method, {name: value for name, value in params.items() if name not in method}


@cache
def declared(suite: str, metric: str) -> str:
    """The declaration of a number of version 0.1 as JSON; "{}" for those of plug-ins, which declared nothing."""
    known = _document()["outputs"].get(suite, {})
    found = known.get(metric) or next((said for like, said in known.items() if fnmatchcase(metric, like)), {})
    return json.dumps(found, sort_keys=True)


@cache
def _document() -> dict[str, Any]:
    return json.loads(resources.files("chexray.results").joinpath("outputs_0_1.json").read_text(encoding="utf-8"))
