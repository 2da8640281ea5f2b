"""What a config means on another machine: which of its paths travel, and the text that does.

A cluster sees neither this machine's files nor its environment. So relative paths are refused before anything is sent,
absolute ones are named once, and credentials stay here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chexray.config import RunConfig
from chexray.errors import ConfigError
from chexray.plugin_files import PluginFile
from chexray.storage import is_remote
from chexray.storage.uris import local_path
from chexray.text import listed, quoted, shown

RUN_FILE = "run.yaml"
"""What the config is called where it arrives."""

_PATH_OPTION = re.compile(r"path|.*_(path|root|dir|folder|file)")
_WEIGHT_FILE = re.compile(r".*\.(safetensors|pth|pt|bin|ckpt)")
_NOT_FILES = ("random:", "package:", "pretrained", "none")


@dataclass(frozen=True)
class Travelling:
    """A config ready to leave, without `ray.address`.

    local: (setting, absolute path) of what the cluster must have under the same path. remarks: lines for the user.
    """

    config: RunConfig
    local: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]

    @property
    def text(self) -> str:
        """YAML, secrets left out."""
        return self.config.to_yaml()

    @property
    def notes(self) -> list[str]:
        return [*on_every_node(self.local), *self.remarks]


def travelling(config: RunConfig, *, folder: Path | None = None, near: str = "") -> Travelling:
    """What of a config is sent to a cluster, or a ConfigError that names every path the cluster would not find.

    folder: a folder that travels too, which relative inputs may start from. near: the host that is talked to; where it
    is this machine, so may be the storage's endpoint.
    """
    missing, absolute = [], []
    for key, path in _inputs(config):
        kind = _kind(path)
        if kind == "relative" and not (folder and _holds(folder, path)):
            missing.append((key, path))
        elif kind == "absolute":
            absolute.append((key, path))
    if missing:
        raise ConfigError(_no_such_file(missing, folder))
    for key, path in _outputs(config):
        if _kind(path) == "relative":
            raise ConfigError(
                f"{key} is {quoted(path)}, which would be written inside a container and lost with it. "
                "Use s3://, or an absolute path on a volume that every node mounts (--output)."
            )
        if not is_remote(path):
            absolute.append((key, path))

    remarks = list(_storage_notes(config, near))
    if config.ray.address:
        remarks.append("ray.address is left out: a job joins the cluster it runs on")
    sent = config.model_copy(update={"ray": config.ray.model_copy(update={"address": None})})
    return Travelling(sent, tuple(absolute), tuple(remarks))


def on_every_node(local: Sequence[tuple[str, str]]) -> list[str]:
    places = ", ".join(f"{shown(path)} ({shown(key, 60)})" for key, path in local[:20])
    more = f" and {len(local) - 20} more" if len(local) > 20 else ""
    return [f"must exist on every node of the cluster: {places}{more}"] if local else []


def submission_id(config: RunConfig, plugins: Sequence[PluginFile] = ()) -> str:
    """`<name>-<10 hex>`: the same evaluation into the same output has the same id, so that it is not started twice.

    The hex is not that of the run's folder, which also covers the data, and these may be out of reach here.
    """
    places = [config.output, config.feature_store or "", *(file.code for file in plugins)]
    digest = hashlib.blake2b("\0".join([config.fingerprint, *places]).encode(), digest_size=5)
    return f"{config.name}-{digest.hexdigest()}"


def plugin_flags(plugins: Sequence[PluginFile], folder: str) -> list[str]:
    """The words of a job's command that name the plug-in files, which lie in a folder (with its /)."""
    return [word for file in plugins for word in ("--plugin", f"{folder}{file.name}")]


def distinct(plugins: Sequence[PluginFile]) -> Sequence[PluginFile]:
    """The files, whose names tell them apart where they travel in one folder. Raises ConfigError where two have one."""
    names = [file.name for file in plugins]
    if len(set(names)) < len(names):
        raise ConfigError(f"two plug-in files are called {shown(max(names, key=names.count))}. Rename one.")
    return plugins


def _inputs(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(key, text) of every setting that names a file or folder to read."""
    sets: list[tuple[str, Any]] = [(role, getattr(config, role)) for role in ("real", "training", "heldout")]
    sets += [(f"synthetic.{i}", item) for i, item in enumerate(config.synthetic)]
    options = [(key, item.options) for key, item in sets if item is not None]
    options += [(f"encoders.{item.label}", item.options) for item in config.encoders]
    options += [(f"metrics.{item.name}", item.options) for item in config.metrics]
    for key, values in options:
        for name, value in values.items():
            if isinstance(value, str) and value and _PATH_OPTION.fullmatch(name):
                yield f"{key}.{name}", value
    pairs = config.privacy.pairs
    if "." in pairs or "/" in pairs:  # what tells a table from a way to pair, as in the plan
        yield "privacy.pairs", pairs
    weights = [(f"encoders.{item.label}.weights", item.weights) for item in config.encoders]
    for key, text in [*weights, ("utility.model.weights", config.utility.model.weights)]:
        if text and _is_file(text):
            yield key, text


def _outputs(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "output", config.output
    if config.feature_store:
        yield "feature_store", config.feature_store


def _is_file(weights: str) -> bool:
    """Whether weights are a local file or folder rather than a seed, a URL, a hub id or a published file's name."""
    if weights.startswith(_NOT_FILES):
        return False
    if "://" in weights:
        return weights.startswith("file://")
    looks = weights.startswith(("/", "./", "../", "~")) or ("/" in weights and _WEIGHT_FILE.fullmatch(weights))
    return bool(looks) or Path(weights).exists()


def _kind(path: str) -> str:
    """ "remote", "absolute" or "relative". Raises StorageError for a scheme that chexray does not speak."""
    if is_remote(path):
        return "remote"
    # A home folder is another one on the cluster.
    return "absolute" if local_path(path).startswith("/") else "relative"


def _holds(folder: Path, path: str) -> bool:
    """Whether a relative path, or the files of a pattern, lie in a folder."""
    if path.startswith("~") or ".." in Path(path).parts:
        return False
    return (folder / path).exists() or (bool(re.search(r"[*?\[]", path)) and any(folder.glob(path)))


def _no_such_file(missing: list[tuple[str, str]], folder: Path | None) -> str:
    key, path = missing[0]
    others = f" (so do {listed(key for key, _ in missing[1:])})" if len(missing) > 1 else ""
    where = f"is not in {shown(folder)}" if folder else "names a file of this machine"
    return (
        f"{shown(key)}: {quoted(path)} {where}{others}, and the cluster has no such file. "
        "Use s3://, or an absolute path on a volume that every node mounts."
    )


def _storage_notes(config: RunConfig, near: str) -> Iterator[str]:
    storage = config.storage
    held = [f"storage.{name}" for name in ("key", "secret", "token") if getattr(storage, name)]
    if held:
        yield f"{', '.join(held)} are not sent: the cluster takes S3 credentials from its own environment"
    if storage.profile:
        yield f"storage.profile: the nodes of the cluster need a profile {quoted(storage.profile)}"
    endpoint = host_of(storage.endpoint_url or "")
    if is_loopback(endpoint) and not is_loopback(near):
        yield f"storage.endpoint_url: {shown(endpoint)} is this machine here, and each node itself on the cluster"


def host_of(url: str) -> str:
    """The host of a URL, "" where it has none or is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # http://[bad
        return ""


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")
