"""Joins a running cluster, after a look at who answers there."""

from __future__ import annotations

import os
import socket
from typing import Any

from chexray.config.addresses import FORMS, check_joinable
from chexray.engine.authentication import Answer, asked
from chexray.engine.quiet import hushed, signals_kept
from chexray.engine.versions import version_mismatch
from chexray.errors import ResourceError
from chexray.log import say

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""For the first answer of a head with much to do."""
OPEN_CLUSTER = (
    "this cluster asks for no token: whoever reaches its ports can run code in it and read its credentials. "
    "Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
)


def join(address: str, setting: str, common: dict[str, Any], verbose: bool) -> None:
    """Raises ResourceError when no cluster of our versions answers. setting: what says the address."""
    import ray

    check_joinable(address, setting)
    try:
        answer = _answer(address) if address != "auto" else None
        with hushed(not verbose), signals_kept():
            ray.init(address=address, **common)
        if (answer or asked(ray.get_runtime_context().gcs_address)) is Answer.OPEN:
            say(f"note: {OPEN_CLUSTER}")
    except (OSError, ValueError, RuntimeError) as error:
        if told := version_mismatch(error):
            raise ResourceError(f"{address}: {told}") from None
        raise ResourceError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0][:160]}). "
            f"Start one with `ray start --head`, correct {setting}, or unset it to run locally."
        ) from None


def _answer(address: str) -> Answer | None:
    """Who answers at host:port; None where it cannot be asked. Raises OSError when nobody does, and ResourceError when
    it is no head of a Ray: at such a port Ray itself is silent for minutes, and then ends the process."""
    knock(address)
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return None
    answer = asked(address, ANSWER_TIMEOUT_S)
    if answer is Answer.OTHER:
        raise ResourceError(
            f"{address} listens, but is not the head of a Ray cluster (its port is 6379 by default). Expected {FORMS}."
        )
    if answer is Answer.SILENT:
        raise OSError(f"it listens, and gave no answer in {ANSWER_TIMEOUT_S:g} s")
    return answer


def knock(address: str) -> None:
    """Raises OSError when nothing listens at host:port; Ray itself would keep trying for minutes."""
    host, found, port = address.rpartition(":")
    if found and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
