"""The results of a run as a document, and on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from chexray.report import care
from chexray.report.document import Document, Section
from chexray.report.fidelity import table as fidelity_table
from chexray.report.fidelity import verdicts as fidelity_verdicts
from chexray.report.groups import group_rows
from chexray.report.privacy import groups as privacy_groups
from chexray.report.privacy import table as privacy_table
from chexray.report.privacy import verdicts as privacy_verdicts
from chexray.report.terminal import View
from chexray.report.utility import groups as utility_groups
from chexray.report.utility import table as utility_table
from chexray.report.utility import verdicts as utility_verdicts
from chexray.results.rows import SUITES, Row, suite_of, to_records

if TYPE_CHECKING:
    import pandas as pd


def document_of(rows: pd.DataFrame | Iterable[Row]) -> Document:
    """Every table of the rows; then, once for the whole page, what they say of each set, and what to read with care."""
    records = to_records(rows)
    of_suite: dict[str, list[Row]] = {suite: [] for suite in SUITES}
    for row in records:
        of_suite[suite_of(row)].append(row)
    fidelity = group_rows(of_suite["fidelity"])
    privacy = list(privacy_groups.tables_of(of_suite["privacy"]))
    utility = utility_groups.tables_of(of_suite["utility"])
    sections = [
        *fidelity_table.sections(fidelity),
        *(privacy_table.section(tables, place) for place, tables in enumerate(privacy, 1)),
        *(utility_table.section(tables, place) for place, tables in enumerate(utility, 1)),
    ]
    verdicts = [
        Section("FIDELITY", tuple(fidelity_verdicts.verdicts(fidelity))),
        *map(privacy_verdicts.section, privacy),
        *map(utility_verdicts.section, utility),
        Section("READ WITH CARE", tuple(care.parts(records))),
    ]
    return Document(tuple(sections), tuple(section for section in verdicts if section.parts))


def render(rows: pd.DataFrame | Iterable[Row], *, width: int | None = None) -> list[View]:
    """The tables as rich renderables, to be printed in turn; `last_page` belongs after them. width: to lay out for,
    where it is not that of the console."""
    return [View([section], width) for section in document_of(rows).sections if section.parts]


def last_page(rows: pd.DataFrame | Iterable[Row]) -> View:
    """The verdicts and what to read with care, as a rich renderable."""
    return View(document_of(rows).verdicts)
