"""Room for temporary files: Ray keeps its objects in shared memory and spills them to its temporary folder."""

from __future__ import annotations

import os
import shutil
import tempfile

from chexray.doctor.case import Case, Check, PendingCheck, fail, note, ok, size
from chexray.storage.places import choose

LEAST_BYTES = 1_000_000_000
FULL = 0.95
"""Ray stores no object more once the disk of its temporary files is so full (RAY_local_fs_capacity_threshold)."""
SHARED_BYTES = 1_000_000_000
"""Containers get 64 MB unless told otherwise; Ray then keeps its objects on disk."""


def pending(case: Case) -> list[PendingCheck]:
    return [PendingCheck("temporary files", lambda: chosen(case), 15.0)]


def chosen(case: Case) -> Check:
    """The folder that a run would choose, or why it finds none."""
    folder, notes = choose(case.config.ray.temp_dir if case.config else None, case.environment)
    found = temporary(folder)
    if notes and found.state == "ok":
        return note(f"{found.detail}; {notes[-1].removeprefix('note: ')}.", "Correct or unset that variable.")
    return found


def temporary(folder: str, shared: str = "/dev/shm") -> Check:
    """folder, shared: where Ray keeps files and shared memory."""
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
