"""Where weights come from and what may be loaded: a file, a folder, a URL, a hub repository, or a seed.

`resolve` finds them and hashes them; `checkpoints` reads them. Of a hub repository only the three files of `HUB_FILES`
are fetched: never a pickle, never code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from chexray.encoders import random_fill
from chexray.errors import ConfigError, StorageError, WeightsError
from chexray.storage import is_remote

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
    storage: Any = None,
    released_at: str = "",
    architecture: Any = None,
    expected_sha256: str = "",
) -> ResolvedWeights:
    """Finds the weights a config names and hashes them; downloads what is not on this machine into a private cache.

    reference: "random:SEED", a file, a folder, an fsspec URL ("s3://...") of either, or a hub id "owner/name@revision".
    wanted: the file to look for in a folder; where: its home, for the error text.
    storage: a `chexray.storage.Storage`, or anything with its `read(uri) -> bytes`: it then reads s3:// URLs.
    released_at: the URL `wanted` can be had from when the reference is `wanted` itself.
    architecture: what a seed would fill, as JSON values; with the seed it determines the hash.
    expected_sha256: a cached copy of a URL with this hash is used without asking the source again.

    Raises WeightsError with the file wanted, its home and how to point at a local copy; ConfigError for a bad seed.
    """
    public = _public(reference)
    if reference.startswith("random:"):
        seed = _seed(reference)
        return ResolvedWeights(None, random_fill.digest(seed, architecture), "", reference, seed, reference)
    try:
        path, revision = _locate(reference, wanted, storage, released_at, expected_sha256)
        if path.stat().st_size == 0:
            raise WeightsError(f"{path} is empty")
        sha256 = hash_file(path)
    except WeightsError as error:
        raise WeightsError(_advice(public, wanted, where, str(error))) from error
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0].replace(reference, public)
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


def hash_file(path: Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_root() -> Path:
    """`$CHEXRAY_CACHE/weights`, or `~/.cache/chexray/weights`; readable by this user only."""
    root = Path(os.environ.get("CHEXRAY_CACHE") or Path.home() / ".cache" / "chexray") / "weights"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


def _advice(public: str, wanted: str, where: str, reason: str) -> str:
    return (
        f"weights {public!r} cannot be used: {reason.rstrip('.')}. Wanted: {wanted} from {where}. "
        "Fetch it once by hand and set weights: /path/to/it (a file or its folder)."
    )


def _public(reference: str) -> str:
    """The reference without user, password, query or fragment: presigned URLs carry secrets there."""
    if "://" not in reference:
        return reference
    parts = urlsplit(reference)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _seed(reference: str) -> int:
    text = reference.removeprefix("random:")
    if not re.fullmatch(r"\d{1,18}", text):
        raise ConfigError(f"weights {reference!r}: expected random:SEED with a whole number, such as random:7")
    return int(text)


def _locate(reference: str, wanted: str, storage: Any, released_at: str, expected: str) -> tuple[Path, str]:
    if "://" in reference and not reference.startswith("file://"):
        return _from_url(reference, wanted, storage, expected), ""
    local = Path(reference.removeprefix("file://")).expanduser()
    if local.exists():
        return (_pick(local, wanted) if local.is_dir() else local).absolute(), ""
    if released_at and reference == wanted:
        return _released(wanted, released_at), ""
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
    note = f"; {pickles[0]} is a pickle and is not read, save it as safetensors" if pickles else ""
    raise WeightsError(f"the folder has no {wanted} (found {', '.join(held[:6]) or 'nothing'}{note})")


def _from_hub(repository: str, revision: str | None) -> tuple[Path, str]:
    """Only the files of `HUB_FILES`: never pickles, never code. Offline when HF_HUB_OFFLINE is set."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    return _pick(folder, MODEL_FILE), folder.name


