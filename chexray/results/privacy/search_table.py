"""The memorisation search on a terminal: its verdicts in words, its counts beside chance, and how to read a flag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.privacy.groups import FALSE_ALARM, Audit, Search, searches
from chexray.results.privacy.layout import scaled, value_and_interval
from chexray.results.privacy.names import HEADLINE
from chexray.results.privacy.remarks import remarks
from chexray.results.privacy.sentences import sentences
from chexray.results.privacy.words import Verdict, expected, percent, rate, verdict
from chexray.results.rows import params_of
from chexray.results.wording import Wording

HELD_OUT, TRAINING = "held-out", "training patients"
"""What chance was measured on, by params["null"]."""

FLAGGED = {
    HELD_OUT: "its nearest of {searched} training images is nearer, relative to its nearest held-out image, than for "
    "all but {rate} of {null}held-out images",
    TRAINING: "its nearest of {searched} training images is nearer, relative to the nearest of another patient, than "
    "for all but {rate} of {null}training images among other patients'",
}
OTHER_NULL = "nearer to training than all but {rate} of {null}real images (null: {name})"
NEAREST = {HELD_OUT: "than any held-out image", TRAINING: "than any training image to another patient's"}


def memorisation(audit: Audit, wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    """What was found comes first, then the counts it rests on, then what they mean."""
    found = [(search, verdict(search, wording)) for search in searches(audit, wording)]
    if not found:
        return
    yield Text("\nmemorisation", style="bold")
    for copied, line in sentences(audit, wording):
        yield Text(line, style="bold red" if copied else "")
    tested = any(search.p_value is not None for search, _ in found)
    # The verdicts are in words above, so their column goes first where the width does not hold all.
    tables = [(p, _table(audit, found, wording, p, words)) for p, words in product((tested, False), (True, False))]
    with_p, table = next((choice for choice in tables if fits(choice[1], console, width)), tables[-1])
    yield table
    yield from dim(
        f"{audit.label(search.column, wording)}, {search.encoder}: {search.case_mix}"
        for search, _ in found
        if search.case_mix
    )
    yield from dim(_how_flagged([search for search, _ in found], wording, with_p))
    yield from dim(remarks((row for line in audit.lines(*HEADLINE) for row in line.rows.values()), wording))


def _table(
    audit: Audit, found: Sequence[tuple[Search, Verdict]], wording: Wording, with_p: bool, with_verdict: bool
) -> Table:
    """One row an encoder and set."""
    several = len(audit.columns) > 1
    table = house_table(wording)
    table.add_column("encoder", overflow="fold")
    if several:
        table.add_column("synthetic set", overflow="fold")
    table.add_column("flagged")
    table.add_column(Text("by\nchance"), justify="right")
    table.add_column(Text("excess, %\n[95% interval]"))
    if with_p:
        table.add_column("p")
    if with_verdict:
        table.add_column(Text("the set\nas a whole"))
    encoder = None
    for search, words in found:
        style = "bold" if words.found else ""
        line = [Text("" if search.encoder == encoder else search.encoder)]
        line += [Text(audit.label(search.column, wording))] if several else []
        excess = wording.own("–")
        if search.excess is not None:
            excess = value_and_interval(scaled(search.excess, 100), wording)
        line += [Text(_flagged(search, wording), style=style), Text(_expected(search, wording)), Text(excess)]
        line += [Text(_p(search, wording))] if with_p else []
        table.add_row(*line, *([Text(words.text.partition(",")[0], style=style)] if with_verdict else []))
        encoder = search.encoder
    return table


def _flagged(search: Search, wording: Wording) -> str:
    """`20 of 400 (5 %)`."""
    if search.flagged is None:
        return wording.own("–")
    n = search.row["n_synthetic"]
    return f"{search.flagged:,} of {n:,} ({percent(search.flagged / max(1, n))})"


def _expected(search: Search, wording: Wording) -> str:
    return wording.own("–") if search.expected is None else expected(search)


def _p(search: Search, wording: Wording) -> str:
    """`0.0004`; a bound where more figures would say nothing."""
    if search.p_value is None:
        return wording.own("–")
    return "< 1e-6" if search.p_value < 1e-6 else f"{search.p_value:.2g}"


def _how_flagged(found: Sequence[Search], wording: Wording, with_p: bool) -> list[str]:
    """What a flag means, on what chance was measured, and what is noticed at all."""
    said: dict[str, list[str]] = {}
    for search in found:
        said.setdefault(_definition(search, found, wording), []).append(search.encoder)
    encoders = {search.encoder for search in found}
    lines = [text if set(of) == encoders else f"{text} ({', '.join(dict.fromkeys(of))})" for text, of in said.items()]
    lines += _noticed(found)
    decided = sum(verdict(search, wording).found is not None for search in found)
    allowed = f"all {decided} searches" if decided > 1 else "the search"
    if with_p:
        lines.append(
            f"p: chance alone, over {allowed}; {FALSE_ALARM:g} or less is beyond chance: "
            "false-alarm rate at most 2.5 % per run"
        )
    elif decided > 1:
        lines.append(f"false-alarm rate about 2.5 % per run: {decided} searches are allowed for")
    shares = (search.share for search in found if search.share is not None)
    blind = dict.fromkeys(str(params_of(share).get("cannot_see") or "") for share in shares)
    return lines + [f"blind spot: {wording.data(text)}" for text in blind if text]


def _definition(search: Search, found: Sequence[Search], wording: Wording) -> str:
    """What a flag means, with the sizes of the training set and of the null."""
    params = params_of(search.row)
    null, share = params.get("null"), rate(search)
    least, most = min(each.row["n_real"] for each in found), max(each.row["n_real"] for each in found)
    searched = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    if not share or null is None:
        return f"flagged: nearer to one of {searched} training images than unseen real images are"
    size = "" if params.get("n_null") is None else f"{params['n_null']:,} "
    text = FLAGGED.get(null, OTHER_NULL).format(searched=searched, rate=share, null=size, name=wording.data(null))
    return f"flagged: {text}; by chance: that {share}"


def _noticed(found: Sequence[Search]) -> list[str]:
    """The smallest share of copies that the searches notice. Older runs say it of flagged copies and with a power."""
    by_words: dict[tuple[str, str], list[float]] = {}
    for search in found:
        params = params_of(search.row)
        share, power = params.get("smallest_share_noticed"), params.get("smallest_share_noticed_power")
        if share is None:
            continue
        words = ("power", f"copies, all of them flagged, are noticed in {percent(power or 0)} of such audits")
        if power is None:
            nearest = NEAREST.get(params.get("null", ""), "than any real image of the null")
            words = ("sensitivity", f"copies, each nearer to training {nearest}, are always noticed")
        by_words.setdefault(words, []).append(share)
    lines = []
    for (head, tail), shares in by_words.items():
        ends = dict.fromkeys(percent(share) for share in (min(shares), max(shares)))
        lines.append(f"{head}: {' to '.join(ends)} {tail}{' (by encoder and set)' if len(ends) > 1 else ''}")
    return lines
