"""Names and options of a config's metrics, encoders and sources, checked where no image or weight file is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chexray.config import RunConfig
from chexray.plan.building import make_encoder, suites_asked
from chexray.plan.options import checked
from chexray.plan.plan import FIDELITY, UTILITY
from chexray.protocols import merged, protocol
from chexray.registry import find, names
from chexray.storage import Storage
from chexray.text import quoted


def check_options(config: RunConfig) -> None:
    """Raises ConfigError where options of a metric, an encoder or a source that is known here do not fit it."""
    for kind, name, build in _parts(config):
        if name in names(kind):
            build()


def _parts(config: RunConfig) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(kind, name, what builds it) of everything that the config names and the run reads."""
    preset, storage = protocol(config.protocol), Storage()
    if FIDELITY in config.suite:
        for metric in config.metrics:
            yield "metrics", metric.name, lambda item=metric: _metric(item.name, item.options, preset)
    if config.suite != [UTILITY]:
        for encoder in config.encoders:
            asked = suites_asked(encoder, config)
            yield "encoders", encoder.name, lambda item=encoder, s=asked: make_encoder(item, preset, storage, s)
    for item in (config.real, config.training, config.heldout, *config.synthetic):
        if item and item.source:  # else it follows from the path, which may be the cluster's
            yield "sources", item.source, lambda item=item: _source(item.source, item.options)


def _metric(name: str, options: dict[str, Any], preset: Any) -> Any:
    fixed = preset.metric_options.get(name, {})
    options = merged(fixed, options, what=name, protocol_name=preset.name)
    return checked(find("metrics", name), options, f"metric {quoted(name)}")


def _source(name: str, options: dict[str, Any]) -> Any:
    place = {"path": ""} if name == "phantom" else {}  # its folder follows from the output
    return checked(find("sources", name), {**place, **options}, f"source {quoted(name, 60)}")
