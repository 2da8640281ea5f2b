"""What privacy rows decide of each synthetic set: copies found by a search, duplicates, and what could not be judged.

A number takes part by its declaration: the family `memorisation` (share, excess), `duplicates`, `flagged images`,
`planted copies`, and the auc of `re-identification`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.results.copies import FALSE_ALARM as FALSE_ALARM
from chexray.results.copies import CopySearch, Duplicated
from chexray.results.published import is_random
from chexray.results.rows import Row, method_of, params_of, suite_of
from chexray.suite_names import PRIVACY

CHANCE = 0.5
"""AUC of a network that does not tell patients apart."""


@dataclass(frozen=True)
class SetVerdict:
    """What a run decides of one synthetic set beside one real set. rows: of both, under one protocol."""

    real_set: str
    protocol: str
    synthetic_set: str
    run_id: str
    searches: tuple[CopySearch, ...]
    rows: tuple[Row, ...]

    @property
    def column(self) -> tuple[str, str]:
        return self.synthetic_set, self.run_id

    @property
    def hits(self) -> list[CopySearch]:
        """Searches that found copies."""
        return [search for search in self.searches if search.verdict.found]

    @property
    def clear(self) -> list[CopySearch]:
        """Searches that found no more than chance."""
        return [search for search in self.searches if search.verdict.found is False]

    @property
    def undecided(self) -> list[CopySearch]:
        return [search for search in self.searches if search.verdict.found is None]

    @property
    def outliers(self) -> list[CopySearch]:
        """Decided searches in which a single image lies far below the baseline, which a count of flags cannot tell."""
        return [search for search in [*self.hits, *self.clear] if search.outlier]

    @cached_property
    def duplicated(self) -> Duplicated:
        """Where duplicates were counted several times, the most."""
        return Duplicated(self._most("duplicates", "exact training"), self._most("duplicates", "near training"))

    @property
    def flagged(self) -> Row | None:
        """The row that counts images flagged by any part of the suite; None where none is flagged."""
        row = self._most("flagged images", "count")
        return row if row is not None and row["value"] else None

    @property
    def alarm(self) -> bool:
        """Whether anything was found: copies, duplicates beyond chance, or a single image far below the baseline."""
        return bool(self.hits or self.outliers) or self.duplicated.identical or self.duplicated.nearly

    @property
    def judged(self) -> bool:
        """Whether any search came to a verdict."""
        return bool(self.hits or self.clear)

    def _most(self, family: str, role: str) -> Row | None:
        return max(of_role(self.rows, family, role), key=lambda row: row["value"] or 0, default=None)


def of_role(rows: Iterable[Row], family: str, *roles: str) -> list[Row]:
    """The rows of a family, or of some of its roles."""
    found = ((row, output_of(row)) for row in rows)
    return [row for row, output in found if output.family == family and (not roles or output.role in roles)]


def set_verdicts(rows: Iterable[Row]) -> list[SetVerdict]:
    """One for each real set, protocol and synthetic set of the privacy rows, in their order."""
    privacy = (row for row in rows if suite_of(row) == PRIVACY)
    found = []
    for (real_set, protocol), members in grouped(((row["real_set"], row["protocol"]), row) for row in privacy).items():
        names = encoder_names(members)
        columns = grouped(((row["synthetic_set"], row["run_id"]), row) for row in members)
        # Rows about an encoder alone make no synthetic set of the one that they are filed under.
        sets = {column: own for column, own in columns.items() if not all(output_of(row).of_encoder for row in own)}
        found += [
            SetVerdict(real_set, protocol, *column, tuple(_searches(own, names)), tuple(own))
            for column, own in (sets or columns).items()
        ]
    return found


def _searches(rows: Iterable[Row], names: Mapping[tuple[str, ...], str]) -> Iterable[CopySearch]:
    """Encoder by encoder. Under several settings shares and excesses come in pairs, the n-th with the n-th."""
    for encoder, own in grouped((encoder_of(row), row) for row in of_role(rows, "memorisation")).items():
        pairs = list(zip_longest(*(of_role(own, "memorisation", role) for role in ("share", "excess"))))
        for setting, pair in zip(variants([share or excess for share, excess in pairs]), pairs, strict=True):
            yield CopySearch(f"{names[encoder]}{setting}", *pair)


def variants(rows: Iterable[Row]) -> list[str]:
    """` (alpha=0.05)`: how the method of each row differs from that of the others; empty where it does not."""
    methods = [method_of(row) for row in rows]
    said = [", ".join(told_apart(method, methods)) for method in methods]
    return [f" ({text})" if text else "" for text in said]


def told_apart(method: Row, others: Collection[Row]) -> list[str]:
    """`alpha=0.05`: what a method says otherwise than any of the others."""
    return [f"{name}={own}" for name, own in method.items() if any(other.get(name) != own for other in others)]


def encoder_of(row: Row) -> tuple[str, ...]:
    """What identifies the encoder of a row."""
    return tuple(row[name] for name in ("encoder", "weights", "weights_sha256", "encoder_revision"))


def encoder_names(rows: Iterable[Row]) -> dict[tuple[str, ...], str]:
    """{encoder: its name, with weights that are random or that, like its preprocessing, tell it from another one}."""
    known = {encoder_of(row): row for row in rows}
    names = {}
    for key, row in known.items():
        alike = [other for other in known.values() if other["encoder"] == row["encoder"]]
        weights, routes = ({other["weights"] for other in alike}, {_route(other) for other in alike})
        said = [row["weights"]] if is_random(row) or len(weights) > 1 else []
        said += [_route(row)] if len(routes) > 1 else []
        shown = ", ".join(filter(None, said))
        names[key] = f"{row['encoder'] or 'none'}{f' ({shown})' if shown else ''}"
    return names


def _route(row: Row) -> str:
    """How the encoder prepares images, the first part of its revision."""
    return str(row["encoder_revision"]).partition("+")[0]


def recognises_nobody(rows: Iterable[Row]) -> list[str]:
    """Why scores of a re-identification network are no verdict, each reason once; [] where it tells patients apart."""
    said = dict.fromkeys(
        str(params_of(row).get("recognises_nobody") or _no_better(row))
        for row in of_role(rows, "re-identification", "auc")
    )
    return [text for text in said if text]


def _no_better(row: Row) -> str:
    """The same from the interval alone, of a run that did not say it."""
    low = row["value"] if row["ci_low"] is None else row["ci_low"]
    if low is None or low > CHANCE:
        return ""
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    return f"the network does not tell patients apart: AUC {row['value']:.3f}{interval} on real pairs, chance is 0.5"
