"""What answers the questions of each suite: `evaluate_<suite>` of the module of its name, loaded when it is asked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from chexray.suite_names import SUITES

if TYPE_CHECKING:
    from chexray.suites.common import Context, Outcome


def answer(suite: str, context: Context) -> Outcome:
    """The rows, tables and failures of one suite. Raises ChexrayError for what ends the run."""
    assert suite in SUITES, suite
    module = importlib.import_module(f"chexray.suites.{suite}")
    return getattr(module, f"evaluate_{suite}")(context)
