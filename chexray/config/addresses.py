"""What an address of a Ray to join, and what the place of files of a run may look like. Nothing is asked of the
network here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chexray.errors import ResourceError
from chexray.text import quoted

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/@?#\[\]]+):([0-9]{1,5})")
FORMS = "host:port of the head, such as head:6379, or auto on a machine of the cluster"


def ray_address(setting: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """(address, the setting that says so) of the cluster to join; two empty strings for a local Ray.

    `ray.address` wins over RAY_ADDRESS. Blanks around it go; "local" is Ray's word for a Ray of one's own.
    """
    for name, text in (("ray.address", setting), ("RAY_ADDRESS", environment.get("RAY_ADDRESS"))):
        address = (text or "").strip()
        if address:
            return ("", "") if address == "local" else (address, name)
    return "", ""


def place_problem(path: str, value: object) -> str:
    """Why no run reads or writes at a place that a setting names; "" where it may, and for other values."""
    if not isinstance(value, str):
        return ""
    if value.startswith("memory://"):
        return (
            f"{path}: memory:// is the memory of one process, and the workers of a run have their own. Name a folder, "
            "s3:// or another place that all of them reach"
        )
    if "weights" not in path and re.match(r"https?://[^?#]*[?#]", value):
        return f"{path}: an address is used without what follows ? or #. Leave it out, or fetch the file once"
    return ""


def check_joinable(address: str, setting: str) -> None:
    """Raises ResourceError for an address that a run cannot join, with the form that it can."""
    scheme, found, rest = address.partition("://")
    if found and "@" not in address and "?" not in address:  # which may hold a password
        host = re.split(r"[:/]", rest)[0] or "HOST"
        if scheme in ("http", "https"):
            raise ResourceError(
                f"{address} is a dashboard, which takes jobs. Use `chexray submit CONFIG --address {address}`, or set "
                f"{setting} to host:6379, or to auto inside the cluster."
            )
        if scheme == "ray":
            raise ResourceError(
                f"{address} is a port of Ray Client, which a run cannot use. From outside the cluster use `chexray "
                f"submit CONFIG --address http://{host}:8265`; on a machine of it set {setting} to {host}:6379, or to "
                "auto."
            )
    match = _HOST_PORT.fullmatch(address)
    if address == "auto" or (match and 0 < int(match[2]) < 65536):
        return
    text = quoted(address) if not set("@?") & set(address) else "no address of a cluster"
    raise ResourceError(f"{setting} is {text}: expected {FORMS}. Unset it to run on this machine.")
