"""Tables for whoever looks at images: the most suspicious first, with the paths of both images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.suites.privacy.copies import Copies
from chexray.suites.privacy.duplicates import DuplicatesOf
from chexray.suites.privacy.sets import ImageSet, Sets

_FIRST = ("exact_training", "near_training", "exact_within", "near_within")


def told_copies(sets: Sets, copies: Sequence[Copies]) -> pa.Table | None:
    """The rows of every search, set by set, by rising p-value and ratio, with `uri` and `nearest_training_uri`."""
    if not copies:
        return None
    tables = []
    for images in sets.synthetic:
        own = [each.images for each in copies if each.synthetic is images]
        table = pa.concat_tables(own)
        p, ratio = (np.asarray(table[name].to_numpy(), float) for name in ("p_value", "ratio"))
        table = table.take(pa.array(np.lexsort((ratio, p))))  # NaN, a p-value that is not known, comes last
        table = _with_uri(table, "uri", "sample_id", images)
        tables.append(_with_uri(table, "nearest_training_uri", "nearest_training_id", sets.training))
    return pa.concat_tables(tables)


def told_duplicates(sets: Sets, duplicates: Sequence[DuplicatesOf]) -> pa.Table | None:
    """The rows of every set: equal to a training image, near one, then within the set, by rising bits; `uri` and
    `other_uri` beside them."""
    if not duplicates:
        return None
    tables = []
    for each in duplicates:
        table = each.images
        kinds = np.array([_FIRST.index(kind) for kind in table["kind"].to_pylist()], np.int64)
        table = table.take(pa.array(np.lexsort((np.asarray(table["bits"].to_numpy(), float), kinds)), pa.int64()))
        table = _with_uri(table, "uri", "sample_id", each.synthetic)
        # Kinds are sorted, those within the set last: what is near a training image stands in front of them.
        n_training = sum(not kind.endswith("_within") for kind in table["kind"].to_pylist())
        near, within = table["other_id"].slice(0, n_training), table["other_id"].slice(n_training)
        others = pa.concat_arrays([sets.training.uris_of(near), each.synthetic.uris_of(within)])
        tables.append(table.append_column("other_uri", others))
    return pa.concat_tables(tables)


def told_verdicts(sets: Sets, verdicts: pa.Table) -> pa.Table:
    """The verdicts with each image's `uri`, flagged images of a set first."""
    tables = []
    for images in sets.synthetic:
        table = verdicts.filter(pc.field("synthetic_set") == images.name)
        behind = [flagged is not True for flagged in table["flagged"].to_pylist()]
        table = table.take(pa.array(np.argsort(behind, kind="stable"), pa.int64()))
        tables.append(_with_uri(table, "uri", "sample_id", images))
    return pa.concat_tables(tables)


def _with_uri(table: pa.Table, name: str, ids: str, images: ImageSet) -> pa.Table:
    return table.append_column(name, images.uris_of(table[ids]))
