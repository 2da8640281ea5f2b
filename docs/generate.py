"""The reference pages, generated from the program as it is: config keys, metrics, encoders, results, commands.

A hook of mkdocs (mkdocs.yml): the pages are part of the site and lie in no file, so they cannot be out of date. The
build fails where something has no description; `undocumented` names it. Nothing here imports mkdocs before it runs.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from reference_tables import WORDS, attribute_docs, command_tables, escaped, field_kind, shown_default, table

DECLARED = {
    "privacy": ("chexray.privacy.outputs", "privacy_outputs"),
    "utility": ("chexray.utility.classification.outputs", "utility_outputs"),
}
"""The functions that return every number of a suite whose numbers no metric of the registry gives."""


def config_sections() -> dict[Any, list[str]]:
    """{pydantic model: the keys whose value it is}, the whole config first, under "" ."""
    from chexray.config import RunConfig

    found: dict[Any, list[str]] = {RunConfig: [""]}
    waiting = [(RunConfig, "")]
    for model, prefix in waiting:
        for name, field in model.model_fields.items():
            for inner in _models(field.annotation):
                key = f"{prefix}{name}"
                if inner not in found:
                    waiting.append((inner, f"{key}."))
                found.setdefault(inner, []).append(key)
    return found


def _models(annotation: Any) -> list[Any]:
    """The pydantic models in a type such as `list[SetConfig] | None`."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def config_page() -> str:
    """Every key of a config."""
    parts = ["# Config keys", "Keys of a run config (YAML), as `--set KEY=VALUE` and `chexray.evaluate` take them too."]
    for model, keys in config_sections().items():
        title = ", ".join(f"`{key}`" for key in keys if key) or "Top level"
        prefix = f"{keys[0]}." if len(keys) == 1 and keys[0] else ""
        rows = [
            (f"`{prefix}{name}`", field_kind(field.annotation, field.metadata), shown_default(field), field.description)
            for name, field in model.model_fields.items()
        ]
        parts += [f"## {title}", escaped(_doc(model)), table(("key", "type", "default", "description"), rows)]
    parts.append("## Keys of each source")
    parts.append("A set takes these keys beside its own. Which source reads a set follows from its path or `source`.")
    for name, cls in registered("sources"):
        parts += [f"### `{name}`", escaped(_doc(cls)), _fields(cls)]
    return "\n\n".join(parts) + "\n"


def registered(kind: str) -> Iterator[tuple[str, Any]]:
    """(name, class) of what chexray itself brings."""
    from chexray.registry import entries, find, is_built_in

    return ((each.name, find(kind, each.name)) for each in entries(kind) if is_built_in(kind, each.name))


def _doc(cls: Any) -> str:
    return inspect.getdoc(cls) or ""


def _folded(text: str) -> str:
    """The first paragraph of a text, and the others behind a heading that opens them."""
    first, _, rest = escaped(text).partition("\n\n")
    return f'{first}\n\n??? note "Details and calibration"\n\n{textwrap.indent(rest, "    ")}' if rest else first


def _fields(cls: Any) -> str:
    """A table of a dataclass's fields."""
    import dataclasses

    told = attribute_docs(cls)
    rows = [
        (f"`{field.name}`", field_kind(field.type, ()), shown_default(field), told.get(field.name, ""))
        for field in dataclasses.fields(cls)
    ]
    return table(("key", "type", "default", "description"), rows) if rows else ""


def metric_instances(name: str, cls: Any) -> list[Any]:
    """A metric with its defaults, and as protocols set it: its outputs may depend on its parameters."""
    from chexray.protocols import PROTOCOLS

    fixed = [preset.metric_options[name] for preset in PROTOCOLS.values() if name in preset.metric_options]
    return [cls(), *(cls(**options) for options in fixed)]


def metric_outputs(name: str, cls: Any) -> list[Any]:
    """Every number a metric may give."""
    return list({each.name: each for one in metric_instances(name, cls) for each in one.outputs}.values())


def declared(suite: str) -> list[Any]:
    """The outputs that a suite declares."""
    module, function = DECLARED[suite]
    return list(getattr(import_module(module), function)())


def _outputs(outputs: list[Any]) -> str:
    """A table of numbers, with what they declare."""
    head = ("number", "better", "range", "moves with", "what it says", "what it cannot see", "paper")
    return table(head, [_output_row(each) for each in outputs])


def _output_row(output: Any) -> tuple[str, ...]:
    better = "nearest to its real floor" if output.nearest_to_floor else output.better or "neither"
    said = (output.says, output.cannot_see, output.paper)
    return (f"`{output.name}`", better, _range(output), ", ".join(output.moves_with), *said)


def _range(output: Any) -> str:
    low, high, unit = output.low, output.high, output.unit
    if low is None and high is None and not unit:
        return ""
    return f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'} {unit}".strip()


def _by_family(outputs: list[Any]) -> Iterator[str]:
    """A heading and a table for each section of a suite's report."""
    for family in dict.fromkeys(each.family for each in outputs):
        yield f"### {family.capitalize()}"
        yield _outputs([each for each in outputs if each.family == family])


