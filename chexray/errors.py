"""Errors a user can cause or meet. Each carries one line: what, where, found against expected, the next move.

The command line prints that line and exits with the class's code; anything else that escapes is a defect of chexray
and keeps its traceback.
"""

from chexray.text import one_line


class ChexrayError(Exception):
    """Base of all expected errors: one visible line (`text.one_line`). `exit_code` 2 means nothing was computed because
    the input was wrong."""

    exit_code = 2

    def __init__(self, message: str = ""):
        # Messages repeat names from files; none may break a line, rewrite a terminal or fill a log.
        super().__init__(one_line(message))


class ConfigError(ChexrayError):
    """A run config that cannot be understood or contradicts itself."""


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
    """A cluster that cannot hold what the run asks for; raised before anything starts."""


class MetricError(ChexrayError):
    """Parameters a metric cannot accept. Too few images is not an error: it is a row with a null and a reason."""


class PluginError(ChexrayError):
    """A plug-in that does not keep to the contract of docs/PLUGINS.md, or that raised an error of its own."""


class RunFailed(ChexrayError):
    """The run came to an end with too many rejected images or with rows missing."""

    exit_code = 1
