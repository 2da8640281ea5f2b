"""What a plan holds and what follows from it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from chexray.config import RunConfig
from chexray.config.addresses import ray_address
from chexray.data.depth import Depth
from chexray.data.image_list import ImageList
from chexray.data.looks import apart
from chexray.data.manifest import Manifest
from chexray.data.pairs import Pairs
from chexray.data.prompts import labels_of_prompts
from chexray.data.subsets import Subset, is_asked
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.network import NetworkEncoder
from chexray.encoders.options import AUTO
from chexray.encoders.released import likeness
from chexray.metrics.base import Metric, Reads
from chexray.plan.precision import Decision
from chexray.plan.roles import PrivacyRoles
from chexray.plan.utility import UtilityPlan
from chexray.protocols import Protocol
from chexray.storage import Storage, absolute, join
from chexray.suite_names import FIDELITY, PRIVACY, SUITES, UTILITY
from chexray.text import listed, printable, shown

LOCAL_PORTS = (
    "a local Ray listens on port 52365 and about 10 free ports of all interfaces; they require a token that only this "
    "run has. Ports 44217 and 44227 show counters without a token"
)
JOINED_PORTS = "this process listens on a free port for its workers, under the authentication of that cluster"
"""What a run opens (Ray 2.60; tests/engine/test_doors.py asks every port)."""


@dataclass(frozen=True)
class Plan:
    """A checked run.

    encoders: {label: (encoder, spec)}; suites_of: {label: the suites that read it}; metrics: {key: metric}.
    real: what fidelity compares with; the training set where no real set is given. training, heldout: what privacy
    searches, and its null; None where there is none.
    roles: which encoder does what for privacy. pairs: {synthetic set: which image is held against which real one}.
    utility: what is trained on what, None where nothing is. read_by: {synthetic set: the suites that read it}, all of
    them for a set that is not named there.
    remarks: lines to show the user. code: {plug-in metric or source: which code it is}; of encoders, the specs say it.
    precision: {label: what `auto` became} of networks whose precision is `auto`. pinned_id: the run's id, once such a
    precision is decided, which is not part of the question.
    """

    config: RunConfig
    protocol: Protocol
    storage: Storage
    real: Manifest
    synthetic: tuple[Manifest, ...]
    encoders: dict[str, tuple[Encoder, EncoderSpec]]
    suites_of: dict[str, tuple[str, ...]]
    metrics: dict[str, Metric]
    subsets: tuple[Subset, ...]
    training: Manifest | None = None
    heldout: Manifest | None = None
    roles: PrivacyRoles = field(default_factory=PrivacyRoles)
    pairs: dict[str, Pairs] = field(default_factory=dict)
    utility: UtilityPlan | None = None
    read_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = field(default=())
    code: dict[str, str] = field(default_factory=dict)
    precision: dict[str, Decision] = field(default_factory=dict)
    pinned_id: str = ""

    @property
    def plugins(self) -> dict[str, str]:
        """{plug-in that the run uses: which code it is}"""
        return {**self.code, **{label: spec.code for label, (_, spec) in self.encoders.items() if spec.code}}

    def has(self, suite: str) -> bool:
        """Whether the run computes this suite."""
        return suite in self.config.suite

    def encoders_of(self, suite: str) -> dict[str, tuple[Encoder, EncoderSpec]]:
        """The encoders that a suite of this run reads."""
        return {label: pair for label, pair in self.encoders.items() if suite in self.suites_of[label]}

    def sets_of(self, suite: str) -> tuple[Manifest, ...]:
        """The sets that a suite of this run reads, real ones first."""
        if not self.has(suite):
            return ()
        if suite == UTILITY:
            return self.utility.sets if self.utility else ()
        real = (self.real,) if suite == FIDELITY else (self.training, self.heldout)
        return (*(manifest for manifest in real if manifest is not None), *self.synthetic_of(suite))

    def as_grouped(self, manifest: Manifest) -> Manifest:
        """A set with the labels that the protocol's subsets of findings go by: its own, or those of its prompts."""
        by_prompt = self.protocol.subsets_by_prompt and manifest.origin == "synthetic"
        return labels_of_prompts(manifest, self.real) if by_prompt else manifest

    def synthetic_of(self, suite: str) -> tuple[Manifest, ...]:
        """The synthetic sets that a suite of this run reads."""
        return tuple(each for each in self.synthetic if suite in self.read_by.get(each.name, (suite,)))

    @property
    def sets(self) -> tuple[Manifest, ...]:
        """Every set of the run, once."""
        read = [manifest for suite in SUITES for manifest in self.sets_of(suite)]
        real = [manifest for manifest in read if manifest.origin == "real"]
        return tuple({manifest.name: manifest for manifest in (*real, *self.synthetic)}.values())

    @property
    def run_id(self) -> str:
        """`<name>-<10 hex>`, the hex over config, images, weights and plug-ins: the same question is the same run."""
        if self.pinned_id:
            return self.pinned_id
        digest = hashlib.blake2b(self.config.fingerprint.encode(), digest_size=5)
        for part in [manifest.fingerprint for manifest in self.sets]:
            digest.update(part.encode())
        for label, (_, spec) in self.encoders.items():
            digest.update(f"{label}={spec.fingerprint}".encode())
        for name, code in sorted(self.code.items()):
            digest.update(f"{name}={code}".encode())
        for pairs in self.pairs.values():
            if pairs.how == "given":  # the config names the table only, and the sets do not hold it
                digest.update(repr(pairs.table.to_pydict()).encode())
        if self.utility is not None and self.utility.weights is not None:
            digest.update(self.utility.weights.sha256.encode())
        return f"{self.config.name}-{digest.hexdigest()}"

    @property
    def run_uri(self) -> str:
        return join(absolute(self.config.output), self.run_id)

    @property
    def store_uri(self) -> str:
        return absolute(self.config.feature_store or join(absolute(self.config.output), "features"))

    def metrics_of(self, label: str) -> dict[str, Metric]:
        """The fidelity metrics that make sense on this encoder (the Inception score needs logits)."""
        if FIDELITY not in self.suites_of[label]:
            return {}
        outputs = self.encoders[label][1].outputs
        return {
            key: metric
            for key, metric in self.metrics.items()
            if Reads.of(metric.reads).outputs | {metric.requires} <= set(outputs)
        }

    def likeness(self, label: str) -> dict[str, str]:
        """Params that say whether an encoder is the published network; see `chexray.encoders.released`."""
        said = {item.label: item.weights_are for item in self.config.encoders}
        return likeness(*self.encoders[label], said.get(label))

    @property
    def images(self) -> ImageList:
        """The images of all sets in manifest order; one that is named twice is encoded once."""
        read = {suite: self.sets_of(suite) for suite in self.config.suite}
        readers = {label: [each for suite in self.suites_of[label] for each in read[suite]] for label in self.encoders}
        return ImageList.of_sets(self.sets, readers)

    @property
    def depths(self) -> dict[str, Depth]:
        """{image_key: the depth of its set}"""
        return {
            key: manifest.depth
            for manifest in self.sets
            if manifest.depth is not None
            for key in manifest.table["image_key"].to_pylist()
        }

    @property
    def notes(self) -> list[str]:
        # What was found in this run's own sets comes before what is true of every run of the protocol.
        notes = [*self.remarks, *self.protocol.notes]
        for manifest in self.sets:
            notes += [f"{manifest.name}: {note}" for note in manifest.notes]
            notes += [f"{manifest.name}: {n} rows left out ({why})" for why, n in manifest.excluded.items() if n]
        notes += apart({manifest.name: manifest.looks for manifest in self.sets if manifest.looks is not None})
        notes += [f"{name}: {note}" for name, pairs in self.pairs.items() for note in pairs.notes]
        return list(dict.fromkeys([*notes, *(self.utility.notes if self.utility else ())]))

    def describe(self) -> list[str]:
        """The plan in lines for a person."""
        suites = ", ".join(self.config.suite)
        lines = [f"run        {self.run_id}  ({suites}; protocol {self.protocol.name}: {self.protocol.summary})"]
        for manifest in self.sets:
            counts = f"{len(manifest):,} images"
            if len(manifest.rejects):
                counts += f", {len(manifest.rejects):,} rejected already"
            lines.append(f"{self._role(manifest):<10} {manifest.name}: {counts}")
            if manifest.read_as:
                lines.append(f"           {manifest.read_as}")
            if manifest.card:
                lines.append(f"           {manifest.card}")
            if manifest.images:
                lines.append(f"           images {manifest.images}")
            if manifest.looks is not None:
                lines.append(f"           {manifest.looks.describe()}")
        for label, (_, spec) in self.encoders.items():
            outputs = ", ".join(f"{name} {width}" for name, width in spec.outputs.items())
            weights = f"{spec.weights} {spec.weights_sha256[:12]}".strip() if spec.weights_sha256 else spec.weights
            lines.append(
                f"encoder    {label}: {outputs}; {spec.preprocessing}; {self._precision(label)}"
                + (f"; weights {weights}" if weights else "")
            )
            if self.metrics_of(label):
                lines.append(f"           metrics: {', '.join(self.metrics_of(label))}")
            if PRIVACY in self.suites_of[label]:
                lines.append(f"           privacy: {', '.join(self.roles.of(label))}")
        for name, pairs in self.pairs.items():
            lines.append(f"pairs      {name}: {len(pairs):,} ({pairs.how})")
        if self.utility is not None:
            lines += self.utility.describe()
        address, _ = ray_address(self.config.ray.address, os.environ)
        lines.append(f"network    {f'joins the Ray at {shown(address)}; {JOINED_PORTS}' if address else LOCAL_PORTS}")
        if self.has(FIDELITY):
            names = [subset.name for subset in self.subsets]
            lines.append(f"subsets    {len(names)}: {listed(names, 8)}")
            scored = sum(len(self.subsets_of(label)) for label in self.encoders_of(FIDELITY))
            cells = scored * len(self.synthetic_of(FIDELITY))
            lines.append(f"results    {cells:,} cells -> {self.run_uri}")
        else:
            lines.append(f"results    {self.run_uri}")
        return [printable(line) for line in lines]

    def decided(self, found: Mapping[str, Decision]) -> Plan:
        """The plan with these precisions in place of `auto`; the run is the same."""
        encoders = dict(self.encoders)
        for label, decision in found.items():
            encoder = cast(NetworkEncoder, encoders[label][0]).at(decision.chosen)
            encoders[label] = (encoder, encoder.resolve())
        return replace(self, encoders=encoders, precision={**self.precision, **found}, pinned_id=self.run_id)

    @property
    def undecided(self) -> list[str]:
        """Encoders whose precision is still `auto`."""
        return [label for label, known in self.precision.items() if known.chosen == AUTO]

    def subsets_of(self, label: str) -> tuple[Subset, ...]:
        """The subsets that fidelity scores on the features of an encoder."""
        asked = {item.label: item.subsets for item in self.config.encoders}.get(label)
        return self.subsets if asked is None else tuple(each for each in self.subsets if is_asked(each.name, asked))

    def _precision(self, label: str) -> str:
        known = self.precision.get(label)
        return known.words if known else self.encoders[label][1].precision

    def _role(self, manifest: Manifest) -> str:
        learned = (self.training, self.utility.training if self.utility else None)
        if any(manifest is each for each in learned) and (manifest is not self.real or self.config.real is None):
            return "training"
        if manifest is self.heldout and manifest is not self.real:
            return "held-out"
        return manifest.origin
