"""Errors a user can cause or meet. Each carries one line: what, where, found against expected, the next move.

The command line prints that line, or `lines` where there are several problems, and exits with the class's code;
anything else that escapes is a defect of chexray and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexray.text import one_line


class ChexrayError(Exception):
    """Base of all expected errors: one visible line (`text.one_line`). `exit_code` 2 means nothing was computed because
    the input was wrong."""

    exit_code = 2

    def __init__(self, message: str = ""):
        # Messages repeat names from files; none may break a line, rewrite a terminal or fill a log.
        super().__init__(one_line(message))

    @property
    def lines(self) -> list[str]:
        """What a terminal shows: the message, or a line for each of several problems."""
        return [str(self)]


class ConfigError(ChexrayError):
    """A run config that cannot be understood or contradicts itself."""


class ConfigProblems(ConfigError):
    """All that is wrong with a config at once, a line each: `problems`. Its message is one line, as everywhere.

    where: the file, or where else the settings came from. rest: the config as it was probably meant, or with what is
    wrong left out, so that its other parts can be checked too; None where nothing is left to check.
    """

    MOST = 30
    """Problems that are shown; a file that is no config may have thousands."""

    def __init__(self, where: str, problems: Sequence[str], rest: Any = None):
        self.where, self.problems, self.rest = where, tuple(dict.fromkeys(map(one_line, problems))), rest
        n = len(self.problems)
        numbered = "; ".join(f"({i}) {text.rstrip('.')}" for i, text in enumerate(self.problems, 1))
        super().__init__(f"{where}: {self.problems[0] if n == 1 else f'{n} problems: {numbered}.'}")
        for line in self.lines[1:]:  # a traceback in a notebook shows them as well
            self.add_note(line)

    @property
    def lines(self) -> list[str]:
        n = len(self.problems)
        if n == 1:
            return [str(self)]
        more = [f"  ... and {n - self.MOST} more"] if n > self.MOST else []
        return [
            one_line(f"{n} problems in {self.where}:"),
            *(f"  {text}" for text in self.problems[: self.MOST]),
            *more,
        ]


class ManifestError(ChexrayError):
    """A table or folder of images that cannot be read as a set."""


class StorageError(ChexrayError):
    """A file or object that cannot be read or written. `transient` is true when trying later may help."""

    def __init__(self, message: str, *, transient: bool = False):
        super().__init__(message)
        self.transient = transient


class WeightsError(ChexrayError):
    """Weights that are missing, unsafe to load, or of another architecture."""


class ResourceError(ChexrayError):
    """A machine or cluster that cannot hold what the run asks for, or that was lost while it ran."""


class MetricError(ChexrayError):
    """Parameters a metric cannot accept. Too few images is not an error: it is a row with a null and a reason."""


class PluginError(ChexrayError):
    """A plug-in that does not keep to the contract of docs/PLUGINS.md, or that raised an error of its own."""


class RunFailed(ChexrayError):
    """The run came to an end with too many rejected images or with rows missing."""

    exit_code = 1
