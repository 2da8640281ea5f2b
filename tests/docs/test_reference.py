"""The generated reference: everything that can be written in a config or on a command line, and every result."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

generate, reference_tables = import_module("generate"), import_module("reference_tables")
external_loads = import_module("offline").external_loads


def test_everything_has_a_description():
    assert generate.undocumented() == []


@pytest.mark.parametrize("page", generate.PAGES)
def test_a_page_has_a_title_and_whole_tables(page):
    text = generate.PAGES[page]()
    assert text.startswith("# ")
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert rows
    widths = [line.replace("\\|", "").count("|") for line in rows]
    for line, width, before in zip(rows[1:], widths[1:], widths, strict=False):
        assert width == before or "| --- |" not in line, line


def test_every_key_of_a_config_is_in_the_reference():
    from chexray.config import RunConfig

    text = generate.config_page()

    def keys(model, prefix=""):
        for name, field in model.model_fields.items():
            inner = generate._models(field.annotation)
            yield f"{prefix}{name}"
            for each in inner:
                yield from keys(each, "" if len(generate.config_sections()[each]) > 1 else f"{prefix}{name}.")

    for key in keys(RunConfig):
        assert f"`{key}`" in text


def test_every_command_and_flag_is_in_the_reference():
    from chexray.cli import app

    text = generate.commands_page()
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # pyright: ignore
        assert f"## `chexray {name}`" in text
    assert "## `chexray privacy audit`" in text
    assert all(flag in text for flag in ("`--fail-on`", "`--plugin`", "`--set`", "`--version`", "`--once`"))


def test_every_metric_encoder_source_and_column_is_in_the_reference():
    from chexray.registry import names
    from chexray.results.rows import SCHEMA

    pages = {kind: generate.PAGES[f"reference/{kind}.md"]() for kind in ("metrics", "encoders", "config", "results")}
    assert all(f"## `{name}`" in pages["metrics"] for name in names("metrics"))
    assert all(f"## `{name}`" in pages["encoders"] for name in names("encoders"))
    assert all(f"### `{name}`" in pages["config"] for name in names("sources"))
    assert all(f"| `{name}` |" in pages["results"] for name in SCHEMA.names)
    for number in ("fid", "kid", "kid_subsets", "fid_infinity", "density", "vendi"):
        assert f"| `{number}` |" in pages["metrics"], number


def test_what_has_no_description_is_named(monkeypatch):
    from chexray.config import EncodeConfig, RunConfig
    from chexray.encoders.pixels import Pixels

    monkeypatch.setattr(EncodeConfig.model_fields["actors"], "description", None)
    monkeypatch.setattr(RunConfig.model_fields["seed"], "description", " ")
    monkeypatch.setitem(Pixels.allowed, "side", replace(Pixels.allowed["side"], about=""))
    monkeypatch.setattr(generate.commands()["chexray run"].params[0], "help", None)
    missing = generate.undocumented()
    assert {"config key encode.actors", "config key .seed", "option side of pixels"} <= set(missing)


def test_types_and_defaults_are_written_in_words():
    from chexray.config import EncodeConfig, PrivacyConfig

    fields = {**EncodeConfig.model_fields, **PrivacyConfig.model_fields}
    kinds = {name: reference_tables.field_kind(each.annotation, each.metadata) for name, each in fields.items()}
    assert kinds["batch_size"] == "whole number or `auto`"
    assert kinds["max_reject_fraction"] == "number ≥ 0 and ≤ 1"
    assert kinds["thresholds"] == "list of number > 0 and < 1"
    assert kinds["near_bits"] == "whole number ≥ 0 and ≤ 64"
    assert kinds["search"] == "list of text"
    defaults = {name: reference_tables.shown_default(each) for name, each in fields.items()}
    assert defaults["duplicates"] == "`true`"
    assert defaults["near_bits"] == ""
    assert defaults["thresholds"] == "`[0.5, 0.85, 0.95]`"


def test_text_is_shown_as_it_stands():
    assert reference_tables.escaped("a_b * `c_d` <e>") == r"a\_b \* `c_d` \<e>"
    assert reference_tables.table(("a", "b", "c"), [("1|2", "", "x\ny")]) == "| a | c |\n| --- | --- |\n| 1\\|2 | x y |"


@pytest.mark.parametrize(
    ("page", "n_found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', 1),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', 1),
        ('<link rel="canonical" href="https://site.example/">', 0),
        ('<a href="https://arxiv.org/abs/2505.10496">paper</a>', 0),
        ('<pre class="mermaid">graph</pre>', 1),
        ('<p style="background: url(https://x.example/y.png)">', 1),
        ('<script src="assets/x.js"></script><img src="data:image/png;base64,aa">', 0),
    ],
)
def test_a_page_that_loads_from_another_host_is_found(tmp_path, page, n_found):
    (tmp_path / "page.html").write_text(page)
    found = list(external_loads(tmp_path))
    assert len(found) == n_found, found


def test_a_style_sheet_that_loads_from_another_host_is_found(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://x.example/b.css"; a { background: url(img.png) }')
    assert list(external_loads(tmp_path)) == ["a.css: a style loads https://x.example/b.css"]
