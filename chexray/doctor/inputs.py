"""Every set of images: it is there, its table is understood, and a few of its images can be decoded."""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from chexray.config import SetConfig
from chexray.doctor.case import Case, Check, PendingCheck, fail, not_asked, note, ok
from chexray.storage import absolute, is_s3

SAMPLE = 4
"""Images of a set that are looked up and decoded; those whose ids hash lowest, as with `limit`."""
SET_S = 180.0
"""For one set: a folder of 100,000 objects is listed in 100 pages."""


def pending(case: Case) -> list[PendingCheck]:
    late = f"Listing it takes longer than {SET_S:g} s; name a table of its images as the set's path."
    found = []
    for role, item in case.sets:
        # As the plan calls it.
        name = item.name or _stem(str(item.options.get("path", ""))) or item.source or role
        found.append(PendingCheck(f"set {name}", partial(images, case, role, item, name), SET_S, late))
    return found


def _stem(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].split(".")[0]


def images(case: Case, role: str, item: SetConfig, name: str) -> Check:
    """A few images of a set. role: the key of the config that names it. Raises ManifestError for its table."""
    from chexray.data import manifest as manifests
    from chexray.data.depth import Depth
    from chexray.data.images import Reject, load_images
    from chexray.data.keys import Origin
    from chexray.data.sources.phantom import Phantom
    from chexray.plan.names import key_of
    from chexray.plan.sets import source_of

    path = str(item.options.get("path") or "")
    if is_s3(path) and case.s3_down:
        return not_asked(case)
    source, _ = source_of(item, name, case.run, case.storage)
    folder = ""
    if isinstance(source, Phantom):
        folder = absolute(source.path)
        case.n_images += min(source.n, case.run.limit or source.n)
        if not source.is_complete(folder, case.storage):
            return ok(f"{source.n:,} phantoms, drawn by the first run below {folder}")
    origin = "synthetic" if role == "synthetic" else "real"
    origin = Origin(origin, key_of(case.run, item), case.run.image_root or "")
    table = source.read(origin, case.storage)
    manifest = manifests.build(name, origin, table, case.storage, on_duplicate=item.on_duplicate, limit=SAMPLE)
    n = manifest.n_rows if case.run.limit is None else min(manifest.n_rows, case.run.limit)
    if not folder:
        case.n_images += n
    found = f"{manifest.n_rows:,} images in {path or folder}"
    uris = manifest.table["uri"].to_pylist()
    depth = Depth(item.bits, given=True) if item.bits is not None else None
    results = load_images(uris, case.storage, max_pixels=case.run.encode.max_pixels, depth=depth)
    bad = [(uri, result) for uri, result in zip(uris, results, strict=True) if isinstance(result, Reject)]
    first = next((result for result in results if not isinstance(result, Reject)), None)
    if not bad and first is not None:
        height, width = first.shape
        missing = f"; {len(manifest.rejects)} of the first {SAMPLE} are missing" if len(manifest.rejects) else ""
        told = f"{found}; the first can be read ({width} x {height} pixels){missing}"
        shared = _shared(case, name, role, path, table)
        return note(f"{told}.", " ".join(shared)) if shared else (note if missing else ok)(told)
    uri, reject = bad[0]
    told = f"{found}; {len(bad)} of {len(uris)} looked at cannot be read, first {uri}: {reject.code}: {reject.detail}."
    if len(bad) == len(uris):
        return fail(told, "Repair them, copy them again, or correct the set's path.")
    return note(told, "A run counts such images and fails above encode.max_reject_fraction.")


def _shared(case: Case, name: str, role: str, path: str, table: pa.Table) -> list[str]:
    """What the set shares with those that were looked at before it. Objects on S3 are compared by their names here, and
    by their ETags in the plan."""
    from chexray.plan.overlaps import Listed, overlaps

    uris = [uri for uri in table["uri"].to_pylist() if uri is not None] if "uri" in table.column_names else []
    here = Listed(name, role, uris, path)
    found = [line for before in case.listed for line in overlaps([before, here])]
    case.listed.append(here)
    return found
