"""What a run says of each synthetic set, in one order: the images it flags, the set as a whole, what was not tested.

An image can be flagged where the set as a whole is within chance: the search flags 1 % of images without a copy, and a
few copies are too few for a test of their number. The lines name what each of them is about, so that none of them takes
back another.
"""

from __future__ import annotations

from collections.abc import Sequence

from chexray.results.grouping import Column
from chexray.results.privacy.groups import FALSE_ALARM, Audit, Search, audits_of, searches
from chexray.results.privacy.names import FLAGGED
from chexray.results.privacy.planted import altered
from chexray.results.privacy.words import (
    IDENTICAL,
    NOT_FOUND,
    WITHIN_CHANCE,
    Copied,
    Row,
    Verdict,
    copied,
    count_of,
    count_text,
    expected,
    flagged,
    near_words,
    nobody,
    percent,
    plural,
    rate,
    unnoticed,
    verdict,
)
from chexray.results.rows import params_of, suite_of
from chexray.results.wording import Wording

Said = tuple[bool | None, str]
"""(True for an alarm, False where nothing was found, None for what qualifies it; the line)"""


def summary(rows: Sequence[Row], wording: Wording) -> tuple[list[str], list[str]]:
    """What the privacy rows among these say, a line each: (alarms, what was not found or not tested)."""
    loud: list[str] = []
    quiet: list[str] = []
    for audit in audits_of(row for row in rows if suite_of(row) == "privacy"):
        for found, line in sentences(audit, wording):
            (loud if found else quiet).append(line)
        for group in audit.groups:
            name = audit.encoder(group, wording)
            lines = audit.lines("reid_auc", group=group)
            loud += [
                f"NO RE-IDENTIFICATION by {name}: {text}; its scores are no verdict" for text in nobody(lines, wording)
            ]
    return loud, quiet


def sentences(audit: Audit, wording: Wording) -> list[Said]:
    """The lines of all sets, those with an alarm first.

    A set with duplicates of training images is never said to be without copies, whatever the searches say.
    """
    found: dict[Column, list[tuple[Search, Verdict]]] = {column: [] for column in audit.columns}
    for search in searches(audit, wording):
        found[search.column].append((search, verdict(search, wording)))
    by_set = [_of_set(audit, column, judged, wording) for column, judged in found.items()]
    by_set.sort(key=lambda lines: not any(alarm for alarm, _ in lines))
    return [line for lines in by_set for line in lines]


def _of_set(audit: Audit, column: Column, judged: list[tuple[Search, Verdict]], wording: Wording) -> list[Said]:
    name, copies = audit.label(column, wording), copied(audit, column)
    hits = [search for search, words in judged if words.found]
    clear = [search for search, words in judged if words.found is False]
    images = [*_duplicates(name, copies, wording), *_outliers(name, [*hits, *clear], wording)]
    whole: list[Said] = []
    if hits:
        parts = [f"{flagged(hit)} flagged, {expected(hit)} expected by chance ({hit.encoder})" for hit in hits]
        whole.append((True, f"COPIES FOUND in {name}: {'; '.join(parts)}{_p_of(hits)}"))
    elif clear:
        explained = any(search.explained for search in clear)
        if images or explained:
            but = "; this does not clear the images above" if images else ""
            whole.append((False, f"{name} as a set: {_counts(clear)}: {WITHIN_CHANCE}{_p_of(clear)}{but}"))
        else:
            p_value = _p_of(clear).strip(" ()")
            known = [*_beyond_chance(clear, copies), *([p_value] if p_value else []), *_sensitivity(clear)]
            known += altered(audit, wording)
            whole.append((False, f"{name}: {NOT_FOUND} ({'; '.join(known)})"))
        whole += [(None, f"{name}: {search.case_mix} ({search.encoder})") for search in clear if search.explained]
    untested: list[Said] = [
        (None, f"{name}: {words.text} ({search.encoder})") for search, words in judged if words.found is None
    ]
    alarm = any(said for said, _ in [*images, *whole])
    return [*_flagged_images(audit, column, name, alarm, wording), *images, *whole, *untested]


def _flagged_images(audit: Audit, column: Column, name: str, alarm: bool, wording: Wording) -> list[Said]:
    """`FLAGGED in NAME: 4 of 80 images: a.png, b.png ...`, over all parts of the suite; [] where none is."""
    rows = [line.rows[column] for line in audit.lines(FLAGGED) if column in line.rows]
    if not rows or not rows[0]["value"]:
        return []
    what = f"{count_of(rows[0])} images{_ids(rows[0], wording)} (each with its reasons in verdicts.parquet)"
    return [(True, f"FLAGGED in {name}: {what}") if alarm else (False, f"{name}: flagged: {what}")]


