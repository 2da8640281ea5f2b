"""What pydantic says of a config, in plain words: one line for each thing that is wrong, and what was meant."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from chexray.config.models import RunConfig
from chexray.spelling import nearest
from chexray.text import listed, quoted, shown

MOST_ROUNDS = 4
"""Times that a config is read again without what is wrong: some checks wait until every value is of its type."""

_EXPECTED = {
    "bool_parsing": "true or false", "bool_type": "true or false", "dict_type": "a mapping", "list_type": "a list",
    "string_type": "text",
    "string_pattern_mismatch": "up to 64 letters, digits, '.', '_' and '-', a letter or digit first",
    "too_short": "at least one entry", "string_too_short": "at least one character",
}  # fmt: skip

Path = tuple[int | str, ...]
_WHY: dict[tuple[int | str, ...], str] = {
    ("real",): ": fidelity compares with it and utility tests on it. Privacy alone may have `training` in its place"
}
"""What is said of a key that is missing."""
Found = dict[Path, list[Any]]
"""{key: what pydantic says is wrong with it}"""


def problems_of(data: dict[str, Any], error: ValidationError) -> tuple[list[str], RunConfig | None]:
    """(a line for each problem of a config, the config as it was meant or without what is wrong, None where not even
    that can be read). data: what was refused with `error`."""
    lines: list[str] = []
    mended: set[Path] = set()
    guessed: set[Path] = set()
    meant = copy.deepcopy(data)
    for _ in range(MOST_ROUNDS):
        found = _by_path(error, meant)
        # What does not fit a key that was only guessed is the guess's fault.
        new = {path: each for path, each in found.items() if path not in guessed and not _follows(path, each, mended)}
        lines += _said(new, meant)
        if () in found:
            return lines, None
        guessed |= _renamed(found)
        _mend(found, meant)
        mended |= set(found)
        try:
            return lines, RunConfig.model_validate(meant)
        except ValidationError as next_error:
            error = next_error
    return lines, None


def _follows(path: Path, problems: list[Any], mended: set[Path]) -> bool:
    """Whether a problem is there only because something was left out here."""
    if not path:
        return any(each[0] in ("encoders", "suite") for each in mended)
    return problems[0]["type"] in ("missing", "too_short") and any(each[: len(path)] == path for each in mended)


def _by_path(error: ValidationError, data: object) -> Found:
    """{key: what is wrong with it}. Members of a union are no part of a key, so their errors come together."""
    found: Found = {}
    for problem in error.errors():
        path: list[int | str] = []
        node: Any = data
        for place, part in enumerate(problem["loc"]):
            is_last = place == len(problem["loc"]) - 1
            there = isinstance(part, int) if isinstance(node, list) else isinstance(node, dict) and part in node
            if there:
                node = node[part]  # pyright: ignore[reportArgumentType, reportCallIssue]
            if there or (is_last and problem["type"] == "missing"):
                path.append(part)
        found.setdefault(tuple(path), []).append(problem)
    return found


def _said(found: Found, data: object) -> list[str]:
    meant, lines = _renamed(found), []
    for path, problems in found.items():
        kind = problems[0]["type"]
        where = _place(path, data)
        if kind == "extra_forbidden":
            lines.append(f"unknown key {quoted(where)}. {_key_hint(path)}")
        elif kind != "missing":
            lines.append(f"{where}: {_wrong_value(problems, where)}" if path else _wrong_value(problems, where))
        elif path not in meant:
            lines.append(f"{quoted(where)} is required{_WHY.get(path, '')}.")
    return lines


def _place(path: Path, data: object) -> str:
    """`encode.batch_size`, or `encoders, entry 2 (pixels), precision`."""
    text = ""
    node: Any = data
    for part in path:
        node = node[part] if isinstance(part, int) or (isinstance(node, dict) and part in node) else None
        if isinstance(part, str):
            text += f"{'.' if text and not text.endswith(' ') else ''}{shown(part, 60)}"
        elif isinstance(node, dict):
            name = next((node[key] for key in ("id", "name", "path") if isinstance(node.get(key), str)), "")
            text += f", entry {part + 1}{f' ({shown(name, 60)})' if name else ''}, "
    return text.removesuffix(", ")


def _wrong_value(problems: list[Any], where: str) -> str:
    """`expected a valid integer or 'auto', found 'many'.`, with the word that is nearly it."""
    problem = problems[0]
    texts = list(dict.fromkeys(map(_expected, problems)))
    message = " or ".join([texts[0], *(text.removeprefix("expected ") for text in texts[1:])])
    value = problem.get("input")
    # A rejected secret must not be echoed.
    hidden = "password" in message or "storage" in where
    found = f", found {quoted(value)}" if not hidden and isinstance(value, str | int | float | bool) else ""
    near = _near_word(problem)
    return f"{message}{found}.{f' Did you mean {quoted(near)}?' if near else ''}"


def _expected(problem: Mapping[str, Any]) -> str:
    message = problem["msg"]
    if problem["type"] == "value_error":
        return message.removeprefix("Value error, ")
    if problem["type"] == "model_type":
        kind = "a name" if problem["loc"][0] in ("encoders", "metrics") or "model" in problem["loc"] else "a path"
        return f"expected {kind} or a mapping"
    words = _EXPECTED.get(problem["type"]) or message.removeprefix("Input should be ").partition(", unable")[0]
    kind = "a number " if words.startswith(("greater", "less")) else ""
    return f"expected {kind}{words[:1].lower()}{words[1:]}"


def _near_word(problem: Mapping[str, Any]) -> str:
    """The allowed word that is nearly the one given."""
    value = problem.get("input")
    if problem["type"] != "literal_error" or not isinstance(value, str):
        return ""
    allowed = problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    return nearest(value, allowed)


def _key_hint(path: Path) -> str:
    known = _fields_at(path)
    if near := nearest(str(path[-1]), known):
        return f"Did you mean {near!r}?"
    inside = [f"{name}.{path[-1]}" for name in known if path[-1] in _fields_at((*path[:-1], name, ""))]
    return f"Did you mean {inside[0]!r}?" if inside else f"Known keys: {listed(known, 40)}."


def _renamed(found: Found) -> set[Path]:
    """The keys that unknown ones were probably meant to be."""
    return {(*path[:-1], near) for path, problems in found.items() if (near := _near_key(path, problems))}


def _near_key(path: Path, problems: list[Any]) -> str:
    return nearest(str(path[-1]), _fields_at(path)) if problems[0]["type"] == "extra_forbidden" else ""


def _fields_at(path: Path) -> list[str]:
    """Known keys beside the last one of `path`, by walking the model."""
    model: Any = RunConfig
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    return list(getattr(model, "model_fields", {}))


def _mend(found: Found, data: object) -> None:
    """Puts in place of what is wrong what was probably meant, or takes it out. A set that is missing becomes an empty
    one, which nobody reads."""
    renamed = _renamed(found)
    # From the end, so that places in lists stay what they are.
    for path, problems in sorted(
        found.items(), key=lambda item: [str(part).zfill(9) for part in item[0]], reverse=True
    ):
        missing = problems[0]["type"] == "missing"
        node: Any = data
        parts = list(path[:-1] if missing and len(path) > 1 else path)  # an encoder without a name goes as a whole
        last = parts.pop()
        for part in parts:
            node = node[part]
        if missing and len(path) == 1:
            if path not in renamed:
                node[last] = {}
        else:
            value = node.pop(last)
            near_key, near_word = _near_key(path, problems), _near_word(problems[0])
            if near_key and near_key not in node:
                node[near_key] = value
            elif near_word and isinstance(node, dict):  # perhaps one of several words
                node[last] = value.replace(problems[0]["input"], near_word) if isinstance(value, str) else near_word
            elif near_word:
                node.insert(int(last), near_word)
