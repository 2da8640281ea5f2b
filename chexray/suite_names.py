"""The suites of questions that a run may ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Suite = Literal["fidelity", "privacy", "utility"]
SUITES: tuple[Suite, ...] = get_args(Suite)
FIDELITY, PRIVACY, UTILITY = SUITES
ENCODING: tuple[Suite, ...] = ("fidelity", "privacy")
"""Suites that compare what encoders see; utility trains on the images themselves."""
DEFAULT_ENCODERS = {FIDELITY: "rad_dino", PRIVACY: "rad_dino,pixels,patches"}
"""{suite: the encoders of a command line that names none}"""


def default_suite(given: Mapping[str, object]) -> Suite:
    """The suite of settings that name none: privacy where the generator's training set stands alone, else fidelity."""
    return PRIVACY if given.get("real") is None and given.get("training") is not None else FIDELITY
