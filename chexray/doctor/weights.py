"""Weights of the encoders and of the classifier: where they are, how large, and their hash. A hub is only asked."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from chexray.config import DEFAULT_ENCODERS, EncoderConfig, parse_config
from chexray.doctor.case import Case, Check, PendingCheck, fail, not_asked, note, ok, size
from chexray.encoders.packaged import PackageMissing
from chexray.errors import WeightsError
from chexray.storage import is_s3
from chexray.suite_names import UTILITY

HUB_TIMEOUT_S = 5.0
WEIGHTS_S = 180.0
"""For one encoder: weights on S3 are fetched into the cache of this machine, as a run does."""


def default_pending() -> list[PendingCheck]:
    """Without a config: whether the encoders of a command line that names none can be loaded here."""
    names = ",".join(DEFAULT_ENCODERS.values()).split(",")
    case = Case(parse_config({"real": "-", "synthetic": "-", "encoders": list(dict.fromkeys(names))}))
    late = "Fetch them once by hand and name the file: --set encoders.0.weights=/path/to/it."
    return [
        PendingCheck(f"encoder {item.name}", partial(default, case, item), WEIGHTS_S, late)
        for item in case.run.encoders
    ]


def default(case: Case, item: EncoderConfig) -> Check:
    """One of the default encoders, with what to write where its weights cannot be had."""
    found = encoder(case, item)
    if found.state != "FAIL":
        return found
    return replace(found, fix=f"{found.fix} Or choose --encoders pixels, which needs no weights, for a first look.")


def pending(case: Case) -> list[PendingCheck]:
    late = "Fetch them once by hand and set weights to the file."
    found = [
        PendingCheck(f"weights {item.label}", partial(encoder, case, item), WEIGHTS_S, late)
        for item in case.run.encoders
        if case.run.encoding_suites
    ]
    if UTILITY in case.run.suite:
        found.append(PendingCheck("weights of utility", lambda: classifier(case), WEIGHTS_S, late))
    return found


def encoder(case: Case, item: EncoderConfig) -> Check:
    """The weights of one encoder, found as a run finds them, and the flag that names others. Raises ConfigError."""
    try:
        found = _encoder(case, item)
    except PackageMissing as error:
        return note(str(error), "") if item.on_missing == "skip" else fail(str(error))
    except WeightsError as error:
        found = fail(str(error))
    if found.state != "FAIL":
        return found
    flag = f"On the command line: --set encoders.{case.run.encoders.index(item)}.weights=/path/to/it."
    return replace(found, fix=f"{found.fix} {flag}".strip())


def _encoder(case: Case, item: EncoderConfig) -> Check:
    from chexray.encoders.network import NetworkEncoder
    from chexray.plan.encoders import make_encoder
    from chexray.protocols import protocol

    if is_s3(item.weights or "") and case.s3_down:
        return not_asked(case)
    built = make_encoder(item, case.run, protocol(case.run.protocol), case.storage)
    if not isinstance(built, NetworkEncoder):
        spec = built.resolve()
        return ok("needs no weights" if spec.weights == "none" else spec.weights)
    how = built.sources()
    reference = how["reference"]
    if hub := hub_id(reference):
        return on_hub(*hub)
    if reference == how["wanted"] and how.get("released_at") and not _is_here(reference):
        return released(reference, how["released_at"])
    spec = built.resolve()
    if spec.is_random:
        return note(f"{spec.weights}: random weights: its numbers are not comparable with others.", "Set its weights.")
    assert built.found is not None
    assert built.found.path is not None
    return ok(f"{spec.weights}: {_described(built.found.path, spec.weights_sha256)}")


def classifier(case: Case) -> Check:
    """The weights that the utility suite starts from."""
    import timm

    from chexray.utility.classification.classifier import find_weights

    model = case.run.utility.model
    if is_s3(model.weights) and case.s3_down:
        return not_asked(case)
    find_weights(model.name, "none")  # refuses a model that does not exist
    if model.weights == "none":
        return ok(f"{model.name}, trained from scratch")
    reference = model.weights
    if reference == "pretrained":
        known = timm.get_pretrained_cfg(model.name)
        reference = (known.hf_hub_id if known else None) or reference
    if hub := hub_id(reference):
        return on_hub(*hub)
    found = find_weights(model.name, reference, case.storage)
    assert found is not None
    assert found.path is not None
    return ok(f"{model.name}, {found.reference}: {_described(found.path, found.sha256)}")


def hub_id(reference: str) -> tuple[str, str | None] | None:
    """(repository, revision) when `resolve` would take a reference for a hub id."""
    from chexray.encoders.weights import FILE_SUFFIXES, HUB_REFERENCE

    if "://" in reference or reference.startswith("random:") or Path(reference).expanduser().exists():
        return None
    found = HUB_REFERENCE.fullmatch(reference)
    return (found["repo"], found["revision"]) if found and not reference.endswith(FILE_SUFFIXES) else None


def on_hub(repository: str, revision: str | None) -> Check:
    """A repository of the hub: in the cache of this machine, or at least to be had."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, snapshot_download

    from chexray.encoders.weights import HUB_FILES, MODEL_FILE, measured_hash

    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES), local_files_only=True)
        path = Path(folder, MODEL_FILE)
        if path.is_file():
            return ok(
                f"{repository} at {path.parent.name[:8]}: {_described(path, measured_hash(path))}, in the hub cache"
            )
    except OSError:  # what the hub's errors are; a ValueError among them is one too
        pass
    by_hand = f"Fetch {MODEL_FILE} and its JSON files from {repository} and set weights to their folder."
    if constants.HF_HUB_OFFLINE:
        return fail(f"{repository} is not in the hub cache, and HF_HUB_OFFLINE forbids to ask.", by_hand)
    try:
        facts = get_hf_file_metadata(hf_hub_url(repository, MODEL_FILE, revision=revision), timeout=HUB_TIMEOUT_S)
    except Exception as error:  # its errors come from three libraries
        kind = type(error).__name__
        return fail(f"{repository} is neither in the hub cache nor available from the hub ({kind}).", by_hand)
    return note(f"{repository} is not in the hub cache yet; the first run fetches {size(facts.size or 0)}.")


def released(name: str, url: str) -> Check:
    """A published file that is not here: whether it can be fetched."""
    import urllib.request

    by_hand = f"Fetch {url} and set weights to the file."
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return fail(f"{name} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it.", by_hand)
    try:
        asked = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(asked, timeout=HUB_TIMEOUT_S) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError) as error:
        return fail(f"{name} is not on this machine, and its server does not answer ({type(error).__name__}).", by_hand)
    return note(f"{name} is not on this machine yet; the first run fetches {size(length)}.")


def _is_here(name: str) -> bool:
    """Whether a published file is in a cache that `resolve` looks into; it still compares the hash."""
    from chexray.encoders.weights import cache_root

    torch_home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
    return any((folder / name).is_file() for folder in (cache_root(), Path(torch_home) / "hub" / "checkpoints"))


def _described(path: Path, sha256: str) -> str:
    return f"{size(path.stat().st_size)}, sha256 {sha256[:12]}"
