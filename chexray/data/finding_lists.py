"""Columns that list what an image shows, such as NIH's `Effusion|Infiltration` or ["Edema", "Fracture"].

They are read only where every word of the whole column is a finding of a known list: any other column of words or
numbers is no list of findings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

_PUBLISHED = {
    "Normal": "No Finding",
    "Nodule/Mass": "Lung Lesion",
    "Lung tumor": "Lung Lesion",
    "Pulmonary mass": "Lung Lesion",
    "Multiple nodules": "Lung Lesion",
    "Infiltrates": "Lung Opacity",
    "Pulmonary edema": "Edema",
    "Rib fracture": "Fracture",
    "Clavicle fracture": "Fracture",
    "Humeral fracture": "Fracture",
    "Vertebral fracture": "Fracture",
}
"""Words of PadChest and VinDr-CXR for findings of the 14; read only in tables that are known to be published ones."""

_WITHOUT_PLACE = (
    "Emphysema", "Fibrosis", "Hernia", "Airspace Opacity", "Aortic enlargement", "Calcification", "Enlarged PA", "ILD",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Pulmonary fibrosis", "Other lesion", "Other lesions", "COPD",
    "COPD signs", "Tuberculosis", "Other disease", "Other diseases", "Unchanged", "Scoliosis", "Exclude",
    "Suboptimal study", "Chronic changes", "Aortic elongation", "Interstitial pattern", "Alveolar pattern",
    "Air trapping", "Kyphosis", "Hiatal hernia", "Bronchiectasis", "Granuloma", "Vertebral degenerative changes",
)  # fmt: skip
"""Words of published tables that are none of the 14; a message may show them, as it may show no other text."""

_NO_FINDING = FINDINGS.index("No Finding")
_INDEX = {fold(name): index for index, name in enumerate(FINDINGS)}
_INDEX |= {fold(word): FINDINGS.index(name) for word, name in _ALSO.items()}


_IN_TABLES = _INDEX | {fold(word): FINDINGS.index(name) for word, name in _PUBLISHED.items()}
_SHOWN = frozenset(map(fold, _WITHOUT_PLACE))


def is_known_word(word: str) -> bool:
    """Whether a word that is none of the 14 is one of a published table, and so no patient's text."""
    return len(word) <= 60 and fold(word) in _SHOWN


def _places(words: Sequence[Any], index: Mapping[str, int]) -> list[int]:
    """The findings that words name. "No Finding" gives way to a finding, also to one that is none of the 14."""
    known = {fold(word) for word in words if isinstance(word, str)}
    found = {index[word] for word in known & index.keys()}
    return sorted(found - {_NO_FINDING} if len(found) > 1 or known & _OTHERS else found)


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
        found.append(_places(words, _INDEX))
    return found if any(found) else None


def read_words(cells: Sequence[object]) -> tuple[list[list[int] | None], list[str]]:
    """For each cell the positions of its findings in FINDINGS, None for an empty one; and each word that is none.

    For a column that is known to list findings, of which only some are among the 14: no other word is guessed. A list
    without words is empty.
    """
    found: list[list[int] | None] = []
    others: list[str] = []
    for cell in cells:
        words = [word for word in _words(cell) or () if word != ""]
        if not words:
            found.append(None)
            continue
        places = [_IN_TABLES.get(fold(word)) if isinstance(word, str) else None for word in words]
        others += [str(word) for word, place in zip(words, places, strict=True) if place is None]
        found.append(_places(words, _IN_TABLES))
    return found, others


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
