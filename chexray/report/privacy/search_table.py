"""The search for copies by each encoder: what it flags beside chance, and how to read a flag."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chexray.grouping import grouped
from chexray.report.cells import scaled, value_cell
from chexray.report.document import Cell, Column, Grid, Line, Note, Part
from chexray.report.privacy.groups import PrivacyTables
from chexray.report.reasons import reasons
from chexray.report.wording import percent
from chexray.results.numbers import MISSING, count_text
from chexray.results.rows import params_of
from chexray.results.verdicts import FALSE_ALARM, CopySearch

HELD_OUT, TRAINING = "held-out", "training patients"
"""What chance was measured on, by the param `null`."""

FLAGGED = {
    HELD_OUT: "so much nearer to one of {searched} training images than to any held-out image that only {rate} of "
    "{null}held-out images are",
    TRAINING: "so much nearer to one of {searched} training images than to those of any other patient that only {rate} "
    "of {null}training images are",
}
OTHER_BASELINE = "nearer to training than all but {rate} of {null}real images (baseline: {name})"
NEAREST = {HELD_OUT: "than any held-out image", TRAINING: "than any training image to another patient's"}


def memorisation(tables: PrivacyTables) -> Iterator[Part]:
    """One line an encoder and set, then what a flag means, on what chance was measured, and what is noticed at all."""
    found = [(tables.label(each.column), search) for each in tables.verdicts for search in each.searches]
    if not found:
        return
    encoders = list(dict.fromkeys(search.encoder for _, search in found))
    found.sort(key=lambda pair: encoders.index(pair[1].encoder))
    searches = [search for _, search in found]
    yield _grid(found, several=len(tables.columns) > 1)
    if any(search.verdict.found for search in searches):
        yield Note("*  more than chance flags")
    for name, search in found:
        if search.case_mix:
            yield Note(f"{name}, {search.encoder}: {case_mix_text(search)}")
    yield from map(Note, _how_flagged(searches))
    yield from map(Note, reasons(row for search in searches for row in search.rows))


def case_mix_text(search: CopySearch) -> str:
    """How the places of synthetic images differ from those of real ones."""
    assert search.case_mix is not None
    dimensions = "local dimension {:.1f}, real {:.1f}".format(*search.case_mix)
    effect = "this explains these flags" if search.explained else "p accounts for it"
    return f"case mix differs from that of real images ({dimensions}); {effect}"


def _grid(found: Sequence[tuple[str, CopySearch]], *, several: bool) -> Grid:
    tested = any(search.p_value is not None for _, search in found)
    columns = [Column("encoder", once=True), *([Column("synthetic set")] if several else []), Column("flagged")]
    columns += [Column("chance", over="by", align="right"), Column("excess, %", under="[95% interval]")]
    columns += [Column("p", rank=1)] if tested else []
    lines = []
    for name, search in found:
        cells = [Cell(search.encoder), *([Cell(name)] if several else [])]
        cells += [_flagged(search), Cell(MISSING if search.expected is None else count_text(search.expected))]
        cells.append(Cell(MISSING) if search.excess is None else value_cell(scaled(search.excess, 100)))
        cells += [Cell(p_text(search.p_value))] if tested else []
        lines.append(Line(tuple(cells)))
    return Grid(tuple(columns), tuple(lines))


def _flagged(search: CopySearch) -> Cell:
    """`20 of 400* (5 %)`."""
    if search.flagged is None:
        return Cell(MISSING)
    n, found = search.row["n_synthetic"], bool(search.verdict.found)
    share = f"({percent(search.flagged / max(1, n))})"
    mark = "*" if found else ""
    return Cell(f"{search.flagged:,} of {n:,}", mark, share, tone="strong" if found else "")


def p_text(p_value: float | None) -> str:
    """`0.0004`; a bound where more figures would say nothing."""
    if p_value is None:
        return MISSING
    return "< 1e-6" if p_value < 1e-6 else f"{p_value:.2g}"


def _how_flagged(found: Sequence[CopySearch]) -> Iterator[str]:
    said = grouped((_definition(search, found), search.encoder) for search in found)
    encoders = {search.encoder for search in found}
    for text, of in said.items():
        yield text if set(of) == encoders else f"{text} ({', '.join(dict.fromkeys(of))})"
    yield from _noticed(found)
    decided = sum(search.verdict.found is not None for search in found)
    allowed = f"all {decided} searches" if decided > 1 else "the search"
    if any(search.p_value is not None for search in found):
        yield (
            f"p: how often chance alone flags as many, over {allowed}; {FALSE_ALARM:g} or less is more than chance; "
            "false-alarm rate at most 2.5 % per run"
        )
    elif decided > 1:
        yield f"false-alarm rate about 2.5 % per run: {decided} searches are allowed for"
    shares = (search.share for search in found if search.share is not None)
    for text in dict.fromkeys(str(params_of(share).get("cannot_see") or "") for share in shares):
        if text:
            yield f"blind spot: {text}"


def _definition(search: CopySearch, found: Sequence[CopySearch]) -> str:
    """What a flag means, with the sizes of the training set and of the baseline."""
    params = params_of(search.row)
    null, rate = params.get("null"), search.false_positives
    least, most = min(each.row["n_real"] for each in found), max(each.row["n_real"] for each in found)
    searched = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    if rate is None or null is None:
        return f"flagged: nearer to one of {searched} training images than unseen real images are"
    size = "" if params.get("n_null") is None else f"{params['n_null']:,} "
    text = FLAGGED.get(null, OTHER_BASELINE).format(searched=searched, rate=percent(rate, 2), null=size, name=null)
    return f"flagged: {text}; chance flags {percent(rate, 2)}"


def _noticed(found: Sequence[CopySearch]) -> Iterator[str]:
    """The smallest share of copies that the searches notice. Older runs say it of flagged copies and with a power."""
    by_words: dict[tuple[str, str], list[float]] = {}
    for search in found:
        params = params_of(search.row)
        share, power = params.get("smallest_share_noticed"), params.get("smallest_share_noticed_power")
        if share is None:
            continue
        words = ("power", f"copies, all of them flagged, are noticed in {percent(power or 0)} of such runs")
        if power is None:
            nearest = NEAREST.get(params.get("null", ""), "than any real image of the baseline")
            words = ("sensitivity", f"copies, each nearer to training {nearest}, are always noticed")
        by_words.setdefault(words, []).append(share)
    for (head, tail), shares in by_words.items():
        ends = dict.fromkeys(percent(share) for share in (min(shares), max(shares)))
        yield f"{head}: {' to '.join(ends)} {tail}{' (by encoder and set)' if len(ends) > 1 else ''}"
