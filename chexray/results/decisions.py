"""Which numbers may be compared at all, and which of several is better.

A winner is named only when its 95% interval overlaps no other. That is stricter than a test at 5%: two intervals can
overlap a little although the difference is significant. Many comparisons are made at once, so stricter is right.
What keeps a number from being called better at all is in `chexray.results.standing`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.results.identity import fingerprint, has_fingerprint
from chexray.results.published import is_random
from chexray.results.rows import Row, bias_dominated, method_of, params_of
from chexray.results.standing import barred, beats, direction, is_void, is_worse, loss, n_copies
from chexray.results.trainings import single_trainings

SIDES = ("n_real", "n_synthetic")

MOVES = "moves_with_n"
"""Where a row says that this number, unlike others of its metric, moves with n: true, or the sides that move it."""

N_TOLERANCE = 0.01
"""Relative difference in n that a biased metric forgives (some rejects): FID's bias then moves by as little."""

N_STRONG = 2.0
"""Ratio of n from which a difference is worth a note even for unbiased metrics."""

DIFFER = {
    "uncertain": "label policy", "unmentioned": "label policy", "label_policy": "label policy",
    "recipe": "training recipe", "budget": "training budget", "training_set": "training set", "against": "baseline",
    "plugin": "plug-in code", "encoder_plugin": "plug-in code",
}  # fmt: skip
"""Names in `method` whose words in a verdict are others."""

TIE = "tie (intervals overlap)"
ONE_TRAINING = "unknown: intervals of one training each hold no spread between trainings"


@dataclass(frozen=True)
class Verdict:
    """`text`: "better: NAME", "tie (...)", "no single best; NAME is worse", "no winner: NAME ...",
    "not comparable: ...", "unknown: ..." or "only in NAME".

    winners: the NAMEs of "better: NAME", several where they are of one set. worse: those that are worse than the best
    one, whether that one wins or not. notes: what to keep in mind while reading the numbers.
    """

    text: str
    winners: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()

    @property
    def winner(self) -> str:
        """The first of the winners, "" where there is none."""
        return self.winners[0] if self.winners else ""


def method_params(row: Row) -> str:
    """What two rows must share to be compared, as canonical JSON; sets by their fingerprint."""
    return json.dumps(_method(row), sort_keys=True)


def _method(row: Row) -> dict[str, Any]:
    return {name: fingerprint(value) if isinstance(value, str) else value for name, value in method_of(row).items()}


def decide(rows: Mapping[str, Row]) -> Verdict:
    """Which of several rows of one metric and subset is better, by name. Order does not matter."""
    notes = _notes(rows)
    objection = _objection(rows)
    if objection:
        return Verdict(objection, notes=notes)
    if any(direction(row) == "floor" and row["real_floor"] is None for row in rows.values()):
        return Verdict("unknown: no real floor to judge it by", notes=notes)
    return _standings(rows, notes)


def _objection(rows: Mapping[str, Row]) -> str:
    """Why the numbers are not compared, or empty."""
    first = next(iter(rows.values()))
    different = differences(rows.values())
    if different:
        return f"not comparable: different {', '.join(different)}"
    nulls = [name for name, row in rows.items() if row["value"] is None]
    if nulls:
        return f"unknown: no value in {', '.join(nulls)}"
    if never := next(filter(None, (output_of(row).never_compared for row in rows.values())), ""):
        return f"not comparable: {never}"
    sizes = [side for side in _moved_by(rows.values()) if _ratio(rows, side) > 1 + N_TOLERANCE]
    if sizes:
        return f"not comparable: n differs ({_sizes(rows, sizes)}), and {first['metric']} depends on n"
    if any(row["ci_low"] is None or row["ci_high"] is None for row in rows.values()):
        return "unknown: no interval"
    return "" if direction(first) else "unknown: neither direction is better"


def _merged(rows: Mapping[str, Row]) -> tuple[list[list[str]], tuple[str, ...]]:
    """The names, those of one synthetic set together, and notes that say so. Sets are one where their fingerprints are.

    Runs of one set whose intervals lie apart stay apart: something besides the set differs between them.
    """
    identities = {name: row.get("synthetic_set") or "" for name, row in rows.items()}
    together = grouped(
        (f"@{fingerprint(identity)}" if has_fingerprint(identity) else name, name)
        for name, identity in identities.items()
    )
    sets: list[list[str]] = []
    notes = []
    for names in together.values():
        apart = any(beats(rows[a], rows[b]) for a in names for b in names)
        sets += [[name] for name in names] if apart else [names]
        if len(names) > 1:
            but = ", but its numbers differ by more than their errors" if apart else ""
            notes.append(f"{' and '.join(names)} are one set{but}")
    return sets, tuple(notes)


