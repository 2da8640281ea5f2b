"""What must be said beside the verdicts: random weights, failures, rejects, bias, and what could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from chexray.report.document import Note
from chexray.report.fidelity.remarks import bias_line
from chexray.report.reasons import metric_of, reasons, set_of, subset_of
from chexray.results.identity import set_name
from chexray.results.published import is_random
from chexray.results.rows import Row, params_of, suite_of
from chexray.spelling import plural

RANDOM_WEIGHTS = "RANDOM WEIGHTS: these numbers compare with nothing"
UNMEASURED = {"privacy": (metric_of, set_of), "utility": (subset_of, set_of)}
"""Suite -> what its missing numbers are called; those of fidelity are told below their table."""
STATUS_WORDS = {"too_few": "too few images", "undefined": "undefined", "failed": "FAILED"}


def parts(rows: Sequence[Row]) -> Iterator[Note]:
    """What makes numbers void or takes some away first, how many there are last."""
    yield from (Note(line, "alarm") for line in _loud(rows))
    yield from (Note(line, "") for line in _cards(rows))
    yield from (Note(line, "") for line in bias_line(rows))
    yield from (Note(line, "") for line in _precision(rows))
    missing = [row for row in rows if row["value"] is None and row["status"] != "failed" and not has_no_pairs(row)]
    for suite, names in UNMEASURED.items():
        why = reasons(
            (row for row in missing if suite_of(row) == suite), *names, said=lambda row: [row["reason"]], mark=""
        )
        if why:
            yield Note(f"{suite}, not measured: {'; '.join(why)}", "")
    yield Note(counted(rows), "")


def _loud(rows: Sequence[Row]) -> Iterator[str]:
    random = dict.fromkeys(f"{row['encoder']}: {row['weights']}" for row in rows if is_random(row))
    if random:
        yield f"{RANDOM_WEIGHTS} ({', '.join(random)})"
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        first = failed[0]
        where = f"{first['metric']}, {first['subset']}: {first['reason']}"
        yield f"FAILED: {len(failed)} of {len(rows)} numbers; first {where}"
    if rejected := _rejected(rows):
        yield f"REJECTED: {rejected}; each with its reason in rejects.parquet"


def _cards(rows: Sequence[Row]) -> list[str]:
    """`v1: SynthCheX-75K: images of Sana ...`, once for each published set."""
    found = {set_name(row["synthetic_set"]): card for row in rows if (card := params_of(row).get("note_card"))}
    return [f"{name}: {card}" for name, card in found.items()]


def _precision(rows: Sequence[Row]) -> Iterator[str]:
    """`precision: rad_dino bf16 (auto: checked on 64 images: ...)`, where a run checked it."""
    said = {str(row["encoder"]): params_of(row).get("note_precision") for row in rows}
    if checked := [f"{encoder} {words}" for encoder, words in said.items() if words]:
        yield f"precision: {'; '.join(checked)}"


def counted(rows: Sequence[Row]) -> str:
    """`1,216 numbers computed, 18 not (18 without pairs).`"""
    nulls = Counter(_why(row) for row in rows if row["value"] is None)
    text = f"{plural(len(rows) - nulls.total(), 'number')} computed"
    if nulls:
        text += f", {nulls.total():,} not ({', '.join(f'{count:,} {why}' for why, count in nulls.most_common())})"
    return f"{text}."


def has_no_pairs(row: Row) -> bool:
    """Whether the number is missing because no synthetic image of the set belongs to a real one."""
    return row["value"] is None and params_of(row).get("pairs") == "none"


def _why(row: Row) -> str:
    """Why a number is missing, in two words to be counted."""
    if has_no_pairs(row):
        return "without pairs"
    if suite_of(row) == "utility" and row["status"] == "too_few":
        return "of utility without enough cases"
    return STATUS_WORDS.get(row["status"], str(row["status"]))


def _rejected(rows: Sequence[Row]) -> str:
    """Rejects behind the rows over all images, by synthetic set, the real ones counted in each."""
    counts: dict[str, int] = {}
    for row in rows:
        name = set_name(row["synthetic_set"])
        counts[name] = max(counts.get(name, 0), row["n_rejected"])
    found = {name: count for name, count in counts.items() if count}
    if len(found) > 1:
        found.pop("", None)  # of real images alone, which every set counts too
    return ", ".join(
        f"{plural(count, 'image')} of {f'{name} and its real set' if name else 'the real sets'}"
        for name, count in found.items()
    )
