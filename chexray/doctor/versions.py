"""Versions of Python, torch, Ray and the packages under chexray, against what its metadata say it supports."""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import platform
import warnings

from chexray import __version__
from chexray.doctor.case import Case, Check, PendingCheck, fail, note, ok

PACKAGE = "chexray"


def pending(case: Case) -> list[PendingCheck]:
    return [
        PendingCheck("chexray", chexray),
        PendingCheck("python", python),
        PendingCheck("packages", packages),
        PendingCheck("torch", torch),
        PendingCheck("gpu", lambda: gpu(case)),
        PendingCheck("ray", lambda: ray(case)),
    ]


def chexray() -> Check:
    found = installed()
    if not found:
        return note(f"{__version__}, read from its source and not installed.", "Workers need it too: pip install .")
    if found != __version__:
        return fail(f"{__version__}, but {found} is what pip installed.", "Install it again: pip install .")
    return ok(__version__)


def installed() -> str:
    """The version of chexray that pip installed, "" when none."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


def python(found: str = "", wanted: str = "") -> Check:
    """found, wanted: a version and its supported range, by default those of here."""
    from packaging.specifiers import SpecifierSet

    found = found or platform.python_version()
    if not wanted:
        try:
            wanted = metadata.metadata(PACKAGE)["Requires-Python"] or ""
        except metadata.PackageNotFoundError:
            return note(found)
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return fail(f"{found}, and chexray needs {wanted}.", "Make an environment with another: python3.12 -m venv.")
    return ok(f"{found} ({wanted})")


def packages(requires: list[str] | None = None) -> Check:
    """Every package that chexray requires. requires: as in its metadata, which are read by default."""
    from packaging.requirements import Requirement

    if requires is None:
        try:
            requires = metadata.requires(PACKAGE) or []
        except metadata.PackageNotFoundError:
            return note("not compared: chexray is not installed, so nothing says which versions it needs.")
    needed = [Requirement(text) for text in requires]
    needed = [item for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    wrong = []
    for item in needed:
        try:
            found = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            wrong.append((item, "missing"))
            continue
        if not item.specifier.contains(found, prereleases=True):
            wrong.append((item, found))
    if wrong:
        said = ", ".join(f"{item.name} {found} (needs {item.specifier})" for item, found in wrong)
        asked = " ".join(f"'{item.name}{item.specifier}'" for item, _ in wrong)
        return fail(f"{said}.", f"pip install {asked}")
    return ok(f"all {len(needed)} that chexray requires, in the versions it supports")


def torch() -> Check:
    """Both import: a torchvision built for another torch is installed without a word and breaks on import."""
    found = []
    for name in ("torch", "torchvision"):
        try:
            module = importlib.import_module(name)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:160]
            beside = f" beside {found[0]}" if found else ""
            return fail(
                f"{name}{beside} cannot be imported ({type(error).__name__}: {first}).",
                "Install a pair that belongs together: pip install --force-reinstall torch torchvision.",
            )
        found.append(f"{name} {module.__version__}")
    import torch

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return ok(f"{', '.join(found)}, {build}")


def gpu(case: Case) -> Check:
    """GPUs as torch sees them, and whether Ray would count others: it then sends work to where there is none."""
    import torch

    from chexray.engine.probing import gpus_of_this_machine

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = gpus_of_this_machine()
    if present > seen:
        why = str(said[0].message).splitlines()[0][:160] if said else f"torch {torch.__version__}"
        detail = f"the machine has {present}, but torch sees {seen} ({why})."
        fix = "Install a CUDA build of torch that suits the driver, or set encode.device=cpu and utility.device=cpu."
        return note(detail, fix) if case.ray_address[0] else fail(detail, fix)
    if not seen:
        return ok("no GPU")
    cards = [torch.cuda.get_device_properties(index) for index in range(seen)]
    return ok(", ".join(f"{card.name} {card.total_memory / 2**30:.0f} GiB" for card in cards))


def ray(case: Case) -> Check:
    """Ray's version, and whether it is said how a cluster is joined: unset, files in the home folder decide."""
    found = metadata.version("ray")
    address, setting = case.ray_address
    if not address:
        return ok(found)
    mode = case.environment.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return ok(f"{found}, RAY_AUTH_MODE=disabled")
    if mode != "token":
        said = f"RAY_AUTH_MODE is {'not set' if not mode else 'neither token nor disabled'}"
        return note(
            f"{found}; {setting} is set, but {said}.",
            "Set RAY_AUTH_MODE=token with RAY_AUTH_TOKEN, or RAY_AUTH_MODE=disabled, as the cluster does.",
        )
    from chexray.engine.probing import token_source

    source = token_source(case.environment)
    if not source:
        return fail(
            f"{found}; RAY_AUTH_MODE=token, but there is no token.",
            "Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file that holds it.",
        )
    return ok(f"{found}, RAY_AUTH_MODE=token, the token from {source}")
