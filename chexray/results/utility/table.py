"""The utility numbers on a terminal: trainings compared on the real test set, then by finding, by group, and labels."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.notes import RANDOM_WEIGHTS
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.results.utility.comparison_table import comparison, metrics_of
from chexray.results.utility.groups import FINDING, Cells, Row, Study, Training, excludes_zero, shows_difference
from chexray.results.utility.layout import LABEL_WIDTH, Line, Matrix
from chexray.results.utility.names import FAITHFULNESS, single_trainings
from chexray.results.utility.remarks import STAR_OF_FINDINGS, UNCORRECTED, elsewhere, group_means, missing
from chexray.results.utility.words import not_shown
from chexray.results.wording import Wording, error_of, number

Parts = Iterable[RenderableType]

GAP = "auroc_macro_gap"
FALSE_DISCOVERIES = 0.05


def show(study: Study, wording: Wording, console: Console, width: int) -> Parts:
    """The sections of one test set and model, for `chexray.results.table.View`."""
    yield Text(study.title(wording), style="bold")
    if is_random(vars(study)):
        yield Text(RANDOM_WEIGHTS, style="bold red")
    for section in (comparison, _findings, _groups, _faithfulness):
        yield from section(study, wording, console, width)
    yield from dim(_elsewhere(study, wording))
    yield Text("")


def _findings(study: Study, wording: Wording, console: Console, width: int) -> Parts:
    """AUROC by finding, the commonest first; findings that nothing has a value for are named below."""
    found = {subset: study.get("auroc", subset) for subset in study.subsets("auroc")}
    if not found:
        return
    lines, tests = [], set()
    starred = differing(study)
    for subset, cells in sorted(found.items(), key=lambda item: -_positives(item[1])):
        tests |= {row["n_real"] for row in cells.values()}
        marked = frozenset(training for training, differ in starred.items() if subset in differ)
        if any(row["value"] is not None for row in cells.values()):
            positives = _positives(cells)
            count = f"{positives:,}" if positives >= 0 else "?"
            lines.append(Line(wording.data(subset.removeprefix(FINDING)), count, cells, marked))
    yield Text("\nAUROC by finding", style="bold")
    bare: list[str] = []
    if lines:
        head = f"positive\nof {tests.pop():,}" if len(tests) == 1 else "positive\n"
        parts, bare = Matrix(study, "finding\n", head, lines, wording).fit(console, width)
        yield from parts
    remarks = missing([row for cells in found.values() for row in cells.values()], wording)
    if any(line.marked for line in lines):
        corrected = all("p_value" in params_of(row) for row in study.rows("auroc_difference") if excludes_zero(row))
        remarks.append(f"*  {STAR_OF_FINDINGS if corrected else UNCORRECTED}")
    yield from dim([*remarks, *bare])


def differing(study: Study) -> dict[Training, set[str]]:
    """{training: the findings whose AUROC differs from real}, corrected for how many findings each training has.

    Benjamini and Hochberg (1995): of the findings starred over many trainings, 5 % are expected not to differ. Between
    equal settings some finding is starred in 0 to 5 % of test sets, where single intervals star one in 25 to 47 %
    (tests/calibration/findings.py). Rows of before 0.2 have no p-value and go by their intervals, as they did.
    """
    every: dict[Training, dict[str, Row]] = {}
    for subset in study.subsets("auroc_difference"):
        for training, row in study.get("auroc_difference", subset).items():
            if row["ci_low"] is not None and not single_trainings(row):
                every.setdefault(training, {})[subset] = row
    found: dict[Training, set[str]] = {}
    for training, rows in every.items():
        said = {subset: params_of(row).get("p_value") for subset, row in rows.items()}
        p_values = {subset: p_value for subset, p_value in said.items() if p_value is not None}
        if len(p_values) < len(rows):
            found[training] = {subset for subset, row in rows.items() if shows_difference(row)}
            continue
        ordered = sorted(p_values, key=p_values.__getitem__)
        within = [k for k, subset in enumerate(ordered, 1) if p_values[subset] <= k * FALSE_DISCOVERIES / len(ordered)]
        found[training] = set(ordered[: max(within, default=0)])
    return found


def _positives(cells: Cells) -> int:
    """Test images with the finding; -1 where no row tells."""
    return max((int(params_of(row).get("n_positive", -1)) for row in cells.values()), default=-1)


def _groups(study: Study, wording: Wording, console: Console, width: int) -> Parts:
    """AUROC macro by group, each column of the manifest closed by the gap between its best and worst group."""
    groups = study.subsets("auroc_macro")
    columns = list(dict.fromkeys([group.partition(":")[0] for group in groups] + study.subsets(GAP)))
    lines = []
    for column in columns:
        own = [group for group in groups if group.partition(":")[0] == column]
        for group in own:
            cells = study.get("auroc_macro", group)
            sizes = sorted({row["n_real"] for row in cells.values()})
            lines.append(Line(wording.data(group), f"{sizes[-1]:,}", cells, kind=column))
        gap = study.get(GAP, column)
        if gap:
            better = next(iter(gap.values()))["better"]
            large = frozenset(training for training, row in gap.items() if beyond_chance(row))
            lines.append(Line(f"{wording.data(column)}: gap{wording.arrow(better)}", "", gap, large, column))
    if not lines:
        return
    yield Text("\nAUROC macro by group", style="bold")
    parts, bare = Matrix(study, "group\n", "test\nimages", lines, wording).fit(console, width)
    yield from parts
    remarks = missing((row for line in lines for row in line.cells.values()), wording)
    means = (row for group in groups for row in study.get("auroc_macro", group).values())
    remarks += group_means(means, gap=bool(study.rows(GAP)))
    if study.rows(GAP):
        remarks.append(
            "gap: best less worst group, over the findings that all its groups can be judged by; its interval keeps to "
            "these two"
        )
        remarks += _too_small(study.rows(GAP), wording)
    if any(beyond_chance(row) for row in study.rows(GAP)):
        remarks.append("*  larger than 95 % of the gaps between groups that are served equally well")
    yield from dim([*remarks, *bare])


def _too_small(rows: Iterable[Row], wording: Wording, most: int = 4) -> list[str]:
    """The groups that no gap holds, by why: a line each. Rows of before 0.2 name groups without a reason."""
    found: dict[str, dict[str, None]] = {}
    for params in map(params_of, rows):
        why = str(params.get("left_out_why") or "too small to judge")
        found.setdefault(wording.data(why), {}).update(dict.fromkeys(map(wording.data, params.get("left_out") or ())))
    lines = []
    for why, names in found.items():
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            lines.append(f"not in the gap: {', '.join(list(names)[:most])}{more} ({why})")
    return lines


def beyond_chance(row: Row) -> bool:
    """Whether a gap is larger than picking the best and worst of equal groups explains. Never without an interval."""
    chance = params_of(row).get("gap_by_chance")
    return None not in (row["value"], row["ci_low"], chance) and row["value"] > chance


def _faithfulness(study: Study, wording: Wording, console: Console, width: int) -> Parts:
    """What the classifier of real images sees of the findings that the synthetic ones were asked to show."""
    subsets = dict.fromkeys([*study.subsets("faithfulness_auroc"), "all"])
    names = {subset: FAITHFULNESS[1] if subset == "all" else FAITHFULNESS[0] for subset in subsets}
    found = {subset: cells for subset, name in names.items() if (cells := study.get(name, subset))}
    if not found:
        return
    yield Text("\nlabel faithfulness: AUROC of the findings asked for, on synthetic images", style="bold")
    trainings = list(dict.fromkeys(training for cells in found.values() for training in cells))
    for stacked in (False, True):
        table = house_table(wording)
        table.add_column("finding\n", overflow="fold", max_width=LABEL_WIDTH)
        for training in trainings:
            sizes = {cells[training]["n_synthetic"] for cells in found.values() if training in cells}
            size = f"n = {sizes.pop():,}" if len(sizes) == 1 else ""
            table.add_column(Text(f"{study.generator(training.column, wording)}\n{size}"), overflow="fold")
        table.add_column(Text("real test\nimages"), justify="right", overflow="fold")
        for subset, cells in found.items():
            label = "macro" if subset == "all" else wording.data(subset.removeprefix(FINDING))
            values = [_faithful(cells.get(training), wording, "\n" if stacked else " ") for training in trainings]
            floors = [row for row in cells.values() if row["real_floor"] is not None]
            floor = number(floors[0]["real_floor"], error_of(floors[0])) if floors else ""
            if any(row["value"] is not None for row in cells.values()):
                table.add_row(Text(label), *values, Text(floor))
        if fits(table, console, width):
            break
    rows = [row for cells in found.values() for row in cells.values()]
    remarks = missing(rows, wording)
    if not table.row_count:
        yield from dim(remarks)
        return
    yield table
    if any(not_shown(row) for row in rows):
        remarks.append("!  not shown: down to chance, where the same classifier sees the finding in real images")
    remarks.append(
        "by the classifier of setting real; low where images do not show what was asked for, or look so unlike real "
        "ones that it cannot read them"
    )
    yield from dim(remarks)


def _faithful(row: Row | None, wording: Wording, between: str) -> Text:
    if row is None:
        return Text("")
    bad = not_shown(row)
    parts = [f"{wording.value(row)}{'!' if bad else ''}", wording.interval(row)]
    return Text(between.join(part for part in parts if part), style="bold red" if bad else "")


def _elsewhere(study: Study, wording: Wording) -> list[str]:
    """What no section shows."""
    shown = {(metric, True) for metric in metrics_of(study)}
    shown |= {("auroc", False), ("auroc_difference", False), ("auroc_macro", False), (GAP, False)}
    shown |= {(FAITHFULNESS[0], False), (FAITHFULNESS[1], True)}
    cells = ((metric, subset) for metric, _, subset in study.cells)
    return elsewhere((cell for cell in cells if (cell[0], cell[1] == "all") not in shown), wording)
