"""results/ and report/ know numbers by what they declare: no name of one stands in their text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from chexray.metrics.kid import ON_SUBSETS
from chexray.privacy.outputs import privacy_outputs
from chexray.registry import find, is_built_in, names
from chexray.utility.classification.outputs import utility_outputs

PACKAGE = Path(__file__).parents[2] / "chexray"
FILES = sorted(path for room in ("results", "report") for path in (PACKAGE / room).rglob("*.py"))
SHIPPED = [find("metrics", name) for name in names("metrics") if is_built_in("metrics", name)]
OUTPUTS = [*(each for metric in SHIPPED for each in metric.outputs), ON_SUBSETS, *privacy_outputs(), *utility_outputs()]
NAMES = {output.name for output in OUTPUTS}
WORDS = {"precision", "recall", "density", "coverage", "accuracy", "specificity"}
"""Names that are words of English too: they may stand in a sentence, but not alone."""


def texts(path: Path) -> list[str]:
    """String constants of a file, f-strings piece by piece, without those that are documentation."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
    return [node.value for node in constants if isinstance(node.value, str)]


def named(text: str) -> set[str]:
    """Names of numbers in a text, and beginnings of them that end in an underscore."""
    found = {text} & NAMES
    for token in re.split(r"\W+", text):
        starts = token.endswith("_") and len(token) > 3 and any(name.startswith(token) for name in NAMES)
        found |= {token} if starts or token in NAMES - WORDS else set()
    return found


def test_names_are_found():
    assert len(NAMES) > 80
    assert named("read kid, which is unbiased") == {"kid"}
    assert named("reid_count_") == {"reid_count_"}
    assert named("precision") == {"precision"}
    assert not named("at this precision")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_number_is_known_by_its_name(path: Path):
    assert not {name for text in texts(path) for name in named(text)}


def test_every_number_says_what_it_is():
    for output in OUTPUTS:
        assert output.says.endswith("."), output.name
        assert output.cannot_see, output.name
        assert output.family, output.name
        assert output.low is None or output.high is None or output.low < output.high
