"""From what was found to a verdict an image: which ones a careful owner would not release, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from chexray.privacy.calibration import Calibration
from chexray.suites.privacy.copies import Copies
from chexray.suites.privacy.duplicates import DuplicatesOf
from chexray.suites.privacy.pairs import PairsOf
from chexray.suites.privacy.sets import Sets

SCHEMA = pa.schema(
    [
        ("synthetic_set", pa.string()),
        ("sample_id", pa.string()),
        ("flagged", pa.bool_()),
        ("reasons", pa.list_(pa.string())),
    ]
)
"""One row a synthetic image. Not flagged means that no copy was found at this sensitivity, and no more."""


def verdicts(
    sets: Sets,
    copies: Sequence[Copies],
    duplicates: Sequence[DuplicatesOf],
    pairs: Sequence[PairsOf],
    calibrations: dict[str, Calibration],
) -> pa.Table:
    """One row a synthetic image: flagged by any search, as a duplicate of a training image, or by a calibrated re-ID
    score. Duplicates within the synthetic set are no one's privacy and do not count here."""
    tables = []
    for images in sets.synthetic:
        reasons: dict[str, list[str]] = {}
        for each in copies:
            if each.synthetic is images and each.test is not None:
                nearest = each.images["nearest_training_id"]
                for i in np.flatnonzero(each.test.flagged):
                    text = f"{each.label}: nearer to training image {nearest[int(i)]} than strangers are (p = "
                    text += f"{each.test.p_value[i]:.2g})"
                    reasons.setdefault(images.ids[i], []).append(text)
        for found in duplicates:
            for row in found.images.to_pylist() if found.synthetic is images else ():
                if row["kind"] in ("exact_training", "near_training"):
                    text = _duplicate(row)
                    reasons.setdefault(row["sample_id"], []).append(text)
        for one in pairs:
            if one.synthetic is images:
                for sample_id, text in _reidentified(one, calibrations):
                    reasons.setdefault(sample_id, []).append(text)
        rows = [
            {
                "synthetic_set": images.name,
                "sample_id": each,
                "flagged": each in reasons,
                "reasons": reasons.get(each, []),
            }
            for each in images.ids
        ]
        tables.append(pa.Table.from_pylist(rows, SCHEMA))
    return pa.concat_tables(tables)


def _duplicate(row: dict) -> str:
    if row["kind"] == "exact_training":
        return f"duplicate: same pixels as training image {row['other_id']}"
    mirrored = ", mirrored" if row["mirrored"] else ""
    return f"duplicate: {row['bits']:g} bits from training image {row['other_id']}{mirrored}"


def _reidentified(one: PairsOf, calibrations: dict[str, Calibration]) -> list[tuple[str, str]]:
    found = []
    ids, real = one.pairs.table["synthetic_id"].to_pylist(), one.pairs.table["real_id"].to_pylist()
    for label, calibration in calibrations.items():
        values = one.columns.get(f"reid_{label}")
        if values is None or calibration.threshold is None:
            continue
        for i in np.flatnonzero(values > calibration.threshold):
            text = f"{label}: {values[i]:.4f} with training image {real[i]}, above {calibration.threshold:.4f}"
            found.append((ids[i], text))
    return found
