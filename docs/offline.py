"""Fails the build of the site when a page would load anything from another host. A hook of mkdocs (mkdocs.yml)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LOADS = {"link": "href", **dict.fromkeys(("script", "img", "iframe", "source", "video", "audio"), "src")}
REMOTE = re.compile(r"\s*(https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]*)""", re.IGNORECASE)
ON_DEMAND = ("mermaid", "arithmatex")
"""Classes for which the theme's script would fetch a library."""


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        address = given.get(LOADS.get(tag, ""), "")
        if REMOTE.match(address) and given.get("rel") != "canonical":
            self.found.append(f"<{tag}> loads {address}")
        self.found += [f"class {name} loads a library" for name in ON_DEMAND if name in given.get("class", "").split()]
        self.found += [f"a style loads {each}" for each in IN_STYLES.findall(given.get("style", ""))]


def external_loads(folder: Path) -> Iterator[str]:
    """`page.html: <script> loads https://...` for everything that a browser would fetch from another host."""
    for path in sorted(folder.rglob("*")):
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in (".html", ".css") else ""
        found = [f"a style loads {each}" for each in IN_STYLES.findall(text)]
        if path.suffix == ".html":
            parser = _Loads()
            parser.feed(text)
            found += parser.found
        yield from (f"{path.relative_to(folder)}: {each}" for each in dict.fromkeys(found))


def on_post_build(config: Any) -> None:
    from mkdocs.exceptions import PluginError

    if found := list(external_loads(Path(config.site_dir))):
        raise PluginError("\n".join(["the site must load nothing from other hosts:", *found]))