def _standings(rows: Mapping[str, Row], notes: tuple[str, ...]) -> Verdict:
    """The verdict on rows that compare."""
    sets, same = _merged(rows)
    notes += same
    if len(sets) == 1:
        return Verdict(TIE, notes=notes)

    def every(relation: Callable[[Row, Row], bool], these: list[str], those: list[str]) -> bool:
        # Of all names of a set: the third may have the widest interval.
        return all(relation(rows[a], rows[b]) for a in these for b in those)

    ordered = sorted(sets, key=lambda names: min(loss(rows[name]) for name in names))
    best = ordered[0]
    why = next((f"{name} {reason}" for name in best if (reason := barred(rows[name]))), "")
    apart = not why and all(every(beats, best, others) for others in ordered[1:])
    if any(single_trainings(row) and params_of(row).get("seeds") for row in rows.values()):
        return Verdict(ONE_TRAINING if apart else TIE, notes=notes)
    if apart:
        worse = tuple(name for others in ordered[1:] for name in others)
        return Verdict(f"better: {' and '.join(best)}", tuple(best), notes, worse)
    # What is void is no yardstick: nothing is worse for being worse than a copy.
    valid = [names for names in ordered if not any(is_void(rows[name]) for name in names)]
    below = partial(is_worse, n_sets=len(sets))
    losers = [names for names in ordered if valid and every(below, names, valid[0])]
    worse = tuple(name for name in rows if any(name in names for names in losers))
    head = f"no winner: {why}" if why else "no single best" if worse else TIE
    said = f"; {' and '.join(_some(worse))} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    return Verdict(head + said, notes=notes, worse=worse)


def _some(names: Sequence[str], most: int = 6) -> list[str]:
    return [*names[:most], f"{len(names) - most} more"] if len(names) > most + 1 else list(names)


def _moved_by(rows: Iterable[Row]) -> tuple[str, ...]:
    """The counts that move any of the rows' numbers: fields, or names in method or about."""
    sides: dict[str, None] = {}
    for row in rows:
        sides |= dict.fromkeys(output_of(row).moves_with)
        if moves := params_of(row).get(MOVES):
            named = moves if isinstance(moves, list) else [moves]
            sides |= dict.fromkeys([side for side in named if side in SIDES] or SIDES)
    return tuple(sides)


def differences(rows: Iterable[Row]) -> list[str]:
    """What keeps rows from being compared, in words; empty when nothing does."""
    rows = list(rows)
    aspects = {
        "protocol": {row["protocol"] for row in rows},
        "encoder": {row["encoder"] for row in rows},
        "encoder revision": {row["encoder_revision"] for row in rows},
        "weights": {row["weights_sha256"] for row in rows},
        "real set": {fingerprint(row["real_set"]) for row in rows},
    }
    # A null has no method: what would have been computed is not the reason why it is missing.
    methods = [_method(row) for row in rows if row["value"] is not None]
    for name in dict.fromkeys(name for method in methods for name in method):
        found = {json.dumps(method.get(name), sort_keys=True) for method in methods}
        aspects.setdefault(DIFFER.get(name, name), set()).update(found if len(found) > 1 else ())
    if aspects.get(DIFFER["recipe"]):  # the revision of a trained network is its recipe
        aspects.pop("encoder revision")
    if len(aspects["encoder"]) > 1:  # another encoder has other weights and another revision: say it once
        aspects.pop("encoder revision", None)
        aspects.pop("weights")
    return [what for what, values in aspects.items() if len(values) > 1]


def _ratio(rows: Mapping[str, Row], side: str) -> float:
    counts = [count for row in rows.values() if (count := _size(row, side)) is not None]
    return max(counts) / max(1, min(counts)) if counts else 1.0


def _size(row: Row, side: str) -> float | None:
    """A count of the row, n_real or one of its method or about; None where they do not, or where it is no count."""
    count = row[side] if side in row else params_of(row).get(side)
    return count if isinstance(count, int | float) and not isinstance(count, bool) else None


def _sizes(rows: Mapping[str, Row], sides: Iterable[str]) -> str:
    counts = {side: [_size(row, side) for row in rows.values()] for side in sides}
    return "; ".join(
        f"{side} {' against '.join('?' if n is None else f'{n:,}' for n in found)}" for side, found in counts.items()
    )


def _notes(rows: Mapping[str, Row]) -> tuple[str, ...]:
    notes = []
    if any(is_random(row) for row in rows.values()):
        notes.append("random weights")
    notes += dict.fromkeys(never for row in rows.values() if (never := output_of(row).never_compared))
    if any(bias_dominated(row) for row in rows.values()):
        notes.append("mainly reflects sample size")
    copied = [name for name, row in rows.items() if n_copies(row)]
    if copied:
        notes.append(f"copies of the real images are in {', '.join(copied)}")
    strong = [side for side in SIDES if _ratio(rows, side) >= N_STRONG]
    if strong:
        notes.append(f"n differs: {_sizes(rows, strong)}")
    versions = sorted({row["chexray_version"] for row in rows.values()})
    if len(versions) > 1:
        notes.append(f"computed by chexray {' and '.join(versions)}")
    return tuple(notes)
