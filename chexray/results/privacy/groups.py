"""Privacy rows put in order for their tables: by real set, then by what they measure, then by encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from chexray.results.grouping import Column, Group, Key, column_label, group_rows
from chexray.results.privacy.names import (
    CALIBRATION,
    COUNT_PREFIX,
    DISTANCES,
    DUPLICATES,
    FLAGGED,
    FPR_PREFIX,
    HEADLINE,
    PEERS,
    PLANTED_PREFIX,
    REID_SCORES,
    UPSTREAM_PIXELS,
    calibrates,
)
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One metric of one encoder over the synthetic sets."""

    group: Group
    key: Key
    rows: dict[Column, Row]

    @property
    def metric(self) -> str:
        return self.key[0]

    @property
    def first(self) -> Row:
        return next(iter(self.rows.values()))


@dataclass(frozen=True)
class Audit:
    """The privacy rows of one real set under one protocol. columns: its synthetic sets. groups: one an encoder."""

    real_set: str
    protocol: str
    columns: list[Column]
    groups: list[Group]

    def title(self, wording: Wording) -> str:
        parts = ["privacy", f"training: {wording.data(set_name(self.real_set))}"]
        if len(self.columns) == 1:
            parts.append(f"synthetic: {self.label(self.columns[0], wording)}")
        parts.append(f"protocol: {wording.data(self.protocol)}")
        return wording.own(" · ").join([*parts, *([f"n = {self.n}"] if self.n else [])])

    @cached_property
    def n(self) -> str:
        """`400 / 400`, real and synthetic images of every number about a synthetic set; empty where they differ."""
        lines = (rows for group in self.groups for rows in group.overall.values())
        sizes = {n_text([row]) for rows in lines for row in rows.values() if not calibrates(row)}
        return sizes.pop() if len(sizes) == 1 else ""

    def label(self, column: Column, wording: Wording) -> str:
        """The synthetic set as people call it."""
        return column_label(column, self.columns, wording)

    def encoder(self, group: Group, wording: Wording) -> str:
        """The encoder's name, with weights that are random or that, like its revision, tell it from another one."""
        alike = [other for other in self.groups if other.encoder == group.encoder]
        said = [group.weights] if is_random(vars(group)) or len({other.weights for other in alike}) > 1 else []
        said += [_revision(group)] if len({_revision(other) for other in alike}) > 1 else []
        shown = ", ".join(part for part in said if part)
        return wording.data(f"{group.encoder or 'none'}{f' ({shown})' if shown else ''}")

    def lines(self, *metrics: str, prefix: str = "", group: Group | None = None) -> list[Line]:
        """The lines of these metrics, or of those whose names start so, encoder by encoder, in the order asked for."""
        found = []
        for candidate in self.groups if group is None else [group]:
            keys = [key for key in candidate.overall if key[0] in metrics or (prefix and key[0].startswith(prefix))]
            keys.sort(key=lambda key: metrics.index(key[0]) if key[0] in metrics else len(metrics))
            found += [Line(candidate, key, candidate.overall[key]) for key in keys]
        return found

    def others(self) -> list[Line]:
        """Lines that no section knows, so that nothing that was measured goes unseen."""
        known = {FLAGGED, *HEADLINE, *PEERS, *DUPLICATES, *REID_SCORES, *CALIBRATION, *DISTANCES, UPSTREAM_PIXELS}
        return [
            Line(group, key, rows)
            for group in self.groups
            for key, rows in group.overall.items()
            if key[0] not in known and not key[0].startswith((COUNT_PREFIX, FPR_PREFIX, PLANTED_PREFIX))
        ]

    def subsets(self) -> int:
        """Subsets besides "all" that have numbers."""
        return len({subset for group in self.groups for subset in group.subsets} - {"all"})


FAR_BELOW = 0.6
"""Of the null's lowest ratio: what older runs, which did not test it, take for far. It depends on the number of images
and on the dimension of the features, and alarmed in up to 89 % of audits without a copy in three dimensions."""


FALSE_ALARM = 0.025
"""Of audits without a copy: the level at which a p-value is significant."""


