"""YAML as plain data, for files that anybody may have written: bounded, without aliases, and one line for whatever is
wrong.

A few hundred bytes of aliases expand to gigabytes, and deep nesting, long numbers, dates and tags end in errors of many
kinds inside a general reader. So only what a config needs is read: mappings of text to values, lists, text, numbers,
true, false and null. No object is built from a tag, and nothing here is recursive.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from chexray.errors import ConfigError
from chexray.text import first_line, quoted, shown

MAX_BYTES = 1_000_000
"""Size of a document; the longest of ours, with a hundred sets, takes 20 kB."""
MAX_DEPTH = 32
"""Mappings and lists inside each other; a config needs five."""
MAX_VALUES = 50_000
"""Scalars, lists and mappings of a document."""
MAX_NUMBER = 2**63 - 1
"""Whole numbers beyond it fit no column and no array."""
_MAX_DIGITS = 64
"""Characters of a number in the text; Python itself refuses to read more than 4,300."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.SafeLoader("")
"""Says what a plain scalar is by YAML 1.1; only `resolve` is used of it."""
_TAG = "tag:yaml.org,2002:"
_TRUE = {"yes", "true", "on"}


class NotYaml(ConfigError):
    """Text that breaks the rules of YAML, as opposed to YAML that is refused."""


def parse_yaml(text: str | bytes, where: str) -> Any:
    """What a YAML document says: dict (keys are text), list, str, int, float, bool or None; None for an empty one.

    Dates, times and numbers with colons stay text. Raises ConfigError, one line that starts with `where`: for bytes
    that are not UTF-8, aliases, anchors, tags, merge keys, repeated keys, numbers that are not finite or beyond 64
    bits, several documents, and whatever is larger or deeper than the bounds above; NotYaml for what is not YAML.
    """
    where = shown(where)
    try:
        return _build(_events(_decoded(text, where), where), where)
    except yaml.YAMLError as error:
        raise NotYaml(_not_yaml(error, where, text)) from None


def check_plain(data: object, where: str) -> None:
    """Raises ConfigError unless data that did not come from `parse_yaml` keeps to the same bounds."""
    for path, value in walk(data, where):
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ConfigError(f"{where}: {path or 'the config'} has the key {quoted(key)}: keys are text.")
                _check_text(key, f"{where}: the key {quoted(key)}")
        elif isinstance(value, str):
            _check_text(value, f"{where}: {path}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(value, f"{where}: {path}")


def walk(data: object, where: str) -> Iterator[tuple[str, object]]:
    """(`key.path`, value) of data and everything in it. Raises ConfigError beyond MAX_DEPTH or MAX_VALUES, so that data
    that contains themselves come to an end too."""
    waiting: list[tuple[str, Any, int]] = [("", data, 0)]
    for n in range(MAX_VALUES + 1):
        if not waiting:
            return
        path, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ConfigError(_too_deep(where))
        yield path, value
        inner = value.items() if isinstance(value, dict) else enumerate(value) if _is_list(value) else ()
        if len(waiting) + n > MAX_VALUES:
            break
        front = f"{path}." if path else ""
        waiting += [(front + shown(key, 60), item, depth + 1) for key, item in inner]
    raise ConfigError(_too_many(where))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _decoded(text: str | bytes, where: str) -> str:
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES // 1_000_000} MB, which no config is. Name a config file.")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: not a text file in UTF-8. Save it as UTF-8, or name a config file.") from None
    _check_text(text, where)
    return text


def _events(text: str, where: str) -> Iterator[Any]:
    """The events of the first document. Raises ConfigError for a second one."""
    n_documents = 0
    for n, event in enumerate(yaml.parse(text, Loader=_Loader)):
        n_documents += isinstance(event, yaml.DocumentStartEvent)
        if n_documents > 1:
            raise ConfigError(f"{where}:{_line(event)} starts a second document (---). Keep one in a file.")
        if n > 3 * MAX_VALUES:  # each list and mapping has an end too
            raise ConfigError(_too_many(where))
        yield event


def _build(events: Iterator[object], where: str) -> Any:
    """The value of a document's events. `open_` holds the lists and mappings not yet closed, outermost first."""
    found: Any = None
    open_: list[_Open] = []
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                f"{where}:{_line(event)} has a YAML anchor or alias (&name, *name). Write the value out, or in quotes, "
                'such as "*.dcm".'
            )
        tag = getattr(event, "tag", None)
        if tag and tag not in ("!", f"{_TAG}str"):
            raise ConfigError(f"{where}:{_line(event)} has a YAML tag ({quoted(tag, 60)}). Write the plain value.")
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            if len(open_) == MAX_DEPTH:
                raise ConfigError(_too_deep(where))
            if open_ and open_[-1].wants_key:
                raise ConfigError(f"{where}:{_line(event)} has a list or a mapping as a key. Keys are text.")
            open_.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else []))
            continue
        if isinstance(event, yaml.ScalarEvent):
            if open_ and open_[-1].wants_key:
                open_[-1].set_key(event, where)
                continue
            value = _scalar(event, where)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            value = open_.pop().value
        else:
            continue
        if open_:
            open_[-1].add(value)
        else:
            found = value
    return found


