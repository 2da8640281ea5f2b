"""What the privacy rows say of each synthetic set: one verdict, and one fact a line that it rests on.

"no copy found" is the best verdict there is: a search that found nothing says what it would have overlooked, and no
search shows that a generator gives nobody away. An image can be flagged where the set as a whole is within chance: the
search flags 1 % of images without a copy, and a few copies are too few for a test of their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chexray.grouping import grouped
from chexray.report.document import Callout, Note, Part, Section
from chexray.report.privacy.groups import PrivacyTables, Row
from chexray.report.privacy.search_table import case_mix_text, p_text
from chexray.report.wording import percent
from chexray.results.identity import set_name
from chexray.results.numbers import are, count_of, count_text
from chexray.results.rows import params_of
from chexray.results.verdicts import FALSE_ALARM, CopySearch, Duplicated, SetVerdict, of_role, recognises_nobody

NOT_FOUND = "no copy found"
WITHIN_CHANCE = "within chance"
NOT_TRIED = "whether altered copies would be found was not tried"
MOST_IDS = 3


def section(tables: PrivacyTables) -> Section:
    """A callout a set, those with an alarm first, then what all of them share."""
    found = [_of_set(tables, each) for each in tables.verdicts]
    said = sorted((one for one in found if one.texts or one.verdict), key=lambda one: one.tone != "alarm")
    parts: list[Part] = [*said]
    for group in tables.groups:
        parts += [
            Callout(tables.encoder(group), "NO RE-IDENTIFICATION", (text, "its scores are no verdict"), "alarm")
            for text in recognises_nobody(group.rows)
        ]
    if any(each.searches for each in tables.verdicts):
        parts.append(Note("; ".join([*_how_judged(tables.verdicts), _planted(tables.rows)])))
    return Section(f"PRIVACY · training: {set_name(tables.real_set)}", tuple(parts))


def _of_set(tables: PrivacyTables, found: SetVerdict) -> Callout:
    images = [*_duplicates(found.duplicated), *_outliers(found.outliers)]
    texts = [*_search(found, not_cleared=bool(images)), *images]
    texts += [f"no verdict by {search.encoder}: {search.verdict.reason}" for search in found.undecided]
    if found.flagged:
        texts.append(
            f"flagged by any part: {count_of(found.flagged)} images{_ids(found.flagged)}; see verdicts.parquet"
        )
    return Callout(tables.label(found.column), _verdict(found), tuple(texts), "alarm" if found.alarm else "")


def _verdict(found: SetVerdict) -> str:
    """The first that holds. Where duplicates are unchecked or a shift of case mix explains flags, copies are not
    excluded."""
    copies = found.duplicated
    said = {
        "COPIES FOUND": found.hits,
        "IDENTICAL IMAGES": copies.identical,
        "NEAR DUPLICATES": copies.nearly,
        "LOOK AT ONE IMAGE": found.outliers,
        WITHIN_CHANCE: found.clear and (copies.unchecked or any(search.explained for search in found.clear)),
        NOT_FOUND: found.clear,
        "no verdict": found.undecided,
    }
    return next((verdict for verdict, holds in said.items() if holds), "")


def _search(found: SetVerdict, *, not_cleared: bool) -> Iterator[str]:
    """What the searches flag beside chance, and what they would overlook where they find nothing."""
    if found.hits:
        yield _counts(found.hits)
        return
    if not found.clear:
        return
    if not_cleared or any(search.explained for search in found.clear):
        but = "; this does not clear the images below" if not_cleared else ""
        yield f"as a set: {_counts(found.clear)}: {WITHIN_CHANCE}{but}"
        yield from (f"{search.encoder}: {case_mix_text(search)}" for search in found.clear if search.explained)
        return
    yield _counts(found.clear)
    near = found.duplicated.near
    if near is not None and near["value"] and near["value"] > (near["real_floor"] or 0):
        yield _near(near)
    yield from _sensitivity(found.clear)


def _counts(searches: Sequence[CopySearch]) -> str:
    """`24 of 400 images flagged, 4.0 expected by chance (pixels, patches), p 0.068`, each count once."""
    alike = grouped((search.counts, search.encoder) for search in searches)
    values = [search.p_value for search in searches if search.p_value is not None]
    p = f", p {p_text(min(values))}" if values else ""
    return "; ".join(f"{text} ({', '.join(encoders)})" for text, encoders in alike.items()) + p


def _sensitivity(searches: Sequence[CopySearch]) -> Iterator[str]:
    """`unaltered copies that would go unnoticed: up to 1.6 % by pixels, up to 2.1 % by patches`"""
    known = [
        f"up to {percent(limit)} by {search.encoder}" for search in searches if (limit := search.unnoticed) is not None
    ]
    if known:
        yield f"unaltered copies that would go unnoticed: {', '.join(known)}"
    unknown = [search.encoder for search in searches if search.unnoticed is None]
    if unknown:
        yield f"how many unaltered copies would go unnoticed by {', '.join(unknown)} is unknown"


def _duplicates(copies: Duplicated) -> Iterator[str]:
    exact, near = copies.exact, copies.near
    if exact is not None and copies.identical:
        chance = "" if exact["real_floor"] is None else f", {count_text(exact['real_floor'])} of as many real ones"
        yield f"{count_of(exact)} images {are(exact)} the same as a training image{chance}{_ids(exact)}"
    # Identical images are near ones too: a line of their own only where there are others.
    if near is not None and (exact is None or near["value"] != exact["value"]):
        if copies.nearly:
            yield f"{_near(near)}{_ids(near)}"
        elif copies.unchecked:
            yield f"{_near(near)}; no held-out images tell how often real ones are"


def _near(row: Row) -> str:
    chance = "" if row["real_floor"] is None else f", {count_text(row['real_floor'])} expected"
    return f"{count_of(row)} images {are(row)} nearly a training image{chance}"


def _outliers(searches: Sequence[CopySearch]) -> Iterator[str]:
    """Single images far below the baseline, which a count of flags cannot tell."""
    by_image: dict[str, list[str]] = {}
    for search in searches:
        lowest, baseline = search.outlier or (0.0, 0.0)
        text = f"ratio of distances {lowest:.2g} by {search.encoder}, of the baseline at least {baseline:.2g}"
        by_image.setdefault(search.lowest_id, []).append(text)
    for image, texts in by_image.items():
        yield f"{image}{': ' if image else ''}{'; '.join(texts)} (copies.parquet)"


def _how_judged(verdicts: Sequence[SetVerdict]) -> Iterator[str]:
    """`false positives 1 %; p is over all 6 searches, 0.025 or less is more than chance`"""
    searches = [search for each in verdicts for search in each.searches]
    rates = sorted({search.false_positives for search in searches if search.false_positives is not None})
    texts = dict.fromkeys(percent(rate, 2) for rate in rates)
    if texts:
        yield f"false positives {' to '.join(texts)}"
    if any(search.p_value is not None for search in searches):
        yield f"p of {FALSE_ALARM:g} or less is more than chance"


def _planted(rows: Sequence[Row]) -> str:
    """`planted test copies: 401 of 440 found by pixels, patches; fewest: 1 of 40 cut by 5 % at two sides`"""
    found = [row for row in of_role(rows, "planted copies") if not row["encoder"] and row["value"] is not None]
    if not found:
        return NOT_TRIED
    params = [params_of(row) for row in found]
    least = min(params, key=lambda each: each["n_found"] / each["n"])
    n_found, n = (sum(each[name] for each in params) for name in ("n_found", "n"))
    fewest = f"; fewest: {least['n_found']} of {least['n']} {least['alteration']}" if n_found < n else ""
    return f"planted test copies: {n_found} of {n} found by {params[0]['searched']}{fewest}"


def _ids(row: Row) -> str:
    """`: a.png, b.png and 3 more`, the images that a row counts; empty where it does not name them."""
    ids = [str(each) for each in params_of(row).get("note_flagged") or []][:MOST_IDS]
    more = round(row["value"]) - len(ids)
    return f": {', '.join(ids)}{f' and {more:,} more' if more > 0 else ''}" if ids else ""
