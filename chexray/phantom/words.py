"""Labels and prompts: what a study is said to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from chexray.findings import FINDINGS
from chexray.phantom.anatomy import LEFT, Body
from chexray.phantom.pathology import Sign

PREVALENCE = {
    "Atelectasis": 0.20, "Cardiomegaly": 0.24, "Consolidation": 0.13, "Edema": 0.15,
    "Enlarged Cardiomediastinum": 0.10, "Fracture": 0.08, "Lung Lesion": 0.12, "Lung Opacity": 0.08,
    "Pleural Effusion": 0.24, "Pleural Other": 0.08, "Pneumonia": 0.14, "Pneumothorax": 0.11,
}  # fmt: skip
"""Share among patients who are ill. Support Devices are drawn apart, and No Finding is the rest."""

OPACITIES = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
"""Kinds of Lung Opacity (Irvin et al. 2019, figure 1): each makes that label positive too."""

Labels = dict[str, int | None]


def sample_labels(rng: np.random.Generator, view: str) -> Labels:
    """Labels of one study: 1 present, 0 denied, -1 uncertain, None not mentioned."""
    ill = rng.random() < (0.78 if view == "AP" else 0.60)
    draws = rng.random((3, len(FINDINGS)))
    labels: Labels = {}
    for finding, seen, sure, said in zip(FINDINGS, *draws, strict=True):
        present = ill and seen < PREVALENCE.get(finding, 0.0)
        if finding == "Support Devices":
            present = seen < (0.42 if view == "AP" else 0.12)
        labels[finding] = (1 if sure > 0.08 else -1) if present else (0 if said < 0.3 else None)
    return settle(labels)


def given_labels(findings: Iterable[str]) -> Labels:
    """Labels of a study that shows these findings and denies all others. Raises ValueError for contradictions."""
    wanted = set(findings)
    unknown = wanted - set(FINDINGS)
    if unknown:
        raise ValueError(f"no finding is called {sorted(unknown)[0]!r}; there are {', '.join(FINDINGS)}")
    ill = wanted - {"No Finding", "Support Devices"}
    if "No Finding" in wanted and ill:
        raise ValueError(f"'No Finding' contradicts {sorted(ill)[0]!r}")
    return settle({finding: int(finding in wanted) for finding in FINDINGS})


def settle(labels: Labels) -> Labels:
    """Adds what follows from the other labels: the umbrella Lung Opacity, and No Finding."""
    if any(labels[finding] == 1 for finding in OPACITIES):
        labels["Lung Opacity"] = 1
    ill = [labels[finding] for finding in FINDINGS if finding not in ("No Finding", "Support Devices")]
    labels["No Finding"] = 0 if 1 in ill else None if -1 in ill else 1
    return labels


def _amount(severity: float, words: tuple[str, str, str]) -> str:
    return words[min(2, int(3 * severity))]


def phrase(sign: Sign) -> str:
    """The finding in words, with its side, place and amount as drawn."""
    side = "bilateral" if len(sign.sides) == 2 else "left" if sign.sides[0] == LEFT else "right"
    size = _amount(sign.severity, ("small", "moderate", "large"))
    grade = _amount(sign.severity, ("mild", "moderate", "marked"))
    where = f"{side} {sign.zone} zone"
    return {
        "Atelectasis": f"{grade} linear atelectasis at the {side} base",
        "Cardiomegaly": f"{grade} cardiomegaly",
        "Consolidation": f"dense consolidation in the {where}",
        "Edema": f"{grade} pulmonary edema",
        "Enlarged Cardiomediastinum": f"{grade} widening of the mediastinum",
        "Fracture": f"{side} rib fracture",
        "Lung Lesion": f"{_amount(sign.severity, ('nodule', 'large nodule', 'mass'))} in the {where}",
        "Lung Opacity": f"hazy opacity in the {where}",
        "Pleural Effusion": f"{size} {side} pleural effusion{'s' if len(sign.sides) == 2 else ''}",
        "Pleural Other": f"{side} pleural thickening",
        "Pneumonia": f"patchy pneumonia in the {where}",
        "Pneumothorax": f"{size} {side} pneumothorax",
        "Support Devices": f"{sign.device} in place",
    }[sign.finding]


DENIED = {
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Fracture": "fracture",
    "Pleural Effusion": "pleural effusion",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
}


def prompt_of(body: Body, labels: Labels, signs: Mapping[str, Sign], study: str) -> str:
    """One sentence on patient and findings, one on what is denied. `study` keeps prompts apart."""
    person = "woman" if body.sex == "F" else "man"
    article = "an" if str(body.age).startswith("8") or body.age in (11, 18) else "a"
    certain = [phrase(sign) for finding, sign in signs.items() if labels[finding] == 1]
    doubtful = ["possible " + phrase(sign) for finding, sign in signs.items() if labels[finding] == -1]
    if labels["No Finding"] == 1:
        certain = ["no acute finding", *certain]
    denied = [word for finding, word in DENIED.items() if labels[finding] == 0][:2]
    text = f"Frontal {body.view} chest radiograph of {article} {body.age}-year-old {person}: "
    text += ", ".join([*certain, *doubtful]) + "."
    if denied and labels["No Finding"] != 1:
        text += f" No {' or '.join(denied)}."
    return f"{text} Study {study}."
