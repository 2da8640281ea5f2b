"""Which numbers may be compared at all, and which of several is better.

A winner is named only when its 95% interval overlaps no other. That is stricter than a test at 5%: two intervals can
overlap a little although the difference is significant. Many comparisons are made at once, so stricter is right.
What keeps a number from being called better at all is in `chexray.results.standing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chexray.results.privacy.names import COUNT_PREFIX, UPSTREAM_PIXELS, WRAPS
from chexray.results.published import is_random
from chexray.results.rows import bias_dominated, params_of, suite_of
from chexray.results.standing import COPIES, barred, beats, direction, is_void, is_worse, loss, n_copies
from chexray.results.utility.names import DIFFER, method_of, single_trainings
from chexray.results.wording import fingerprint, has_fingerprint

Row = Mapping[str, Any]

BIASED_BY_N: dict[str, tuple[str, ...]] = {
    "fid": ("n_real", "n_synthetic"),
    "frd": ("n_real", "n_synthetic"),
    "cmmd": ("n_real", "n_synthetic"),
    "coverage": ("n_real", "n_synthetic"),
    "precision": ("n_real",),
    "density": ("n_real",),
    "recall": ("n_synthetic",),
    "inception_score": ("n_synthetic",),
    "vendi": ("n_synthetic",),
    "dcr_q01": ("n_real",),
    "dcr_q05": ("n_real",),
    "authenticity": ("n_real",),
    "c_t": ("n_real", "n_synthetic"),
    **dict.fromkeys(("duplicates_exact_training", "duplicates_near_training"), ("n_real", "n_synthetic")),
    **dict.fromkeys(("duplicates_exact_within", "duplicates_near_within"), ("n_synthetic",)),
    **dict.fromkeys(("reid_max_mean", "latent_distance_min_mean", "pixel_distance_min_mean"), ("n_seeds_max",)),
    **dict.fromkeys(("reid_max", "latent_distance_min", "pixel_distance_min"), ("n_seeds_max", "n_prompts")),
}
"""Metrics whose expected value moves with the number of images, and the sides that move it, fields or params.

PRDC's balls shrink as the set they are drawn around grows: the real one for precision, density and coverage, the
synthetic one for recall. KID and FID-infinity are free of this bias and are compared at any n, unless a row's params
say that it moves with n (`moves_with_n`: true, or the sides that move it). Of more training images one is nearer, more
images hold more duplicates, and of more seeds or prompts the extreme is more extreme. Utility has other metrics of
these names, which the number of images does not move.
"""

SIDES = ("n_real", "n_synthetic")

COUNTED = ("n_seeds_max", "n_prompts")
"""What the metrics of COUNT_PREFIX grow with: they count prompts by their highest score."""

N_TOLERANCE = 0.01
"""Relative difference in n that a biased metric forgives (some rejects): FID's bias then moves by as little."""

N_STRONG = 2.0
"""Ratio of n from which a difference is worth a note even for unbiased metrics."""

REMARKS = frozenset(
    {
        "bias_dominated",
        "copies_of_real_first",
        "metric_key",
        "moves_with_n",
        "n_used",
        "network_differs",
        "pairs_left_out",
        "weights_are",
    }
)
REMARK_PREFIXES = (COPIES, "floor", "note", "std_error", "ci_", "p_value")
"""Params that say how a number came out, how its error was found, or what a config calls it. Others: what it is."""

PRIVACY_REMARKS = frozenset({"attained_alpha", "cannot_see", "false_positive_rate", "share", "significant", "z"})
PRIVACY_REMARK_PREFIXES = ("lowest_", "n_", "null_share", "smallest_share_noticed", "threshold")
"""The same of privacy rows. A threshold is a remark where the run found it, and what it is where it was given."""


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
    """The params that two rows must share to be compared, as canonical JSON."""
    if suite_of(row) == "utility":
        return json.dumps(method_of(params_of(row)), sort_keys=True)
    remarks, prefixes, given = REMARKS, REMARK_PREFIXES, frozenset()
    if suite_of(row) == "privacy":
        given = frozenset({"threshold"} if _FIXED_COUNT.fullmatch(row["metric"]) else ())
        remarks, prefixes = REMARKS | PRIVACY_REMARKS, (*REMARK_PREFIXES, *PRIVACY_REMARK_PREFIXES)
    kept = {
        name: value
        for name, value in params_of(row).items()
        if name in given or (name not in remarks and not name.startswith(prefixes))
    }
    return json.dumps(kept, sort_keys=True)


_FIXED_COUNT = re.compile(rf"{COUNT_PREFIX}[\d.]+")


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
    if first["metric"] == UPSTREAM_PIXELS:
        return f"not comparable: {WRAPS}"
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
    together: dict[str, list[str]] = {}
    for name, row in rows.items():
        identity = row.get("synthetic_set") or ""
        key = f"@{fingerprint(identity)}" if has_fingerprint(identity) else name
        together.setdefault(key, []).append(name)
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

    def every(relation: Any, these: list[str], those: list[str]) -> bool:
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
    """The counts that move any of the rows' numbers, fields or params."""
    sides: dict[str, None] = {}
    for row in rows:
        if suite_of(row) == "utility":
            continue
        moves = params_of(row).get("moves_with_n")
        if moves:
            named = moves if isinstance(moves, list) else [moves]
            sides |= dict.fromkeys([side for side in named if side in SIDES] or SIDES)
        known = COUNTED if row["metric"].startswith(COUNT_PREFIX) else BIASED_BY_N.get(row["metric"], ())
        sides |= dict.fromkeys(known)
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
        # A null carries no params: what would have been computed is not the reason why it is missing.
        "params": {method_params(row) for row in rows if row["value"] is not None},
    }
    aspects |= _training_aspects([row for row in rows if row["value"] is not None and suite_of(row) == "utility"])
    if DIFFER["recipe"] in aspects:  # the revision of a trained network is its recipe
        aspects.pop("encoder revision")
    if len(aspects["encoder"]) > 1:  # another encoder has other weights and another revision: say it once
        aspects.pop("encoder revision", None)
        aspects.pop("weights")
    return [what for what, values in aspects.items() if len(values) > 1]


def _training_aspects(rows: list[Row]) -> dict[str, set[str]]:
    """The params of utility rows one by one, each by its name."""
    aspects: dict[str, set[str]] = {"params": set()} if rows else {}
    for name, what in DIFFER.items():
        found = {json.dumps(method_of(params_of(row)).get(name)) for row in rows}
        if len(found) > 1:
            aspects[what] = found
    return aspects


def _ratio(rows: Mapping[str, Row], side: str) -> float:
    counts = [count for row in rows.values() if (count := _size(row, side)) is not None]
    return max(counts) / max(1, min(counts)) if counts else 1.0


def _size(row: Row, side: str) -> float | None:
    """A count of the row, n_real or one that its params tell; None where they do not, or where it is no count."""
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
    if any(row["metric"] == UPSTREAM_PIXELS for row in rows.values()):
        notes.append(WRAPS)
    if any(bias_dominated(row) for row in rows.values()):
        notes.append("mostly bias at this n")
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
