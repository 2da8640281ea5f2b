"""Which proxy of the environment a request goes through. Names of variables only: their values may hold a password."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import proxy_bypass


def proxy_hint(url: str) -> str:
    """A sentence that names the variable whose proxy catches requests to `url`, and NO_PROXY; "" where none does.

    For the end of a message about a server that does not answer: within a cluster or on this machine it is often the
    proxy that cannot reach it.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:  # brackets that do not match
        return ""
    names = [f"{parts.scheme}_proxy".upper(), f"{parts.scheme}_proxy", "ALL_PROXY", "all_proxy"]
    name = next((each for each in names if os.environ.get(each)), None)
    if not host or not name or proxy_bypass(host):
        return ""
    return f" Requests go through the proxy of {name}: for a server that it cannot reach, add {host} to NO_PROXY."
