"""A finished run in Python: its tables as DataFrames, and the tables of the terminal in a notebook."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from chexray.errors import ConfigError
from chexray.storage import Storage, basename, join, parent
from chexray.text import listed, quoted, shown

if TYPE_CHECKING:
    import pandas as pd

WIDTH = 110
"""Columns of the tables in a notebook."""


class RunView:
    """What a Run can be asked for beside its fields."""

    uri: str
    run_id: str
    results: pd.DataFrame
    notes: list[str]
    storage: Storage

    @property
    def per_image(self) -> pd.DataFrame:
        """One row a synthetic image and encoder: nearest real image, realism, rarity, influence on FID and KID."""
        return self.table("per_image")

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a synthetic image: flagged as a copy or not, and why."""
        return self.table("verdicts")

    def tables(self) -> list[str]:
        """The names that `table` knows: the Parquet files of the run's folder."""
        names = [basename(entry.uri) for entry in self.storage.list(self.uri) if parent(entry.uri) == self.uri]
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))

    def table(self, name: str) -> pd.DataFrame:
        """One of the run's tables; `synthetic_set` and `subset` join those of `results`. Raises ConfigError for a table
        that the run does not have."""
        known = self.tables()
        if name not in known:
            raise ConfigError(f"run {shown(self.run_id)} has no table {quoted(name)}. It has {listed(known, 40)}.")
        return self.storage.read_parquet(join(self.uri, f"{name}.parquet")).to_pandas()

    def _repr_html_(self) -> str:
        """The tables and the summary of the terminal; every name from a file is escaped."""
        from rich.console import Console

        from chexray.report.console import last_page, render
        from chexray.text import one_line, printable

        console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
        for part in (*render(self.results), last_page(self.results)):
            console.print(part)
        notes = [f"note: {one_line(note)}" for note in self.notes]
        for line in [*notes, f"results: {shown(self.uri)}"]:
            console.print(printable(line), markup=False, highlight=False)
        style = "font-family:monospace;white-space:pre;line-height:1.25"
        return console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>')
