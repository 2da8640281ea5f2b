"""Names and options of what a config asks for, checked where no image or weight file is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chexray.config import RunConfig
from chexray.errors import ConfigError
from chexray.plan.encoders import make_encoder, make_metric
from chexray.plan.names import key_of
from chexray.plan.sets import source_of
from chexray.protocols import protocol
from chexray.registry import names, unknown
from chexray.storage import Storage
from chexray.suite_names import FIDELITY


def check_names(config: RunConfig, brought_by: str = "") -> list[str]:
    """Notes on names that are not known here, where something may bring them to the cluster (`brought_by`).

    Raises ConfigError for the first of them where nothing may, and for options that do not fit what is known here.
    """
    parts = list(_parts(config))
    lines = list(dict.fromkeys(unknown(kind, name) for kind, name, _ in parts if name not in names(kind)))
    if lines and not brought_by:
        raise ConfigError(f"{lines[0]} A package that only the cluster has must be installed here too.")
    for kind, name, build in parts:
        if name in names(kind):
            build()
    return [f"{line} It is not known here; {brought_by} must bring it" for line in lines]


def _parts(config: RunConfig) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(kind, name, what builds it) of everything that the config names and the run reads."""
    preset, storage = protocol(config.protocol), Storage()
    for encoder in config.encoders if config.encoding_suites else ():
        yield "encoders", encoder.name, lambda item=encoder: make_encoder(item, config, preset, storage)
    for metric in config.metrics if FIDELITY in config.suite else ():
        yield "metrics", metric.name, lambda item=metric: make_metric(item, preset)
    for item in (config.real, config.training, config.heldout, *config.synthetic):
        if item and item.source:  # else it follows from the path, which may be the cluster's
            name = item.name or key_of(config, item)
            yield "sources", item.source, lambda item=item, name=name: source_of(item, name, config, storage)
