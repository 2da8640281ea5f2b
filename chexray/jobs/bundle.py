"""The working directory of a job: the config alone, or with a small folder that the user asked to ship."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from chexray.config import read_yaml
from chexray.config.secrets import is_secret_name, looks_secret
from chexray.config.yaml_text import walk
from chexray.errors import ConfigError
from chexray.jobs.portable_config import RUN_FILE
from chexray.plugin_files import PluginFile
from chexray.text import listed, shown

MAX_BYTES = 100 * 2**20
MAX_FILES = 10_000
PLUGINS = "chexray-plugins"
"""The folder of a job in which plug-in files travel."""


def folder_files(folder: Path, *, config_path: Path | None = None) -> list[Path]:
    """The files of a folder that would travel, relative to it: all but hidden ones and byte code.

    Raises ConfigError where the folder is too large to be code and tables, leads out of itself by a link, or has a
    run.yaml that is not the config.
    """
    if not folder.is_dir():
        raise ConfigError(f"--working-dir {shown(folder)}: no such folder. Name one that holds what the config names.")
    root, found, size = folder.resolve(), [], 0
    for parent, names, files in os.walk(folder):
        for name in names:
            if (Path(parent) / name).is_symlink() and not name.startswith("."):
                raise ConfigError(_leads_out(folder, Path(parent) / name))
        names[:] = sorted(name for name in names if not name.startswith(".") and name != "__pycache__")
        for name in sorted(files):
            path = Path(parent) / name
            if name.startswith("."):
                continue
            if path.is_symlink() and root not in path.resolve().parents:
                raise ConfigError(_leads_out(folder, path))
            found.append(path.relative_to(folder))
            size += path.stat().st_size
            if size > MAX_BYTES or len(found) > MAX_FILES:
                raise ConfigError(
                    f"--working-dir {shown(folder)}: more than {MAX_BYTES // 2**20} MB or {MAX_FILES:,} files. Data "
                    "are not sent with a job: put them on s3:// or on a volume that every node mounts, and send code."
                )
    own = folder / RUN_FILE
    if own.exists() and not (config_path and config_path.exists() and own.samefile(config_path)):
        raise ConfigError(f"--working-dir {shown(folder)}: its {RUN_FILE} would hide the config. Rename that file.")
    return found


@contextmanager
def parcel(
    text: str, folder: Path | None = None, files: list[Path] | None = None, plugins: Sequence[PluginFile] = ()
) -> Iterator[str]:
    """The path of a temporary folder with run.yaml, the files of `folder` beside it and plug-ins in PLUGINS; removed on
    exit. Raises ConfigError where `folder` has a PLUGINS of its own."""
    with tempfile.TemporaryDirectory(prefix="chexray-job-") as name:
        target = Path(name)
        for path in files or []:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile((folder or Path()) / path, target / path)
        if plugins and (target / PLUGINS).exists():
            raise ConfigError(f"--working-dir {shown(folder)}: its {PLUGINS} is where --plugin goes. Rename it.")
        for file in plugins:
            (target / PLUGINS).mkdir(exist_ok=True)
            (target / PLUGINS / file.name).write_bytes(file.source)
        (target / RUN_FILE).write_text(text, encoding="utf-8")
        yield name


def read_runtime_env(path: Path | None) -> dict[str, object]:
    """The runtime environment in a YAML or JSON file; {} without one. Raises ConfigError in one line."""
    if path is None:
        return {}
    env = read_yaml(path)
    if "working_dir" in env:
        raise ConfigError(
            f"{shown(path)}: working_dir is chexray's own, since the config travels in it. Use --working-dir."
        )
    return env


def open_secrets(runtime_env: Mapping[str, object]) -> list[str]:
    """A note where a runtime environment seems to hold credentials, by their names or by how they look.

    The cluster shows it to all its users. Named are the places, never the values.
    """
    held = []
    for path, value in walk(runtime_env, "--runtime-env"):
        name = path.rpartition(".")[2]
        is_plain = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
        is_named = is_secret_name(name) and is_plain
        if is_named or (isinstance(value, str) and looks_secret(value)):
            held.append(path.removeprefix("env_vars."))
    return [f"--runtime-env: {listed(held)} can be read by everyone who may list the cluster's jobs"] if held else []


def _leads_out(folder: Path, path: Path) -> str:
    return (
        f"--working-dir {shown(folder)}: {shown(path.relative_to(folder))} is a link to a folder or to a file outside. "
        "Put the files themselves there, or ship another folder."
    )
