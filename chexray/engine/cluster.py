"""One Ray, and a quiet one: joins the cluster of RAY_ADDRESS, or starts a local one and ends it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from chexray.config import RayConfig
from chexray.config.addresses import ray_address
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.authentication import own_token
from chexray.engine.joining import join
from chexray.engine.local_ray import shut_down, start
from chexray.engine.pools import Resources
from chexray.engine.quiet import quiet_environment, quiet_ray
from chexray.log import say
from chexray.storage.places import choose
from chexray.storage.scratch import scratch


@contextmanager
def cluster(config: RayConfig, *, verbose: bool = False) -> Iterator[Resources]:
    """A connected Ray. A local one asks everyone for a token of its own, and is shut down on exit, its files removed; a
    joined one, entered with the user's own token, is only left, and it is said when it asks for none.

    Raises ResourceError when no Ray can be joined or started.
    """
    quiet_environment(verbose)
    import ray

    started = time.monotonic()
    address, setting = ray_address(config.address, os.environ)
    owns = not ray.is_initialized()
    with ExitStack() as stack:
        if owns and not address:
            place, notes = choose(config.temp_dir, os.environ)
            for note in notes:
                say(note)
            # Ray makes its folder readable and writable by all; so it gets one inside a folder that nobody enters.
            folder = stack.enter_context(scratch(at=place, note=say))
            stack.enter_context(own_token())
        if owns:
            stack.callback(shut_down)
            common = {"log_to_driver": verbose, "logging_level": "info" if verbose else "error"}
            if address:
                join(address, setting, common, verbose)
            else:
                start(config, common, folder, verbose)
        quiet_ray(verbose)
        forget_extension_types()
        yield measured(joined=bool(address) or not owns, startup_s=time.monotonic() - started)


def measured(*, joined: bool, startup_s: float = 0.0) -> Resources:
    """What the connected cluster has now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Resources.of(alive, joined=joined, startup_s=startup_s)
