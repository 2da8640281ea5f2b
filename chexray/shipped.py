"""Files that a wheel brings beside the package: manifests and run configs. In a checkout they are its own folders."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from chexray.errors import ConfigError


def shipped(folder: str, known: str) -> Path:
    """`folder` ("deploy", "configs") of this installation. known: a file that it must hold, below it.

    Raises ConfigError where neither a checkout nor an installed wheel has it.
    """
    package = Path(__file__).resolve().parent
    for place in (package.parent / folder, *_recorded(folder, known), Path(sys.prefix) / "share/chexray" / folder):
        if (place / known).is_file():
            return place
    raise ConfigError(f"{folder}/ of chexray is not installed. Install a wheel, or run from a checkout.")


def _recorded(folder: str, known: str) -> list[Path]:
    """Where the installer says that it put the file: below sys.prefix, or elsewhere by --user, --prefix or --target."""
    try:
        files = metadata.files("chexray") or []
    except metadata.PackageNotFoundError:
        return []
    depth = len(Path(known).parents) - 1
    return [Path(str(file.locate())).resolve().parents[depth] for file in files if file.match(f"{folder}/{known}")]