def _ids(row: Row, wording: Wording) -> str:
    """`: a.png, b.png and 3 more`, the images that a row counts; empty where it does not name them."""
    ids = params_of(row).get("note_flagged") or []
    if not ids or not row["value"]:
        return ""
    more = round(row["value"]) - len(ids)
    return f": {', '.join(wording.data(each) for each in ids)}{f' and {more:,} more' if more > 0 else ''}"


def _outliers(name: str, searches: Sequence[Search], wording: Wording) -> list[Said]:
    """A line where single images lie far below the baseline, which a count of flags cannot tell."""
    parts = []
    for search in searches:
        if pair := search.outlier:
            lowest, baseline = pair
            which = f"{wording.data(search.lowest_id)}, " if search.lowest_id else ""
            parts.append(f"{which}ratio {lowest:.2g} by {search.encoder}, the lowest of the baseline is {baseline:.2g}")
    return [(True, f"LOOK AT {name}: {'; '.join(parts)} (copies.parquet)")] if parts else []


def _p_of(searches: Sequence[Search]) -> str:
    """` (p 0.068, threshold 0.025)`: the smallest p-value and the one from which the set exceeds chance."""
    values = [search.p_value for search in searches if search.p_value is not None]
    if not values:
        return ""
    lowest = "p < 1e-6" if min(values) < 1e-6 else f"p {min(values):.2g}"
    return f" ({lowest}, threshold {FALSE_ALARM:g})"


def _counts(searches: Sequence[Search]) -> str:
    """`4 of 80 images flagged, 0.7 expected by chance (pixels, patches)`, each count once."""
    alike: dict[str, list[str]] = {}
    for search in searches:
        text = f"{flagged(search)} flagged, {expected(search)} expected by chance"
        alike.setdefault(text, []).append(search.encoder)
    return "; ".join(f"{text} ({', '.join(encoders)})" for text, encoders in alike.items())


def _beyond_chance(searches: Sequence[Search], copies: Copied) -> list[str]:
    """`pixels: 8 of 400 flagged, 4.0 expected`, what exceeds chance without being significant."""
    alike: dict[str, list[str]] = {}
    for search in searches:
        # An expectation of 3.99 is not exceeded by 4.
        if search.flagged is not None and search.flagged >= (search.expected or 0) + 0.5:
            text = f"{flagged(search).removesuffix(' images')} flagged, {expected(search)} expected"
            alike.setdefault(text, []).append(search.encoder)
    parts = [f"{', '.join(names)}: {text}" if len(searches) > 1 else text for text, names in alike.items()]
    near = copies.near
    if near is not None and near["value"] and near["value"] > (near["real_floor"] or 0):
        parts.append(f"{count_of(near)} {near_words(near)}")
    return parts


def _sensitivity(searches: Sequence[Search]) -> list[str]:
    """`false positives 1 %`, `up to 1.6 % unaltered copies would go unnoticed by pixels, up to 2.1 % by patches`."""
    rates = dict.fromkeys(text for search in searches if (text := rate(search)))
    parts = [f"false positives {' to '.join(sorted(rates, key=_leading))}"] if rates else []
    limits = [(search, limit) for search in searches if (limit := unnoticed(search)) is not None]
    if limits:
        (first, limit), *rest = limits
        text = f"up to {percent(limit)} unaltered copies would go unnoticed by {first.encoder}"
        parts.append(", ".join([text, *(f"up to {percent(limit)} by {search.encoder}" for search, limit in rest)]))
    unknown = [search.encoder for search in searches if unnoticed(search) is None]
    if unknown:
        parts.append(f"how many unaltered copies would go unnoticed by {', '.join(unknown)} is unknown")
    return parts


def _leading(text: str) -> float:
    return float(text.partition(" ")[0])


def _duplicates(name: str, copies: Copied, wording: Wording) -> list[Said]:
    """What is to be said aloud about them: (True, or None where chance is unknown; the line)."""
    lines: list[Said] = []
    exact, near = copies.exact, copies.near
    if exact is not None and copies.identical:
        what = f"{plural(round(exact['value']), 'image')} of {exact['n_synthetic']:,}"
        is_are = "is" if round(exact["value"]) == 1 else "are"
        chance = "" if exact["real_floor"] is None else f", {count_text(exact['real_floor'])} of as many real ones"
        lines.append((True, f"IDENTICAL in {name}: {what} {is_are} {IDENTICAL}{chance}{_ids(exact, wording)}"))
    # Identical images are near ones too: a line of their own only where there are others.
    if near is not None and (exact is None or near["value"] != exact["value"]):
        if copies.nearly:
            what = f"{count_of(near)} images {near_words(near)}{_ids(near, wording)}"
            lines.append((True, f"NEAR DUPLICATES in {name}: {what}"))
        elif copies.unchecked:
            unchecked = "no held-out images tell how often real ones are"
            lines.append((None, f"{name}: {count_of(near)} images {near_words(near)}; {unchecked}"))
    return lines
