"""Notes under a fidelity table: missing floors, subsets told apart from real images, marks, the paper's limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.report.cells import marks
from chexray.report.groups import Column, Group, Key
from chexray.report.reasons import has_error, reasons
from chexray.report.wording import some
from chexray.results.published import PROTOCOL, best, comparable, test_set_size
from chexray.results.rows import Row, bias_dominated, params_of
from chexray.results.standing import direction, is_fidelity
from chexray.spelling import plural

LEVEL = 0.05
"""A p-value from here on does not tell two sets apart."""

CANNOT_SEE = "note_encoder_cannot_see"
"""The param in which an encoder without weights says what its features do not show."""


def overall(group: Group) -> list[str]:
    """Footnotes of the table over all images."""
    rows = [row for lines in group.overall.values() for row in lines.values()]
    blind = dict.fromkeys((row["encoder"], str(params_of(row).get(CANNOT_SEE) or "")) for row in rows)
    unseen = [f"{encoder} cannot see {what}" for encoder, what in blind if what]
    return [*reasons(rows), *no_floor(rows), *_paper(rows), *unseen]


def p_value(row: Row) -> float | None:
    """Of no difference from the real images."""
    return params_of(row).get("p_value") if is_fidelity(row) and row["value"] is not None else None


def standings(group: Group, subsets: Iterable[str], keys: Sequence[Key], column: Column) -> list[str]:
    """The subsets in which this set is worse than the best one and none is marked, by metric."""
    parts = []
    for key in keys:
        lost = [s for s in subsets if key in group.subsets[s] and column in group.losers(key, s)]
        if lost:
            parts.append(f"by {group.metric_name(key)} in {_subsets(lost)}")
    return [f"no set is marked best, but this one is worse than the best: {'; '.join(parts)}"] if parts else []


def not_told_apart(rows: Iterable[Row]) -> list[str]:
    """The subsets whose synthetic images a permutation test does not tell from the real ones, by metric."""
    found = grouped((row["metric"], row["subset"]) for row in rows if (p_value(row) or 0) >= LEVEL)
    test = f"not told apart from real images (permutation test, p >= {LEVEL:g})"
    return [f"{metric}: {test}: {_subsets(alike)}" for metric, alike in found.items()]


def no_floor(rows: Iterable[Row]) -> list[str]:
    """Why numbers have no real floor, where they would, by reason."""
    lacking = (row for row in rows if is_fidelity(row) and row["value"] is not None and row["real_floor"] is None)
    by_reason = grouped((str(params_of(row).get("floor_reason") or ""), row["metric"]) for row in lacking)
    by_reason.pop("", None)
    return [f"no real floor for {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in by_reason.items()]


def legend(groups: Sequence[Group]) -> list[str]:
    """How to read the marks, only those in use."""
    rows = [row for group in groups for row in group.rows]
    used = "".join(marks(row, won=False) for row in rows)
    cells = [(group, key, subset) for group in groups for subset, lines in group.subsets.items() for key in lines]
    floored = any(row["real_floor"] is not None for row in rows)
    won = any(group.winners(key, subset) for group, key, subset in cells)
    lost = any(group.losers(key, subset) for group, key, subset in cells)
    even = any(len(group.columns) > 1 for group in groups) and not (won or lost)
    instead = f", or use {name}, which is unbiased" if (name := _unbiased(rows)) else ""
    nearest = dict.fromkeys(row["metric"] for row in rows if direction(row) == "floor")
    bare = any(row["value"] is not None and not has_error(row) for row in rows)
    said = {
        "floor, other real images: their scores in place of the synthetic ones, at the same n": floored,
        "*  better: its 95% interval overlaps that of no other set": won,
        "no set is marked better: intervals overlap or are missing, or the numbers do not compare": even,
        f"!  mainly reflects sample size: read it against its real floor{instead}": "!" in used,
        f"→  {', '.join(nearest)}: the nearer to the real floor, the better": nearest,
        "^  better than other real images get: copies or too little variety, no better set": "^" in used,
        "=  the set holds images of the real set: the number measures these copies": "=" in used,
        "a value without an interval has no error estimate: differences may be chance": bare,
    }
    return [text for text, holds in said.items() if holds]


def _unbiased(rows: Iterable[Row]) -> str:
    """The headline whose expected value does not move with n; empty where there is none."""
    found = {output.rank: row["metric"] for row in rows if (output := output_of(row)).rank and not output.moves_with}
    return found[min(found)] if found else ""


def bias_line(rows: Iterable[Row]) -> list[str]:
    """`fid in 13 subsets mainly reflects sample size: read kid`"""
    rows = list(rows)
    biased = [row for row in rows if bias_dominated(row)]
    if not biased:
        return []
    names = ", ".join(dict.fromkeys(row["metric"] for row in biased))
    instead = _unbiased(row for row in rows if is_fidelity(row))
    subsets = plural(len({row["subset"] for row in biased}), "subset")
    use = f": use {instead}" if instead else ""
    return [f"{names} in {subsets} mainly reflects sample size (marked !){use}"]


def _paper(rows: Sequence[Row]) -> list[str]:
    row = next((row for row in rows if best(row)), None)
    if row is None:
        return []
    if why := comparable(row):
        upstream = output_of(row).upstream
        near = row["protocol"] == PROTOCOL or (upstream and upstream.encoder == row["encoder"])
        return [f"the paper's values are not shown: {why}"] if near else []
    lines = [
        f"paper's best: arXiv 2505.10496, without errors, against about {test_set_size():,} MIMIC-CXR test images; "
        f"here n real = {row['n_real']:,}. Other real images, or FID at another n, do not compare."
    ]
    if params_of(row)["weights_are"].endswith("word"):
        lines.append("that the weights are the paper's is the config's word (weights_are: released)")
    return [*lines, *paper_doubts(rows)]


def paper_doubts(rows: Iterable[Row]) -> list[str]:
    """What makes the paper's best cells for these rows suspect, where they are shown."""
    cells = [cell for row in rows if not comparable(row) and (cell := best(row)) and cell.suspect]
    return list(dict.fromkeys(f"?  paper, {cell.model}, {cell.subset}: {cell.suspect}" for cell in cells))


def _subsets(names: Sequence[str]) -> str:
    return some([name.removeprefix("finding:") for name in names])
