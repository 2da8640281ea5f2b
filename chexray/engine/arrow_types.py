"""Takes back the Arrow extension types that importing ray.data registers in a process.

One of them, `ray.data.arrow_pickled_object`, unpickles what a file holds. chexray's own blocks use plain types, and
Ray Data works without these; the door for Parquet (`storage.parquet`) refuses them by name besides.
"""

from __future__ import annotations

import sys

REGISTERED = (
    "ray.data.arrow_pickled_object",
    "ray.data.arrow_tensor",
    "ray.data.arrow_tensor_v2",
    "ray.data.arrow_variable_shaped_tensor",
)
"""What Ray 2.60 registers; a test compares it with what the installed Ray does."""


def forget_extension_types() -> None:
    """Unregisters them in this process, if ray.data was imported. Called where a driver or worker begins its work."""
    if "ray.data" not in sys.modules:
        return
    import pyarrow as pa

    for name in REGISTERED:
        try:
            pa.unregister_extension_type(name)
        except pa.ArrowKeyError:  # already taken back, or another Ray
            continue
