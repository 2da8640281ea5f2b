"""Who may use a Ray: a token for each local one, and whether a joined one asks for any.

Ray's ports accept tasks and jobs, which are any code, from whoever reaches them, on every network interface of the
machine. Token authentication is what stands before them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
ASK_TIMEOUT_S = 3.0


@contextmanager
def own_token() -> Iterator[None]:
    """A random token for the Ray that is started within the block, whatever the environment says of other clusters.

    It stands in the environment of this process and of Ray's, in no file and on no command line.
    """
    before = {name: os.environ.get(name) for name in (_MODE, _TOKEN, _TOKEN_PATH)}
    os.environ |= {_MODE: "token", _TOKEN: secrets.token_hex(32)}
    os.environ.pop(_TOKEN_PATH, None)
    _reload()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reload()


def _reload() -> None:
    """Ray keeps mode and token of its first use for the life of a process."""
    from ray import _raylet

    library: Any = _raylet
    library.Config.initialize("")
    library.AuthenticationTokenLoader.instance().reset_cache()


class Answer(Enum):
    """What came back from a call without a token. OTHER: what listens there is no head of a Ray."""

    OPEN = "open"
    TOKEN = "token"
    OTHER = "other"
    SILENT = "silent"


def asked(address: str, timeout_s: float = ASK_TIMEOUT_S) -> Answer:
    """What the head of a Ray at host:port says to a call without a token, within `timeout_s` seconds."""
    import grpc

    request = b""  # an empty protocol buffer message: list nothing of no namespace
    # Ray itself goes through no proxy.
    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        call = channel.unary_unary("/ray.rpc.InternalKVGcsService/InternalKVKeys")
        call(request, timeout=timeout_s)
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Answer.SILENT
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED):  # it speaks something else
            return Answer.OTHER
        return Answer.TOKEN if code == grpc.StatusCode.UNAUTHENTICATED else Answer.OPEN
    finally:
        channel.close()
    return Answer.OPEN


def asks_for_token(address: str) -> bool | None:
    """Whether the Ray whose GCS is at host:port refuses a call without a token; None when it cannot be known."""
    return {Answer.OPEN: False, Answer.TOKEN: True}.get(asked(address))
