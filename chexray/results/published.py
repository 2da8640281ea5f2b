"""What the CheXGenBench paper published, and when one of our numbers may stand beside it.

Dutta et al., arXiv 2505.10496, read from the figures of its repository at commit 9a201c1; the two UniX rows from
arXiv 2601.11522. The values have no error bars, and some cells cannot be right: those carry the reason in `suspect`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from chexray.outputs import output_of
from chexray.results.rows import Row, params_of

PROTOCOL = "chexgenbench"
ROUTES = frozenset({"cgb299", "cgb224", "cgb512", "native", "cgb224_direct", "official256"})
"""Known preprocessing, with which an encoder's revision begins. Where both suites read one encoder, one of them gets
another than the paper's."""


@dataclass(frozen=True)
class Published:
    """One published cell. `value` is None where the paper has the cell and nobody outside can read it.

    confidence: "A" read from the authors' figure, "B" quoted by another source, "C" inferred, "X" not available.
    suspect: why the cell may be wrong; empty when nothing speaks against it. ranked: False where it may not be anyone's
    best. in_paper: False for rows of other papers that ran the same protocol.
    """

    value: float | None
    model: str
    confidence: str
    source: str
    suspect: str
    metric: str
    encoder: str
    subset: str
    better: str
    ranked: bool
    in_paper: bool
    table: str


def best(row: Row, *, others: bool = False) -> Published | None:
    """The paper's best value of what a results row measures, or None where it published none.

    Cells whose columns look shuffled or whose measure is an artefact are passed over; a best cell may still carry a
    `suspect` remark. others: let rows of other papers compete too.
    """
    upstream = output_of(row).upstream
    if upstream is None:
        return None
    wanted = (upstream.metric, row["encoder"], row["subset"].removeprefix("finding:"))
    cells = [
        cell
        for cell in rows()
        if (cell.metric, cell.encoder, cell.subset) == wanted and cell.ranked and (cell.in_paper or others)
    ]
    known = [(cell.value, cell) for cell in cells if cell.value is not None]
    if not known:
        return None
    pick = max if known[0][1].better == "higher" else min
    return pick(known, key=lambda pair: pair[0])[1]


def comparable(row: Row) -> str | None:
    """Why a results row may not stand beside the published tables, or None when it may.

    A set that says of itself that it is another generator's (`note_card`) never may.
    It may under the protocol chexgenbench, from the paper's network with the paper's weights and preprocessing, and by
    a metric of the paper's method, as its metric declares them. The name of the encoder is not enough: any network of
    that family goes by it. That the real images are the paper's is not known from a row: show its n beside
    `test_set_size()`, or its prompts and seeds beside `prompts_and_seeds()`.
    """
    upstream = output_of(row).upstream
    if upstream is None:
        return "the paper has no such number"
    if row["protocol"] != PROTOCOL:
        return f"protocol is {row['protocol'] or 'not named'}, the paper's is {PROTOCOL}"
    if row["encoder"] != upstream.encoder:
        return f"encoder is {row['encoder'] or 'none'}, the paper's is {upstream.encoder}"
    if is_random(row):
        return "weights are random"
    params = params_of(row)
    if card := params.get("note_card"):
        return f"the synthetic set is no benchmarked one: {card}"
    if differs := params.get("network_differs"):
        return f"the network is not the paper's: {differs}"
    if not str(params.get("weights_are") or "").startswith(f"released {upstream.encoder},"):
        return "whether the weights are the paper's is not known; if so, set weights_are: released on the encoder"
    route = str(row.get("encoder_revision") or "").partition("/")[0]
    if route in ROUTES - {upstream.route}:
        return f"preprocessing is {route}, the paper's is {upstream.route}"
    for name, wanted in upstream.method.items():
        if params.get(name, wanted) != wanted:
            return f"{name} is {params[name]}, the paper's is {wanted}"
    return None


def is_random(row: Row) -> bool:
    """Whether the row's network was filled at random, as `weights: random:SEED` asks."""
    return str(row["weights"]).startswith("random:")


def test_set_size() -> int:
    """Real test images behind the published values (second-hand: confidence B)."""
    return int(_document()["test_set"]["n"])


def prompts_and_seeds() -> tuple[int, int]:
    """Prompts, and images generated for each, behind the published privacy values (scripts/privacy_metrics.sh)."""
    return 2000, 10


@cache
def rows() -> tuple[Published, ...]:
    """Every published cell, nulls included, table by table."""
    document = _document()
    return tuple(
        _cell(document, table, column, model, value)
        for table in document["tables"]
        for model, values in table["models"].items()
        for column, value in zip(table["columns"], values, strict=True)
    )


@cache
def _document() -> dict[str, Any]:
    return json.loads(resources.files("chexray.results").joinpath("published.json").read_text(encoding="utf-8"))


def _cell(
    document: dict[str, Any], table: dict[str, Any], column: dict[str, str], model: str, value: float
) -> Published:
    doubts = [
        doubt
        for doubt in document["suspect"]
        if doubt["table"] == table["name"]
        and model in doubt.get("models", [model])
        and column["metric"] in doubt.get("metrics", [column["metric"]])
        and column["subset"] in doubt.get("subsets", [column["subset"]])
    ]
    return Published(
        value=value, model=model, confidence=table["confidence"], source=table["source"],
        suspect="; ".join(doubt["why"] for doubt in doubts), ranked=all(doubt["ranked"] for doubt in doubts),
        in_paper=table["in_paper"], table=table["name"], **column,
    )  # fmt: skip
