"""Whether a proxy of the environment applies to an address, which for a cluster or a server nearby is seldom meant."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # pyright: ignore[reportAttributeAccessIssue]


def proxy_hint(address: str, environment: Mapping[str, str]) -> str:
    """` HTTP_PROXY applies to HOST. To reach it directly, add HOST to no_proxy.` for the end of a message on
    a connection that failed, with the blank before it; "" where no proxy is in the way.

    address: a URL. Which variables count, and what no_proxy matches, is as in Python's urllib, requests and botocore.
    """
    try:
        parts = urlsplit(address)
        host, scheme = parts.hostname or "", parts.scheme.lower()
    except ValueError:
        return ""
    values = {name.lower(): (name, value) for name, value in environment.items() if value}
    # As curl and urllib do: a variable in small letters wins.
    values |= {name: (name, value) for name, value in environment.items() if value and name.islower()}
    caught = next((values[key][0] for key in (f"{scheme}_proxy", "all_proxy") if key in values), "")
    bypassed = values.get("no_proxy", ("", ""))[1]
    if not host or not caught or proxy_bypass_environment(host, {"no": bypassed}):
        return ""
    return f" {caught} applies to {host}. To reach it directly, add {host} to no_proxy."
