"""The plan of a run: everything decided and checked before a cluster starts. `--dry-run` prints it.

Reading manifests and hashing weights is all the work done here, so a wrong path, a missing weight file, a typo or an
impossible subset costs seconds.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from chexray.config import EncoderConfig, MetricConfig, RunConfig, SetConfig, StorageConfig
from chexray.data import manifest as manifests
from chexray.data.manifest import Manifest
from chexray.data.sources import infer
from chexray.data.subsets import Subset, deduplicate_prompts, expand, inherit_by_prompt
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.errors import ConfigError
from chexray.metrics.base import Metric
from chexray.protocols import Protocol, merged, protocol
from chexray.registry import find
from chexray.storage import Storage, absolute, basename, join


@dataclass(frozen=True)
class Plan:
    """A checked run. encoders: {label: (encoder, spec)}; metrics: {key: metric}; run_uri: where its files go."""

    config: RunConfig
    protocol: Protocol
    storage: Storage
    real: Manifest
    synthetic: tuple[Manifest, ...]
    encoders: dict[str, tuple[Encoder, EncoderSpec]]
    metrics: dict[str, Metric]
    subsets: tuple[Subset, ...]

    @property
    def sets(self) -> tuple[Manifest, ...]:
        return (self.real, *self.synthetic)

    @property
    def run_id(self) -> str:
        """`<name>-<10 hex>`, the hex over config, images and weights: the same question asked again is the same run."""
        digest = hashlib.blake2b(self.config.fingerprint.encode(), digest_size=5)
        for part in [manifest.fingerprint for manifest in self.sets]:
            digest.update(part.encode())
        for label, (_, spec) in self.encoders.items():
            digest.update(f"{label}={spec.fingerprint}".encode())
        return f"{self.config.name}-{digest.hexdigest()}"

    @property
    def run_uri(self) -> str:
        return join(absolute(self.config.output), self.run_id)

    @property
    def store_uri(self) -> str:
        return absolute(self.config.feature_store or join(absolute(self.config.output), "features"))

    def metrics_of(self, label: str) -> dict[str, Metric]:
        """The metrics that make sense on this encoder (the Inception score needs logits)."""
        outputs = self.encoders[label][1].outputs
        return {key: metric for key, metric in self.metrics.items() if {metric.reads, metric.requires} <= set(outputs)}

    @property
    def images(self) -> dict[str, str]:
        """{image_key: uri} over all sets in manifest order; an image named twice is encoded once."""
        images: dict[str, str] = {}
        for manifest in self.sets:
            keys, uris = manifest.table["image_key"].to_pylist(), manifest.table["uri"].to_pylist()
            for key, uri in zip(keys, uris, strict=True):
                images.setdefault(key, uri)
        return images

    @property
    def notes(self) -> list[str]:
        notes = list(self.protocol.notes)
        for manifest in self.sets:
            notes += [f"{manifest.name}: {note}" for note in manifest.notes]
            notes += [f"{manifest.name}: {n} rows left out ({why})" for why, n in manifest.excluded.items() if n]
        return notes

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        lines = [f"run        {self.run_id}  (protocol {self.protocol.name}: {self.protocol.summary})"]
        for manifest in self.sets:
            counts = f"{len(manifest):,} images"
            if len(manifest.rejects):
                counts += f", {len(manifest.rejects):,} rejected already"
            lines.append(f"{manifest.origin:<10} {manifest.name}: {counts}")
        for label, (_, spec) in self.encoders.items():
            outputs = ", ".join(f"{name} {width}" for name, width in spec.outputs.items())
            weights = f"{spec.weights} {spec.weights_sha256[:12]}".strip() if spec.weights_sha256 else spec.weights
            lines.append(
                f"encoder    {label}: {outputs}; {spec.preprocessing}; {spec.precision}"
                + (f"; weights {weights}" if weights else "")
            )
            lines.append(f"           metrics: {', '.join(self.metrics_of(label))}")
        names = [subset.name for subset in self.subsets]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        lines.append(f"subsets    {len(names)}: {shown}")
        cells = sum(len(self.metrics_of(label)) for label in self.encoders) * len(names) * len(self.synthetic)
        lines.append(f"results    {cells:,} cells -> {self.run_uri}")
        return lines


def make_plan(config: RunConfig) -> Plan:
    """Reads manifests, finds weights and builds metrics. Raises a ChexrayError that says what to change."""
    preset = protocol(config.protocol)
    storage = make_storage(config.storage)
    metrics = _metrics(config.metrics, preset)
    names = _set_names(config)
    encoders = _encoders(config.encoders, preset, storage)
    real = _manifest(config.real, names[0], "real", config, storage)
    synthetic = [
        _manifest(item, name, "synthetic", config, storage)
        for item, name in zip(config.synthetic, names[1:], strict=True)
    ]
    # Labels come from all real rows of a prompt, so inherit before any row is left out.
    synthetic = [inherit_by_prompt(item, real, mode=preset.inherit) for item in synthetic]
    if preset.deduplicate_real_prompts:
        real = deduplicate_prompts(real)
    subsets = expand(config.subsets, real, synthetic)
    plan = Plan(config, preset, storage, real, tuple(synthetic), encoders, metrics, tuple(subsets))
    used = {key for label in encoders for key in plan.metrics_of(label)}
    for key in metrics:
        if key not in used:
            raise ConfigError(
                f"metric {key!r} needs {metrics[key].requires!r}, which none of the encoders "
                f"({', '.join(encoders)}) gives. Add inception_v3, or drop the metric."
            )
    return plan


def make_storage(config: StorageConfig) -> Storage:
    settings: dict[str, Any] = config.model_dump(exclude={"key", "secret", "token"})
    for name, value in (("key", config.key), ("secret", config.secret), ("token", config.token)):
        settings[name] = value.get_secret_value() if value else None
    return Storage(**settings)


def _set_names(config: RunConfig) -> list[str]:
    names = [
        item.name or basename(str(item.options.get("path", "")).rstrip("/")).split(".")[0] or item.source or origin
        for item, origin in [(config.real, "real"), *((item, "synthetic") for item in config.synthetic)]
    ]
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ConfigError(f"two sets are called {double!r}: give each its own `name`.")
    return names


def _checked(cls: Any, options: dict[str, Any], what: str) -> Any:
    """An instance of a dataclass from config options; unknown or missing options are ConfigErrors."""
    if isinstance(cls, type) and is_dataclass(cls):
        known = [item.name for item in fields(cls) if item.init]
        for key in options:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
                raise ConfigError(f"{what} has no option {key!r}. {hint}")
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {error}. Options given: {', '.join(options) or 'none'}.") from None


def _manifest(item: SetConfig, name: str, origin: str, config: RunConfig, storage: Storage) -> Manifest:
    options = item.options
    kind = item.source or infer(str(options.get("path", "")), storage)
    if kind == "phantom" and "path" not in options:
        options["path"] = join(absolute(config.output), "phantoms", name)
    source = _checked(find("sources", kind), options, f"source {kind!r} of set {name!r}")
    return manifests.load(name, origin, source, storage, on_duplicate=item.on_duplicate, limit=config.limit)


def _encoders(
    items: Sequence[EncoderConfig], preset: Protocol, storage: Storage
) -> dict[str, tuple[Encoder, EncoderSpec]]:
    encoders = {}
    for item in items:
        fixed = preset.encoder_options.get(item.name, {})
        options = merged(fixed, item.options, what=item.name, protocol_name=preset.name)
        given = {"weights": item.weights} if item.weights else {}
        cls = find("encoders", item.name)
        encoder = _checked(cls, {**options, **given, "precision": item.precision, "storage": storage}, item.name)
        encoders[item.label] = (encoder, encoder.resolve())
    return encoders


def _metrics(items: Sequence[MetricConfig], preset: Protocol) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for item in items:
        fixed = preset.metric_options.get(item.name, {})
        options = merged(fixed, item.options, what=item.name, protocol_name=preset.name)
        key = item.name if item.name not in metrics else f"{item.name}#{len(metrics)}"
        metrics[key] = _checked(find("metrics", item.name), options, f"metric {item.name!r}")
    return metrics
