"""What the fidelity rows say of each synthetic set, in a line: copies of real images, told apart from them, worse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chexray.grouping import grouped
from chexray.report.cells import ordered_by_rank
from chexray.report.document import Callout, Note, Part
from chexray.report.fidelity.remarks import LEVEL, p_value
from chexray.report.groups import Column, Group
from chexray.results.identity import set_name
from chexray.results.rows import Row, params_of
from chexray.results.standing import COPIES, is_fidelity, n_copies

COPIES_FIRST = "copies_of_real_first"
"""The param that names the first few of them."""

BY_FEATURES = f"{COPIES}_by_features"
"""The param that counts those of other pixels, to which every encoder gives the same features."""

TEST = "p: how often as large a difference from the real images is chance (permutation test)"


def verdicts(groups: list[Group]) -> list[Part]:
    """Copies of real images first, then a line for each set: whether a test tells it apart, and by what it is worse."""
    sets = grouped(((group.real_set, column), group) for group in groups for column in group.columns)
    several = len({real for real, _ in sets}) > 1
    found: list[Part] = [*_copies(row for group in groups for row in group.rows)]
    for (real, column), own in sets.items():
        about = f"{own[0].label(column)}{f' beside {set_name(real)}' if several else ''}"
        found += _of_set(about, column, own)
    if any(p_value(row) is not None for group in groups for row in group.rows if row["subset"] == "all"):
        found.append(Note(TEST))
    return found


def _of_set(about: str, column: Column, groups: list[Group]) -> Iterator[Callout]:
    """`good  differs from real  kid p 0.002 (pixels), 0.034 (wavelets)`; nothing without a test where none is worse."""
    p_values: dict[str, list[tuple[float, str]]] = {}
    texts = []
    for group in groups:
        keys = ordered_by_rank(group.overall, group.row_of)
        named = {key: group.metric_name(key) for key in keys}
        for key, name in named.items():
            if (p := p_value(group.overall[key].get(column, NOTHING))) is not None:
                p_values.setdefault(name, []).append((p, group.encoder))
        by = {
            "best by": [name for key, name in named.items() if column in group.winners(key)],
            "worse than the best set by": [name for key, name in named.items() if column in group.losers(key)],
        }
        texts += [f"{what} {', '.join(names)} ({group.encoder})" for what, names in by.items() if names]
    tests = [f"{name} p {', '.join(f'{p:.2g} ({encoder})' for p, encoder in said)}" for name, said in p_values.items()]
    apart = any(p < LEVEL for said in p_values.values() for p, _ in said)
    if tests or texts:
        verdict = "" if not tests else "differs from real" if apart else "not told apart"
        yield Callout(about, verdict, (*tests, *texts))


NOTHING: Row = {"suite": "", "value": None}


def _copies(rows: Iterable[Row]) -> Iterator[Callout]:
    """A line for each synthetic set that holds images of the real set it is compared with, the most first."""
    found: dict[str, Row] = {}
    for row in rows:
        if is_fidelity(row) and n_copies(row) > n_copies(found.get(row["synthetic_set"], {})):
            found[row["synthetic_set"]] = row
    for row in sorted(found.values(), key=lambda row: -n_copies(row)):
        params, n = params_of(row), n_copies(row)
        alike = int(params.get(BY_FEATURES) or 0)
        how = "equal pixel by pixel" if not alike else f"{n - alike:,} equal pixel by pixel, {alike:,} in all features"
        first = [str(one) for one in params.get(COPIES_FIRST) or []]
        which = f", first {', '.join(first[:3])}" if first else ""
        texts = (
            f"{n:,} of {row['n_synthetic']:,} images are images of {set_name(row['real_set'])} ({how}){which}",
            "its fidelity numbers measure these copies: take them out and run again",
        )
        yield Callout(set_name(row["synthetic_set"]), "COPIES OF REAL IMAGES", texts, "alarm")
