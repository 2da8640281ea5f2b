"""What a privacy number means, in words that promise no more than was measured.

"no copy found at this sensitivity" is the best verdict there is: a search that found nothing says what it would have
overlooked, and no search shows that a generator gives nobody away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexray.results.privacy_groups import Audit, Search, audits_of, searches
from chexray.results.privacy_names import DUPLICATES
from chexray.results.rows import params_of, suite_of
from chexray.results.wording import Wording, number

Row = Mapping[str, Any]

NOT_FOUND = "no copy found at this sensitivity"


@dataclass(frozen=True)
class Verdict:
    """found: True, False, or None when nothing could be decided. text: for a cell, and why there is no verdict."""

    found: bool | None
    text: str


def verdict(search: Search, wording: Wording) -> Verdict:
    """Copies are found when the excess over chance is significant, however many searches the audit made."""
    excess = search.excess
    if excess is None or excess["value"] is None:
        reason = wording.data(excess["reason"]) if excess is not None else "its excess over chance is missing"
        return Verdict(None, f"no verdict, {reason}")
    if excess["ci_low"] is None or excess["ci_high"] is None:
        reason = wording.data(params_of(excess).get("std_error_reason") or "the excess has no interval")
        return Verdict(None, f"no verdict, {reason}")
    # Without the word of the search, its own interval decides.
    significant = params_of(excess).get("significant", excess["ci_low"] > 0)
    return Verdict(True, "COPIES FOUND") if significant else Verdict(False, "none found")


def flagged(search: Search) -> str:
    """`20 of 400 images`."""
    count = "?" if search.flagged is None else f"{search.flagged:,}"
    return f"{count} of {search.row['n_synthetic']:,} images"


def expected(search: Search) -> str:
    """`4.0`, the images that chance would flag."""
    return "?" if search.expected is None else count_text(search.expected)


def unnoticed(search: Search) -> float | None:
    """The largest share of copies that the result still agrees with; None where no interval tells.

    That is the upper end of the excess. Where fewer images are flagged than chance would, the set's own false positives
    are below nominal and cannot be subtracted: then it is the upper end of the share. One image can never be excluded.
    """
    ends = [row["ci_high"] for row in (search.excess, search.share) if row is not None and row["ci_high"] is not None]
    above = next((end for end in ends if end > 0), None)
    return None if above is None else min(1.0, max(above, 1 / max(1, search.row["n_synthetic"])))


def percent(share: float, digits: int = 3) -> str:
    """`4.98 %`."""
    return f"{100 * share:.{digits}g} %"


def rate(search: Search) -> str:
    """`1 %`, the search's rate of false positives; empty where it is unknown."""
    return "" if search.false_positives is None else percent(search.false_positives, 2)


def count_text(count: float) -> str:
    """`4.0` or `1,234`: an expected count, which need not be whole."""
    if count >= 100:
        return f"{count:,.0f}"
    return f"{count:.1f}" if count >= 0.1 or count == 0 else number(count, count)


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def summary(rows: Sequence[Row], wording: Wording) -> tuple[list[str], list[str]]:
    """What the privacy rows among these say, a line each: (copies found, searches that found or decided nothing)."""
    loud: list[str] = []
    quiet: list[str] = []
    for audit in audits_of(row for row in rows if suite_of(row) == "privacy"):
        for found, line in sentences(audit, wording):
            (loud if found else quiet).append(line)
        loud += _identical(audit, wording)
    return loud, quiet


def sentences(audit: Audit, wording: Wording) -> list[tuple[bool | None, str]]:
    """The verdicts on each synthetic set in a line over all encoders, copies first: (`Verdict.found`, the line)."""
    by_set: dict[str, list[tuple[Search, Verdict]]] = {}
    for search in searches(audit, wording):
        by_set.setdefault(audit.label(search.column, wording), []).append((search, verdict(search, wording)))
    lines: list[tuple[bool | None, str]] = []
    for name, found in by_set.items():
        hits = [search for search, words in found if words.found]
        clear = [search for search, words in found if words.found is False]
        if hits:
            parts = [f"{flagged(hit)} flagged, {expected(hit)} expected by chance ({hit.encoder})" for hit in hits]
            lines.append((True, f"COPIES FOUND in {name}: {'; '.join(parts)}"))
        elif clear:
            lines.append((False, f"{name}: {NOT_FOUND} ({_sensitivity(clear)})"))
        lines += [(None, f"{name}: {words.text} ({search.encoder})") for search, words in found if words.found is None]
    return sorted(lines, key=lambda line: (True, None, False).index(line[0]))


def _sensitivity(searches: Sequence[Search]) -> str:
    """`false positives 1 %; up to 1.6 % copies would go unnoticed by pixels, up to 2.1 % by patches`."""
    rates = dict.fromkeys(text for search in searches if (text := rate(search)))
    parts = [f"false positives {' to '.join(sorted(rates, key=_leading))}"] if rates else []
    limits = [(search, limit) for search in searches if (limit := unnoticed(search)) is not None]
    if limits:
        (first, limit), *rest = limits
        text = f"up to {percent(limit)} copies would go unnoticed by {first.encoder}"
        parts.append(", ".join([text, *(f"up to {percent(limit)} by {search.encoder}" for search, limit in rest)]))
    unknown = [search.encoder for search in searches if unnoticed(search) is None]
    if unknown:
        parts.append(f"how many copies would go unnoticed by {', '.join(unknown)} is unknown")
    return "; ".join(parts)


def _leading(text: str) -> float:
    return float(text.partition(" ")[0])


def _identical(audit: Audit, wording: Wording) -> list[str]:
    lines = []
    for line in audit.lines("duplicates_exact_training"):
        for column, row in line.rows.items():
            if row["value"]:
                what = f"{plural(round(row['value']), 'image')} of {row['n_synthetic']:,}"
                is_are = "is" if round(row["value"]) == 1 else "are"
                words = DUPLICATES["duplicates_exact_training"]
                chance = "" if row["real_floor"] is None else f", {count_text(row['real_floor'])} of as many real ones"
                lines.append(f"IDENTICAL in {audit.label(column, wording)}: {what} {is_are} {words}{chance}")
    return lines
