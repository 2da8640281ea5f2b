"""Runs side by side: which numbers may be compared at all, and which of them really differ.

A winner is named only when its 95% interval overlaps no other. That is stricter than a test at 5%: two intervals can
overlap a little although the difference is significant. Many comparisons are made at once, so stricter is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from chexray.errors import ConfigError
from chexray.results.privacy.names import COUNT_PREFIX, UPSTREAM_PIXELS, WRAPS
from chexray.results.published import is_random
from chexray.results.rows import bias_dominated, params_of, suite_of
from chexray.results.runs import split_runs
from chexray.results.utility.names import DIFFER, method_of, single_trainings, threshold_of
from chexray.results.wording import fingerprint
from chexray.text import listed

if TYPE_CHECKING:
    import pandas as pd

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
synthetic one for recall. KID and FID-infinity are free of this bias and are compared at any n. Of more training images
one is nearer, more images hold more duplicates, and of more seeds or prompts the extreme is more extreme. Utility
has other metrics of these names, which the number of images does not move.
"""

COUNTED = ("n_seeds_max", "n_prompts")
"""What the metrics of COUNT_PREFIX grow with: they count prompts by their highest score."""

N_TOLERANCE = 0.01
"""Relative difference in n that a biased metric forgives (some rejects): FID's bias then moves by as little."""

N_STRONG = 2.0
"""Ratio of n from which a difference is worth a note even for unbiased metrics."""

REMARKS = frozenset({"bias_dominated", "metric_key", "moves_with_n", "n_used", "pairs_left_out"})
REMARK_PREFIXES = ("floor", "note", "std_error", "ci_", "p_value")
"""Params that say how a number came out, how its error was found, or what a config calls it. Others: what it is."""

PRIVACY_REMARKS = frozenset({"attained_alpha", "cannot_see", "false_positive_rate", "share", "significant", "z"})
PRIVACY_REMARK_PREFIXES = ("lowest_", "n_", "null_share", "smallest_share_noticed", "threshold")
"""The same of privacy rows. A threshold is a remark where the run found it, and what it is where it was given."""


@dataclass(frozen=True)
class Verdict:
    """`text`: "better: NAME", "tie (intervals overlap)", "not comparable: ...", "unknown: ..." or "only in NAME".

    winner: NAME of "better: NAME", else "". notes: what to keep in mind while reading the numbers.
    """

    text: str
    winner: str = ""
    notes: tuple[str, ...] = ()


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
    different = _differences(rows.values())
    if different:
        return Verdict(f"not comparable: different {', '.join(different)}", notes=notes)
    metric, better = next((row["metric"], row["better"]) for row in rows.values())
    nulls = [name for name, row in rows.items() if row["value"] is None]
    if nulls:
        return Verdict(f"unknown: no value in {', '.join(nulls)}", notes=notes)
    if metric == UPSTREAM_PIXELS:
        return Verdict(f"not comparable: {WRAPS}", notes=notes)
    sides = _moved_by(next(iter(rows.values())))
    sizes = [side for side in sides if _ratio(rows, side) > 1 + N_TOLERANCE]
    if sizes:
        return Verdict(f"not comparable: n differs ({_sizes(rows, sizes)}), and {metric} depends on n", notes=notes)
    if any(row["ci_low"] is None or row["ci_high"] is None for row in rows.values()):
        return Verdict("unknown: no interval", notes=notes)
    if not better:
        return Verdict("unknown: neither direction is better", notes=notes)
    sign = 1 if better == "higher" else -1
    best = max(rows, key=lambda name: sign * rows[name]["value"])
    others = [row for name, row in rows.items() if name != best]
    top = rows[best]
    # Against all others, not only the second: the third may have the widest interval.
    apart = all(
        top["ci_low"] > row["ci_high"] if better == "higher" else top["ci_high"] < row["ci_low"] for row in others
    )
    if apart and any(single_trainings(row) and params_of(row).get("seeds") for row in rows.values()):
        return Verdict("unknown: intervals of one training each hold no spread between trainings", notes=notes)
    return Verdict(f"better: {best}", best, notes) if apart else Verdict("tie (intervals overlap)", notes=notes)


def _moved_by(row: Row) -> tuple[str, ...]:
    """The counts that move the row's metric, fields or params."""
    if suite_of(row) == "utility":
        return ()
    return COUNTED if row["metric"].startswith(COUNT_PREFIX) else BIASED_BY_N.get(row["metric"], ())


