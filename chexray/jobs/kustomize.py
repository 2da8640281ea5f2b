"""Rendering a folder with whichever kustomize this machine has. No cluster is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from chexray.errors import ConfigError
from chexray.text import shown

TIMEOUT_S = 60


def render(folder: Path) -> str:
    """The manifests of a kustomization. Raises ConfigError with the first words of what kustomize said."""
    command = _command()
    try:
        done = subprocess.run(
            [*command, str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{' '.join(command)} does not work here ({type(error).__name__}).") from None
    if done.returncode:
        said = (
            shown(" ".join(done.stderr[:10_000].replace(f"{folder}/", "").split()), 300)
            or f"exit code {done.returncode}"
        )
        raise ConfigError(f"{' '.join(command)} cannot render this: {said}. Do these overlays go together?")
    return done.stdout


def _command() -> list[str]:
    if path := shutil.which("kubectl"):
        return [path, "kustomize"]
    if path := shutil.which("kustomize"):
        return [path, "build"]
    raise ConfigError("neither kubectl nor kustomize is on PATH. Install kubectl, which needs no cluster for this.")
