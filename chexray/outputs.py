"""What a number is: the declaration that its metric makes once and that travels with every row of it.

Comparison, winners, tables, legends and the documentation are driven by these fields. Whoever reads results knows no
metric by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from chexray.text import quoted


@dataclass(frozen=True)
class Upstream:
    """Where CheXGenBench publishes the same number, and what ours must share with it to stand beside it.

    metric: its column. encoder: the network; route: its preprocessing, with which an encoder's revision begins.
    method: parameters that the value depends on.
    """

    metric: str
    encoder: str = "rad_dino"
    route: str = "cgb299"
    method: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """One number that a metric returns.

    name: in the results. better: the better direction, "lower", "higher" or "" where neither is.
    nearest_to_floor: the value nearest to the real floor is the best one, whatever `better` says of its two sides.
    moves_with: what its expected value moves with besides the images themselves: "n_real", "n_synthetic", or the name
    of a count in `method` or `about`, such as seeds and prompts. Numbers of different counts have no winner.
    needs_floor: its value means little without the real floor at its n.
    low, high: the range of its values, None where it has no end. unit: of the value, "" for none.
    says, cannot_see: one plain sentence each. paper: the source.
    family: the section of the report. role: what it is in that section, for sections that give a number a place.
    label: what it is called in a table, the name by default. rank: its place among the headlines of its family, from 1;
    0 for none. scale: what it is multiplied by for display.
    upstream: where the benchmark publishes it. never_compared: why it is no measure to compare by, "" for most.
    of_encoder: it describes the encoder and real images, not the synthetic set that it is filed under.
    judges: the part of the suite, in words, whose flags on single images this number counts; "" for most.
    """

    name: str
    better: str = ""
    nearest_to_floor: bool = False
    moves_with: tuple[str, ...] = ()
    needs_floor: bool = False
    low: float | None = None
    high: float | None = None
    unit: str = ""
    says: str = ""
    cannot_see: str = ""
    paper: str = ""
    family: str = ""
    role: str = ""
    label: str = ""
    rank: int = 0
    scale: float = 1.0
    upstream: Upstream | None = None
    never_compared: str = ""
    of_encoder: bool = False
    judges: str = ""

    @property
    def declared(self) -> str:
        """The fields that say something, as canonical JSON: what a row carries. `name` and `better` are its own."""
        known = {item.name: item.default for item in fields(Output)}
        said = {name: value for name, value in asdict(self).items() if name not in ("name", "better")}
        return json.dumps({name: value for name, value in said.items() if value != known[name]}, sort_keys=True)


def output_of(row: Mapping[str, Any]) -> Output:
    """What the number of a row is, as its metric declared it; the plainest Output where it declared nothing."""
    return _read(row["metric"], row.get("better") or "", row.get("declared") or "{}")


def check_declared(declared: str) -> None:
    """Raises ValueError, naming the field, for the text of a declaration that says something of another kind."""
    for name, value in json.loads(declared).items():
        if name in _EXPECTED and not fits(value, _EXPECTED[name]):
            raise ValueError(f"{name} is {quoted(value, 60)}, expected {_EXPECTED[name]}")


_EXPECTED = {
    **dict.fromkeys(("unit", "says", "cannot_see", "paper", "family", "role", "label"), "text"),
    **dict.fromkeys(("never_compared", "judges"), "text"),
    **dict.fromkeys(("nearest_to_floor", "needs_floor", "of_encoder"), "true or false"),
    **dict.fromkeys(("low", "high", "scale", "rank"), "a number"),
    "moves_with": "a list of text",
    "upstream": "a mapping of metric, encoder, route and method",
}  # fmt: skip
"""What the fields of a declaration are."""


def fits(value: object, expected: str, below: float = 1e300) -> bool:
    """Whether a value, read from a file, is of the kind that is expected, in words. below: the bound of numbers."""
    if expected == "text":
        return isinstance(value, str)
    if expected == "true or false":
        return isinstance(value, bool)
    if expected == "a number":
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < below
    if expected == "a number or text":
        return isinstance(value, str) or fits(value, "a number", below)
    if expected == "counts by part":
        return isinstance(value, Mapping) and all(fits(count, "a number", below) for count in value.values())
    if expected == "a list of text":
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    texts = ("metric", "encoder", "route")
    return (
        isinstance(value, Mapping)
        and "metric" in value
        and set(value) <= {*texts, "method"}
        and all(isinstance(value.get(name, ""), str) for name in texts)
        and isinstance(value.get("method", {}), Mapping)
    )


@cache
def _read(name: str, better: str, declared: str) -> Output:
    kept = {key: value for key, value in json.loads(declared).items() if key in _EXPECTED}
    if "moves_with" in kept:
        kept["moves_with"] = tuple(kept["moves_with"])
    if "upstream" in kept:
        kept["upstream"] = Upstream(**kept["upstream"])
    return Output(name, better, **kept)