def metrics_page() -> str:
    """Every metric, and every number that the other suites declare."""
    parts = ["# Metrics", "Numbers of the fidelity suite. [Fidelity](../fidelity.md) explains how to read them."]
    for name, cls in registered("metrics"):
        one = cls()
        facts = f"Reads `{one.reads}`; needs at least {one.min_samples} images of each side."
        alone = "" if one.needs_real else " A number of the synthetic set alone."
        outputs = _outputs(metric_outputs(name, cls))
        parts += [f"## `{name}`", _folded(_doc(cls)), facts + alone, outputs, _fields(cls)]
    for suite, page in (("privacy", "Privacy"), ("utility", "Utility")):
        parts += [f"## Numbers of the {suite} suite", f"[{page}](../{suite}.md) explains how to read them."]
        parts += _by_family(declared(suite))
    return "\n\n".join(part for part in parts if part) + "\n"


def encoders_page() -> str:
    """Every encoder with its options."""
    parts = ["# Encoders", "Options stand beside the name: `encoders: [{name: pixels, side: 32}]`."]
    for name, cls in registered("encoders"):
        parts += [f"## `{name}`", escaped(_doc(cls))]
        if unseen := getattr(cls, "cannot_see", ""):
            parts.append(f"Cannot see: {escaped(unseen)}.")
        rows = [
            (f"`{key}`", ", ".join(f"`{each}`" for each in option.choices) or WORDS[option.kind],
             "" if option.default is None else f"`{option.default}`", option.about)
            for key, option in cls.allowed.items()
        ]  # fmt: skip
        parts.append(table(("option", "values", "default", "description"), rows) if rows else "No options.")
    return "\n\n".join(parts) + "\n"


def results_page() -> str:
    """Every column of the results."""
    from chexray.results.rows import SCHEMA

    rows = [
        (f"`{field.name}`", str(field.type), "yes" if field.nullable else "no", _described(field)) for field in SCHEMA
    ]
    intro = "One row is one number. `results.parquet`, `results.csv` and `results.json` hold the same rows."
    columns = table(("column", "type", "null", "description"), rows)
    return f"# Columns of the results\n\n{intro}\n\n{columns}\n"


def _described(field: Any) -> str:
    return (field.metadata or {}).get(b"description", b"").decode()


def commands() -> dict[str, Any]:
    """{"chexray privacy audit": its click command} of the command line; of groups, those with flags of their own."""
    import typer.main

    from chexray.cli import app

    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("chexray", typer.main.get_command(app))]
    for name, command in waiting:
        inner = getattr(command, "commands", {})
        waiting += [(f"{name} {key}", each) for key, each in inner.items()]
        if command.params or not inner:
            found[name] = command
    return found


def commands_page() -> str:
    """Every command with its arguments and flags."""
    from chexray.cli import EXIT_CODES

    parts = ["# Commands", "`chexray COMMAND --help` prints the same.", escaped(EXIT_CODES)]
    for name, command in commands().items():
        parts += [f"## `{name}`", *command_tables(command)]
    return "\n\n".join(parts) + "\n"


def undocumented() -> list[str]:
    """What has no description. One line each; empty when the reference is complete."""
    return [what for what, text in _described_things() if not re.search(r"\w", text or "")]


def _described_things() -> Iterator[tuple[str, str | None]]:
    """(what, its description) of everything in the reference."""
    from chexray.results.rows import SCHEMA

    for model, keys in config_sections().items():
        yield from ((f"config key {keys[0]}.{name}", field.description) for name, field in model.model_fields.items())
    for kind in ("sources", "metrics"):
        for name, cls in registered(kind):
            told = attribute_docs(cls)
            yield f"{kind} {name}", _doc(cls)
            yield from ((f"key {key} of {name}", told.get(key)) for key in getattr(cls, "__dataclass_fields__", ()))
    for name, cls in registered("encoders"):
        yield f"encoder {name}", _doc(cls)
        yield from ((f"option {key} of {name}", option.about) for key, option in cls.allowed.items())
    outputs = [each for name, cls in registered("metrics") for each in metric_outputs(name, cls)]
    for each in [*outputs, *(each for suite in DECLARED for each in declared(suite))]:
        yield f"number {each.name}", each.says
    yield from ((f"column {field.name}", _described(field)) for field in SCHEMA)
    for name, command in commands().items():
        yield f"command {name}", command.help
        yield from ((f"{name} {'/'.join(each.opts)}", getattr(each, "help", "")) for each in command.params)


PAGES: dict[str, Callable[[], str]] = {
    "reference/config.md": config_page,
    "reference/metrics.md": metrics_page,
    "reference/encoders.md": encoders_page,
    "reference/results.md": results_page,
    "reference/commands.md": commands_page,
}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages to the site. Raises what ends the build when something has no description."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    if missing := undocumented():
        raise PluginError(f"without a description: {'; '.join(missing)}")
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files
