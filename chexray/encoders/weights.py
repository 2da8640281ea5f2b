"""Where weights come from and what may be loaded: a file, a folder, a URL, a hub repository, a package, or a seed.

`resolve` finds them and hashes them; `checkpoints` reads them. Of a hub repository only the three files of `HUB_FILES`
are fetched: never a pickle, never code.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chexray.encoders import random_fill
from chexray.encoders.downloads import LARGEST_FILE, atomic, cache_root, copy_bounded, fetch, hash_file, public_url
from chexray.encoders.fields import LARGEST_JSON
from chexray.encoders.packaged import PREFIX, packaged_file
from chexray.encoders.safetensors_header import read_header
from chexray.errors import ConfigError, StorageError, WeightsError
from chexray.storage import Storage
from chexray.text import first_line, listed, quoted, shown

MODEL_FILE = "model.safetensors"
HUB_FILES = ("config.json", "preprocessor_config.json", MODEL_FILE)
DOWNLOAD_TIMEOUT_S = 30

HUB_REFERENCE = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w./-]+))?")
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights found and hashed. `path` is the file with the tensors, or None for a network filled from `seed`.

    sha256: of that file; for a seed, of the recipe. revision: the commit of a hub repository, else "".
    reference: as the user wrote it, without credentials, fit for results.
    source: the same with them, kept so that a worker on another machine can fetch the file again; never printed.
    """

    path: Path | None
    sha256: str
    revision: str
    reference: str
    seed: int | None = None
    source: str = ""

    def __repr__(self) -> str:
        return f"ResolvedWeights({self.reference!r}, sha256={self.sha256[:12]}, revision={self.revision!r})"


def resolve(
    reference: str,
    *,
    wanted: str,
    where: str,
    storage: Storage | None = None,
    released_at: str = "",
    released_sha256: str = "",
    architecture: object = None,
    expected_sha256: str = "",
) -> ResolvedWeights:
    """Finds the weights a config names and hashes them; downloads what is not on this machine into a private cache.

    reference: "random:SEED", "package:NAME" of an installed package, a file, a folder, an fsspec URL ("s3://...") of
    either, or a hub id "owner/name@revision".
    wanted: the file to look for in a folder; where: its home, for the error text.
    storage: reads s3:// URLs.
    released_at: the URL `wanted` can be had from when the reference is `wanted` itself; released_sha256: of that file.
    architecture: what a seed would fill, as JSON values; with the seed it determines the hash.
    expected_sha256: a cached copy of a URL with this hash is used without asking the source again.

    Raises WeightsError with the file wanted, its home and how to point at a local copy; ConfigError for a bad seed.
    """
    public = public_url(reference)
    if reference.startswith("random:"):
        seed = _seed(reference)
        return ResolvedWeights(None, random_fill.digest(seed, architecture), "", reference, seed, reference)
    if reference.startswith(PREFIX):
        path = packaged_file(reference)
        return ResolvedWeights(path, measured_hash(path), "", reference, None, reference)
    try:
        path, revision = _locate(reference, wanted, storage, released_at, released_sha256, expected_sha256)
        sha256 = measured_hash(path)
    except WeightsError as error:
        raise WeightsError(_advice(public, wanted, where, str(error))) from error
    except Exception as error:
        first = first_line(str(error).replace(reference, public))
        raise WeightsError(_advice(public, wanted, where, f"{type(error).__name__}: {first}")) from error
    return ResolvedWeights(path, sha256, revision, public, None, reference)


def on_this_machine(weights: ResolvedWeights, **how: Any) -> ResolvedWeights:
    """The same weights on the machine of a worker: fetched again if need be, and refused if they are others.

    how: the keyword arguments `resolve` got on the driver.
    """
    if weights.seed is not None:
        return weights
    if weights.path is not None and weights.path.is_file() and hash_file(weights.path) == weights.sha256:
        return weights
    source = weights.source
    if weights.revision:  # "main" may have moved since the driver looked
        source = f"{source.split('@')[0]}@{weights.revision}"
    found = resolve(source, expected_sha256=weights.sha256, **how)
    if found.sha256 != weights.sha256:
        raise WeightsError(
            f"{weights.reference} changed during the run: sha256 {found.sha256[:12]} here, {weights.sha256[:12]} when "
            "the run was planned. Start the run again, or put one copy where every machine reads it."
        )
    return replace(found, reference=weights.reference)