def _released(name: str, url: str) -> Path:
    """A published file whose name carries the start of its sha256, from a cache or from `url`."""
    match = re.search(r"-([0-9a-f]{8})\.", name)
    prefix = match[1] if match else ""
    torch_home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
    for folder in (cache_root(), Path(torch_home) / "hub" / "checkpoints"):  # the second is pytorch-fid's own place
        if (folder / name).is_file() and hash_file(folder / name).startswith(prefix):
            return folder / name
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise WeightsError("not on this machine, and HF_HUB_OFFLINE forbids downloading")
    target = cache_root() / name
    with _atomic(target) as stream, urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:
        shutil.copyfileobj(answer, stream)
        stream.flush()
        found = hash_file(Path(stream.name))
        if not found.startswith(prefix):
            raise WeightsError(f"the download has sha256 {found[:8]}..., not {prefix}...: damaged or another file")
    return target


def _from_url(url: str, wanted: str, storage: Any, expected: str) -> Path:
    """A file, or the known files of a folder, copied into the cache; only a copy known to be current is reused."""
    parts = urlsplit(url)
    name = parts.path.rstrip("/").rpartition("/")[2]
    is_file = name.endswith(FILE_SUFFIXES)
    folder = cache_root() / hashlib.blake2b(_public(url).encode(), digest_size=10).hexdigest()
    folder.mkdir(exist_ok=True, mode=0o700)
    if is_file:
        return _fetch(url, folder / name, storage, expected)
    if parts.query:
        raise WeightsError("a URL with a query must name one file, not a folder")
    base = url.rstrip("/")
    for extra in HUB_FILES[:-1]:
        try:
            _fetch(f"{base}/{extra}", folder / extra, storage, "")
        except (FileNotFoundError, StorageError) as error:  # may be absent, but a busy bucket must not look like that
            if isinstance(error, StorageError) and getattr(error, "code", "") != "not_found":
                raise
            (folder / extra).unlink(missing_ok=True)
    file = wanted if wanted.endswith(FILE_SUFFIXES) else MODEL_FILE
    return _fetch(f"{base}/{file}", folder / file, storage, expected)


def _fetch(url: str, target: Path, storage: Any, expected: str) -> Path:
    note = target.with_name(target.name + ".json")
    sha256 = hash_file(target) if target.is_file() else ""
    if expected and sha256 == expected:
        return target
    state = _remote_state(url, storage)
    if sha256:
        known = json.loads(note.read_text()) if note.is_file() else {}
        if state and known == {"state": state, "sha256": sha256}:
            return target
    with _atomic(target) as stream:
        if _through(storage, url):
            stream.write(storage.read(url))
        else:
            import fsspec

            with fsspec.open(url, "rb") as source:
                shutil.copyfileobj(source, stream)  # pyright: ignore[reportArgumentType]
    with _atomic(note) as stream:
        stream.write(json.dumps({"state": state, "sha256": hash_file(target)}).encode())
    return target


def _through(storage: Any, url: str) -> bool:
    """True when `storage` reads this URL: it speaks S3, and knows endpoint and credentials; fsspec knows the rest."""
    return storage is not None and is_remote(url)


def _remote_state(url: str, storage: Any) -> str:
    """Size and version of a remote file as its server tells them, or "" when it tells nothing that can be trusted."""
    if _through(storage, url):
        found = storage.stat([url])[0] if hasattr(storage, "stat") else None
        return f"{found.size}/{found.version}" if found and found.version else ""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    facts = filesystem.info(path)
    version = next((facts[key] for key in ("ETag", "etag", "mtime", "LastModified", "updated") if facts.get(key)), "")
    return f"{facts.get('size')}/{version}" if version else ""


@contextlib.contextmanager
def _atomic(target: Path):
    """A temporary file beside `target` that replaces it only when everything went well: two workers may race."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as stream:
        try:
            yield stream
            stream.flush()
            os.replace(stream.name, target)
        except BaseException:
            os.unlink(stream.name)
            raise
