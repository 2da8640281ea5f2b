"""Room for temporary files: Ray keeps its objects in shared memory and spills them to /tmp."""

from __future__ import annotations

import os
import shutil
import tempfile

from chexray.doctor.case import Case, Check, Look, fail, note, ok, size

LEAST_BYTES = 1_000_000_000
FULL = 0.95
"""Ray stores no object more once the disk of its temporary files is so full (RAY_local_fs_capacity_threshold)."""
SHARED_BYTES = 1_000_000_000
"""Containers get 64 MB unless told otherwise; Ray then keeps its objects on disk."""


def looks(case: Case) -> list[Look]:
    return [Look("temporary files", temporary, 15.0)]


def temporary(folder: str = "", shared: str = "/dev/shm") -> Check:
    """folder, shared: where Ray keeps files and shared memory."""
    folder = folder or ("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="chexray-doctor-") as file:
            file.write(b"chexray")
            file.flush()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        return fail(f"{folder} cannot be written ({reason}).", "Mount a writable volume there (an emptyDir, a tmpfs).")
    there = shutil.disk_usage(folder)
    found = f"{folder} has {size(there.free)} free of {size(there.total)}"
    if there.free < LEAST_BYTES or there.free < (1 - FULL) * there.total:
        return fail(
            f"{found}; Ray needs {size(LEAST_BYTES)}, and stores nothing on a disk more than {FULL:.0%} full.",
            "Free space there, or mount a larger volume.",
        )
    if not os.path.isdir(shared):
        return ok(found)
    memory = shutil.disk_usage(shared).total
    if memory < SHARED_BYTES:
        return note(
            f"{found}; {shared} has {size(memory)}, and Ray will use the disk in its place, which is slower.",
            "Give the container more: --shm-size=2g, or an emptyDir of medium Memory.",
        )
    return ok(f"{found}, {shared} {size(memory)}")
