"""Several problems of one config, gathered from its independent parts and said at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from chexray.errors import ChexrayError, ConfigProblems

T = TypeVar("T")
P = ParamSpec("P")


class Problems:
    """What is wrong so far. A part of a config is tried by `attempt`; `raise_all` ends a stage of parts that do not
    need each other, so that nothing is said that merely follows from something else."""

    def __init__(self) -> None:
        self.errors: list[ChexrayError] = []

    def attempt(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What the action returns, or None where it raised a ChexrayError, which is kept.

        A failure that may pass, as of a service that does not answer, ends the stage: each further part would wait for
        the same.
        """
        try:
            return action(*args, **kwargs)
        except ConfigProblems:
            raise
        except ChexrayError as error:
            self.errors.append(error)
            if getattr(error, "transient", False):
                self.raise_all()
            return None

    def raise_all(self) -> None:
        """Raises the one error there is as it is, several as ConfigProblems, and nothing where there is none."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ConfigProblems("the config", [str(error) for error in self.errors])
