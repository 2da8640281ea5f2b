"""README and the pages of the site: short, with links that lead somewhere, commands that exist and every number."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

generate = import_module("generate")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ASIDE = {"PLUGINS.md", "SECURITY.md", "architecture.md"}
"""Pages for those who read the code, which may name its modules."""


def blocks(text: str, *kinds: str) -> list[str]:
    """The fenced blocks of a page: of these kinds, "" for those without one."""
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if kind in kinds]


def test_readme_is_short_and_has_the_two_commands_of_ci():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 8_000
    commands = "\n".join(blocks(text, ""))
    assert re.search(r"^make demo ", commands, re.MULTILINE)
    assert re.search(r"^make test ", commands, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target and not target.startswith("reference/"):
            assert (page.parent / target).exists(), target
        assert not target.startswith("reference/") or target in generate.PAGES, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_flag_that_is_shown_exists(page):
    known = generate.commands()
    text = "\n".join(blocks(page.read_text(), "")).replace("\\\n", " ")
    for line in re.findall(r"^(?:\S+=\S+ )*(chexray [^#|\n]*)", text, re.MULTILINE):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in known), "")
        assert name, line
        flags = {flag for each in known[name].params for flag in each.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= flags, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`((?:chexray|configs|deploy|docs|images|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ASIDE], ids=lambda page: page.name)
def test_pages_for_users_name_no_module(page):
    public = {"evaluate", "load_config", "parse_config", "read_results", "yaml", "ChexrayError", "results"}
    named = set(re.findall(r"\bchexray[./](?!org)([A-Za-z_]+)", page.read_text()))
    assert named <= public | {"json"}, named - public


def numbers(page: str) -> dict[str, str]:
    """{number: its "better"} of the tables of a page; names may end or begin with *."""
    found: dict[str, str] = {}
    head: list[str] = []
    for line in (ROOT / "docs" / page).read_text().split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            head = []
        elif not head:
            head = cells
        elif "better" in head and head[0] == "number":
            found |= {name: cells[head.index("better")] for name in re.findall(r"`([\w*]+)`", cells[0])}
    return found


def _explained(name: str, known: dict[str, str]) -> list[str]:
    patterns = (re.escape(each).replace(r"\*", r"[\w.]+") for each in known)
    return [each for each, pattern in zip(known, patterns, strict=True) if re.fullmatch(pattern, name)]


@pytest.mark.parametrize("suite", ["fidelity", "privacy", "utility"])
def test_every_number_is_explained_with_its_direction(suite):
    known = numbers(f"{suite}.md")
    assert known
    outputs = generate.declared(suite) if suite in generate.DECLARED else [
        each for name, cls in generate.registered("metrics") for each in generate.metric_outputs(name, cls)
    ]  # fmt: skip
    for output in outputs:
        patterns = _explained(output.name, known)
        assert patterns, output.name
        told = known[max(patterns, key=len)]
        assert told in (output.better or "neither", "near its floor", "as above") or "brier" in told, output.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_and_yaml_that_is_shown_can_be_read(page):
    import yaml

    for text in blocks(page.read_text(), "python"):
        compile(text, page.name, "exec")
    for text in blocks(page.read_text(), "yaml"):
        yaml.safe_load(text)


def test_the_table_of_folders_is_that_of_the_package():
    named = set(re.findall(r"`chexray/(\w+)`", (ROOT / "docs" / "architecture.md").read_text()))
    assert named == {path.parent.name for path in (ROOT / "chexray").glob("*/__init__.py")}