class _Open:
    """A list or a mapping that is being filled; `key` is that of a mapping whose value comes next."""

    def __init__(self, value: list[Any] | dict[str | None, Any]):
        self.value = value
        self.key: str | None = None

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None

    def set_key(self, event: yaml.ScalarEvent, where: str) -> None:
        """Keys are text as it stands there: `2024`, `yes` and `null` too."""
        key = event.value
        if key == "<<" and event.implicit[0]:
            raise ConfigError(f"{where}:{_line(event)} has a YAML merge key (<<). Write the settings out.")
        if key in self.value:
            raise ConfigError(f"{where}:{_line(event)} has the key {quoted(key)} a second time. Keep one of them.")
        _check_text(key, f"{where}:{_line(event)}")
        self.key = key

    def add(self, value: object) -> None:
        if isinstance(self.value, dict):
            self.value[self.key], self.key = value, None
        else:
            self.value.append(value)


def _scalar(event: yaml.ScalarEvent, where: str) -> str | int | float | bool | None:
    """A scalar by its form: quoted is text, plain is what YAML 1.1 takes it for, but dates and 1:30 are text."""
    text, here = event.value, f"{where}:{_line(event)}"
    _check_text(text, here)
    if not event.implicit[0]:
        return text
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).removeprefix(_TAG)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in _TRUE
    if kind not in ("int", "float") or ":" in text:
        return text
    if len(text) > _MAX_DIGITS:
        raise ConfigError(f"{here} has a number of {len(text):,} characters. Numbers have at most {_MAX_DIGITS}.")
    plain = text.replace("_", "").lower()
    try:
        number = _whole(plain) if kind == "int" else float(re.sub(r"\.(inf|nan)", r"\1", plain))
    except ValueError:  # 0x_ is a number to YAML's resolver alone
        return text
    _check_number(number, here)
    return number


def _whole(plain: str) -> int:
    """A whole number of YAML 1.1: 12, 0x1f, 0b101, and 017 in octal."""
    digits = plain.lstrip("+-")
    if digits.startswith(("0x", "0b")):
        return int(plain, 16 if digits[1] == "x" else 2)
    return int(plain, 8 if digits.startswith("0") and len(digits) > 1 else 10)


def _check_number(value: float, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is not a finite number. Give one.")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise ConfigError(f"{where}: a whole number of more than 64 bits. Give a smaller one.")


_UNFIT = re.compile("[\0\ud800-\udfff]")


def _check_text(text: str, where: str) -> None:
    if found := _UNFIT.search(text):
        what = "a NUL character" if found[0] == "\0" else "a half of a surrogate pair, which is no character"
        raise ConfigError(f"{where}: holds {what}. Files, names and results cannot hold it: take it out.")


def _line(event: object) -> str:
    mark = getattr(event, "start_mark", None)
    return f" line {mark.line + 1}" if mark else ""


_NEEDS_QUOTES = re.compile(r"[:,\[{-]\s*([*&!%@`]|\{[^{}]*\}[^\s,}\]])")


def _not_yaml(error: yaml.YAMLError, where: str, text: str | bytes) -> str:
    mark = getattr(error, "problem_mark", None)
    lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    hint = ' Text with *, &, !, %, @ or { in front needs quotes: "*.dcm".' if _NEEDS_QUOTES.search(line) else ""
    at = f" line {mark.line + 1}" if mark else ""
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return f"{where}:{at} is not YAML: {first_line(said, 100)}.{hint}"


def _too_deep(where: str) -> str:
    return f"{where}: lists and mappings lie more than {MAX_DEPTH} deep in each other. No setting needs that."


def _too_many(where: str) -> str:
    return f"{where}: more than {MAX_VALUES:,} values. No config needs that."
