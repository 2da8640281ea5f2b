"""Re-identification scores and distances of real and synthetic images of one prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from chexray.outputs import output_of
from chexray.report.care import has_no_pairs
from chexray.report.cells import paper_cell
from chexray.report.document import Note, Part, Section
from chexray.report.fidelity.remarks import paper_doubts
from chexray.report.privacy.groups import Beside, PrivacyTables, SetLine, floor_text
from chexray.report.privacy.remarks import said_of
from chexray.report.reasons import reasons
from chexray.report.wording import percent, value_and_interval
from chexray.results.published import is_random, prompts_and_seeds
from chexray.results.rows import Row, params_of
from chexray.results.verdicts import recognises_nobody
from chexray.spelling import plural

REID, DISTANCES = "re-identification", "pair distances"
SCORES = ("mean", "mean of extremes", "extreme")
COUNTS = ("count", "calibrated count")
OF_NETWORK = ("auc", "threshold", "false positives")
UNKNOWN = "unknown"
COUNTS_NEED = (
    "a count means little without its false-positive rate: the share of pairs of real images of two patients that "
    "score above the threshold"
)
FLOOR = Beside("real floor", floor_text)
PAPER = Beside("paper's best", lambda row, _: " ".join(paper_cell(row).parts))


def reidentification(tables: PrivacyTables) -> Iterator[Section]:
    """Scores and counts of each network, its false-positive rates beside the counts, and how good it is at all."""
    for group in tables.groups:
        lines = _paired(tables.lines(REID, roles=(*SCORES, *COUNTS), group=group))
        network = tables.lines(REID, roles=OF_NETWORK, group=group)
        if not (lines or network):
            continue
        parts: list[Part] = []
        if is_random(vars(group)):
            parts.append(Note("RANDOM WEIGHTS: untrained network, ignore these scores", "alarm"))
        shown = [line for line in lines if not _repeats(line)]
        if shown:
            rates = Beside("false pos. on real pairs", partial(_rate, rates=_rates(network)))
            named = partial(_label, network=network)
            parts.append(tables.grid(shown, "score of a pair", beside=(rates, FLOOR, PAPER), name=named))
        notes = [COUNTS_NEED] if any(line.output.role in COUNTS for line in shown) else []
        notes += [*_prompts(tables, lines, "maxima grow"), *_quality(network), *_remarks([*shown, *network])]
        weights = f" ({group.weights})" if group.weights and not is_random(vars(group)) else ""
        ignore = ": ignore its scores" if recognises_nobody(line_rows(network)) else ""
        yield Section(f"{REID}: {tables.encoder(group)}{weights}{ignore}", (*parts, *map(Note, notes)))


def distances(tables: PrivacyTables) -> Iterator[Section]:
    """Distances in each feature space and in grey levels; those never to be compared only with what is wrong."""
    lines = _paired(tables.lines(DISTANCES))
    shown = [line for line in lines if not _repeats(line)]
    if not shown:
        return
    parts: list[Part] = [tables.grid(shown, "space: distance", beside=(FLOOR, PAPER), name=partial(_space, tables))]
    for line in shown:
        if why := line.output.never_compared:
            parts.append(Note(f"{line.key[0]} is {why}. It is there to be set beside old tables only.", "alarm"))
    minima = [line for line in lines if line.output.role in SCORES[1:]]
    notes = [*_prompts(tables, minima, "minima fall"), *_remarks(shown)]
    yield Section("distances of pairs", (*parts, *map(Note, notes)))


def without_pairs(tables: PrivacyTables) -> list[str]:
    """`good: no pairs`, the sets of which no image belongs to a real one."""
    rows = [(column, row) for line in tables.lines(REID, DISTANCES) for column, row in line.rows.items()]
    without = {column for column, _ in rows} - {column for column, row in rows if not has_no_pairs(row)}
    names = [tables.label(column) for column in tables.columns if column in without]
    return [f"{', '.join(names)}: no pairs"] if names else []


def line_rows(lines: Iterable[SetLine]) -> list[Row]:
    return [row for line in lines for row in line.rows.values()]


def _paired(lines: Iterable[SetLine]) -> list[SetLine]:
    """The lines without the sets that have no pairs."""
    kept = (replace(line, rows={at: row for at, row in line.rows.items() if not has_no_pairs(row)}) for line in lines)
    return [line for line in kept if line.rows]


def _repeats(line: SetLine) -> bool:
    """Whether the line says the mean again: the mean of the extremes over a single seed a prompt."""
    one_seed = all(params_of(row).get("n_seeds_max") == 1 for row in line.rows.values())
    return line.output.role == "mean of extremes" and one_seed


def _label(line: SetLine, network: Sequence[SetLine]) -> str:
    """`prompts above 0.983 (calibrated) ↓`: the calibrated threshold is named with its value."""
    if line.output.role != "calibrated count":
        return line.label
    known = [params_of(row).get("threshold") for row in line.rows.values()]
    known += [row["value"] for row in line_rows(network) if output_of(row).role == "threshold"]
    threshold = next((value for value in known if value is not None), None)
    found = "the calibrated threshold" if threshold is None else f"{threshold:.4g} (calibrated)"
    return line.label.replace("the calibrated threshold", found)


def _space(tables: PrivacyTables, line: SetLine) -> str:
    """`grey levels: minimum ↑`"""
    if line.output.never_compared:
        return f"{line.key[0]}: WRONG"
    space = tables.encoder(line.group) if line.group.encoder else "grey levels"
    return f"{space}: {line.label}"


def _rates(network: Sequence[SetLine]) -> dict[str, float]:
    """False-positive rates by the threshold that they are of, from rows of their own."""
    rows = [row for row in line_rows(network) if output_of(row).role == "false positives" and row["value"] is not None]
    return {_threshold(row): row["value"] for row in reversed(rows)}


def _threshold(row: Row) -> str:
    """The threshold in the name of a count or of a false-positive rate."""
    return row["metric"].rpartition("_")[2]


def _rate(row: Row, _: object, rates: Mapping[str, float]) -> str:
    """`31 %`; "unknown" beside a count that was never calibrated; nothing beside a score."""
    if output_of(row).role not in COUNTS:
        return ""
    rate = params_of(row).get("false_positive_rate")
    rate = rates.get(_threshold(row)) if rate is None else rate
    return UNKNOWN if rate is None else percent(rate)


def _prompts(tables: PrivacyTables, lines: Iterable[SetLine], extremes: str) -> list[str]:
    """`2,000 prompts; maxima grow with the number of seeds: 10 a prompt`, a line a set where they differ."""
    by_text: dict[str, list[str]] = {}
    for line in lines:
        for column, row in line.rows.items():
            params = params_of(row)
            low, high = params.get("n_seeds_min"), params.get("n_seeds_max")
            if high is None:
                continue
            seeds = f"{high:,}" if low in (None, high) else f"{low:,} to {high:,}"
            prompts = f"{plural(params['n_prompts'], 'prompt')}; " if params.get("n_prompts") is not None else ""
            text = f"{prompts}{extremes} with the number of seeds: {seeds} a prompt"
            text += ", so that their mean is the mean" if high == 1 else ""
            by_text.setdefault(text, []).append(tables.label(column))
    if len(by_text) < 2:
        return list(by_text)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in by_text.items()]


def _quality(network: Sequence[SetLine]) -> list[str]:
    """How well the network tells real pairs of one patient from those of two."""
    rows = [row for row in line_rows(network) if output_of(row).role == "auc" and row["value"] is not None]
    values = dict.fromkeys(map(value_and_interval, rows))
    found = " / ".join(values)
    return [f"AUC of the network, real pairs of one patient against pairs of two: {found}"] if values else []


def _remarks(lines: Sequence[SetLine]) -> list[str]:
    """Why numbers are missing, and what the paper's were computed on where they are shown."""
    rows = line_rows(lines)
    said = reasons(rows, said=said_of)
    shown = [row for row in rows if paper_cell(row).text]
    if shown:
        prompts, seeds = prompts_and_seeds()
        said.append(
            f"paper's best: arXiv 2505.10496, without errors, over {prompts:,} MIMIC-CXR prompts of {seeds} seeds"
        )
        said += paper_doubts(shown)
    return said
