"""Columns that list what an image shows, such as NIH's `Effusion|Infiltration` or ["Edema", "Fracture"].

They are read only where every word of the whole column is a finding of a known list: any other column of words or
numbers is no list of findings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from chexray.data.literals import UNREADABLE, literal
from chexray.findings import FINDINGS
from chexray.spelling import fold

_ALSO = {
    "Effusion": "Pleural Effusion",
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural Thickening": "Pleural Other",
}
"""ChestX-ray14's words for five findings, as the phrases of the CheXpert labeller sort them (Irvin et al. 2019)."""

_OTHERS = frozenset(map(fold, ("Emphysema", "Fibrosis", "Hernia")))
"""Words of ChestX-ray14 for which CheXpert has no finding."""

_INDEX = {fold(name): index for index, name in enumerate(FINDINGS)}
_INDEX |= {fold(word): FINDINGS.index(name) for word, name in _ALSO.items()}


def read_lists(cells: Sequence[object]) -> list[list[int] | None] | None:
    """For each cell the positions of its findings in FINDINGS, None for an empty one.

    None in all where a cell holds another word or no list, or where no cell names a finding.
    """
    found: list[list[int] | None] = []
    for cell in cells:
        words = _words(cell)
        if words is None:
            found.append(None)
            continue
        if not all(isinstance(word, str) and (fold(word) in _INDEX or fold(word) in _OTHERS) for word in words):
            return None
        found.append(sorted({_INDEX[fold(word)] for word in words if fold(word) in _INDEX}))
    return found if any(found) else None


def _words(cell: object) -> list[Any] | None:
    """What a cell lists; [cell] for what is no list, so that it is refused."""
    if cell is None:
        return None
    if isinstance(cell, str):
        if not cell.strip() or cell.strip().lower() in ("nan", "none", "null"):
            return None
        if cell.lstrip()[0] not in "[({":
            return [word.strip() for word in re.split(r"[|;,]", cell[:4096])]
        value = literal(cell)
        return [] if value == [] else value if isinstance(value, list) else [UNREADABLE]
    return list(cell) if isinstance(cell, list | tuple) else [cell]