@dataclass(frozen=True)
class Search:
    """What the memorisation search of one encoder found in one synthetic set: its share and the excess over chance."""

    column: Column
    encoder: str
    share: Row | None
    excess: Row | None

    @property
    def row(self) -> Row:
        """The row that has the most to say."""
        rows = [row for row in (self.share, self.excess) if row is not None]
        return next((row for row in rows if row["value"] is not None), rows[0])

    @property
    def flagged(self) -> int | None:
        """Images flagged."""
        count = self._param("n_flagged")
        if count is None and self.share is not None and self.share["value"] is not None:
            count = self.share["value"] * self.row["n_synthetic"]
        return None if count is None else round(count)

    @property
    def expected(self) -> float | None:
        """Images that chance alone would flag."""
        expected = self._param("n_expected")
        if expected is None and self.false_positives is not None:
            expected = self.false_positives * self.row["n_synthetic"]
        return expected

    @property
    def p_value(self) -> float | None:
        """How often chance alone gives as much, all searches of the audit allowed for; None where it was not tested."""
        return self._param("p_value")

    @property
    def outlier(self) -> tuple[float, float] | None:
        """(lowest ratio, lowest ratio of the null) where the first is so far below that a look is due: by the run's own
        test (`chexray.privacy.outliers`), which 2.5 % of audits without a copy fail."""
        lowest, null, tested = self._param("lowest_ratio"), self._param("lowest_null_ratio"), self._param("outlier")
        if lowest is None or null is None:
            return None
        far = lowest < FAR_BELOW * null if tested is None else tested
        return (lowest, null) if far else None

    @property
    def lowest_id(self) -> str:
        """The image with the lowest ratio; empty in runs that did not say it."""
        return self._param("note_lowest_id") or ""

    @property
    def explained(self) -> bool:
        """Whether a shift of case mix is all that keeps the flags from being significant."""
        alike, p_value = self._param("p_value_as_if_alike"), self.p_value
        return alike is not None and p_value is not None and alike <= FALSE_ALARM < p_value

    @property
    def case_mix(self) -> str:
        """How the places of synthetic images differ from those of real ones; empty where that was not seen."""
        mine, null = self._param("local_dimension"), self._param("local_dimension_null")
        if not self._param("case_mix_shifted") or mine is None or null is None:
            return ""
        text = f"case mix shifted: {mine:.1f} local dimensions about synthetic images, {null:.1f} about real ones"
        return f"{text}, which explains these flags" if self.explained else f"{text}; p allows for it"

    @property
    def false_positives(self) -> float | None:
        """Share of real images, never seen by the generator, that the threshold flags."""
        attained = self._param("attained_alpha")
        return self._param("alpha") if attained is None else attained

    def _param(self, name: str) -> Any:
        rows = [row for row in (self.share, self.excess) if row is not None]
        return next((found for row in rows if (found := params_of(row).get(name)) is not None), None)


def searches(audit: Audit, wording: Wording) -> Iterator[Search]:
    """What was searched, encoder by encoder and within it set by set."""
    for group in audit.groups:
        # Under several settings the metrics come in pairs, the n-th share with the n-th excess.
        for pair in zip_longest(*(audit.lines(name, group=group) for name in HEADLINE)):
            share, excess = (line.rows if line else {} for line in pair)
            variant = next(group.variant(line.key, wording) for line in pair if line)
            for column in audit.columns:
                if column in share or column in excess:
                    name = f"{audit.encoder(group, wording)}{variant}"
                    yield Search(column, name, share.get(column), excess.get(column))


def audits_of(rows: Iterable[Row]) -> list[Audit]:
    """Audits in the order in which rows first mention their real set and protocol."""
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        together.setdefault((row["real_set"], row["protocol"]), []).append(row)
    audits = []
    for (real_set, protocol), members in together.items():
        audited = [row for row in members if not calibrates(row)] or members
        columns = list(dict.fromkeys((row["synthetic_set"], row["run_id"]) for row in audited))
        audits.append(Audit(real_set, protocol, columns, group_rows(members)))
    return audits


def n_text(rows: Sequence[Row]) -> str:
    """`400 / 400`, real and synthetic; `200-400 / 400` where it differs between the rows."""
    sides = ([row[name] for row in rows] for name in ("n_real", "n_synthetic"))
    return " / ".join(f"{min(side):,}" if min(side) == max(side) else f"{min(side):,}-{max(side):,}" for side in sides)


def _revision(group: Group) -> str:
    """How the encoder prepares images, the first part of its revision."""
    rows = (row for lines in group.subsets.values() for by_set in lines.values() for row in by_set.values())
    return next(rows)["encoder_revision"].partition("+")[0]
