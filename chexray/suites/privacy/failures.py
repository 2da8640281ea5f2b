"""One question's failure costs its own rows, and no other's."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from chexray.errors import ChexrayError
from chexray.metrics.base import Score
from chexray.outputs import Output


class FailureCollector:
    """Collects what failed. Wrong input (ChexrayError) is not a failure of ours and passes through."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    @contextmanager
    def __call__(self, what: str, output: Output, scores: list[Score]) -> Iterator[None]:
        """Within it a defect ends in one null score of `output` in `scores`, and its traceback in `failures`."""
        try:
            yield
        except ChexrayError:
            raise
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else "no message"
            scores.append(Score(output, None, status="failed", reason=f"{type(error).__name__}: {first}"[:300]))
            self.failures.append(f"{what} {output.name}\n{traceback.format_exc()}")
