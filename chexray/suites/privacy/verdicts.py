"""From what was found to a verdict an image: which ones a careful owner would not release, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from chexray.metrics.base import Score
from chexray.privacy.calibration import Calibration
from chexray.privacy.outputs import FLAGGED
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
"""One row a synthetic image. Not flagged means that no copy was found at this sensitivity, and no more; null, that
nothing could judge it."""

FIRST = 6
"""Ids of images that a row repeats; verdicts.parquet has all of them."""

NOT_JUDGED = "not judged: no search, hash or calibrated pair came to a verdict; results.csv says why"


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
        ids, reasons = images.ids, dict[str, list[str]]()
        judged = False
        for each in copies:
            if each.synthetic is images and each.test is not None:
                judged = True
                nearest = each.images["nearest_training_id"]
                for i in np.flatnonzero(each.test.flagged):
                    text = f"{each.label}: nearer to training image {nearest[int(i)]} than unseen patients are (p = "
                    text += f"{each.test.p_value[i]:.2g})"
                    reasons.setdefault(ids[i], []).append(text)
        for found in duplicates:
            if found.synthetic is images and found.found is not None:
                judged = True
                for row in found.images.to_pylist():
                    if row["kind"] in ("exact_training", "near_training"):
                        reasons.setdefault(row["sample_id"], []).append(_duplicate(row))
        for one in pairs:
            if one.synthetic is images:
                judged |= any(_judges(each) for each in calibrations.values()) and len(one.pairs) > 0
                for sample_id, text in _reidentified(one, calibrations):
                    reasons.setdefault(sample_id, []).append(text)
        flagged = pa.array([each in reasons if judged else None for each in ids], pa.bool_())
        why = [reasons.get(each, []) if judged else [NOT_JUDGED] for each in ids]
        names = pa.array([images.name] * len(ids), pa.string())
        columns = [names, pa.array(ids, pa.string()), flagged, pa.array(why, pa.list_(pa.string()))]
        tables.append(pa.Table.from_arrays(columns, schema=SCHEMA))
    return pa.concat_tables(tables)


def flagged_scores(table: pa.Table, name: str) -> list[Score]:
    """How many images of a set are flagged by any part of the suite, as a row without direction or error: a count that
    chance contributes to, which the searches' own rows test. [] where nothing could judge them.

    about: note_flagged, the first ids, those that most parts flag first.
    """
    rows = [row for row in table.to_pylist() if row["synthetic_set"] == name and row["flagged"] is not None]
    if not rows:
        return []
    flagged = sorted((row for row in rows if row["flagged"]), key=lambda row: -len(row["reasons"]))
    first = [row["sample_id"] for row in flagged[:FIRST]]
    return [Score(FLAGGED, float(len(flagged)), about={"note_flagged": first})]


def _duplicate(row: dict) -> str:
    if row["kind"] == "exact_training":
        return f"duplicate: same pixels as training image {row['other_id']}"
    changed = [*(["mirrored"] if row["mirrored"] else []), *([row["view"]] if row["view"] else [])]
    return ", ".join([f"duplicate: {row['bits']:g} bits from training image {row['other_id']}", *changed])


def _judges(calibration: Calibration) -> bool:
    """Whether scores above the network's threshold are a verdict."""
    return calibration.threshold is not None and not calibration.recognises_nobody


def _reidentified(one: PairsOf, calibrations: dict[str, Calibration]) -> list[tuple[str, str]]:
    found = []
    ids, real = one.pairs.table["synthetic_id"].to_pylist(), one.pairs.table["real_id"].to_pylist()
    for label, calibration in calibrations.items():
        values = one.columns.get(f"reid_{label}")
        if values is None or calibration.threshold is None or not _judges(calibration):
            continue
        for i in np.flatnonzero(values > calibration.threshold):
            text = f"{label}: {values[i]:.4f} with training image {real[i]}, above {calibration.threshold:.4f}"
            found.append((ids[i], text))
    return found