def compare(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Runs side by side: one row for each number of theirs, aligned on what was measured and how.

    frames: run name -> its results. A run with several synthetic sets gives a column group for each, NAME/SET.
    Columns: suite, metric, subset, encoder, protocol, params (those that matter), better, verdict, note, and for each
    run NAME.value, .ci_low, .ci_high, .n_real, .n_synthetic, .reason (missing where it has no such number).
    Raises ConfigError when there are not at least two things to compare.
    """
    import pandas as pd

    runs = split_runs(frames)
    if len(runs) < 2:
        raise ConfigError(f"compare needs at least two runs or sets, found {len(runs)}: {listed(runs) or 'none'}.")
    cells: dict[Hashable, list[tuple[str, Row]]] = {}
    for name, rows in runs.items():
        for row in rows:
            cells.setdefault((suite_of(row), row["metric"], row["subset"], *_setting(row)), []).append((name, row))
    lines = [_line(group, verdict, runs) for found in cells.values() for group, verdict in _aligned(found)]
    columns = ["suite", "metric", "subset", "encoder", "protocol", "params", "better", "verdict", "note"]
    shown = ("value", "ci_low", "ci_high", "n_real", "n_synthetic", "reason")
    table = pd.DataFrame(lines, columns=[*columns, *(f"{name}.{field}" for name in runs for field in shown)])
    for name in runs:
        for side in ("n_real", "n_synthetic"):
            # From the values, not from the column: with a gap in it that is one of floats, which lose whole numbers.
            table[f"{name}.{side}"] = pd.array([line[f"{name}.{side}"] for line in lines], dtype="Int64")
    return table


def _setting(row: Row) -> tuple[str, ...]:
    """What a utility number was trained on and is thresholded by: numbers that differ there never share a line."""
    if suite_of(row) != "utility":
        return ()
    params = params_of(row)
    return str(params.get("setting", "")), threshold_of(params)


def _method(row: Row) -> tuple[str, ...]:
    names = ("encoder", "protocol", "encoder_revision", "weights_sha256")
    return (*(row[name] for name in names), method_params(row))


def _aligned(found: list[tuple[str, Row]]) -> Iterable[tuple[dict[str, Row], Verdict]]:
    """Groups of rows of one metric and subset, at most one a run: first those computed alike, then what is left.

    What is left is put beside what it resembles most, so that the verdict can say why it does not compare.
    """
    left = list(found)
    for depth in (5, 2, 1, 0):  # all of _method; encoder and protocol; encoder; nothing
        alike: dict[Hashable, dict[str, list[Row]]] = {}
        for name, row in left:
            alike.setdefault(_method(row)[:depth], {}).setdefault(name, []).append(row)
        left = []
        for by_run in alike.values():
            for rows in zip_longest(*by_run.values()):
                group = {name: row for name, row in zip(by_run, rows, strict=True) if row is not None}
                if len(group) > 1:
                    yield group, decide(group)
                else:
                    left += group.items()
    for name, row in left:
        others = [other for other_name, other in found if other_name != name]
        nearest = max(others, key=lambda other: _shared(row, other), default=None)
        different = [] if nearest is None else _differences([row, nearest])
        text = f"not comparable: different {', '.join(different)}" if different else f"only in {name}"
        yield {name: row}, Verdict(text)


def _shared(a: Row, b: Row) -> int:
    return sum(x == y for x, y in zip(_method(a), _method(b), strict=True))


def _differences(rows: Iterable[Row]) -> list[str]:
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
    strong = [side for side in ("n_real", "n_synthetic") if _ratio(rows, side) >= N_STRONG]
    if strong:
        notes.append(f"n differs: {_sizes(rows, strong)}")
    versions = sorted({row["chexray_version"] for row in rows.values()})
    if len(versions) > 1:
        notes.append(f"computed by chexray {' and '.join(versions)}")
    return tuple(notes)


def _line(group: Mapping[str, Row], verdict: Verdict, runs: Iterable[str]) -> dict[str, Any]:
    rows = list(group.values())

    def text(of: Any) -> str:
        return " | ".join(dict.fromkeys(str(of(row)) for row in rows))

    line: dict[str, Any] = {"suite": suite_of(rows[0])}
    line |= {name: text(lambda row, name=name: row[name]) for name in ("metric", "subset", "encoder")}
    line |= {"protocol": text(lambda row: row["protocol"]), "params": text(method_params), "better": rows[0]["better"]}
    line |= {"verdict": verdict.text, "note": "; ".join(verdict.notes)}
    for name in runs:
        row = group.get(name, {})
        for field in ("value", "ci_low", "ci_high", "n_real", "n_synthetic", "reason"):
            line[f"{name}.{field}"] = row.get(field)
    return line


def render_compare(comparison: pd.DataFrame, *, width: int | None = None, console: Any = None) -> Any:
    """What `compare` returned, as a rich renderable; see `chexray.results.compare_table`."""
    from chexray.results import compare_table, table

    return table.View(comparison, compare_table.show, width, console)