def measured_hash(path: Path) -> str:
    """sha256 of a file of weights, once it is known to be one that can be read in reasonable time.

    Raises WeightsError for a device, a pipe, an empty file or one above LARGEST_FILE: a sparse file of 40 GB takes a
    few bytes of a disk and minutes to hash.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise WeightsError(f"{shown(path)} is not a regular file")
    if state.st_size == 0:
        raise WeightsError(f"{shown(path)} is empty")
    if state.st_size > LARGEST_FILE:
        raise WeightsError(f"{shown(path)} has {state.st_size:,} bytes; weights above {LARGEST_FILE:,} are not read")
    if path.suffix == ".safetensors":
        try:
            read_header(path)  # tells a damaged or sparse file at once
        except ValueError as error:
            raise WeightsError(f"{shown(path)} is not a readable safetensors file ({error})") from None
    return hash_file(path)


def _advice(public: str, wanted: str, where: str, reason: str) -> str:
    return (
        f"weights {quoted(public)} cannot be used: {reason.rstrip('.')}. Wanted: {wanted} from {where}. "
        "Fetch it once by hand and set weights: /path/to/it (a file or its folder)."
    )


def _seed(reference: str) -> int:
    text = reference.removeprefix("random:")
    if not re.fullmatch(r"\d{1,18}", text):
        raise ConfigError(f"weights {quoted(reference)}: expected random:SEED with a whole number, such as random:7")
    return int(text)


def _locate(
    reference: str, wanted: str, storage: Storage | None, released_at: str, released_sha256: str, expected: str
) -> tuple[Path, str]:
    if "://" in reference and not reference.startswith("file://"):
        return _from_url(reference, wanted, storage, expected), ""
    local = Path(reference.removeprefix("file://")).expanduser()
    if local.exists():
        return (_pick(local, wanted) if local.is_dir() else local).absolute(), ""
    if released_at and reference == wanted:
        return _released(wanted, released_at, released_sha256), ""
    match = HUB_REFERENCE.fullmatch(reference)
    if match and not reference.endswith(FILE_SUFFIXES):
        return _from_hub(match["repo"], match["revision"])
    raise WeightsError("no such file or folder, and neither a URL nor a hub id (owner/name)")


def _pick(folder: Path, wanted: str) -> Path:
    for name in (wanted, MODEL_FILE):
        if (folder / name).is_file():
            return folder / name
    held = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in held if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
    note = f"; {shown(pickles[0], 80)} is a pickle and is not read, save it as safetensors" if pickles else ""
    raise WeightsError(f"the folder has no {wanted} (found {listed(held, 6) or 'nothing'}{note})")


def _from_hub(repository: str, revision: str | None) -> tuple[Path, str]:
    """Only the files of `HUB_FILES`: never pickles, never code. Offline when HF_HUB_OFFLINE is set."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    return _pick(folder, MODEL_FILE), folder.name


def _released(name: str, url: str, sha256: str) -> Path:
    """A published file from a cache or from `url`, if it is the one of this sha256; without one, of that in its name.

    A name carries 8 hex digits only, and a file made to agree with those can be found in hours.
    """
    match = re.search(r"-([0-9a-f]{8})\.", name)
    prefix = sha256 or (match[1] if match else "")
    torch_home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
    for folder in (cache_root(), Path(torch_home) / "hub" / "checkpoints"):  # the second is pytorch-fid's own place
        if (folder / name).is_file() and measured_hash(folder / name).startswith(prefix):
            return folder / name
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise WeightsError("not on this machine, and HF_HUB_OFFLINE forbids downloading")
    target = cache_root() / name
    with atomic(target) as stream, urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
        copy_bounded(answer, stream, LARGEST_FILE)
        stream.flush()
        found = hash_file(Path(stream.name))
        if not found.startswith(prefix):
            raise WeightsError(f"the download has sha256 {found[:8]}..., not {prefix[:8]}...: damaged or another file")
    return target


def _from_url(url: str, wanted: str, storage: Storage | None, expected: str) -> Path:
    """A file, or the known files of a folder, copied into the cache; only a copy known to be current is reused."""
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2]
    is_file = name.endswith(FILE_SUFFIXES)
    folder = cache_root() / hashlib.blake2b(public_url(url).encode(), digest_size=10).hexdigest()
    folder.mkdir(exist_ok=True, mode=0o700)
    if is_file:
        return fetch(url, folder / name, storage, expected)
    if parts.query:
        raise WeightsError("a URL with a query must name one file, not a folder")
    base = url.rstrip("/")
    for extra in HUB_FILES[:-1]:
        try:
            fetch(f"{base}/{extra}", folder / extra, storage, "", LARGEST_JSON)
        except (FileNotFoundError, StorageError) as error:  # may be absent, but a busy bucket must not look like that
            if isinstance(error, StorageError) and getattr(error, "code", "") != "not_found":
                raise
            (folder / extra).unlink(missing_ok=True)
    file = wanted if wanted.endswith(FILE_SUFFIXES) else MODEL_FILE
    return fetch(f"{base}/{file}", folder / file, storage, expected)
